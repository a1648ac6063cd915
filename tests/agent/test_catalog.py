"""The records of datasets: on the disk for sure, and each one for itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agent.settings import Settings
from housecall.errors import Refusal
from housecall.identity import write_private
from tests.agent import site
from tests.agent.site import Bench, Site, wait_for


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """Each folder that is synced, by its inode, with the names that it held then."""
    found, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.is_dir():
            found.append((path.stat().st_ino, [each.name for each in path.iterdir()]))

    monkeypatch.setattr(os, "fsync", noted)
    return found


def test_a_private_file_is_in_its_folder_after_a_power_cut(
    tmp_path: Path, synced: list[tuple[int, list[str]]]
) -> None:
    write_private(tmp_path / "name", b"content")
    assert synced == [(tmp_path.stat().st_ino, ["name"])]


def test_the_record_of_a_dataset_is_there_after_a_power_cut(
    north: Site, synced: list[tuple[int, list[str]]]
) -> None:
    north.register()
    root = north.agent.catalog.root
    assert (root.stat().st_ino, ["1"]) in synced
    assert ((root / "1").stat().st_ino, ["dataset.json"]) in synced


@pytest.fixture
def damaged(bench: Bench, tmp_path: Path) -> Settings:
    """Of a site that has dataset 1, and of dataset 2 a record that was cut off."""
    made = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, made) as north:
        north.register()
        (north.data / "data" / "d.txt").write_text("one more")
        assert north.register(name="second") == "north/2"
    (made.state_dir / "datasets" / "2" / "dataset.json").write_text("")
    return made


def test_a_damaged_record_holds_up_nothing_else(
    bench: Bench, tmp_path: Path, damaged: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with site.serving(bench, tmp_path, damaged) as north:
        agent = north.agent
        agent._reconcile()
        agent._sweep()
        assert [each.id for each in agent.catalog.all()] == ["north/1"]
        with pytest.raises(Refusal) as caught:
            north.dataset("north/2")
        assert caught.value.code == "DATASET_DAMAGED"
        assert north.register(name="third") == "north/3"
        wait_for(lambda: not agent.journal.waiting())
    assert [each.message for each in caplog.records].count("dataset left out") == 1


def test_a_record_that_is_restored_is_there_again(
    bench: Bench, tmp_path: Path, damaged: Settings
) -> None:
    with site.serving(bench, tmp_path, damaged) as north:
        record, one = (north.agent.catalog.folder(n) / "dataset.json" for n in (2, 1))
        record.write_text(one.read_text().replace("north/1", "north/2"))
        assert north.agent.catalog.get("2").id == "north/2"


def test_a_number_is_not_used_again_though_its_folder_is_gone(
    bench: Bench, tmp_path: Path, damaged: Settings
) -> None:
    shutil.rmtree(damaged.state_dir / "datasets" / "2")
    with site.serving(bench, tmp_path, damaged) as north:
        assert north.register(name="second") == "north/3"
        assert [each.id for each in north.agent.catalog.all()] == ["north/1", "north/3"]
