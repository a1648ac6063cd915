"""The journal: what it keeps through a restart, once, in order, and for its owner only."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.__main__ import main
from agent.journal import Journal
from agent.journal_schema import SCHEMA_VERSION
from agent.records import (
    Draft,
    DraftedStatement,
    Execution,
    KeptStep,
    Order,
    Outgoing,
    State,
)
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb
from tests.agent.dying import dying
from tests.agent.small import fill, small_disk

RELEASED = Path(__file__).parent / "released"
MIGRATION_STEPS = 40
"""More than opening and migrating asks of SQLite: the last processes come to their end."""

EXECUTION = Execution(1, 2, "sha256:m", "north/1", "BENCHMARK")
ORDER = Order(7, b"bundle", 0, "sha256:e", "carla")
INFER = KeptStep("execution:1", "infer", "RUNNING", b"record", "sha256:c", "hc-1", 2, boot_s=1.5)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal.sqlite")) as made:
        yield made


def entry(name: str) -> Outgoing:
    return Outgoing(f"sha256:{name}", name.encode(), "Kind", f"about:{name}", "lane")


def test_it_is_private_and_synced(journal: Journal, tmp_path: Path) -> None:
    mode = (tmp_path / "journal.sqlite").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def refused(path: Path) -> Refusal:
    """What opening it says; the file is the same afterwards."""
    before = path.read_bytes()
    with pytest.raises(Refusal) as caught:
        Journal(path)
    assert path.read_bytes() == before
    return caught.value


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE facts SET value = ? WHERE name = 'schema_version'",
                    (str(SCHEMA_VERSION + 1),))  # fmt: skip
    refusal = refused(path)
    assert (refusal.kind, refusal.code) == (Kind.NOT_READY, "JOURNAL_NEWER")
    assert f"expected schema version {SCHEMA_VERSION} or older" in refusal.message


def test_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    text, database = tmp_path / "text", tmp_path / "database"
    text.write_text("case,label\n" * 1000)
    with closing(sqlite3.connect(database)) as raw, raw:
        raw.execute("CREATE TABLE patients (name TEXT)")
    for path in (text, database):
        assert refused(path).code == "JOURNAL_FOREIGN"


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_a_truncated_journal_is_refused_and_left_alone(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(Journal(path)) as made:
        for number in range(100):
            made.set_blob(f"blob:{number}", bytes(2000))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    refusal = refused(path)
    assert (refusal.kind, refusal.code) == (Kind.CONFLICT, "JOURNAL_DAMAGED")
    assert "housecall-agent recover-journal" in refusal.message


def released(folder: Path) -> Path:
    """A journal as version 0.1.0 left it."""
    path = folder / "journal.sqlite"
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript((RELEASED / "journal-1.sql").read_text())
    return path


def test_a_released_journal_is_brought_on_and_keeps_everything(tmp_path: Path) -> None:
    with closing(Journal(released(tmp_path))) as journal:
        assert journal.fact("schema_version") == str(SCHEMA_VERSION)
        assert journal.fact("cursor") == "5"
        assert [each.envelope for each in journal.waiting()] == [b"one"]
        assert journal.execution(1).state is State.RUNNING
        assert journal.open_orders()[0].bundle == b"bundle"
        assert [(step.name, step.state) for step in journal.steps("dataset:1")] == [
            ("prepare", "SUCCEEDED"),
            ("sanity_check", "SUCCEEDED"),
            ("statistics", "SUCCEEDED"),
        ]
        assert journal.steps("dataset:2")[0].state == "FAILED"
        assert journal.steps("execution:1")[0].state == "STOPPED", "it begins again"
        record = pb.StepRecord.FromString(journal.steps("dataset:1")[0].record)
        assert (record.container_digest, record.seconds) == ("sha256:c", 1.5)
        assert journal.blob("benchmark:1") == b"\x00\x01kept"


def test_a_decision_that_nothing_followed_is_asked_for_again(tmp_path: Path) -> None:
    """Up to schema 2 an agent could die, or find no room, in between."""
    path = released(tmp_path)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE executions SET state = 'WAITING_CONSENT'")
        raw.execute("UPDATE reviews SET kind = 'RUN', decision = 'approved'")
    with closing(Journal(path)) as journal:
        assert [(each.kind, each.local_id) for each in journal.reviews()] == [("RUN", 1)]
        assert journal.execution(1).cancelled_by == b""


def test_a_migration_killed_at_any_step_leaves_the_old_journal(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(MIGRATION_STEPS)]
    for folder in folders:
        folder.mkdir()
    paths = [released(folder) for folder in folders]
    for path, how in zip(paths, dying("open", paths), strict=True):
        with closing(sqlite3.connect(path)) as raw:
            version = raw.execute("SELECT value FROM facts WHERE name = 'schema_version'")
            known = version.fetchone()
            columns = [row[1] for row in raw.execute("PRAGMA table_info(steps)")]
        if how == "killed" and known == ("1",):
            assert columns == ["owner", "name", "record", "at"]
        else:
            assert known == (str(SCHEMA_VERSION),)
        with closing(Journal(path)) as journal:
            assert journal.fact("schema_version") == str(SCHEMA_VERSION)
            assert len(journal.steps("dataset:1")) == 3


@pytest.mark.parametrize("wal", [False, True])
def test_a_full_disk_is_told_as_one(tmp_path: Path, wal: bool) -> None:
    folder = tmp_path / "small"
    with small_disk(folder):
        path = folder / "journal.sqlite"
        if wal:
            Journal(path).close()
        else:
            released(folder)
        (tmp_path / "agent.toml").write_text(f'state_dir = "{folder}"\n')
        fill(folder)
        with pytest.raises(Refusal) as caught:
            Journal(path)
        assert caught.value.code == "DISK_FULL"
        if wal:
            arguments = ["trust", "spiffe://x/person/carla", f"sha256:{'e' * 64}", "--config"]
            said = CliRunner().invoke(main, [*arguments, str(tmp_path / "agent.toml")])
            assert (said.exit_code, "[DISK_FULL]" in said.output) == (7, True)
        (folder / "ballast").unlink()
        Journal(path).close()


def test_steps_stay_in_order_whatever_the_clock_does(tmp_path: Path) -> None:
    times = iter([3e9, 1.0, 2.0, 5e8, 4.0])
    with closing(Journal(tmp_path / "journal.sqlite", clock=lambda: next(times))) as journal:
        journal.set_step(INFER)
        journal.set_step(replace(INFER, name="evaluate"))
        journal.set_step(replace(INFER, state="SUCCEEDED"))
        names = [(step.name, step.state) for step in journal.steps("execution:1")]
    assert names == [("infer", "SUCCEEDED"), ("evaluate", "RUNNING")]


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(Journal(path)) as first:
        kept = first.add_order(ORDER, EXECUTION)
        assert kept is not None
        first.update_execution(kept.id, state=State.RUNNING, step="infer")
        first.add_outgoing(entry("one"))
        first.add_review("RUN", kept.id)
        first.set_fact("cursor", "5")
        first.set_step(INFER)
        first.add_draft(Draft("sha256:d", 1000, (DraftedStatement(b"p", "a", "l"),), "{}"))
    with closing(Journal(path)) as second:
        assert second.execution(kept.id).state is State.RUNNING
        assert second.open_orders()[0].bundle == b"bundle"
        assert [each.envelope for each in second.waiting()] == [b"one"]
        assert second.reviews()[0].local_id == kept.id
        assert second.fact("cursor") == "5"
        assert second.steps("execution:1") == [INFER]
        assert second.begun_steps() == [INFER]
        draft = second.draft("sha256:d")
        assert draft is not None
        assert draft.statements[0].payload == b"p"


def test_an_order_has_one_execution_and_one_outcome(journal: Journal) -> None:
    assert journal.add_order(ORDER, EXECUTION) is not None
    assert journal.add_order(ORDER, EXECUTION) is None
    assert len(journal.executions()) == 1
    assert journal.set_outcome(7, "sha256:first")
    assert not journal.set_outcome(7, "sha256:second")
    assert journal.open_orders() == []


def test_the_same_line_under_another_number_is_a_replay(journal: Journal) -> None:
    journal.add_order(ORDER, EXECUTION)
    with pytest.raises(Refusal) as caught:
        journal.add_order(Order(8, b"bundle", 0, "sha256:e", "carla"), EXECUTION)
    assert caught.value.code == "ORDER_REPLAYED"
    assert len(journal.executions()) == 1, "the execution went with it"


def test_the_outbox_keeps_its_order_and_takes_nothing_twice(journal: Journal) -> None:
    for name in ("one", "two", "one"):
        journal.add_outgoing(entry(name))
    assert [each.envelope for each in journal.waiting()] == [b"one", b"two"]
    journal.settle("sha256:one", b"receipt", "1")
    assert [each.envelope for each in journal.waiting()] == [b"two"]
    assert journal.sent_about("about:one")[0].receipt == b"receipt"


def test_what_was_refused_may_be_tried_again(journal: Journal) -> None:
    journal.add_outgoing(entry("one"))
    journal.settle_refused("sha256:one", ("conflict", "EXISTS", "it exists"))
    assert journal.sent_about("about:one") == []
    journal.add_outgoing(entry("one"))
    assert [each.envelope for each in journal.waiting()] == [b"one"]


def test_a_failed_transaction_leaves_nothing(journal: Journal) -> None:
    def fail() -> None:
        with journal.transaction():
            journal.add_outgoing(entry("one"))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert journal.waiting() == []


def test_each_lane_waits_for_its_first(journal: Journal) -> None:
    free = replace(entry("free"), lane="")
    for each in (entry("one"), entry("two"), replace(entry("other"), lane="lane 2"), free):
        journal.add_outgoing(each)
    journal.add_outgoing(replace(entry("free too"), lane=""))
    assert journal.first_of_lanes() == [
        "sha256:one", "sha256:other", "sha256:free", "sha256:free too"
    ]  # fmt: skip
    journal.settle("sha256:one", b"receipt", "")
    assert journal.first_of_lanes()[0] == "sha256:two"
