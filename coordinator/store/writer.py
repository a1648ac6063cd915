"""The one session that writes: rows of a batch, seen by the batch's later questions.

Rows that were found or added in a batch are held by key, so that a key is asked of the database
once a batch; other questions write pending rows out first. `end` forgets everything.

Between `begin` and `commit` nobody else appends to the same database: that is what keeps indexes
and ids consecutive where several coordinators share one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, insert, inspect
from sqlmodel import Session, SQLModel, select

from coordinator.models import LedgerEntry
from coordinator.store.databases import WRITES
from coordinator.store.reader import Reader, Row
from coordinator.store.schema import APPENDING

CHANNEL = "housecall_ledger"
"""Where PostgreSQL tells every coordinator the size that the tree grew to."""


class Writer(Reader):
    """Used by the notary's thread only."""

    def __init__(self, session: Session, nodes: dict[tuple[int, int], bytes] | None = None) -> None:
        super().__init__(session, nodes)
        self._held: dict[tuple[type[SQLModel], Any], SQLModel] = {}
        self._next_ids: dict[type[SQLModel], int] = {}
        self._pending = False
        self._grown_to = 0

    def begin(self) -> None:
        """Wait for the turn to append; it lasts until `commit`, `end` or `abandon`."""
        connection = self.session.connection(execution_options={WRITES: True})
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(APPENDING)))

    def find(self, table: type[Row], key: Any) -> Row | None:
        held = self._held.get((table, key))
        if held is not None:
            return held  # type: ignore[return-value]
        row = self.session.get(table, key)
        if row is not None:
            self._held[table, key] = row
        return row

    @property
    def ask(self) -> Session:
        """The session with everything pending written out, so that queries see it."""
        if self._pending:
            self.session.flush()
            self._pending = False
        return self.session

    def next_id(self, table: type[Any], count: int = 1) -> int:
        """The first of `count` new ids: one more than the largest; counted on within a batch."""
        if table not in self._next_ids:
            self._next_ids[table] = self.ask.exec(select(func.max(table.id))).one() or 0
        self._next_ids[table] += count
        return self._next_ids[table] - count + 1

    def add(self, *rows: SQLModel) -> None:
        """New or changed rows, written with the batch or before the next question needs them."""
        for row in rows:
            key = inspect(type(row)).primary_key_from_instance(row)
            self._held[type(row), key[0] if len(key) == 1 else tuple(key)] = row
        self.session.add_all(rows)
        self._pending = True

    def hold(self, row: SQLModel, key: Any) -> None:
        """A row that `insert` writes later: found by its key meanwhile."""
        self._held[type(row), key] = row

    def insert(self, table: type[SQLModel], rows: list[dict[str, Any]]) -> None:
        """Many rows at once, past the ORM: the hot path."""
        if rows:
            self.session.execute(insert(table), rows)
        if rows and table is LedgerEntry:
            self._grown_to = rows[-1]["ledger_index"] + 1

    def commit(self) -> None:
        """Durable when it returns. Where it fails the outcome may be unknown: ask again by digest
        after the next `begin`, which waits until it is decided."""
        if self._grown_to and self.session.get_bind().dialect.name == "postgresql":
            told = func.pg_notify(CHANNEL, str(self._grown_to))
            # A timeout here would cut short a commit that waits for its standby.
            patient = func.set_config("statement_timeout", "0", True)
            self.session.execute(select(told, patient))
        self.session.commit()
        self._grown_to = 0

    def end(self) -> None:
        """After a batch: end the transaction and forget what was held."""
        self.session.rollback()
        self.session.expunge_all()
        self._held.clear()
        self._next_ids.clear()
        self._pending = False
        self._grown_to = 0

    def abandon(self) -> None:
        """After a failure: drop the connection, and with it whatever it was about."""
        self.session.invalidate()

    def close(self) -> None:
        self.session.close()
