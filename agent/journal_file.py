"""The journal as a file: opened only when it is ours and whole, brought to the newest schema in one
transaction, copied while it is in use.

    JOURNAL_NEWER    a newer agent wrote it
    JOURNAL_FOREIGN  another program's database, or no database at all
    JOURNAL_DAMAGED  it is cut off, its pages contradict each other, or only its backup is there

Nothing is written before these are ruled out, so that what is refused stays as it is. What the
rows mean is left to `journal.py`.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from agent.disk import disk_full
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb

APPLICATION_ID = 0x48434A31  # "HCJ1"
SQLITE_MAGIC = b"SQLite format 3\0"
BACKUP = "journal.backup"
FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
"""What SQLite says of a full disk: of its files, and of the index of its log."""
_FIRST = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE executions (
  id INTEGER PRIMARY KEY AUTOINCREMENT, execution_id INTEGER NOT NULL,
  benchmark_id INTEGER NOT NULL, model_id INTEGER NOT NULL, model_digest TEXT NOT NULL,
  dataset_id TEXT NOT NULL, purpose TEXT NOT NULL, key TEXT NOT NULL,
  state TEXT NOT NULL, step TEXT NOT NULL,
  reason TEXT NOT NULL, problem TEXT NOT NULL, ignore_errors INTEGER NOT NULL,
  partial INTEGER NOT NULL, source_id INTEGER NOT NULL, result BLOB NOT NULL,
  created_at REAL NOT NULL, updated_at REAL NOT NULL, finished_at REAL NOT NULL);
CREATE INDEX executions_key ON executions (key);
CREATE TABLE orders (
  execution_id INTEGER PRIMARY KEY, bundle BLOB NOT NULL, line INTEGER NOT NULL,
  envelope_digest TEXT NOT NULL, requested_by TEXT NOT NULL, local_id INTEGER NOT NULL,
  outcome TEXT NOT NULL, UNIQUE (envelope_digest, line));
CREATE TABLE steps (
  owner TEXT NOT NULL, name TEXT NOT NULL, record BLOB NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (owner, name));
CREATE TABLE drafts (
  digest TEXT PRIMARY KEY, uid INTEGER NOT NULL, statements TEXT NOT NULL, effect TEXT NOT NULL,
  at REAL NOT NULL);
CREATE TABLE outbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, envelope_digest TEXT UNIQUE NOT NULL,
  envelope BLOB NOT NULL, kind TEXT NOT NULL, about TEXT NOT NULL, lane TEXT NOT NULL,
  state TEXT NOT NULL, refusal TEXT NOT NULL, receipt BLOB NOT NULL, id TEXT NOT NULL);
CREATE INDEX outbox_about ON outbox (about);
CREATE TABLE reviews (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, local_id INTEGER NOT NULL,
  since REAL NOT NULL, decision TEXT NOT NULL, UNIQUE (kind, local_id));
CREATE TABLE blobs (name TEXT PRIMARY KEY, value BLOB NOT NULL, at REAL NOT NULL);
"""
_STEPS_TAKEN_OVER = """
ALTER TABLE steps RENAME TO old_steps;
CREATE TABLE steps (
  owner TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, record BLOB NOT NULL,
  digest TEXT NOT NULL, container TEXT NOT NULL, tries INTEGER NOT NULL, code TEXT NOT NULL,
  problem TEXT NOT NULL, boot_id TEXT NOT NULL, boot_s REAL NOT NULL,
  gpus TEXT NOT NULL, bytes INTEGER NOT NULL,
  PRIMARY KEY (owner, name));
INSERT INTO steps
  SELECT owner, name, state_in(record), record, '', '', 1, '', '', '', 0, '', 0
  FROM old_steps ORDER BY at, rowid;
DROP TABLE old_steps;
ALTER TABLE outbox ADD COLUMN since REAL NOT NULL DEFAULT 0;
CREATE INDEX outbox_waiting ON outbox (lane) WHERE state = 'waiting';
"""
MIGRATIONS = (_FIRST, _STEPS_TAKEN_OVER)
"""Number n makes schema n of schema n - 1. A step under way in schema 1 begins again: it was not
written down which container is whose."""
SCHEMA_VERSION = len(MIGRATIONS)


def open_journal(path: Path) -> sqlite3.Connection:
    """A connection to the journal at `path`, made when it is not there; 0600. Raises `Refusal`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_not_lost(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with path.open("rb") as file:
        head = file.read(len(SQLITE_MAGIC))
    if head and head != SQLITE_MAGIC:
        raise _foreign(path, "a file of another kind")
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    db.row_factory = sqlite3.Row
    try:
        _require_whole(db, path)
        version = _version(db, path)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        _migrate(db, version)
    except sqlite3.DatabaseError as error:
        db.close()
        if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(path, str(error)) from error
        if error.sqlite_errorcode in FULL:
            raise disk_full() from error
        raise
    except Refusal:
        db.close()
        raise
    return db


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


def _require_not_lost(path: Path) -> None:
    """Beginning anew beside a backup would forget what was released, and write over the backup."""
    lost = not path.exists() or not path.stat().st_size
    if lost and path.with_name(BACKUP).is_file():
        raise _damaged(path, f"nothing, while {BACKUP} is there")


def _require_whole(db: sqlite3.Connection, path: Path) -> None:
    (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise _damaged(path, str(said).splitlines()[-1])


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
            f"{path.name}: expected schema version {SCHEMA_VERSION} or older, got {version}: "
            "a newer agent wrote it; install that version again",
        )
    return version


def _migrate(db: sqlite3.Connection, version: int) -> None:
    """All the way or not at all: a process that dies half way leaves the old schema."""
    if version == SCHEMA_VERSION:
        return
    db.create_function("state_in", 1, _state_in, deterministic=True)
    db.execute("BEGIN IMMEDIATE")
    try:
        for script in MIGRATIONS[version:]:
            for sql in script.split(";\n"):
                db.execute(sql)
        db.execute(
            "INSERT OR REPLACE INTO facts VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),)
        )
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _state_in(record: bytes) -> str:
    state = pb.StepState.Name(pb.StepRecord.FromString(record).state)
    return state.removeprefix("STEP_STATE_").replace("RUNNING", "STOPPED")


def _foreign(path: Path, got: str) -> Refusal:
    return Refusal(
        Kind.CONFLICT,
        "JOURNAL_FOREIGN",
        f"{path.name}: expected an agent's journal, got {got}; nothing was changed. Is state_dir "
        "right? Move the file away only if it is none of this agent's",
    )


def _damaged(path: Path, got: str) -> Refusal:
    return Refusal(
        Kind.CONFLICT,
        "JOURNAL_DAMAGED",
        f"{path.name}: expected a whole journal, got: {got}; nothing was changed. "
        "`housecall-agent recover-journal` saves what can be read, over the last backup",
    )
