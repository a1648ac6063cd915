"""A TCP relay between every two programs, and what can go wrong on the way.

A link has one listening port and one or more targets, tried in turn: several replicas behind one
address. Trouble is a state of the link; `heal` ends it. All links share one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
CHUNK = 16 * 1024
DIAL_S = 2.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Trouble:
    """What a link does to bytes. `stalled` passes nothing on in the directions given ("up" is
    towards the target); `budget` cuts a connection after so many bytes."""

    refused: bool = False
    stalled: frozenset[str] = frozenset()
    delay_s: float = 0.0
    bytes_per_s: int = 0
    budget: int = 0


CALM = Trouble()


@dataclass(eq=False)
class Link:
    """It listens on `host`; `targets` are ports on loopback."""

    name: str
    targets: Sequence[int]
    host: str
    port: int = 0
    trouble: Trouble = CALM
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    calm: asyncio.Event = field(default_factory=asyncio.Event)
    turn: int = 0

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def abort(self) -> int:
        """Reset every connection. How many there were."""
        count = len(self.writers)
        for writer in list(self.writers):
            writer.transport.abort()
        self.writers.clear()
        return count // 2


class Relay:
    """All links, on a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._servers: list[asyncio.Server] = []
        self.links: dict[str, Link] = {}

    def add(self, name: str, targets: Sequence[int], host: str = LOOPBACK) -> Link:
        link = self.links[name] = Link(name, targets, host)
        self._call(self._listen(link))
        return link

    def set(self, link: Link, trouble: Trouble, *, cut: bool = False) -> int:
        """From now on; with `cut`, on fresh connections. How many were cut."""
        return self._call(self._set(link, trouble, cut))

    def close(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self, link: Link) -> None:
        link.calm.set()
        server = await asyncio.start_server(
            lambda reader, writer: self._serve(link, reader, writer), link.host, 0
        )
        link.port = server.sockets[0].getsockname()[1]
        self._servers.append(server)

    async def _set(self, link: Link, trouble: Trouble, cut: bool) -> int:
        link.trouble = trouble
        (link.calm.clear if trouble.stalled else link.calm.set)()
        return link.abort() if cut else 0

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for link in self.links.values():
            link.abort()
        this = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not this]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        link.writers.add(writer)
        other = None if link.trouble.refused else await self._dial(link)
        if other is None:
            writer.transport.abort()
            link.writers.discard(writer)
            return
        far_reader, far_writer = other
        link.writers.add(far_writer)
        ends = (writer, far_writer)
        await asyncio.gather(
            self._pass(link, "up", reader, far_writer, ends),
            self._pass(link, "down", far_reader, writer, ends),
        )
        for each in ends:
            link.writers.discard(each)
            each.transport.abort()

    async def _dial(self, link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The next target that answers."""
        for _ in link.targets:
            link.turn += 1
            port = link.targets[link.turn % len(link.targets)]
            with contextlib.suppress(OSError, TimeoutError):
                return await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port), DIAL_S)
        return None

    async def _pass(
        self,
        link: Link,
        way: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ends: tuple[asyncio.StreamWriter, ...],
    ) -> None:
        """One direction, until its end; an end is passed on as such, anything else cuts."""
        passed = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                while way in link.trouble.stalled:
                    await link.calm.wait()
                await self._slow(link.trouble, len(data))
                passed += len(data)
                if link.trouble.budget and passed > link.trouble.budget:
                    break
                writer.write(data)
                await writer.drain()
            else:
                if writer.can_write_eof():
                    writer.write_eof()
                return
        for each in ends:
            each.transport.abort()

    async def _slow(self, trouble: Trouble, size: int) -> None:
        seconds = trouble.delay_s + (size / trouble.bytes_per_s if trouble.bytes_per_s else 0.0)
        if seconds:
            await asyncio.sleep(seconds)
