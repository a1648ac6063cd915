"""The watchdog: what hangs is not fed, a database that is away or hangs is an answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest

from coordinator import pulse as pulses
from coordinator.founding import found
from coordinator.notary import Accepted, Notary
from coordinator.pool import Pool
from coordinator.pulse import Pulse
from coordinator.settings import Settings
from coordinator.store import Store, engine
from housecall.errors import Refusal
from housecall.watchdog import Stuck, fed_by_loop
from tests import postgres
from tests.coordinator.scribe import Scribe
from tests.deploy.notices import Notices


class House:
    """What the coordinator's probe passes: a store, a notary, two pools of one thread."""

    def __init__(self, folder: Path, database_url: str = "") -> None:
        settings = Settings(state_dir=folder / "state", database_url=database_url)
        house = found(settings, "test", "127.0.0.1:1")
        self.scribe = Scribe(house)
        self.store = Store(settings.store_url)
        self.notary = Notary(self.store, house.ledger)
        self.pool, self.agents = Pool(1, "unary"), Pool(1, "agents")
        self.pulse = Pulse(self.notary, self.store, self.pool, self.agents)

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        with self.notary, self.pool, self.agents:
            async with fed_by_loop(self.pulse.check):
                yield
        self.store.close()


def in_thread(question: object) -> asyncio.Future[bool]:
    return asyncio.get_running_loop().run_in_executor(None, question)  # type: ignore[arg-type]


@pytest.mark.parametrize("hung", ["the notary", "the pool", "the agents' pool", "the event loop"])
def test_a_coordinator_is_fed_until_it_hangs(tmp_path: Path, notices: Notices, hung: str) -> None:
    house, free = House(tmp_path), threading.Event()

    async def story() -> None:
        async with house.served():
            assert await in_thread(notices.fed)
            if hung == "the event loop":
                assert notices.starved()  # asked on the loop itself, which waits here
            elif hung in ("the pool", "the agents' pool"):
                (house.pool if hung == "the pool" else house.agents).submit(free.wait)
                for _ in range(2):  # one on its way, and one since the call was taken up
                    await in_thread(partial(notices.fed_within, 3))
                assert not await in_thread(partial(notices.fed_within, 3))
            else:
                house.notary.probe().add_done_callback(lambda _: free.wait())
                assert await in_thread(notices.starved)
            free.set()
            assert await in_thread(notices.fed)

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.usefixtures("impatient")
def test_a_pool_that_is_busy_is_no_reason_to_restart(tmp_path: Path, notices: Notices) -> None:
    """Its question waits behind more calls than systemd has patience for; each of them ends."""
    house, free = House(tmp_path), threading.Event()

    async def story() -> None:
        async with house.served():
            for _ in range(1000):
                house.pool.submit(free.wait, 0.1)
            for _ in range(3):  # the first may have been on its way
                assert await in_thread(notices.fed)
            free.set()

    asyncio.run(asyncio.wait_for(story(), 90))


def test_a_database_that_is_away_is_no_reason_to_restart(tmp_path: Path, notices: Notices) -> None:
    with postgres.server() as server, server.database() as name:
        house = House(tmp_path, server.url(name))

        async def story() -> None:
            async with house.served():
                assert await in_thread(notices.fed)
                server.stop()
                assert await in_thread(notices.fed)  # the refusal of a lost connection
                assert await in_thread(notices.fed)
                server.start()
                assert await in_thread(notices.fed)

        asyncio.run(asyncio.wait_for(story(), 60))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sooner than systemd here."""
    monkeypatch.setattr(engine, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(pulses, "LOOK_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient")
def test_a_database_that_hangs_is_no_reason_to_restart(tmp_path: Path, notices: Notices) -> None:
    def herald() -> None:
        raise Stuck("the herald: it waits for the database")

    with postgres.server() as server, server.database() as name:
        house = House(tmp_path, server.url(name))

        async def story() -> None:
            async with house.served():
                assert await in_thread(notices.fed)
                with server.frozen():
                    assert await in_thread(notices.fed)  # the first one was on its way
                    assert await in_thread(notices.fed)
                    house.pulse.follow(herald)
                    with pytest.raises(Refusal, match="has not answered for"):
                        await house.pulse.check()
                    assert await in_thread(notices.fed)

        asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.usefixtures("impatient")
def test_a_commit_that_waits_for_its_standby_is_no_reason_to_restart(
    tmp_path: Path, notices: Notices
) -> None:
    with postgres.server() as server, server.database() as name:
        house = House(tmp_path, server.url(name))

        def state() -> Future[Accepted]:
            return house.notary.submit(house.scribe.envelope(), house.scribe.caller)

        async def story() -> None:
            async with house.served():
                with server.without_its_standby():
                    stated = state()
                    while not server.commits_that_wait():
                        stated = state() if stated.done() else stated
                    assert await in_thread(notices.fed)
                    assert await in_thread(notices.fed)
                    assert not stated.done()
                await asyncio.wrap_future(stated)
                assert await in_thread(notices.fed)

        asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.usefixtures("impatient")
def test_who_hangs_while_the_database_answers_is_not_fed(tmp_path: Path, notices: Notices) -> None:
    with postgres.server() as server, server.database() as name:
        house, free = House(tmp_path, server.url(name)), threading.Event()

        async def story() -> None:
            async with house.served():
                house.notary.probe().add_done_callback(lambda _: free.wait())
                try:
                    assert await in_thread(notices.starved)
                    with house.store.read() as reader:
                        assert reader.tree_size() == 1
                    assert await in_thread(notices.starved)
                finally:
                    free.set()
                assert await in_thread(notices.fed)

        asyncio.run(asyncio.wait_for(story(), 60))
