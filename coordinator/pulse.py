"""Whether the coordinator lives: one round through its own threads, for systemd's watchdog.

 1. The event loop runs the round.
 2. The notary answers when its turn comes, out of a transaction of its own.
 3. The pools of the unary calls and of the agents' streams have a thread that asks the store; or,
    where all of one are taken, it has taken up or ended a call since the last round: the question
    waits behind calls each of which may take longer than systemd has patience left.
 4. Threads and tasks that tell sites and replicas what is new came round not long ago (`follow`).

A store that is away says no to 2 and 3: an answer, and no reason to restart
(`housecall/watchdog.py`). One whose server keeps anybody waiting for long is away, too: whoever
does not come round then may wait for it as well, or for who does. What hangs besides is seen when
the server answers again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

from coordinator.notary import Notary
from coordinator.pool import Pool
from coordinator.store import Store

LOOK_SECONDS = 1.0


class Pulse:
    """Probes what `serving` put together."""

    def __init__(self, notary: Notary, store: Store, *pools: Pool) -> None:
        self._notary, self._store, self._pools = notary, store, pools
        self._moves = dict.fromkeys(pools, 0)
        self._asked: dict[Pool, Future[None]] = {}
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
            await self._look_at(pool)

    async def _look_at(self, pool: Pool) -> None:
        """3."""
        if pool not in self._asked or self._asked[pool].done():  # one waits, not one a round
            self._asked[pool] = pool.submit(self._ask_the_store)
        before = self._moves[pool]
        await self._answer(self._asked[pool], or_else=lambda: pool.moves != before)
        self._moves[pool] = pool.moves

    async def _answer(
        self, asked: Future[None], *, or_else: Callable[[], bool] = lambda: False
    ) -> None:
        """Whoever is asked is not cancelled, and may answer when nobody waits for it any more."""
        answer = asyncio.wrap_future(asked)
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        while not (await asyncio.wait([answer], timeout=LOOK_SECONDS))[0]:
            self._store.check_answers()
            if or_else():
                return
        answer.result()

    def _ask_the_store(self) -> None:
        with self._store.read() as reader:
            reader.tree_size()
