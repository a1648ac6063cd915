"""The journal's tables, and the way from each schema to the next. What the rows mean is left to
`journal.py`."""

from __future__ import annotations

import sqlite3

from housecall.v1 import statements_pb2 as pb

APPLICATION_ID = 0x48434A31  # "HCJ1"
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
_ALL_AT_ONCE = """
ALTER TABLE executions ADD COLUMN cancelled_by BLOB NOT NULL DEFAULT x'';
UPDATE reviews SET decision = '' WHERE decision IN ('approved', 'refused') AND EXISTS (
  SELECT 1 FROM executions WHERE executions.id = local_id AND state =
  CASE kind WHEN 'RUN' THEN 'WAITING_CONSENT' ELSE 'WAITING_RELEASE' END);
"""
MIGRATIONS = (_FIRST, _STEPS_TAKEN_OVER, _ALL_AT_ONCE)
"""Number n makes schema n of schema n - 1. A step under way in schema 1 begins again: it was not
written down which container is whose. Up to schema 2 a decision was written down before what
follows from it; where nothing followed it is asked for again."""
SCHEMA_VERSION = len(MIGRATIONS)


def migrate(db: sqlite3.Connection, version: int) -> None:
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
