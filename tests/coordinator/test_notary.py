"""The notary: its noes, one of which may rest on a neighbour in its batch and waits until that is
kept; whose turn it is; and what it does before it has the store to itself."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import exc

from coordinator import notary as notaries
from coordinator.founding import House, found
from coordinator.notary import Notary
from coordinator.settings import Settings
from coordinator.store import Store, Writer
from housecall import statement
from housecall.errors import Refusal
from housecall.identity import spiffe_id
from housecall.times import stamp
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.scribe import Scribe


def token(house: House, token_id: str, name: str) -> bytes:
    said = pb.JoinTokenIssued(
        token_id=token_id,
        name=spiffe_id(house.trust_domain, "site", name),
        role=pb.ROLE_SITE,
        expires_at=stamp(datetime.now(UTC) + timedelta(hours=1)),
    )
    subject = {"join key": statement.digest(token_id.encode())}
    return statement.sign(statement.build(said, subject), house.signing_key)


def test_a_no_that_rests_on_what_was_not_kept_is_not_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one number in a batch; the first is lost to a full disk, so the second counts."""
    settings = Settings(state_dir=tmp_path / "c")
    house, commits, real = found(settings, "test", "127.0.0.1:1"), [], Writer.commit

    def commit(writer: Writer) -> None:
        commits.append(1)
        if len(commits) <= 2:  # the batch, and the first by itself
            raise exc.OperationalError("COMMIT", {}, Exception("database or disk is full"))
        real(writer)

    monkeypatch.setattr(Writer, "commit", commit)
    number = secrets.token_hex(8)
    with contextlib.closing(Store(settings.store_url)) as store:
        notary, caller = Notary(store, house.ledger), Scribe(house).caller
        first = notary.submit(token(house, number, "north"), caller)
        second = notary.submit(token(house, number, "south"), caller)
        with notary:
            refused = first.exception(timeout=20)
            accepted = second.result(timeout=20)
        again = notary_answers(store, house, token(house, number, "north"))
    assert isinstance(refused, Refusal)
    assert refused.code == "STORE_FULL"
    assert accepted.index == 1
    assert isinstance(again, Refusal)
    assert again.code == "TOKEN_EXISTS", "now it rests on what is kept"


def notary_answers(store: Store, house: House, envelope: bytes) -> BaseException | None:
    with Notary(store, house.ledger) as notary:
        return notary.submit(envelope, Scribe(house).caller).exception(timeout=20)


def test_who_stops_waiting_stops_nobody_else(tmp_path: Path) -> None:
    """As the watchdog does at a stop: what it asked is cancelled while the notary works on it."""
    house = found(Settings(state_dir=tmp_path / "c"), "test", "127.0.0.1:1")
    scribe = Scribe(house)
    with contextlib.closing(Store(f"sqlite:///{tmp_path}/c/coordinator.db")) as store:
        notary = Notary(store, house.ledger)
        probe, left = notary.probe(), notary.submit(scribe.envelope(), scribe.caller)
        probe.cancel()
        left.cancel()
        waited_for = notary.submit(scribe.envelope(), scribe.caller)
        with notary:
            assert waited_for.result(timeout=20).index == 2
    assert not probe.cancelled()


def test_who_sends_many_holds_up_nobody_elses_one(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "c")
    scribe, answered = Scribe(found(settings, "test", "127.0.0.1:1")), []
    nobody = replace(scribe.caller, name=spiffe_id("test", "person", "nobody"))
    with contextlib.closing(Store(settings.store_url)) as store:
        notary = Notary(store, scribe.house.ledger)
        for caller in [*([scribe.caller] * (notaries.LARGEST_BATCH + 1)), nobody]:
            future = notary.submit(scribe.envelope(), caller)
            future.add_done_callback(lambda _, name=caller.name: answered.append(name))  # type: ignore[misc]
        with notary:
            pass
    assert answered.index(nobody.name) <= notaries.LARGEST_BATCH, "in the first batch"
    assert len(answered) == notaries.LARGEST_BATCH + 2


def test_nothing_is_opened_while_others_wait_to_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path / "c")
    scribe, done = Scribe(found(settings, "test", "127.0.0.1:1")), []
    begin, commit, opens = Writer.begin, Writer.commit, statement.open_payload

    def noted(what: str, real: object) -> object:
        def note(*arguments: object) -> object:
            done.append(what)
            return real(*arguments)  # type: ignore[operator]

        return note

    monkeypatch.setattr(Writer, "begin", noted("begin", begin))
    monkeypatch.setattr(Writer, "commit", noted("commit", commit))
    monkeypatch.setattr(statement, "open_payload", noted("open", opens))
    with contextlib.closing(Store(settings.store_url)) as store:
        notary = Notary(store, scribe.house.ledger)
        first, second = (notary.submit(scribe.envelope(), scribe.caller) for _ in range(2))
        with notary:
            assert (first.result(20).index, second.result(20).index) == (1, 2)
    assert done == ["open", "open", "begin", "commit"]


@pytest.mark.parametrize("limit", ["BATCH_BYTES", "BATCH_SECONDS"])
def test_a_batch_ends_and_the_rest_is_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(notaries, limit, 0)
    settings = Settings(state_dir=tmp_path / "c")
    scribe, batches = Scribe(found(settings, "test", "127.0.0.1:1")), []
    with contextlib.closing(Store(settings.store_url)) as store:
        notary = Notary(store, scribe.house.ledger)
        notary.listeners.append(lambda batch: batches.append(len(batch)))
        futures = [notary.submit(scribe.envelope(), scribe.caller) for _ in range(3)]
        with notary:
            assert [future.result(20).index for future in futures] == [1, 2, 3]
    assert batches == [1, 1, 1]


def test_what_there_is_no_time_to_consider_is_in_the_next_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path / "c")
    scribe, batches, begin = Scribe(found(settings, "test", "127.0.0.1:1")), [], Writer.begin

    def begin_late(writer: Writer) -> None:
        begin(writer)
        monkeypatch.setattr(notaries, "BATCH_SECONDS", 0)

    monkeypatch.setattr(Writer, "begin", begin_late)
    with contextlib.closing(Store(settings.store_url)) as store:
        notary = Notary(store, scribe.house.ledger)
        notary.listeners.append(lambda batch: batches.append(len(batch)))
        futures = [notary.submit(scribe.envelope(), scribe.caller) for _ in range(3)]
        with notary:
            assert [future.result(20).index for future in futures] == [1, 2, 3]
    assert batches == [1, 1, 1]


def test_what_is_too_large_does_not_wait(tmp_path: Path) -> None:
    house = found(Settings(state_dir=tmp_path / "c"), "test", "127.0.0.1:1")
    with contextlib.closing(Store(f"sqlite:///{tmp_path}/c/coordinator.db")) as store:
        notary = Notary(store, house.ledger)  # its thread does not run
        large = b" " * (statement.MAX_ENVELOPE_BYTES + 1)
        refused = notary.submit(large, Scribe(house).caller).exception(timeout=0)
    assert isinstance(refused, Refusal)
    assert refused.code == "STATEMENT_MALFORMED"


def test_a_store_that_is_too_slow_is_waited_for_once_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path / "c")
    scribe, begun = Scribe(found(settings, "test", "127.0.0.1:1")), []

    def begin(writer: Writer) -> None:
        begun.append(writer)
        raise exc.OperationalError("BEGIN IMMEDIATE", {}, Exception("database is locked"))

    monkeypatch.setattr(Writer, "begin", begin)
    with contextlib.closing(Store(settings.store_url)) as store:
        notary = Notary(store, scribe.house.ledger)
        futures = [notary.submit(scribe.envelope(), scribe.caller) for _ in range(3)]
        with notary:
            refused = [future.exception(timeout=20) for future in futures]
    assert [getattr(each, "code", None) for each in refused] == ["STORE_SLOW"] * 3
    assert len(begun) == 1
