"""A damaged journal: what can be read is saved over the last backup, and nothing is made up."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.__main__ import main
from agent.journal import Journal
from agent.journal_schema import SCHEMA_VERSION
from agent.records import Execution, KeptStep, Order, Outgoing, State
from agent.salvage import NUMBERS_SKIPPED, salvage
from housecall.errors import Refusal
from tests.agent.dying import dying

RELEASED = Path(__file__).parent / "released"
COUNT = 60
SALVAGE_STEPS = 32
"""More than a salvage changes names and opens databases: the last ones come to their end."""


def filled(path: Path) -> None:
    """Executions and statements enough for many pages; a backup is made half way."""
    with closing(Journal(path)) as journal:
        journal.set_fact("instance", "i" * 32)
        for number in range(1, COUNT + 1):
            execution = Execution(1, 2, "sha256:m", "north/1", "BENCHMARK", execution_id=number)
            order = Order(number, bytes(3000), 0, f"sha256:{number}", "carla")
            kept = journal.add_order(order, execution)
            assert kept is not None
            owner = f"execution:{kept.id}"
            journal.set_step(
                KeptStep(owner, "infer", "SUCCEEDED", b"r", "sha256:c", f"hc-{number}")
            )
            name = f"sha256:out{number}"
            journal.add_outgoing(Outgoing(name, bytes(3000), "Kind", f"about:{number}", ""))
            if number == COUNT // 2:
                journal.back_up()


def cut(path: Path, part: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])


@pytest.mark.parametrize("part", [0.4, 0.8, 0.97])
def test_what_can_be_read_is_saved_over_the_backup(tmp_path: Path, part: float) -> None:
    path = tmp_path / "journal.sqlite"
    filled(path)
    cut(path, part)
    before = path.read_bytes()
    found = salvage(path)
    assert found.backup
    assert found.damaged.read_bytes() == before, "kept for whoever can read more"
    with closing(Journal(path)) as journal:
        assert journal.fact("instance") == "i" * 32
        executions = journal.executions()
        assert len(executions) >= COUNT // 2
        assert found.rows["steps"] > 0 or part < 0.5
        assert {order.local_id for order in journal.open_orders()} <= {e.id for e in executions}
        assert len(journal.waiting()) >= COUNT // 2
        for number in range(1, COUNT + 1):
            if journal.steps(f"execution:{number}"):
                assert journal.execution(number).state is State.QUEUED
        new = journal.add_execution(Execution(1, 2, "sha256:m", "north/1", "BENCHMARK"))
        assert new.id > COUNT + NUMBERS_SKIPPED // 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_backup_what_can_be_read_is_all(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    filled(path)
    (tmp_path / "journal.backup").unlink()
    cut(path, 0.97)
    found = salvage(path)
    assert not found.backup
    assert found.rows["executions"] > 0
    with closing(Journal(path)) as journal:
        assert len(journal.executions()) == found.rows["executions"]


def test_an_older_journal_is_saved_into_the_newest_schema(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript((RELEASED / "journal-1.sql").read_text())
    cut(path, 0.97)
    found = salvage(path)
    assert found.rows["facts"] > 0
    with closing(Journal(path)) as journal:
        assert journal.fact("schema_version") == str(SCHEMA_VERSION)
        assert not journal.fact("cursor"), "the news come again"
        assert journal.recalls()
        assert [each.envelope for each in journal.waiting()] == [b"one"]
        assert journal.open_orders()[0].bundle == b"bundle"


@pytest.mark.parametrize("gone", [False, True], ids=["empty", "gone"])
def test_a_lost_journal_is_made_again_from_its_backup_and_never_begun_anew(
    tmp_path: Path, gone: bool
) -> None:
    path, backup = tmp_path / "journal.sqlite", tmp_path / "journal.backup"
    filled(path)
    kept = backup.read_bytes()
    for file in tmp_path.glob("journal.sqlite*"):
        file.unlink()
    if not gone:
        path.touch()
    with pytest.raises(Refusal) as refused:
        Journal(path)
    assert refused.value.code == "JOURNAL_DAMAGED"
    assert path.exists() is not gone
    assert backup.read_bytes() == kept
    assert salvage(path).backup
    with closing(Journal(path)) as journal:
        assert journal.executions()


def test_a_whole_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    filled(path)
    with pytest.raises(Refusal) as refused:
        salvage(path)
    assert refused.value.code == "JOURNAL_WHOLE"


def test_the_command_says_what_it_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSECALL_AGENT_STATE_DIR", str(tmp_path))
    path = tmp_path / "journal.sqlite"
    filled(path)
    cut(path, 0.9)
    shown = CliRunner().invoke(main, ["recover-journal"])
    assert shown.exit_code == 0, shown.output
    assert "journal.sqlite.damaged-1" in shown.output
    assert "executions" in shown.output
    again = CliRunner().invoke(main, ["recover-journal"])
    assert again.exit_code == 5
    assert "[JOURNAL_WHOLE]" in again.output


def test_a_salvage_killed_at_any_step_loses_nothing(tmp_path: Path) -> None:
    """What is in the log alone, and not in the backup, is there in the end, too."""
    source = tmp_path / "source"
    filled(source / "journal.sqlite")
    folders = [tmp_path / str(number) for number in range(SALVAGE_STEPS)]
    with closing(Journal(source / "journal.sqlite")) as journal:
        journal.set_fact("late", "1")
        for folder in folders:
            shutil.copytree(source, folder)
    paths = [folder / "journal.sqlite" for folder in folders]
    for path in paths:
        cut(path, 0.97)
    ends = dying("salvage", paths)
    for path, how in zip(paths, ends, strict=True):
        if how == "killed":
            with contextlib.suppress(Refusal):  # all but the end was done
                salvage(path)
        assert len(list(path.parent.glob("journal.sqlite.damaged-?"))) == 1
        with closing(Journal(path)) as journal:
            assert journal.fact("late") == "1"
            assert len(journal.executions()) > COUNT // 2, "more than the backup has"


def test_a_journal_in_use_since_a_salvage_was_cut_off_is_not_given_its_old_log(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.sqlite"
    filled(path)
    with closing(Journal(path)) as journal:
        journal.set_fact("late", "old")
        os.link(path, f"{path}.damaged-1")
        shutil.copy2(f"{path}-wal", f"{path}.damaged-1-wal")
        journal.set_fact("late", "new")
    with pytest.raises(Refusal) as refused:
        salvage(path)
    assert refused.value.code == "JOURNAL_WHOLE"
    cut(path, 0.97)
    assert salvage(path).damaged.name == "journal.sqlite.damaged-1"
    with closing(Journal(path)) as journal:
        assert journal.fact("late") == "new"


def test_a_journal_whose_log_a_salvage_took_away_is_not_opened_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "there" / "journal.sqlite"
    filled(tmp_path / "source" / path.name)
    with closing(Journal(tmp_path / "source" / path.name)) as journal:
        journal.set_fact("late", "1")
        shutil.copytree(tmp_path / "source", path.parent)
    replace = Path.replace

    def cut_off(self: Path, target: Path) -> Path:
        if (self.name, target) == ("new.sqlite", path):
            raise InterruptedError
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr("agent.salvage._require_damaged", lambda path: None)
        patch.setattr(Path, "replace", cut_off)
        with pytest.raises(InterruptedError):
            salvage(path)
    with pytest.raises(Refusal) as refused:
        Journal(path)
    assert refused.value.code == "JOURNAL_DAMAGED"
    assert salvage(path).damaged.name == "journal.sqlite.damaged-1"
    with closing(Journal(path)) as journal:
        assert journal.fact("late") == "1"
