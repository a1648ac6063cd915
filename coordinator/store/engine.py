"""The database behind an SQLAlchemy URL, and its sessions: SQLite or PostgreSQL, the same store."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Engine, event, exc
from sqlmodel import Session

from coordinator.store import schema
from coordinator.store.connections import Connections
from coordinator.store.databases import exists, make_file, open_engine, parse_url, place
from coordinator.store.failures import refusal_for
from coordinator.store.reader import Reader
from coordinator.store.writer import Writer
from housecall.errors import Kind, Refusal

log = logging.getLogger(__name__)

SLOW_SECONDS = 10.0
"""A database that keeps somebody waiting for longer does not answer."""


class Database:
    """An engine, and what its failures mean; `Store` adds the sessions over the newest schema."""

    def __init__(self, url: str) -> None:
        self.url: URL = parse_url(url)
        self.place = place(self.url)
        self.engine: Engine = open_engine(self.url)
        self._connections = Connections(self.engine)
        self._lost = False

    def refusal(self, error: BaseException) -> Refusal | None:
        """What a failure of this database means to a caller; None for a defect."""
        refusal = refusal_for(error, self.place)
        if refusal and refusal.code == "STORE_UNREACHABLE" and not self._lost:
            self._lost = True
            log.error("store lost", extra={"place": self.place, "reason": refusal.message})
        return refusal

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """Failures of the database inside are refusals."""
        try:
            yield
        except (exc.SQLAlchemyError, OverflowError) as error:
            refusal = self.refusal(error)
            if refusal is None:
                raise
            raise refusal from error
        if self._lost:
            self._lost = False
            log.info("store back", extra={"place": self.place})

    def found_schema(self) -> str:
        """The revision of its schema; nothing where it has no tables."""
        if not exists(self.url):
            return ""
        with self.failures(), self.engine.connect() as connection:
            return schema.found(connection)

    def check_file(self) -> None:
        """Refuses STORE_UNREADABLE where an SQLite file or one of its indexes is damaged."""
        if self.dialect != "sqlite":
            return
        with self.failures(), self.engine.connect() as connection:
            said = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
        if said != "ok":
            raise Refusal(
                Kind.UNAVAILABLE,
                "STORE_UNREADABLE",
                f"the store at {self.place} is damaged ({said}): restore a backup",
            )

    def check_writable(self) -> None:
        """Refuses STORE_UNREADABLE where an SQLite file can only be read: SQLite itself says so at
        the first write, and not before."""
        if self.dialect == "sqlite" and not os.access(self.place, os.R_OK | os.W_OK):
            raise Refusal(
                Kind.UNAVAILABLE,
                "STORE_UNREADABLE",
                f"cannot write to the store at {self.place}: give it to the user that the "
                "coordinator runs as",
            )

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.engine.dialect.name

    def check_answers(self) -> None:
        """Refuses STORE_SLOW while its server keeps somebody waiting for long; SQLite has none."""
        waited = self._connections.longest_wait()
        if waited > SLOW_SECONDS:
            raise Refusal(
                Kind.UNAVAILABLE,
                "STORE_SLOW",
                f"the store at {self.place} has not answered for {waited:.0f} s: it hangs, or a "
                "COMMIT waits for its standby",
            )

    def hang_up(self) -> None:
        """Whoever waits for a database that does not answer gets a no, now and from now on; SQLite
        answers."""
        self._connections.hang_up()

    def close(self) -> None:
        self.engine.dispose()
        self.hang_up()


class Store(Database):
    """The database at an SQLAlchemy URL, as `sqlite:////var/lib/.../coordinator.db`.

    Refuses STORE_EMPTY, STORE_OLDER or STORE_NEWER where its schema is not the newest, and
    STORE_UNREACHABLE or STORE_UNREADABLE where it does not answer.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        with self._closing_if_refused():
            schema.check(self.found_schema(), self.place)
        self._open_sessions()

    @classmethod
    def create(cls, url: str) -> Store:
        """The store at `url`, given its tables where it has none."""
        store = cls.__new__(cls)
        Database.__init__(store, url)
        make_file(store.url)
        with store._closing_if_refused():
            with store.failures(), schema.alone(store.engine) as connection:
                found = schema.found(connection)
                if not found:
                    schema.upgrade(connection, found)
            schema.check(store.found_schema(), store.place)
        store._open_sessions()
        return store

    @contextlib.contextmanager
    def _closing_if_refused(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _open_sessions(self) -> None:
        self._nodes: dict[tuple[int, int], bytes] = {}
        # Behind a new connection may be a server that lost the last commits.
        event.listen(self.engine, "connect", lambda *_: self._nodes.clear())
        moment = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        newest = {"isolation_level": "READ COMMITTED"}
        postgresql = self.dialect == "postgresql"
        self._readers = self.engine.execution_options(**moment if postgresql else {})
        self._writers = self.engine.execution_options(**newest if postgresql else {})

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        """A session that sees one moment of the store, whatever is appended meanwhile."""
        with self.failures(), Session(self._readers) as session:
            yield Reader(session, self._nodes)

    def writer(self) -> Writer:
        """The one writer's session: it sees its own rows before they are committed."""
        return Writer(Session(self._writers, autoflush=False), self._nodes)


@dataclass(frozen=True)
class Migrated:
    """What `migrate` did; `copy` is the SQLite file as it was before."""

    before: str
    after: str
    copy: Path | None


def migrate(url: str) -> Migrated:
    """Give the store at `url` the newest schema, in one transaction."""
    with contextlib.closing(Database(url)) as database:
        before, copy = database.found_schema(), None
        if not schema.RELEASED <= before < schema.SCHEMA:
            schema.check(before, database.place)
        with database.failures(), schema.alone(database.engine) as connection:
            before = schema.found(connection)
            if before < schema.SCHEMA:
                copy = schema.keep_copy(database.url, before)
                schema.upgrade(connection, before)
    return Migrated(before, schema.SCHEMA, copy)
