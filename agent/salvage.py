"""Saving a journal that cannot be read: what its whole pages hold, written over the last backup.

The damaged file gets a second name first, and is read from a copy. The new journal takes its place
in one move: a salvage that is cut off begins again with all that there was. While its log is taken
away, a note stands in its place that no agent can open: it names the damaged file. What neither the
damaged file nor the backup holds is made again: orders come again with the next Welcome, statements
of this site with the news, and one that is sent again gets the same receipt. Numbers that may have
been given out are not given out again, so that no folder or container of lost work is taken for
another's.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.journal_file import BACKUP, SQLITE_MAGIC, is_lost, missing, open_journal
from agent.journal_schema import SCHEMA_VERSION
from housecall.errors import Kind, Refusal
from housecall.files import sync

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
    backup, damaged = path.with_name(BACKUP), _set_aside_before(path)
    if damaged is None:
        _require_damaged(path)
        path.touch(mode=0o600)
        damaged = _set_aside(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="salvage-") as folder:
        copied, made = Path(folder) / path.name, Path(folder) / "new.sqlite"
        for suffix in ("", *SIDE_FILES):
            if Path(f"{damaged}{suffix}").exists():
                shutil.copy2(f"{damaged}{suffix}", f"{copied}{suffix}")
        _lengthen(copied)
        based = _based_on(backup, made)
        with closing(open_journal(made)) as target:
            rows = {table: _copy(copied, target, table) for table in _tables(target)}
            _keep_schema(target)
            _recall(target)
            _skip_numbers(target, _given_out(path.with_name("executions")))
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            target.execute("PRAGMA journal_mode=DELETE")
        _replace(path, made, damaged)
    return Salvaged(rows, based, damaged)


def _require_damaged(path: Path) -> None:
    if not path.exists() and not is_lost(path):
        raise missing(path)
    try:
        open_journal(path).close()
    except Refusal as refusal:
        if refusal.code != "JOURNAL_DAMAGED":
            raise
        return
    raise Refusal(
        Kind.CONFLICT,
        "JOURNAL_WHOLE",
        f"{path}: expected a damaged journal, got a whole one; `housecall-agent serve`",
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


def _keep_schema(target: sqlite3.Connection) -> None:
    """The tables are the newest ones; among the rows is the schema that the damaged ones had."""
    sql = "INSERT OR REPLACE INTO facts VALUES ('schema_version', ?)"
    target.execute(sql, (str(SCHEMA_VERSION),))


def _recall(target: sqlite3.Connection) -> None:
    """News come from the first one on: they tell what was accepted and is lost (`recall.py`)."""
    target.execute("DELETE FROM facts WHERE name = 'cursor'")
    target.execute("INSERT OR REPLACE INTO facts VALUES ('recalls', '1')")


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


def _set_aside_before(path: Path) -> Path | None:
    """What the note in the journal's place names, from a salvage that was cut off."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(1000)
    found = path.parent.glob(f"{path.name}.damaged-*")
    return next((each for each in found if head == _note(each)), None)


def _note(damaged: Path) -> bytes:
    """Refused by `open_journal` as damaged."""
    return bytes(len(SQLITE_MAGIC)) + damaged.name.encode()


def _set_aside(path: Path) -> Path:
    """The same files under a second name; that of the journal itself comes last. A name that it has
    already is used again, with the log of now: it may have been in use since."""
    number = 1
    while (damaged := path.with_name(f"{path.name}.damaged-{number}")).exists():
        if damaged.samefile(path):
            break
        number += 1
    for suffix in (*SIDE_FILES, ""):
        side = Path(f"{path}{suffix}")
        Path(f"{damaged}{suffix}").unlink(missing_ok=True)
        if side.exists():
            os.link(side, f"{damaged}{suffix}")
    sync(path.parent)
    return damaged


def _replace(path: Path, made: Path, damaged: Path) -> None:
    """In one move, once no log of the damaged journal can be taken for one of the new journal's.
    Without its log the damaged one might be opened: the note takes its place first."""
    note = made.with_name("note")
    note.write_bytes(_note(damaged))
    for ready in (note, made):
        sync(ready)
    note.replace(path)
    sync(path.parent)
    for suffix in SIDE_FILES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    made.replace(path)
    sync(path.parent)
