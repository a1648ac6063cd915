"""What hashing has already found out, kept between processes in a SQLite file."""

from __future__ import annotations

# Paths are bytes here, as the file system holds them; pathlib has only text.
# ruff: noqa: PTH118
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from housecall.fingerprint.keys import key_stamp

_RACY_NS = 2_000_000_000

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class FingerprintCache:
    """Content digests of files by real path, size, mtime, ctime, inode and device (SQLite).

    Holds paths and no data: only its owner may read it. It is only ever a help: an unusable one is
    as good as none, a corrupt one is removed; each is logged. A file whose mtime or ctime lies
    within 2 s of its reading is not remembered, since a later change could leave both as they are.
    What was saved survives the end of the process at any point. Any thread or process may use it.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self.clock = clock

    def load(self, roots: Iterable[bytes]) -> dict[bytes, bytes]:
        """Content digest (hexadecimal) by key of every file at or below the real paths `roots`."""
        return self._attempt(lambda database: _select(database, roots), {})

    def save(self, digests: Mapping[bytes, bytes], started_ns: int) -> None:
        """Remember the digests of files whose reading began at `started_ns` or later."""
        latest = started_ns - _RACY_NS
        rows = [
            (key, digest, _checksum(key, digest))
            for key, digest in digests.items()
            if max(key_stamp(key)[1:3]) <= latest
        ]
        statement = "INSERT OR REPLACE INTO files VALUES (?, ?, ?)"
        if rows:
            self._attempt(lambda database: database.executemany(statement, rows), None)

    def forget(self, keys: Iterable[bytes]) -> None:
        """Drop what is no longer there."""
        rows = [(key,) for key in keys]
        statement = "DELETE FROM files WHERE key = ?"
        if rows:
            self._attempt(lambda database: database.executemany(statement, rows), None)

    def _attempt(self, action: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """Run `action` in a transaction, or give `otherwise` when the file is of no use."""
        try:
            with closing(self._connect()) as database, database:
                _prepare(database)
                return action(database)
        except OSError as error:
            _log.warning("fingerprint cache %s not used: %s", self.path, error)
        except (sqlite3.Error, TypeError) as error:
            if getattr(error, "sqlite_errorcode", None) in _PASSING:
                _log.warning("fingerprint cache %s not used: %s", self.path, error)
            else:
                _log.warning("fingerprint cache %s thrown away: %s", self.path, error)
                self._remove()
        return otherwise

    def _connect(self) -> sqlite3.Connection:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
        return sqlite3.connect(self.path)

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self.path}{suffix}").unlink()


_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
}
"""Errors that say nothing against the file itself."""

_FORMAT = 1


def _prepare(database: sqlite3.Connection) -> None:
    """A crash of the machine may lose the last rows (NORMAL), never the database."""
    database.execute("PRAGMA synchronous = NORMAL")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == _FORMAT:
        return
    if version != 0:
        raise sqlite3.DatabaseError(f"expected format {_FORMAT}, got {version}")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(
        "CREATE TABLE IF NOT EXISTS files "
        "(key BLOB PRIMARY KEY, digest BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID"
    )
    database.execute(f"PRAGMA user_version = {_FORMAT}")


def _select(database: sqlite3.Connection, roots: Iterable[bytes]) -> dict[bytes, bytes]:
    """Rows of each root itself (a file) and of what is below it, their checksums checked."""
    found: dict[bytes, bytes] = {}
    for root in roots:
        for start in (root + b"\0", os.path.join(root, b"")):
            end = start[:-1] + bytes([start[-1] + 1])
            query = "SELECT key, digest, checksum FROM files WHERE key >= ? AND key < ?"
            for key, digest, checksum in database.execute(query, (start, end)):
                if checksum != _checksum(key, digest):
                    raise sqlite3.DatabaseError("a row does not fit its checksum")
                found[key] = digest
    return found


def _checksum(key: bytes, digest: bytes) -> int:
    """SQLite does not notice a changed byte inside a row."""
    return zlib.crc32(digest, zlib.crc32(key))
