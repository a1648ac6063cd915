"""Who is connected, a mailbox a site, and what each says it is doing.

Lives on the event loop: only `notice` and the read-only `standing` and `progress_of` may be called
from other threads. Nothing here is durable or needs to be: a reconnecting site says it all again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from housecall.v1 import fleet_pb2
from housecall.v1 import statements_pb2 as pb

MOST_MAIL = 10_000
Mail: TypeAlias = fleet_pb2.CoordinatorMessage | int


@dataclass
class Standing:
    """What is known of a site's agent."""

    connected: bool = False
    connected_at: datetime | None = None
    heard_at: datetime | None = None
    agent_version: str = ""
    gpus: int = 0
    running: int = 0
    waiting: int = 0
    clock_skew_seconds: float = 0.0


@dataclass(frozen=True)
class Doing:
    """An order's progress, as its site last said."""

    state: pb.ExecutionState.ValueType
    step: str
    at: datetime


@dataclass
class Session:
    """One stream. `outgoing` is emptied by its one writer: messages, numbers of orders, which are
    made when they are sent, and None, which ends it."""

    site: str
    cancel: Callable[[], object] = lambda: None
    outgoing: asyncio.Queue[Mail | None] = field(default_factory=asyncio.Queue)

    def send(self, **message: object) -> None:
        self.post(fleet_pb2.CoordinatorMessage(**message))  # type: ignore[arg-type]

    def post(self, mail: Mail) -> None:
        """A site that does not read what it is sent loses its stream, and nothing else: it is told
        again after its next Hello."""
        if self.outgoing.qsize() >= MOST_MAIL:
            self.cancel()
            return
        self.outgoing.put_nowait(mail)

    def end(self) -> None:
        """Ends it after what is on its way."""
        self.outgoing.put_nowait(None)


class Fleet:
    """Sessions by site; the newest wins."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._standing: dict[str, Standing] = {}
        self._doing: dict[int, Doing] = {}
        self._changed = asyncio.Condition()
        self._version = 0

    def attach(self, site: str, hello: fleet_pb2.Hello, now: datetime, skew: float) -> Session:
        """Begin a session; the site's older one is told and ended."""
        if older := self._sessions.get(site):
            older.send(superseded=fleet_pb2.Superseded())
            older.end()
        session = self._sessions[site] = Session(site)
        self._standing[site] = Standing(
            connected=True,
            connected_at=now,
            heard_at=now,
            agent_version=hello.agent_version,
            gpus=len(hello.environment.gpus),
            clock_skew_seconds=skew,
        )
        for progress in hello.doing:
            self.progress(progress, now)
        self.touch()
        return session

    def detach(self, session: Session) -> None:
        if self._sessions.get(session.site) is session:
            del self._sessions[session.site]
            self._standing[session.site].connected = False
            self.touch()

    def heard(self, site: str, now: datetime, beat: fleet_pb2.Heartbeat | None = None) -> None:
        standing = self._standing[site]
        standing.heard_at = now
        if beat is not None:
            standing.running, standing.waiting = beat.running, beat.waiting

    def progress(self, progress: fleet_pb2.Progress, now: datetime) -> None:
        self._doing[progress.execution_id] = Doing(progress.state, progress.step, now)
        self.touch()

    def session_of(self, site: str) -> Session | None:
        return self._sessions.get(site)

    def end_all(self) -> None:
        for session in list(self._sessions.values()):
            session.end()

    def end(self, name: str) -> None:
        """End a revoked site's stream at once."""
        if session := self._sessions.get(name):
            session.end()

    def forget(self, execution_ids: Iterable[int]) -> None:
        for number in execution_ids:
            self._doing.pop(number, None)

    # for any thread

    def standing(self, site: str) -> Standing:
        return self._standing.get(site, Standing())

    def progress_of(self, execution_id: int) -> Doing | None:
        return self._doing.get(execution_id)

    # watchers

    def touch(self) -> None:
        """Something that watchers show has changed."""
        self._version += 1
        _ = asyncio.ensure_future(self._wake())  # noqa: RUF006 - ends by itself at once

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def next_version(self, seen: int) -> int:
        """Wait until there is a version newer than `seen`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._version > seen)
        return self._version
