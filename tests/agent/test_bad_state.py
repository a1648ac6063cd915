"""State folders that an agent cannot go on with: each is refused in a line that names the way back,
left as it is, and that way is gone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.__main__ import main
from agent.identity import enrol
from agent.journal import Journal
from agent.journal_file import BACKUP, schema_of
from agent.journal_schema import SCHEMA_VERSION
from agent.records import Execution
from agent.server import Agent
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.site import Bench
from tests.faults.disks import Disk

NAME = "journal.sqlite"
DIGEST = f"sha256:{'e' * 64}"
EXECUTION = Execution(1, 2, "sha256:m", "north/1", "BENCHMARK")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With execution 1 in its journal, its folder and the backup."""
    made = tmp_path / "state"
    fill(made)
    monkeypatch.setenv("HOUSECALL_AGENT_STATE_DIR", str(made))
    return made


def fill(folder: Path) -> None:
    journal = Journal(folder / NAME)
    number = journal.add_execution(EXECUTION).id
    journal.back_up()
    journal.close()
    (folder / "executions" / str(number)).mkdir(parents=True)


def said(*words: str) -> tuple[int, str]:
    shown = CliRunner().invoke(main, words)
    assert shown.exception is None or isinstance(shown.exception, SystemExit), shown.output
    return shown.exit_code, shown.output


def content(folder: Path) -> dict[str, bytes]:
    files = (folder / NAME, folder / BACKUP)
    return {path.name: path.read_bytes() for path in files if path.exists()}


def zeros(state: Path) -> None:
    (state / NAME).write_bytes(bytes((state / NAME).stat().st_size))


def cut(state: Path) -> None:
    os.truncate(state / NAME, 20_000)


def emptied(state: Path) -> None:
    os.truncate(state / NAME, 0)


def gone(state: Path) -> None:
    (state / NAME).unlink()


def gone_with_its_backup(state: Path) -> None:
    (state / NAME).unlink()
    (state / BACKUP).unlink()


@pytest.mark.parametrize("hurt", [zeros, cut, emptied, gone, gone_with_its_backup])
def test_a_journal_that_was_lost(state: Path, hurt: Callable[[Path], None]) -> None:
    hurt(state)
    before = content(state)
    code, text = said("trust", "spiffe://x/person/carla", DIGEST)
    assert (code, "[JOURNAL_DAMAGED]" in text) == (5, True)
    assert "`housecall-agent recover-journal`" in text
    with pytest.raises(Refusal, match="recover-journal"):
        schema_of(state / NAME)
    assert content(state) == before
    code, text = said("recover-journal")
    assert code == 0, text
    journal = Journal(state / NAME)
    expected = [] if hurt is gone_with_its_backup else [1]
    assert [each.id for each in journal.executions()] == expected
    assert journal.add_execution(EXECUTION).id > 1, "no folder is taken for another's"
    journal.close()


def test_no_state_folder_has_no_journal_to_recover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUSECALL_AGENT_STATE_DIR", str(tmp_path / "nowhere"))
    code, text = said("recover-journal")
    assert (code, "[JOURNAL_MISSING]" in text) == (3, True)
    assert f"state_dir right, which says {tmp_path / 'nowhere'}" in text
    assert not (tmp_path / "nowhere").exists()


def test_a_journal_that_another_program_writes_to(state: Path) -> None:
    with closing(sqlite3.connect(state / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        code, text = said("trust", "spiffe://x/person/carla", DIGEST)
        assert (code, "[JOURNAL_UNUSABLE]" in text) == (8, True)
        assert f"{state / NAME}: expected to read and write it, got: database is locked" in text
        other.execute("ROLLBACK")
    assert said("trust", "spiffe://x/person/carla", DIGEST)[0] == 0


def test_a_journal_of_another_site(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    state, token = settings.state_dir, bench.world.token("south", pb.ROLE_SITE)
    with closing(Journal(state / NAME)) as older:
        older.set_fact("cursor", "5")
    with site.serving(bench, tmp_path, settings) as north:
        assert north.agent.journal.fact("site") == "spiffe://test/site/north", (
            "an older one takes it"
        )
    shutil.move(state / "identity", tmp_path / "north")
    with pytest.raises(Refusal, match="expected the journal of spiffe://test/site/south") as caught:
        enrol(token, settings.identity_dir)
    assert caught.value.code == "SITE_DIFFERS"
    enrol(token, tmp_path / "south" / "identity")  # it is not used up
    shutil.copytree(tmp_path / "south" / "identity", state / "identity")
    with pytest.raises(Refusal, match="got that of spiffe://test/site/north"):
        Agent(settings, lambda _: bench.engine)
    config = tmp_path / "agent.toml"
    config.write_text(f'state_dir = "{state}"\n')
    code, text = said("doctor", "--check", "journal", "--config", str(config))
    assert (code, "[SITE_DIFFERS]" in text) == (5, True), text


def letter(state: Path) -> None:
    (state / NAME).write_text("case,label\n" * 100)


def folder(state: Path) -> None:
    (state / NAME).unlink()
    (state / NAME).mkdir()


@pytest.mark.parametrize("hurt", [letter, folder])
def test_something_else_in_its_place(state: Path, hurt: Callable[[Path], None]) -> None:
    hurt(state)
    for words in (("trust", "spiffe://x/person/carla", DIGEST), ("recover-journal",)):
        code, text = said(*words)
        assert (code, "[JOURNAL_FOREIGN]" in text) == (5, True)
    shutil.move(state / NAME, state.parent / "moved")
    assert said("recover-journal")[0] == 0
    assert schema_of(state / NAME) == SCHEMA_VERSION


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk", 2, mode="0700")
    if not made.small:
        pytest.skip("no right to mount a tmpfs")
    fill(made.path)
    monkeypatch.setenv("HOUSECALL_AGENT_STATE_DIR", str(made.path))
    yield made
    made.close()


@pytest.mark.parametrize("leave", [0, 4096, 32768])
def test_a_disk_that_is_full_at_the_start(disk: Disk, leave: int) -> None:
    disk.fill(leave)
    code, text = said("trust", "spiffe://x/person/carla", DIGEST)
    assert (code, "[DISK_FULL]" in text) == (7, True), text
    checked = said("doctor", "--check", "journal")[1]
    assert "recover-journal" not in checked, "it is whole"
    disk.free()
    assert said("trust", "spiffe://x/person/carla", DIGEST)[0] == 0


def test_a_disk_that_may_not_be_written(disk: Disk) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
    for words in (
        ("serve",),
        ("recover-journal",),
        ("trust", "spiffe://x/person/carla", DIGEST),
    ):
        code, text = said(*words)
        assert (code, "[STATE_UNUSABLE]" in text) == (4, True), text
        assert "housecall-agent doctor --check state" in text
    code, text = said("doctor", "--check", "state")
    assert (code, "mount it writable" in text) == (4, True)
