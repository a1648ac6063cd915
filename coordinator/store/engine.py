"""The database behind an SQLAlchemy URL, and its sessions.

SQLite runs in WAL mode with full synchronisation: a commit that was answered survives power loss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, exc, func
from sqlmodel import Session, SQLModel, create_engine, select

from coordinator.models import SchemaVersion
from coordinator.store.reader import Reader
from coordinator.store.writer import Writer
from housecall.errors import Kind, Refusal

SCHEMA = 1


def _tune_sqlite(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


class Store:
    """The database at an SQLAlchemy URL, as `sqlite:////var/lib/.../coordinator.db`."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            if self.engine.url.database:
                Path(self.engine.url.database).touch(mode=0o600)
                Path(self.engine.url.database).chmod(0o600)
            event.listen(self.engine, "connect", _tune_sqlite)
        try:
            SQLModel.metadata.create_all(self.engine)
        except exc.DatabaseError as error:
            raise Refusal(
                Kind.UNAVAILABLE, "STORE_UNREADABLE", f"cannot open the store: {error.orig}"
            ) from error
        self._check_version()

    def _check_version(self) -> None:
        with Session(self.engine) as session:
            found = session.exec(select(func.max(SchemaVersion.version))).one()
            if found is None:
                session.add(SchemaVersion(version=SCHEMA))
                session.commit()
            elif found != SCHEMA:
                raise Refusal(
                    Kind.NOT_READY,
                    "STORE_VERSION",
                    f"the store has schema {found}, this program expects {SCHEMA}: start the "
                    "version of housecall-coordinator that wrote it",
                )

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        with Session(self.engine) as session:
            yield Reader(session)

    def writer(self) -> Writer:
        """The one writer's session: it sees its own rows before they are committed."""
        return Writer(Session(self.engine, autoflush=False))

    def close(self) -> None:
        self.engine.dispose()
