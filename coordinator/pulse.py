"""Whether the coordinator lives: one round through its own threads, for systemd's watchdog.

 1. The event loop runs the round.
 2. The notary answers, after whatever is in front of it, out of a transaction of its own.
 3. The pools of the unary calls and of the agents' streams have a thread that asks the store.
 4. Threads and tasks that tell sites and replicas what is new came round not long ago (`follow`).

A store that is away says no to 2 and 3: an answer, and no reason to restart
(`housecall/watchdog.py`). One whose server keeps anybody waiting for long is away, too: whoever
does not come round then may wait for it as well, or for who does. What hangs besides is seen when
the server answers again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future

from coordinator.notary import Notary
from coordinator.store import Store

LOOK_SECONDS = 1.0


class Pulse:
    """Probes what `serving` put together."""

    def __init__(self, notary: Notary, store: Store, *pools: Executor) -> None:
        self._notary, self._store, self._pools = notary, store, pools
        self._followed: list[Callable[[], None]] = []

    def follow(self, *checks: Callable[[], None]) -> None:
        """Each raises Stuck where its room has not moved for long."""
        self._followed += checks

    async def check(self) -> None:
        """Returns, hangs, raises Stuck, or raises Refusal where the store says no or nothing."""
        self._store.check_answers()
        for check in self._followed:
            check()
        await self._answer(self._notary.probe())
        for pool in self._pools:
            await self._answer(pool.submit(self._ask_the_store))

    async def _answer(self, asked: Future[None]) -> None:
        """Whoever is asked is not cancelled, and may answer when nobody waits for it any more."""
        answer = asyncio.wrap_future(asked)
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        while not (await asyncio.wait([answer], timeout=LOOK_SECONDS))[0]:
            self._store.check_answers()
        answer.result()

    def _ask_the_store(self) -> None:
        with self._store.read() as reader:
            reader.tree_size()
