"""When the store was backed up: the one table that no entry of the ledger makes.

So it is none of the models: the check at a start, `rebuild` and `restore` pass it over.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Column, MetaData, Table, insert, select

from coordinator.models import NUMBER, UtcDateTime
from coordinator.store.databases import WRITES
from coordinator.store.engine import Store
from coordinator.store.reader import Reader

BACKUPS = MetaData()
_backup = Table(
    "backup",
    BACKUPS,
    Column("taken_at", UtcDateTime, primary_key=True),
    Column("ledger_size", NUMBER, nullable=False),
)
CLOCKS_DIFFER = timedelta(minutes=5)


class Backup(NamedTuple):
    """One that is complete: when it was begun, and how many entries it has."""

    taken_at: datetime
    ledger_size: int


def note_backup(store: Store, backup: Backup) -> None:
    """For every coordinator on this store to tell. Raises Refusal."""
    engine = store.engine.execution_options(**{WRITES: True})
    with store.failures(), engine.begin() as connection:
        connection.execute(insert(_backup), backup._asdict())


def last_backup(reader: Reader, now: datetime) -> Backup | None:
    """The one with the most entries. One of a clock that was ahead says nothing of its age, and
    does not count; those of two machines may differ a little."""
    taken_at, size = _backup.c.taken_at, _backup.c.ledger_size
    believed = select(_backup).where(taken_at <= now + CLOCKS_DIFFER)
    row = reader.session.execute(believed.order_by(size.desc(), taken_at.desc()).limit(1)).first()
    return Backup(*row) if row else None
