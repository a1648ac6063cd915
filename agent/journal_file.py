"""The journal as a file: opened only when it is ours and whole, brought to the newest schema in one
transaction, copied while it is in use.

    JOURNAL_NEWER      a newer agent wrote it
    JOURNAL_FOREIGN    another program's database, or no database at all
    SITE_DIFFERS       it is another site's
    JOURNAL_OLDER      an older agent wrote it, and may be running: only `serve` brings it on
    JOURNAL_MISSING    it is not there, and `serve` alone makes one
    JOURNAL_DAMAGED    it is cut off, its pages contradict each other, or it is gone
    JOURNAL_UNUSABLE   the disk does not let it be read or written now, or another program holds it
    DISK_FULL          there is no room to open it

Nothing is written before these are ruled out, so that what is refused stays as it is. The tables
are in `journal_schema.py`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from agent.disk import disk_full, is_full
from agent.journal_schema import APPLICATION_ID, SCHEMA_VERSION, migrate
from housecall.errors import Kind, Refusal

SQLITE_MAGIC = b"SQLite format 3\0"
BACKUP = "journal.backup"
BESIDE = ("datasets", "executions")
"""Folders with a folder of each thing that a journal told of."""
FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
"""What SQLite says of a full disk: of its files, and of the index of its log."""
_DISK = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def open_journal(path: Path) -> sqlite3.Connection:
    """A connection to the journal at `path`, made when it is not there; 0600. Raises `Refusal`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_file(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        with _told(path):
            version = _examined(db, path)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            migrate(db, version)
    except BaseException:
        db.close()
        raise
    return db


def schema_of(path: Path) -> int:
    """Of the journal at `path`, read and left as it is; 0 where the first start will make one.
    Raises `Refusal` as `open_journal` does."""
    _require_file(path)
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db, _told(path):
        return _examined(db, path)


def site_of(path: Path) -> str:
    """Whose journal it is, as its agent noted at its first use; "" where it does not say, is not
    there, or cannot be read."""
    if not path.is_file():
        return ""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
    ):
        row = db.execute("SELECT value FROM facts WHERE name = 'site'").fetchone()
        return str(row[0]) if row else ""
    return ""


def require_site(path: Path, site: str) -> None:
    """Refuses with SITE_DIFFERS where it is another site's: its orders and statements are not of
    this one."""
    if (found := site_of(path)) not in ("", site):
        raise Refusal(
            Kind.CONFLICT,
            "SITE_DIFFERS",
            f"{path}: expected the journal of {site}, got that of {found}; restore the identity of "
            f"{found} in {path.parent / 'identity'}, or name another folder for {site} by the "
            "setting state_dir, and enrol there",
        )


def is_held(error: BaseException) -> bool:
    """SQLite says that another program writes to it, and went on for longer than it waits."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def require_served(path: Path) -> None:
    """For who writes beside an agent: the journal is there, and of the schema that this program
    writes. Refuses, and leaves it as it is, so that no agent of an older version finds its journal
    changed under it. Raises OSError where it may not be written, and `Refusal` as `open_journal`
    does."""
    if path.is_file():
        os.close(os.open(path, os.O_RDWR))
    if not (version := schema_of(path)):
        raise missing(path)
    if version < SCHEMA_VERSION:
        raise Refusal(
            Kind.NOT_READY,
            "JOURNAL_OLDER",
            f"{path}: expected schema version {SCHEMA_VERSION}, got {version}: an older agent "
            "wrote it; restart the agent first, which brings it on",
        )


def missing(path: Path) -> Refusal:
    """There is no journal, and there was none."""
    return Refusal(
        Kind.NOT_FOUND,
        "JOURNAL_MISSING",
        f"{path}: expected a journal, got none; is the setting state_dir right, which says "
        f"{path.parent}? The agent's first start makes the journal",
    )


def is_lost(path: Path) -> bool:
    """There was a journal: it left traces, and is gone."""
    gone = not path.exists() or (path.is_file() and not path.stat().st_size)
    return gone and bool(_traces(path.parent))


def copy_journal(db: sqlite3.Connection, target: Path) -> None:
    """A whole copy at `target`, complete or absent, while the journal is in use."""
    made = target.with_name(f"{target.name}.part")
    os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    try:
        with closing(sqlite3.connect(made)) as copy:
            db.backup(copy)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(target)
    except BaseException:  # on a full disk what is half made is in the way of what is needed
        for left in (made, made.with_name(f"{made.name}-journal")):
            left.unlink(missing_ok=True)
        raise


def _traces(folder: Path) -> str:
    """What beginning anew would forget, or write over: the backup, datasets and executions."""
    if (folder / BACKUP).is_file():
        return BACKUP
    found = [name for name in BESIDE if any((folder / name).glob("[0-9]*"))]
    return " and ".join(found)


def _require_file(path: Path) -> None:
    if is_lost(path):
        raise _damaged(path, f"nothing, beside {_traces(path.parent)}")
    if not path.exists():
        return
    if not path.is_file():
        raise _foreign(path, "a folder" if path.is_dir() else "no regular file")
    with path.open("rb") as file:
        head = file.read(len(SQLITE_MAGIC))
    if head and not any(head):
        raise _damaged(path, "zeros")
    if head and head != SQLITE_MAGIC:
        raise _foreign(path, "a file of another kind")


def _examined(db: sqlite3.Connection, path: Path) -> int:
    """Its schema, when it is whole and ours."""
    db.row_factory = sqlite3.Row
    (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise _damaged(path, str(said).splitlines()[-1])
    return _version(db, path)


def _version(db: sqlite3.Connection, path: Path) -> int:
    """0 of an empty file. Schema 1 had no application id, but its version among its facts."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    tables = {row["name"] for row in db.execute("SELECT name FROM sqlite_master")}
    if not tables and application in (0, APPLICATION_ID):
        return 0
    if "facts" not in tables or application not in (0, APPLICATION_ID):
        raise _foreign(path, f"a database with application id {application}")
    row = db.execute("SELECT value FROM facts WHERE name = 'schema_version'").fetchone()
    if row is None or not str(row["value"]).isdigit():
        raise _foreign(path, "a database without a schema version")
    version = int(row["value"])
    if version > SCHEMA_VERSION:
        raise Refusal(
            Kind.NOT_READY,
            "JOURNAL_NEWER",
            f"{path}: expected schema version {SCHEMA_VERSION} or older, got {version}: "
            "a newer agent wrote it; install that version again",
        )
    return version


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What SQLite says, as the refusal that it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = error.sqlite_errorcode & 0xFF  # the rest says which system call it was
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(path, str(error)) from error
        if error.sqlite_errorcode in FULL or (code in _DISK and is_full(path.parent)):
            raise disk_full() from error
        if code in (*_DISK, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY):
            raise unusable(path, str(error)) from error
        raise


def _foreign(path: Path, got: str) -> Refusal:
    return Refusal(
        Kind.CONFLICT,
        "JOURNAL_FOREIGN",
        f"{path}: expected an agent's journal, got {got}, and left it as it is; is the setting "
        f"state_dir right, which says {path.parent}? Where it is, move the file away, then "
        "`housecall-agent recover-journal`",
    )


def _damaged(path: Path, got: str) -> Refusal:
    return Refusal(
        Kind.CONFLICT,
        "JOURNAL_DAMAGED",
        f"{path}: expected a whole journal, got {got}, and left it as it is; stop the agent, "
        "then `housecall-agent recover-journal` saves what can be read, over the last backup",
    )


def unusable(path: Path, got: str) -> Refusal:
    """Now; it is whole."""
    return Refusal(
        Kind.UNAVAILABLE,
        "JOURNAL_UNUSABLE",
        f"{path}: expected to read and write it, got: {got}; see that the folder can be "
        "written, that no other program has the file open, and the kernel's log for the disk",
    )
