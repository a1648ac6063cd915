"""When the store was backed up: the one table that no entry of the ledger makes.

So it is none of the models: the check at a start, `rebuild` and `restore` pass it over.
"""

from __future__ import annotations

from datetime import datetime
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


class Backup(NamedTuple):
    """One that is complete: when it was begun, and how many entries it has."""

    taken_at: datetime
    ledger_size: int


def note_backup(store: Store, backup: Backup) -> None:
    """For every coordinator on this store to tell. Raises Refusal."""
    engine = store.engine.execution_options(**{WRITES: True})
    with store.failures(), engine.begin() as connection:
        connection.execute(insert(_backup), backup._asdict())


def last_backup(reader: Reader) -> Backup | None:
    newest = select(_backup).order_by(_backup.c.taken_at.desc()).limit(1)
    row = reader.session.execute(newest).first()
    return Backup(*row) if row else None
