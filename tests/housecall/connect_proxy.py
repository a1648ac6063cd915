"""A small HTTP proxy on loopback, as hospitals have one: CONNECT, plain GET, and bad days."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class ConnectProxy:
    """`hosts` is its DNS: what a name and port stand for. `user` is "name:password", "" for
    everybody. Everything else may be changed while it runs."""

    hosts: Mapping[str, tuple[str, int]]
    user: str = ""
    status: int = 200
    """Of its answers; 0 = it hangs up without one."""
    delay_s: float = 0.0
    port: int = 0
    asked: list[str] = field(default_factory=list)
    _silent: bool = False
    _tunnels: list[asyncio.StreamWriter] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    @property
    def url(self) -> str:
        user = ":".join(urllib.parse.quote(part, safe="") for part in self.user.split(":", 1))
        return f"http://{user}@127.0.0.1:{self.port}" if self.user else f"http://{self.name}"

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End every tunnel that is open now."""
        self._loop.call_soon_threadsafe(self._cut)

    def silence(self) -> None:
        """From now on open tunnels carry nothing, and nobody is told: half-open. New ones work."""
        self._silent = True
        self._loop.call_soon_threadsafe(self._mute)

    def _mute(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _cut(self) -> None:
        for writer in self._tunnels:
            writer.transport.abort()
        self._tunnels.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, target, _ = lines[0].split(" ")
            self.asked.append(f"{method} {target}")
            await asyncio.sleep(self.delay_s)
            status = self.status if self._may(lines) else 407
            if status != 200:
                if status:
                    writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
                    await writer.drain()
                writer.close()
                return
            await (self._tunnel if method == "CONNECT" else self._get)(
                (reader, writer), target, lines
            )
        except (OSError, asyncio.IncompleteReadError, ValueError):
            writer.close()

    def _may(self, lines: list[str]) -> bool:
        pair = base64.b64encode(self.user.encode()).decode()
        wanted = f"proxy-authorization: basic {pair}".lower()
        return not self.user or wanted in [line.lower() for line in lines]

    async def _tunnel(self, here: Pair, target: str, lines: list[str]) -> None:
        there = await asyncio.open_connection(*self.hosts[target])
        here[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._join(here, there)

    async def _get(self, here: Pair, target: str, lines: list[str]) -> None:
        parts = urllib.parse.urlsplit(target)
        there = await asyncio.open_connection(*self.hosts[f"{parts.hostname}:{parts.port or 80}"])
        kept = [line for line in lines[1:] if not line.lower().startswith("proxy-")]
        there[1].write("\r\n".join([f"GET {parts.path} HTTP/1.1", *kept]).encode())
        self._join(here, there)

    def _join(self, here: Pair, there: Pair) -> None:
        self._tunnels += [here[1], there[1]]
        for (source, _), (_, sink) in ((here, there), (there, here)):
            task = self._loop.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(2**16):
                sink.write(data)
                await sink.drain()
        if not self._silent:
            sink.close()


@contextlib.contextmanager
def connect_proxy(
    hosts: Mapping[str, tuple[str, int]], user: str = "", status: int = 200
) -> Iterator[ConnectProxy]:
    """Runs in a thread with its own event loop."""
    made = ConnectProxy(hosts, user, status)
    loop = made._loop
    server = loop.run_until_complete(asyncio.start_server(made._serve, "127.0.0.1", made.port))
    made.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def stop() -> None:
        server.close()
        made._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
