"""The notary's noes: one that rests on a neighbour in its batch waits until that is kept."""

from __future__ import annotations

import contextlib
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import exc

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
