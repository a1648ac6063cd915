"""Connections to PostgreSQL as sockets: a server that hangs cannot hold up whoever has to end.

A question has no limit on this side: the server's own limits end it, and one that is frozen keeps
none. Hung up on, whoever waits has an error at once, as from a server that is gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from typing import Any

import psycopg
from sqlalchemy import Engine, event


class Connections:
    """Those of an engine that are open, whoever has them."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()
        self._over = False
        if engine.dialect.name == "postgresql":
            event.listen(engine, "do_connect", self._connecting)
            event.listen(engine, "connect", self._connected)

    def hang_up(self) -> None:
        """For good: what waits fails, and nobody connects any more."""
        with self._lock:
            self._over = True
            found = list(self._open)
        for connection in found:
            _hang_up(connection)

    def _connecting(self, *_: object) -> None:
        if self._over:
            raise psycopg.OperationalError("this coordinator stops")

    def _connected(self, connection: psycopg.Connection[Any], _record: object) -> None:
        with self._lock:
            self._open.add(connection)
            over = self._over
        if over:
            _hang_up(connection)


def _hang_up(connection: psycopg.Connection[Any]) -> None:
    with (
        contextlib.suppress(psycopg.Error, OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as end,
    ):
        end.shutdown(socket.SHUT_RDWR)
