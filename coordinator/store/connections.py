"""Connections to PostgreSQL as sockets: a server that hangs cannot hold up whoever has to end.

A question has no limit on this side: the server's own limits end it, and one that is frozen keeps
none. Nor has a COMMIT, which may wait for a standby. So each connection knows since when it waits
for the server. Hung up on, whoever waits has an error at once, as from a server that is gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import weakref
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Engine, event

T = TypeVar("T")


class Connection(psycopg.Connection[Any]):
    """Everything that psycopg waits for, but to be connected, goes through `wait`."""

    waiting_since: float | None = None

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        self.waiting_since = time.monotonic()
        try:
            return super().wait(gen, *args, **options)
        finally:
            self.waiting_since = None


class Connections:
    """Those of an engine that are open, whoever has them."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._over = False
        if engine.dialect.name == "postgresql":
            event.listen(engine, "do_connect", self._connecting)
            event.listen(engine, "connect", self._connected)

    def longest_wait(self) -> float:
        """Seconds that the server has kept somebody waiting, so far."""
        with self._lock:
            found = [each.waiting_since for each in self._open]
        now = time.monotonic()
        return max((now - since for since in found if since is not None), default=0.0)

    def hang_up(self) -> None:
        """For good: what waits fails, and nobody connects any more."""
        with self._lock:
            self._over = True
            found = list(self._open)
        for connection in found:
            _hang_up(connection)

    def _connecting(self, _dialect: object, _record: object, args: Any, options: Any) -> Connection:
        if self._over:
            raise psycopg.OperationalError("this coordinator stops")
        return Connection.connect(*args, **options)

    def _connected(self, connection: Connection, _record: object) -> None:
        with self._lock:
            self._open.add(connection)
            over = self._over
        if over:
            _hang_up(connection)


def _hang_up(connection: Connection) -> None:
    with (
        contextlib.suppress(psycopg.Error, OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as end,
    ):
        end.shutdown(socket.SHUT_RDWR)
