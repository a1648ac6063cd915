"""The journal: what it keeps through a restart, once, in order, and for its owner only."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.journal import SCHEMA_VERSION, Journal
from agent.records import Draft, DraftedStatement, Execution, Order, Outgoing, State
from housecall.errors import Refusal

EXECUTION = Execution(1, 2, "sha256:m", "north/1", "BENCHMARK")
ORDER = Order(7, b"bundle", 0, "sha256:e", "carla")


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


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE facts SET value = ? WHERE name = 'schema_version'",
                    (str(SCHEMA_VERSION + 1),))  # fmt: skip
    with pytest.raises(Refusal, match=f"expected schema version {SCHEMA_VERSION}") as caught:
        Journal(path)
    assert caught.value.code == "JOURNAL_NEWER"


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(Journal(path)) as first:
        kept = first.add_order(ORDER, EXECUTION)
        assert kept is not None
        first.update_execution(kept.id, state=State.RUNNING, step="infer")
        first.add_outgoing(entry("one"))
        first.add_review("RUN", kept.id)
        first.set_fact("cursor", "5")
        first.set_step("execution:1", "infer", b"record")
        first.add_draft(Draft("sha256:d", 1000, (DraftedStatement(b"p", "a", "l"),), "{}"))
    with closing(Journal(path)) as second:
        assert second.execution(kept.id).state is State.RUNNING
        assert second.open_orders()[0].bundle == b"bundle"
        assert [each.envelope for each in second.waiting()] == [b"one"]
        assert second.reviews()[0].local_id == kept.id
        assert second.fact("cursor") == "5"
        assert second.steps("execution:1") == [b"record"]
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
