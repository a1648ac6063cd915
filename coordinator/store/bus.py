"""How replicas on one PostgreSQL hear of each other: LISTEN and NOTIFY, on a connection of its own.

Nothing said here is durable. What is said while the connection is down is lost: whoever listens
looks into the store, and asks the other replicas, each time it is `up` again. One program on one
SQLite file has nobody to talk to: `NoBus`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import psycopg
from sqlalchemy import BigInteger, Text, cast, exc, func, select

from coordinator.store.engine import Store
from coordinator.store.writer import CHANNEL
from housecall.errors import Kind, Refusal

log = logging.getLogger(__name__)

LEDGER, FLEET = CHANNEL, "housecall_fleet"
MOST_BYTES = 7_900
"""NOTIFY takes less than 8,000 bytes."""
LOOK_SECONDS = 5.0
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Ears:
    """Called from the bus's thread: the ledger grew; a replica said something, maybe this one; the
    connection is there (again)."""

    grew: Callable[[], None]
    heard: Callable[[str], None]
    up: Callable[[], None]


def deaf() -> Refusal:
    return Refusal(
        Kind.UNAVAILABLE,
        "BUS_DOWN",
        "this coordinator cannot hear the others on its database: dial again in a moment",
    )


class Bus(Protocol):
    def open(self, ears: Ears) -> None: ...

    def say(self, payload: str) -> None:
        """To every replica, this one too, soon; not at all while the connection is down. All hear
        what is said in the same order."""

    def number(self, note: Callable[[int], str]) -> int:
        """A number of its own; larger ones are given later. Every replica hears `note` of it.
        Raises Refusal while none can be heard, or where the store says no."""

    def is_up(self) -> bool:
        """Whether it says and hears."""

    def close(self) -> None:
        """After what was said went out."""


def bus_of(store: Store) -> Bus:
    return PostgresBus(store) if store.dialect == "postgresql" else NoBus()


class NoBus:
    """One program alone: it counts for itself."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def open(self, ears: Ears) -> None:
        self._ears = ears

    def say(self, payload: str) -> None:
        self._ears.heard(payload)

    def is_up(self) -> bool:
        return True

    def number(self, note: Callable[[int], str]) -> int:
        number = next(self._numbers)
        self._ears.heard(note(number))
        return number

    def close(self) -> None:
        pass


class PostgresBus:
    """A thread with a connection that listens, and says what was put into its outbox."""

    def __init__(self, store: Store) -> None:
        self._store, self._engine = store, store.engine
        self._outbox: deque[str] = deque()
        self._up = False
        self._stopping = threading.Event()
        self._wakes, self._waker = socket.socketpair()
        self._wakes.setblocking(False)
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="bus", daemon=True)

    def open(self, ears: Ears) -> None:
        self._ears = ears
        self._thread.start()

    def is_up(self) -> bool:
        return self._up

    def say(self, payload: str) -> None:
        if self._up:
            self._outbox.append(payload)
            self._wake()

    def number(self, note: Callable[[int], str]) -> int:
        """The id of a transaction: it only grows, and no other replica gets the same. Committed
        notifications come in one order to everybody."""
        if not self._up:
            raise deaf()
        with self._store.failures(), self._engine.begin() as connection:
            own = select(cast(cast(func.pg_current_xact_id(), Text), BigInteger))
            number: int = connection.execute(own).scalar_one()
            connection.execute(select(func.pg_notify(FLEET, note(number))))
        return number

    def close(self) -> None:
        self._stopping.set()
        self._wake()
        self._thread.join(timeout=2 * RETRY_SECONDS)
        self._wakes.close()
        self._waker.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it has been woken often enough
            self._waker.send(b"\0")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._session()
            except (psycopg.Error, exc.SQLAlchemyError, OSError) as error:
                first = (str(error).splitlines() or [type(error).__name__])[0]
                log.warning("bus down, trying again", extra={"problem": first})
            except Exception:  # a defect in what listens must not make this replica deaf
                log.exception("bus down, trying again")
            self._up = False
            self._stopping.wait(random.uniform(RETRY_SECONDS / 2, RETRY_SECONDS))  # noqa: S311 - no secret

    def _session(self) -> None:
        held = self._engine.raw_connection()
        held.detach()
        connection = held.dbapi_connection
        assert isinstance(connection, psycopg.Connection)
        with contextlib.closing(connection):
            connection.autocommit = True
            self._talk(connection)

    def _talk(self, connection: psycopg.Connection) -> None:
        connection.execute(f"LISTEN {LEDGER}")
        connection.execute(f"LISTEN {FLEET}")
        self._outbox.clear()
        self._up = True
        log.info("bus up")
        self._ears.up()
        with selectors.DefaultSelector() as ready:
            ready.register(connection, selectors.EVENT_READ)
            ready.register(self._wakes, selectors.EVENT_READ)
            while True:
                stopping = self._stopping.is_set()
                while self._outbox:
                    self._notify(connection, self._outbox.popleft())
                if stopping:
                    return
                self._hear(connection)
                ready.select(LOOK_SECONDS)
                self._slept()

    def _notify(self, connection: psycopg.Connection, note: str) -> None:
        """A note that PostgreSQL does not take is lost, and nothing else."""
        try:
            connection.execute("SELECT pg_notify(%s, %s)", (FLEET, note))
        except psycopg.DataError as error:
            log.error("a note cannot be said", extra={"problem": str(error).partition("\n")[0]})

    def _hear(self, connection: psycopg.Connection) -> None:
        grew = False
        for note in connection.notifies(timeout=0):
            if note.channel == LEDGER:
                grew = True
            else:
                self._ears.heard(note.payload)
        if grew:
            self._ears.grew()

    def _slept(self) -> None:
        with contextlib.suppress(BlockingIOError):  # all wakes are taken
            while self._wakes.recv(4096):
                pass
