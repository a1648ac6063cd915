"""Saving a journal that cannot be read: what its whole pages hold, written over the last backup.

The damaged file is copied before it is opened and kept beside the new one. What neither it nor the
backup holds is made again: orders come again with the next Welcome, and a statement that is sent
again gets the same receipt. Numbers that may have been given out are not given out again, so that
no folder or container of lost work is taken for another's.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.journal_file import BACKUP, is_lost, open_journal
from housecall.errors import Kind, Refusal

SIDE_FILES = ("-wal", "-shm")
NUMBERS_SKIPPED = 1000
MOST_BYTES = 2**40


@dataclass(frozen=True)
class Salvaged:
    """Rows read from the damaged journal, by table; whether a backup lay below; what was kept."""

    rows: dict[str, int]
    backup: bool
    damaged: Path


def salvage(path: Path) -> Salvaged:
    """Replace the damaged journal at `path`; refuses with JOURNAL_WHOLE when it can be opened, and
    with the refusals of `open_journal` when something else is wrong with it."""
    backup = path.with_name(BACKUP)
    _require_damaged(path)
    path.touch(mode=0o600)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="salvage-") as folder:
        copied, made = Path(folder) / path.name, Path(folder) / "new.sqlite"
        for suffix in ("", *SIDE_FILES):
            if path.with_name(path.name + suffix).exists():
                shutil.copy2(path.with_name(path.name + suffix), Path(f"{copied}{suffix}"))
        _lengthen(copied)
        based = _based_on(backup, made)
        with closing(open_journal(made)) as target:
            rows = {table: _copy(copied, target, table) for table in _tables(target)}
            _skip_numbers(target, _given_out(path.with_name("executions")))
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            target.execute("PRAGMA journal_mode=DELETE")
        damaged = _set_aside(path)
        made.replace(path)
    return Salvaged(rows, based, damaged)


def _require_damaged(path: Path) -> None:
    if not path.exists() and not is_lost(path):
        raise Refusal(
            Kind.NOT_FOUND, "JOURNAL_MISSING", f"{path.name}: expected a journal, got none"
        )
    try:
        open_journal(path).close()
    except Refusal as refusal:
        if refusal.code != "JOURNAL_DAMAGED":
            raise
        return
    raise Refusal(
        Kind.CONFLICT, "JOURNAL_WHOLE", f"{path.name}: expected a damaged journal, got a whole one"
    )


def _lengthen(copied: Path) -> None:
    """To the size that its header names: SQLite reads nothing of a file that is cut short."""
    with copied.open("r+b") as file:
        head = file.read(100)
        page_size = int.from_bytes(head[16:18], "big")
        pages = int.from_bytes(head[28:32], "big")
        wanted = (65536 if page_size == 1 else page_size) * pages
        if copied.stat().st_size < wanted <= MOST_BYTES:
            file.truncate(wanted)


def _based_on(backup: Path, made: Path) -> bool:
    """Whether the backup, if there is one, is whole; the new journal begins as a copy of it."""
    if not backup.is_file():
        return False
    shutil.copy2(backup, made)
    try:
        open_journal(made).close()
    except Refusal:
        made.unlink()
        return False
    return True


def _tables(db: sqlite3.Connection) -> list[str]:
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [row["name"] for row in db.execute(sql)]


def _copy(damaged: Path, target: sqlite3.Connection, table: str) -> int:
    """Rows from either end, up to where it is damaged."""
    found: dict[int, sqlite3.Row] = {}
    with closing(sqlite3.connect(damaged)) as source:
        source.row_factory = sqlite3.Row
        for order in ("ASC", "DESC"):
            with suppress(sqlite3.DatabaseError):
                for row in _rows(source, table, order):
                    found[row["rowid_"]] = row
    known = {row["name"] for row in target.execute(f"PRAGMA table_info({table})")}
    for _, row in sorted(found.items()):
        names = [name for name in row.keys() if name in known]  # noqa: SIM118 - a Row, not a dict
        marks = ", ".join("?" * len(names))
        sql = f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({marks})"  # noqa: S608
        with suppress(sqlite3.IntegrityError):
            target.execute(sql, [row[name] for name in names])
    return len(found)


def _rows(source: sqlite3.Connection, table: str, order: str) -> Iterator[sqlite3.Row]:
    sql = f"SELECT rowid AS rowid_, * FROM {table} ORDER BY rowid {order}"  # noqa: S608 - own names
    yield from source.execute(sql)


def _given_out(executions: Path) -> int:
    """The highest number that a folder of an execution has."""
    found = executions.iterdir() if executions.is_dir() else ()
    return max((int(each.name) for each in found if each.name.isdigit()), default=0)


def _skip_numbers(target: sqlite3.Connection, given_out: int) -> None:
    """Steps of executions that are lost would be taken for those of the next ones."""
    target.execute(
        "DELETE FROM steps WHERE owner LIKE 'execution:%' AND "
        "CAST(substr(owner, 11) AS INTEGER) NOT IN (SELECT id FROM executions)"
    )
    target.execute("DELETE FROM orders WHERE local_id NOT IN (SELECT id FROM executions)")
    for table in ("executions", "outbox"):
        row = target.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        most = max(given_out, row["seq"] if row else 0) + NUMBERS_SKIPPED
        target.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        target.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, most))


def _set_aside(path: Path) -> Path:
    number = 1
    while (damaged := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.replace(damaged)
    for suffix in SIDE_FILES:
        side = path.with_name(path.name + suffix)
        if side.exists():
            side.replace(damaged.with_name(damaged.name + suffix))
    return damaged
