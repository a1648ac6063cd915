"""A step's log: one a try, bounded, and never the end of its step."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from agent import steplog
from agent.steplog import StepLog, set_aside
from tests.faults.disks import Disk


def write(path: Path, *lines: str) -> None:
    with StepLog(path) as log:
        for line in lines:
            log.write(line)


def test_each_try_has_its_own_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "infer.log"
    for number in range(1, 8):
        set_aside(path)
        write(path, f"try {number}")
        write(path, f"try {number}", "taken over")
    older = [path.with_name(f"infer.log.{number}") for number in range(1, 6)]
    assert sorted(path.parent.iterdir()) == [path, *older]
    said = [each.read_text() for each in (path, *older)]
    assert said == [f"try {number}\ntaken over\n" for number in (7, 6, 5, 4, 3, 2)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_long_one_is_cut_beside_those_of_earlier_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steplog, "MAX_LOG_BYTES", 10)
    path = tmp_path / "infer.log"
    write(path, "try 1")
    set_aside(path)
    write(path, "0123456789", "9876543210", "next")
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {
        "infer.log": "next\n",
        "infer.log.before": "9876543210\n",
        "infer.log.1": "try 1\n",
    }
    set_aside(path)
    assert not path.with_name("infer.log.before").exists(), "it belonged to that try"


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    with closing(Disk(tmp_path / "disk", 1)) as disk:
        assert disk.small, "mounting a tmpfs needs root"
        path = disk.path / "infer.log"
        disk.fill(0)
        with StepLog(path) as log:
            for _ in range(3):
                log.write("x" * 5000)
            disk.free()
            log.write("there is room")
        assert path.read_text().splitlines()[-2:] == [
            "(3 lines could not be written)",
            "there is room",
        ]
