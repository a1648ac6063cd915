"""Who is connected, here and at other replicas, and what each site says it is doing.

Lives on the event loop: only what is under "for any thread" may be called from other threads.
Nothing here is durable or needs to be: a reconnecting site says it all again, and replicas tell
each other (coordinator/gossip.py).

Of one site's streams the one of the highest rank is served (coordinator/standing.py), wherever it
is. The others are told that they are superseded, and end. Ranks come from the store and are all
different, so that every replica decides alike, in whatever order it hears.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from coordinator.preparations import Preparation, Preparations, taken
from coordinator.session import Mail, Session, draining
from coordinator.standing import KNOWN_STATES, MOST_CHARACTERS, Doing, Standing, Word, began_at
from housecall.errors import Kind, Refusal
from housecall.v1 import fleet_pb2


@dataclass
class Tidings:
    """What follows from some entries of the ledger, in their order: mail for sites, participants
    that were revoked, executions that ended."""

    mail: list[tuple[str, Mail]] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)


@dataclass
class Claim:
    """A site claimed for a stream that begins here. `free` is set when the stream that was served
    before, number `before`, is served no more."""

    site: str
    standing: Standing
    before: int = 0
    free: asyncio.Event = field(default_factory=asyncio.Event)


class Fleet:
    """Sessions and standings by site. `replica` names this process among those on its store."""

    def __init__(self, replica: str = "") -> None:
        self.replica = replica
        self.tell_site: Callable[[str], None] = lambda site: None
        self.tell_progress: Callable[[int], None] = lambda execution_id: None
        self.tell_left: Callable[[str, int], None] = lambda site, number: None
        self.preparations = Preparations()
        self._claims: dict[tuple[str, int], Claim] = {}
        self._sessions: dict[str, Session] = {}
        self._standing: dict[str, Standing] = {}
        self._doing: dict[int, Doing] = {}
        self._words = itertools.count(1)
        self._changed = asyncio.Event()
        self._version = 0
        self._draining = False

    # streams that are served here

    def admit(self, site: str, hello: fleet_pb2.Hello) -> bool:
        """Whether the stream that opens yields. One that yields is refused while the site's other
        agent is connected anywhere; the same agent may always come back."""
        if self._draining:
            raise draining()
        other = self.standing(site)
        if other.connected and hello.session_id and other.session_id == hello.session_id:
            return other.yields
        if hello.yields and other.connected:
            raise Refusal(
                Kind.CONFLICT,
                "SITE_ELSEWHERE",
                f"another agent of {site} took over and is connected: run one agent a site, and "
                "stop one of the two",
            )
        return hello.yields

    def claim(self, site: str, standing: Standing) -> Claim:
        """Everybody has heard of it, and all have heard the same before it."""
        made, current = Claim(site, standing), self.standing(site)
        if current.connected and current.rank > standing.rank:
            made.free.set()
            return made
        comes_back = standing.session_id and current.session_id == standing.session_id
        if earlier := self._claims.get((site, current.number)):
            made.before, made.free = earlier.before, earlier.free
        elif current.connected and current.replica != self.replica and not comes_back:
            made.before = current.number
        else:
            made.free.set()
        self._claims[site, standing.number] = made
        if older := self._sessions.pop(site, None):
            older.supersede()
        self._set(site, standing)
        return made

    def freed(self, site: str, number: int) -> None:
        """Another replica's word that this stream is served no more."""
        for claim in self._claims.values():
            if claim.site == site and claim.before == number:
                claim.free.set()

    def settle(self, claim: Claim) -> None:
        """It waits for nobody any more. Where it was outranked meanwhile, it is let go now."""
        self._claims.pop((claim.site, claim.standing.number), None)
        if self.standing(claim.site).number != claim.standing.number:
            self.tell_left(claim.site, claim.standing.number)

    def unheard(self, site: str, standing: Standing) -> None:
        """Others may believe in this claim, and this replica did not hear it: no stream follows. It
        is told as a stream that is over; where one is served here, that one is told."""
        current = self.standing(site)
        if current.connected and current.replica == self.replica:
            self.tell_site(site)
        elif (
            current.rank < standing.rank if current.connected else current.number < standing.number
        ):
            self._set(site, replace(standing, connected=False))

    def attach(self, site: str, standing: Standing, cancel: Callable[[], object]) -> Session:
        """Begin a session. Where another one has a higher rank, it is superseded already."""
        session = Session(site, standing, cancel)
        current = self.standing(site)
        if current.connected and current.rank > standing.rank:
            session.supersede()
            self.tell_site(site)  # others may have heard of this one last
            return session
        if older := self._sessions.get(site):
            older.supersede()
        self._sessions[site] = session
        self._set(site, standing)
        if self._draining:
            session.drain()
        return session

    def is_served(self, session: Session) -> bool:
        return self._sessions.get(session.site) is session

    def detach(self, session: Session) -> None:
        session.closed()
        if self.is_served(session):
            del self._sessions[session.site]
            self._set(session.site, replace(self._standing[session.site], connected=False))

    def heard(
        self, session: Session, now: datetime, beat: fleet_pb2.Heartbeat | None = None
    ) -> None:
        if not self.is_served(session):
            return
        standing = replace(self._standing[session.site], heard_at=now)
        if beat is not None:
            standing = replace(standing, running=beat.running, waiting=beat.waiting)
        self._standing[session.site] = standing
        self.tell_site(session.site)

    def progress(self, session: Session, said: fleet_pb2.Progress, now: datetime) -> None:
        """Of an order of that site; a state that is not known here is not taken."""
        if not self.is_served(session) or said.state not in KNOWN_STATES:
            return
        known, skew_s = self._doing.get(said.execution_id), session.standing.clock_skew_seconds
        at = began_at(said, known, now=now, skew_s=skew_s)
        step = said.step[:MOST_CHARACTERS]
        word = self._word(session)
        self._doing[said.execution_id] = Doing(word, at, said.state, step, said.waits_for)
        self.tell_progress(said.execution_id)
        self.touch()

    def preparing(
        self, session: Session, said: Iterable[fleet_pb2.Preparing], now: datetime
    ) -> None:
        """Of datasets of that site."""
        if self.is_served(session):
            for each in said:
                preparation = taken(each, self._word(session), now)
                self.preparations.say(each.dataset_id, preparation)

    def spread(self, tidings: Tidings) -> None:
        """To those sites that are connected here."""
        for site, message in tidings.mail:
            if session := self._sessions.get(site):
                session.post(message)
        for number in tidings.ended:
            self._doing.pop(number, None)
        self.touch()

    async def drain(self, seconds: float) -> None:
        """No new streams; those there are end when their statements are answered, after `seconds`
        at the latest. Watchers end."""
        self._draining = True
        self.touch()
        for session in list(self._sessions.values()):
            session.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._sessions:
                    await self._changed.wait()
        for session in self._sessions.values():
            session.cut(draining())

    # what other replicas say

    def merge(self, site: str, said: Standing) -> None:
        """Another replica's word on a site."""
        current = self._standing.get(site, Standing())
        session, claimed = self._sessions.get(site), (site, current.number) in self._claims
        if current.replica == self.replica and (session or claimed):
            if not (said.connected and said.rank > current.rank):
                if said.connected:
                    self.tell_site(site)  # it will end that stream
                return
            if session:
                del self._sessions[site]
                session.supersede()
            if not claimed:  # else `settle` says it
                self.tell_left(site, current.number)
        elif current.replica == self.replica and said.connected:
            self.tell_left(site, current.number)
        elif said.replica != current.replica and (
            (said.connected, said.rank) < (current.connected, current.rank)
        ):
            return
        self._standing[site] = said
        self.touch()

    def merge_progress(self, execution_id: int, said: Doing) -> None:
        known = self._doing.get(execution_id)
        if known is None or said.word >= known.word:
            self._doing[execution_id] = said
            self.touch()

    def lose(self, replica: str) -> None:
        """That replica is gone: its sites are connected nowhere until they come back."""
        for site, standing in self._standing.items():
            if standing.replica == replica:
                self._standing[site] = replace(standing, connected=False, replica="")
        self.touch()

    def own(self) -> Iterator[tuple[str, Standing]]:
        """What no other replica says: sites served here last, or by a replica that is gone."""
        for site, standing in self._standing.items():
            if standing.replica in (self.replica, ""):
                yield site, standing

    # for any thread

    def is_here(self, site: str) -> bool:
        return site in self._sessions

    def connected(self) -> int:
        """How many sites have their stream here."""
        return len(self._sessions)

    def standing(self, site: str) -> Standing:
        return self._standing.get(site, Standing())

    def progress_of(self, execution_id: int) -> Doing | None:
        return self._doing.get(execution_id)

    def preparation_of(self, dataset_id: str, site: str) -> Preparation | None:
        """What the site told last, unless it took it back or has a newer stream."""
        said = self.preparations.of(dataset_id)
        stands = said and said.state and said.word.number == self.standing(site).number
        return said if stands else None

    def all_progress(self) -> list[tuple[int, Doing]]:
        return list(self._doing.items())

    def _word(self, session: Session) -> Word:
        return Word(session.standing.number, next(self._words))

    # watchers

    def _set(self, site: str, standing: Standing) -> None:
        self._standing[site] = standing
        self.tell_site(site)
        self.touch()

    def touch(self) -> None:
        """Something that watchers show has changed."""
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def next_version(self, seen: int) -> int:
        """Wait for a version newer than `seen`. Raises DRAINING when this process stops."""
        while self._version <= seen and not self._draining:
            await self._changed.wait()
        if self._draining:
            raise draining()
        return self._version
