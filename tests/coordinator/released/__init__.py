"""Stores that released versions wrote, as SQL: 26 entries, from enrolments to a revocation."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from alembic import command
from sqlalchemy import insert, table, text
from sqlalchemy.sql import column

from coordinator.store.databases import open_engine, parse_url
from coordinator.store.schema import RELEASED, alembic_config

FOLDER = Path(__file__).parent
Rows = dict[str, list[tuple[object, ...]]]


def sqlite_file(path: Path) -> None:
    """The store of schema 1, as it was left."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript((FOLDER / "schema-1.sql").read_text(encoding="utf-8"))


def rows(path: Path) -> Rows:
    """Every row of every table, sorted."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: sorted(database.execute(f"SELECT * FROM {name}")) for (name,) in tables.fetchall()
        }


def fill_postgresql(url: str, source: Path) -> None:
    """What the same version would have written to PostgreSQL."""
    engine = open_engine(parse_url(url))
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), RELEASED)
        connection.execute(text("DROP TABLE alembic_version"))
        with contextlib.closing(sqlite3.connect(source)) as database:
            database.row_factory = sqlite3.Row
            for name in rows(source):
                for row in database.execute(f"SELECT * FROM {name}"):
                    values = dict(row)
                    if name == "benchmark":
                        values["allow_partial_results"] = bool(values["allow_partial_results"])
                    into = insert(table(name, *map(column, values)))
                    connection.execute(into, values)
    engine.dispose()
