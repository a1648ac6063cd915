"""Whole tables: read in the order of their keys, compared, and copied from one store to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Table, delete, insert, select
from sqlmodel import SQLModel

from coordinator.store.reader import Reader
from coordinator.store.writer import Writer

PAGE = 500
Row = Sequence[Any]


def differences(one: Reader, other: Reader) -> list[str]:
    """One line a table whose rows differ."""
    found = []
    for table in SQLModel.metadata.sorted_tables:
        if count := _differing(one, other, table):
            found.append(f"{table.name}: {count} rows differ")
    return found


def copy(source: Reader, target: Writer) -> None:
    """What `target` has gives way to what `source` has; the caller commits."""
    for table in SQLModel.metadata.sorted_tables:
        target.session.execute(delete(table))
        rows = _rows(source, table)
        while page := [row._asdict() for row in islice(rows, PAGE)]:
            target.session.execute(insert(table), page)


def _rows(reader: Reader, table: Table) -> Iterator[Any]:
    query = select(table).order_by(*table.primary_key).execution_options(yield_per=PAGE)
    return iter(reader.session.execute(query))


def _differing(one: Reader, other: Reader, table: Table) -> int:
    """Both come in the same order on every database; a row that is changed counts once."""
    names = [column.name for column in table.primary_key]
    rows, others = _rows(one, table), _rows(other, table)
    row, its = next(rows, None), next(others, None)
    count = 0
    while row is not None or its is not None:
        key = _key(row, names)
        other_key = _key(its, names)
        count += row != its
        if other_key is None or (key is not None and key <= other_key):
            row = next(rows, None)
        if key is None or (other_key is not None and other_key <= key):
            its = next(others, None)
    return count


def _key(row: Any, names: list[str]) -> tuple[Any, ...] | None:
    return None if row is None else tuple(getattr(row, name) for name in names)
