"""The coordinator's watchdog: what hangs is not fed, a database that is away is an answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coordinator.founding import found
from coordinator.notary import Notary
from coordinator.pulse import Pulse
from coordinator.settings import Settings
from coordinator.store import Store
from housecall.watchdog import fed_by_loop
from tests import postgres
from tests.deploy.notices import Notices


class House:
    """What the coordinator's probe passes: a store, a notary, a pool of one thread."""

    def __init__(self, folder: Path, database_url: str = "") -> None:
        settings = Settings(state_dir=folder / "state", database_url=database_url)
        house = found(settings, "test", "127.0.0.1:1")
        self.store = Store(settings.store_url)
        self.notary = Notary(self.store, house.ledger)
        self.pool = ThreadPoolExecutor(1)

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        with self.notary, self.pool:
            async with fed_by_loop(Pulse(self.notary, self.store, self.pool).check):
                yield
        self.store.close()


def in_thread(question: object) -> asyncio.Future[bool]:
    return asyncio.get_running_loop().run_in_executor(None, question)  # type: ignore[arg-type]


@pytest.mark.parametrize("hung", ["the notary", "the pool", "the event loop"])
def test_a_coordinator_is_fed_until_it_hangs(tmp_path: Path, notices: Notices, hung: str) -> None:
    house, free = House(tmp_path), threading.Event()

    async def story() -> None:
        async with house.served():
            assert await in_thread(notices.fed)
            if hung == "the event loop":
                assert notices.starved()  # asked on the loop itself, which waits here
            elif hung == "the pool":
                house.pool.submit(free.wait)
                assert await in_thread(notices.starved)
            else:
                house.notary.probe().add_done_callback(lambda _: free.wait())
                assert await in_thread(notices.starved)
            free.set()
            assert await in_thread(notices.fed)

    asyncio.run(asyncio.wait_for(story(), 60))


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
