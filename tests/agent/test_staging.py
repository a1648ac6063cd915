"""Outputs are in their place whole, or not at all: killed in between, and after a power cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import staging
from agent.staging import Output
from housecall.errors import Refusal
from tests.agent.dying import dying

USER = "10001:10001"
CASES = [f"{number}.txt" for number in range(20)]


def written(folder: Path) -> Output:
    """By a container that ended well."""
    output = Output(folder / "predictions")
    output.make(USER, resume=False)
    for name in CASES:
        (output.written_at / name).write_text(name)
    return output


def is_whole(path: Path) -> bool:
    return sorted(each.name for each in path.iterdir()) == sorted(CASES)


def test_killed_between_the_steps_of_a_delivery(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    outputs = [written(folder) for folder in folders]
    assert dying("deliver", [each.path for each in outputs]) == ["killed"] * 3 + ["done"]
    for number, output in enumerate(outputs):
        assert is_whole(output.path if number >= 2 else output.written_at)
        assert output.path.exists() is not output.written_at.exists()
        assert output.deliver() == sum(map(len, CASES))
        assert is_whole(output.path)


def test_content_is_on_the_disk_before_its_name_and_both_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = written(tmp_path)
    synced: list[tuple[Path, bool]] = []
    sync = staging._sync

    def noted(path: Path) -> None:
        sync(path)
        synced.append((path, output.path.exists()))

    monkeypatch.setattr(staging, "_sync", noted)
    output.deliver()
    assert synced == [(output.written_at, False), (tmp_path, True)]


def test_what_is_kept_is_synced_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(tmp_path / "data", kept=True)
    output.make(USER, resume=False)
    synced: list[Path] = []
    monkeypatch.setattr(staging, "_sync", synced.append)
    output.deliver()
    assert synced == [output.path]


def test_what_is_not_there_is_not_delivered(tmp_path: Path) -> None:
    for output in (Output(tmp_path / "predictions"), Output(tmp_path / "data", kept=True)):
        with pytest.raises(Refusal) as refused:
            output.deliver()
        assert refused.value.code == "OUTPUT_MISSING"


def test_a_try_takes_away_what_the_last_one_left_unless_it_goes_on(tmp_path: Path) -> None:
    output = written(tmp_path)
    output.make(USER, resume=True)
    assert is_whole(output.written_at)
    output.make(USER, resume=False)
    assert not list(output.written_at.iterdir())
