"""SQLite files as files: a whole copy of one that is in use, and one that nobody uses settled."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path

from housecall.errors import Kind, Refusal
from housecall.files import sync


def copy_database(source: Path, target: Path) -> None:
    """One moment of `source`, 0600, complete or absent, whoever writes to it meanwhile. Refuses
    STORE_UNREADABLE; raises OSError where there is no room for it."""
    unfinished = target.with_name(f"{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    try:
        with (
            contextlib.closing(sqlite3.connect(_only_read(source), uri=True)) as read,
            contextlib.closing(sqlite3.connect(unfinished)) as written,
        ):
            read.backup(written)
    except sqlite3.DatabaseError as error:
        unfinished.unlink()
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target.parent)) from error
        raise Refusal(
            Kind.UNAVAILABLE, "STORE_UNREADABLE", f"cannot copy the store at {source} ({error})"
        ) from error
    sync(unfinished)
    unfinished.replace(target)
    sync(target.parent)


def _only_read(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"


def settle(path: Path) -> None:
    """Make one that nobody uses a single file, which a read-only medium can hold; on the disk."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    sync(path)
