"""PostgreSQL that fails at the worst moments, and several coordinators that append to one."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

import pytest

from coordinator.founding import House, found, open_house
from coordinator.notary import Accepted, Notary
from coordinator.rebuild import check_store
from coordinator.settings import Settings
from coordinator.store import Store
from coordinator.store.databases import parse_url
from housecall import verify
from housecall.errors import Kind, Refusal
from tests import postgres
from tests.coordinator.pgproxy import Proxy
from tests.coordinator.scribe import Scribe

WAIT_S = 60.0


@pytest.fixture
def settings(tmp_path: Path, postgresql_url: str) -> Settings:
    return Settings(state_dir=tmp_path / "c", database_url=postgresql_url)


@pytest.fixture
def house(settings: Settings) -> House:
    return found(settings, "test", "127.0.0.1:1")


@pytest.fixture
def proxy(postgresql: postgres.Server) -> Iterator[Proxy]:
    with Proxy(postgresql.folder / f".s.PGSQL.{postgresql.port}") as made:
        yield made


def through(proxy: Proxy, url: str) -> str:
    """The same database by way of the proxy."""
    name = parse_url(url).database
    return f"postgresql://{postgres.USER}@127.0.0.1:{proxy.port}/{name}"


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("count", [1, 5])
def test_a_commit_of_unknown_outcome_counts_once(
    settings: Settings, house: House, proxy: Proxy, cut: Literal["before", "after"], count: int
) -> None:
    """Whether the server got the COMMIT or not: everyone gets the one receipt."""
    scribe = Scribe(house)
    envelopes = [scribe.envelope() for _ in range(count)]
    with contextlib.closing(Store(through(proxy, settings.database_url))) as store:
        notary = Notary(store, house.ledger)
        futures = [notary.submit(envelope, scribe.caller) for envelope in envelopes]
        proxy.cut = cut
        with notary:
            accepted = [future.result(WAIT_S) for future in futures]
            again = [notary.append(envelope, scribe.caller) for envelope in envelopes]
        assert proxy.cuts == 1
        assert [each.index for each in accepted] == list(range(1, count + 1))
        assert [each.index for each in again] == [each.index for each in accepted]
        for each in accepted:
            verify.check_receipt(each.envelope, each.receipt, house.ledger.verifier_key)
        checked = check_store(store, signatures=True)
        assert (checked.size, checked.differences) == (count + 1, [])


def test_thrown_out_again_and_again(
    settings: Settings, house: House, postgresql: postgres.Server
) -> None:
    """Every connection is ended again and again; who is told no sends again."""
    scribe = Scribe(house)
    envelopes: list[bytes] = []
    indexes: list[int] = []
    moments = random.Random(3)
    name = parse_url(settings.database_url).database
    stop = threading.Event()
    thrown = 0

    def throw() -> None:
        nonlocal thrown
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        with postgresql.connect() as admin:
            while not stop.wait(moments.uniform(0.05, 0.3)):
                thrown += admin.execute(query, (name,)).rowcount

    thrower = threading.Thread(target=throw)
    with contextlib.closing(Store(settings.store_url)) as store:
        with Notary(store, house.ledger) as notary:
            thrower.start()
            while thrown < 10:
                envelopes.append(scribe.envelope())
                indexes.append(insist(notary, envelopes[-1], scribe))
            stop.set()
            thrower.join()
        assert sorted(indexes) == list(range(1, len(envelopes) + 1))
        checked = check_store(store, signatures=True)
        assert (checked.size, checked.differences) == (len(envelopes) + 1, [])


def insist(notary: Notary, envelope: bytes, scribe: Scribe) -> int:
    """Send it until it is accepted; every no must be one that passes."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return notary.append(envelope, scribe.caller).index
        except Refusal as refusal:
            if refusal.kind is not Kind.UNAVAILABLE or time.monotonic() > deadline:
                raise


def test_away_and_back(tmp_path: Path) -> None:
    """A server of its own goes down in a crash and comes back: noes meanwhile, then yeses."""
    with postgres.server() as server, server.database() as name:
        own = Settings(state_dir=tmp_path / "own", database_url=server.url(name))
        house = found(own, "test", "127.0.0.1:1")
        scribe = Scribe(house)
        with (
            contextlib.closing(Store(own.store_url)) as store,
            Notary(store, house.ledger) as notary,
        ):
            first = scribe.envelope()
            assert notary.append(first, scribe.caller).index == 1
            server.stop()
            assert refused(lambda: notary.append(scribe.envelope(), scribe.caller))
            assert refused(lambda: tree_size(store))
            server.start()
            assert notary.append(first, scribe.caller).index == 1
            assert notary.append(scribe.envelope(), scribe.caller).index == 2
            assert tree_size(store) == 3


def tree_size(store: Store) -> int:
    with store.read() as reader:
        return reader.tree_size()


def refused(call: Callable[[], object]) -> bool:
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value.code == "STORE_UNREACHABLE"


def test_one_that_hangs_in_a_batch_loses_its_turn(settings: Settings, house: House) -> None:
    """The limit is the server's: it holds where the coordinator is stopped or cut off."""
    scribe = Scribe(house)
    limits = "options=-c%20idle_in_transaction_session_timeout%3D200"
    with (
        contextlib.closing(Store(f"{settings.store_url}&{limits}")) as hung,
        contextlib.closing(Store(settings.store_url)) as store,
        Notary(store, house.ledger) as notary,
    ):
        writer = hung.writer()
        writer.begin()
        assert notary.append(scribe.envelope(), scribe.caller).index == 1
        with pytest.raises(Refusal) as caught, hung.failures():
            writer.tree_size()
        assert caught.value.code == "STORE_UNREACHABLE"
        writer.abandon()


def append_all(url: str, folder: Path, envelopes: list[bytes]) -> None:
    """One coordinator's process."""
    house = open_house(Settings(state_dir=folder, database_url=url))
    scribe = Scribe(house)
    with contextlib.closing(Store(url)) as store, Notary(store, house.ledger) as notary:
        futures: list[Future[Accepted]] = [
            notary.submit(envelope, scribe.caller) for envelope in envelopes
        ]
        for envelope, future in zip(envelopes, futures, strict=True):
            receipt = future.result(WAIT_S).receipt
            verify.check_receipt(envelope, receipt, house.ledger.verifier_key)


def test_several_processes_append_to_one_ledger(
    settings: Settings, house: House, postgresql: postgres.Server
) -> None:
    """Each envelope goes to two of three coordinators at once, and is one entry."""
    scribe = Scribe(house)
    envelopes = [scribe.envelope() for _ in range(240)]
    shares = [[e for i, e in enumerate(envelopes) if i % 3 != left_out] for left_out in range(3)]
    spawn = multiprocessing.get_context("spawn")
    name = str(parse_url(settings.database_url).database)
    with postgresql.connect(name) as listening:
        listening.execute("LISTEN housecall_ledger")
        programs = [
            spawn.Process(target=append_all, args=(settings.store_url, settings.state_dir, share))
            for share in shares
        ]
        for program in programs:
            program.start()
        for program in programs:
            program.join(WAIT_S)
            assert program.exitcode == 0
        told = [int(note.payload) for note in listening.notifies(timeout=0)]
    with contextlib.closing(Store(settings.store_url)) as store:
        checked = check_store(store, signatures=True)
        with store.read() as reader:
            assert set(reader.envelopes()) >= set(envelopes)
    assert (checked.size, checked.differences) == (len(envelopes) + 1, [])
    assert told == sorted(told)
    assert told[-1] == checked.size
