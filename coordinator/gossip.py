"""What replicas on one store tell each other of the sites that they serve. None of it is durable.

 1. A stream that begins claims its site, at once and with a number of its own (`claim`). Everybody
    hears claims in the same order, who made them too: having heard its own, a replica knows all
    that came before. Whoever is outranked gives way and says `left`; the next one waits for that.
 2. What changes of a site, of an order's progress or of a preparation is told, gathered for a
    moment.
 3. Each replica says something every second. One that is silent for long is gone, and its
    sites are connected nowhere.
 4. Who starts, or was cut off, tells everything and asks the others for everything.
 5. While nobody else is there, nothing but 1, 3 and 4 is said.
 6. A site is passed something only by a replica that heard itself a moment ago: it has heard every
    claim before that. One that was frozen, or hears nothing, waits until it hears itself again.
    That moment is shorter than 1 waits for one that does not answer.
 7. A claim that its maker did not hear opens no stream, but others may have heard it, and have
    given way: whoever made it takes it for a stream that is over, and says so as in 2, and as in 4
    when it hears again. So every number that was given is somebody's to tell.

Lives on the event loop; `ears` are for the bus's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from coordinator.fleet import Claim, Fleet
from coordinator.notes import Note, read_note, write_note
from coordinator.replicas import Replicas
from coordinator.standing import Standing
from coordinator.store.bus import MOST_BYTES, Bus, Ears, deaf
from housecall.watchdog import Stuck

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.1
BEAT_SECONDS = 1.0
GONE_SECONDS = 15.0
HEARD_SECONDS = 5.0
LEFT_SECONDS = 3.0
CURRENT_SECONDS = 2.5


class Gossip:
    """Joins `fleet` with those of the other replicas on `bus`, and keeps `replicas`. Numbers are
    asked for in `pool`."""

    def __init__(
        self, bus: Bus, fleet: Fleet, replicas: Replicas, pool: Executor | None = None
    ) -> None:
        self._bus, self._fleet, self._replicas, self._pool = bus, fleet, replicas, pool
        self._heard_until = -math.inf
        self._heard_itself = asyncio.Event()
        self._sites: set[str] = set()
        self._doing: set[int] = set()
        self._preparing: set[str] = set()
        self._claims: dict[str, asyncio.Future[Claim]] = {}
        self._stirred = asyncio.Event()
        self._beat_at = time.monotonic()
        self._loop = asyncio.get_running_loop()
        fleet.tell_site = self._tell_site
        fleet.tell_progress = self._tell_progress
        fleet.tell_left = self._tell_left
        fleet.preparations.tell = self._tell_preparation

    def ears(self, grew: Callable[[], None]) -> Ears:
        def heard(payload: str) -> None:
            self._loop.call_soon_threadsafe(self._hear, payload)

        def up() -> None:
            grew()
            self._loop.call_soon_threadsafe(self._introduce)

        return Ears(grew, heard, up)

    async def run(self) -> None:
        """Until it is cancelled: tell what was gathered, and beat."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._stirred.wait()
                    await asyncio.sleep(GATHER_SECONDS)
            self._stirred.clear()
            try:
                self._beat()
            except Exception:  # a defect must not make this replica look gone
                log.exception("cannot tell the other replicas")

    def check(self) -> None:
        """Raises Stuck where the other replicas have heard nothing for long."""
        if time.monotonic() - self._beat_at > GONE_SECONDS:
            raise Stuck("gossip: other replicas take this one for gone")

    def _beat(self) -> None:
        self._lose_the_silent()
        if not self._replicas or not (self._sites or self._doing or self._preparing):
            self._say({})
        self._flush()
        self._beat_at = time.monotonic()

    def bye(self) -> None:
        self._say({"bye": True})

    async def claim(self, site: str, standing: Standing) -> Standing:
        """The same with its number, when no other agent of the site is served any more. It may have
        been outranked meanwhile: `Fleet.attach` looks."""
        heard: asyncio.Future[Claim] = self._loop.create_future()
        key = secrets.token_hex(8)
        self._claims[key] = heard
        numbers: list[int] = []

        def note(number: int) -> str:
            numbers.append(number)
            numbered = replace(standing, number=number).written()
            return self._written({"claims": {site: numbered}, "key": key})

        try:
            await self._loop.run_in_executor(self._pool, self._bus.number, note)
            async with asyncio.timeout(HEARD_SECONDS):
                claim = await heard
        except BaseException as error:
            if numbers:  # where the commit broke off, too, others may have heard it
                self._fleet.unheard(site, replace(standing, number=numbers[-1]))
            if isinstance(error, TimeoutError):
                raise deaf() from None
            raise
        finally:
            self._claims.pop(key, None)
        with contextlib.suppress(TimeoutError):  # it hangs, or is gone: it serves nobody
            async with asyncio.timeout(LEFT_SECONDS):
                await claim.free.wait()
        self._fleet.settle(claim)
        return claim.standing

    async def current(self) -> None:
        """Return when every claim was heard but those of the moment before this call."""
        oldest = time.monotonic() - CURRENT_SECONDS
        while self._heard_until < oldest:
            await self._heard_itself.wait()

    # what is said

    def _tell_site(self, site: str) -> None:
        if self._replicas:
            self._sites.add(site)
            self._stirred.set()

    def _tell_progress(self, execution_id: int) -> None:
        if self._replicas:
            self._doing.add(execution_id)
            self._stirred.set()

    def _tell_preparation(self, dataset_id: str) -> None:
        if self._replicas:
            self._preparing.add(dataset_id)
            self._stirred.set()

    def _tell_left(self, site: str, number: int) -> None:
        self._say({"left": {site: number}})

    def _introduce(self) -> None:
        """The connection is there (again)."""
        self._say({"ask": ""})
        self._tell_all()

    def _tell_all(self) -> None:
        self._say({"self": self._replicas.own.written()})
        self._sites.update(site for site, _ in self._fleet.own())
        self._doing.update(number for number, _ in self._fleet.all_progress())
        self._preparing.update(self._fleet.preparations.all())
        self._flush()

    def _flush(self) -> None:
        standings = ((site, self._fleet.standing(site)) for site in self._sites)
        own = (self._fleet.replica, "")
        self._say_in_pieces("sites", ((s, o.written()) for s, o in standings if o.replica in own))
        progress = ((number, self._fleet.progress_of(number)) for number in self._doing)
        self._say_in_pieces("doing", ((n, doing.written()) for n, doing in progress if doing))
        known = ((each, self._fleet.preparations.of(each)) for each in self._preparing)
        self._say_in_pieces("preparing", ((each, said.written()) for each, said in known if said))
        self._sites.clear()
        self._doing.clear()
        self._preparing.clear()

    def _say_in_pieces(self, name: str, items: Iterable[tuple[Any, Any]]) -> None:
        """As many items a note as fit."""
        piece: dict[str, Any] = {}
        room = MOST_BYTES - len(self._written({name: {}}))
        for key, value in items:
            size = len(json.dumps({str(key): value}, separators=(",", ":")))
            if size > room and piece:
                self._say({name: piece})
                piece, room = {}, MOST_BYTES - len(self._written({name: {}}))
            piece[str(key)] = value
            room -= size
        if piece:
            self._say({name: piece})

    def _say(self, said: dict[str, Any]) -> None:
        """What no note has room for is not said: the others do not know it, and hear the rest."""
        note = self._written(said)
        if len(note) > MOST_BYTES:
            about = {"about": ", ".join(said), "bytes": len(note)}
            log.error("a note is too long, and is not said", extra=about)
            return
        self._bus.say(note)

    def _written(self, said: dict[str, Any]) -> str:
        return write_note(self._fleet.replica, said)

    # what is heard

    def _hear(self, payload: str) -> None:
        note = read_note(payload)
        if note is None:
            log.warning("a note of another replica cannot be read: is it of another version?")
        elif note.replica == self._fleet.replica:
            self._hear_itself(note)
        elif note.bye:
            self._lose(note.replica)
        else:
            self._hear_other(note)

    def _hear_itself(self, note: Note) -> None:
        self._heard_until = max(self._heard_until, note.at)
        self._heard_itself.set()
        self._heard_itself = asyncio.Event()
        heard = self._claims.get(note.key)
        for site, standing in note.claims.items():
            if heard is not None and not heard.done():
                heard.set_result(self._fleet.claim(site, standing))

    def _hear_other(self, note: Note) -> None:
        self._meet(note.replica)
        if note.itself is not None:
            self._replicas.learn(note.itself)
        for site, standing in (note.claims | note.sites).items():
            self._fleet.merge(site, standing)
        for site, number in note.left.items():
            self._fleet.freed(site, number)
        for number, progress in note.doing.items():
            self._fleet.merge_progress(number, progress)
        for dataset_id, preparation in note.preparing.items():
            self._fleet.preparations.merge(dataset_id, preparation)
        if note.ask in ("", self._fleet.replica):
            self._tell_all()

    def _meet(self, replica: str) -> None:
        if self._replicas.hear(replica):
            log.info("replica found", extra={"replica": replica})
            self._say({"ask": replica})

    def _lose_the_silent(self) -> None:
        for replica in self._replicas.silent(GONE_SECONDS):
            self._lose(replica)

    def _lose(self, replica: str) -> None:
        if self._replicas.lose(replica):
            log.info("replica gone", extra={"replica": replica})
            self._fleet.lose(replica)
