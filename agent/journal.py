"""What the agent must not forget: executions, orders, steps, drafts, outbox, reviews, cursor.

All SQL is here, but for the tables (`journal_schema.py`) and the file (`journal_file.py`): SQLite
in WAL mode with full sync. Every method is one transaction, unless it is called inside
`transaction()`. Safe to use from several threads. When to write what is left to the rooms that use
it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from agent.disk import disk_full
from agent.journal_file import BACKUP, FULL, copy_journal, is_held, open_journal, unusable
from agent.records import (
    Draft,
    DraftedStatement,
    Execution,
    KeptStep,
    Order,
    Outgoing,
    Review,
    State,
)
from housecall.errors import Kind, Refusal

DRAFTS_KEPT_S = 7 * 86400


class Journal:
    """The journal at `path`, made when it is not there."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._depth = 0
        self._path = path
        self._db = open_journal(path)
        self.committed: Callable[[float], None] = lambda _seconds: None

    def back_up(self) -> None:
        """A copy beside the journal, for the day when the journal cannot be read."""
        with self._lock:
            copy_journal(self._db, self._path.with_name(BACKUP))

    def now(self) -> float:
        """Seconds since the epoch, by the journal's clock."""
        return self._clock()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; may be nested."""
        with self._lock:
            self._depth += 1
            try:
                if self._depth == 1:
                    self._db.execute("BEGIN IMMEDIATE")
                yield
                if self._depth == 1:
                    began = time.perf_counter()
                    self._db.execute("COMMIT")
                    self.committed(time.perf_counter() - began)
            except BaseException as error:
                if self._depth == 1 and self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if getattr(error, "sqlite_errorcode", None) in FULL:
                    raise disk_full() from error
                if is_held(error):
                    raise unusable(self._path, str(error)) from error
                raise
            finally:
                self._depth -= 1

    def _do(self, sql: str, *values: Any) -> sqlite3.Cursor:
        with self.transaction():
            return self._db.execute(sql, values)

    def _all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _insert(self, table: str, values: dict[str, Any]) -> int:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - our own names
        return self._do(sql, *values.values()).lastrowid or 0

    # facts and blobs

    def fact(self, name: str) -> str:
        """A small fact, such as the cursor or the newest checkpoint; "" when unknown."""
        rows = self._all("SELECT value FROM facts WHERE name = ?", name)
        return str(rows[0]["value"]) if rows else ""

    def set_fact(self, name: str, value: str) -> None:
        self._do("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, value)

    def trusted(self, signer: str) -> list[str]:
        """Digests of the enrolments of this name that the site trusts."""
        return self.fact(f"signer:{signer}").split()

    def trust(self, signer: str, enrolment_digest: str) -> None:
        with self.transaction():
            digests = {*self.trusted(signer), enrolment_digest}
            self.set_fact(f"signer:{signer}", " ".join(sorted(digests)))

    def blob(self, name: str) -> bytes | None:
        rows = self._all("SELECT value FROM blobs WHERE name = ?", name)
        return bytes(rows[0]["value"]) if rows else None

    def set_blob(self, name: str, value: bytes) -> None:
        self._do("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?)", name, value, self._clock())

    # executions and their steps

    def add_execution(self, execution: Execution) -> Execution:
        now = self._clock()
        values = asdict(replace(execution, created_at=now, updated_at=now))
        del values["id"]
        with self.transaction():
            number = self._insert("executions", values)
            if not execution.source_id:
                self._do("UPDATE executions SET source_id = id WHERE id = ?", number)
            return self.execution(number)

    def execution(self, number: int) -> Execution:
        rows = self._all("SELECT * FROM executions WHERE id = ?", number)
        if not rows:
            raise Refusal(
                Kind.NOT_FOUND,
                "EXECUTION_NOT_FOUND",
                f"execution {number}: expected one of this site's, got none of that number; "
                "`housecall execution ls` lists them",
            )
        return _execution(rows[0])

    def executions(self, **equal: Any) -> list[Execution]:
        """Oldest first, those whose columns equal the given values."""
        known = {each.name for each in fields(Execution)}
        assert set(equal) <= known, f"unknown columns {set(equal) - known}"
        where = " AND ".join(f"{name} = ?" for name in equal) or "1"
        sql = f"SELECT * FROM executions WHERE {where} ORDER BY id"  # noqa: S608 - names checked
        return [_execution(row) for row in self._all(sql, *equal.values())]

    def execution_counts(self) -> dict[State, int]:
        """How many there are in each state."""
        rows = self._all("SELECT state, COUNT(*) AS number FROM executions GROUP BY state")
        return {State(row["state"]): row["number"] for row in rows}

    def update_execution(self, number: int, **changes: Any) -> Execution:
        """Change columns; returns it as it is then. `updated_at` is now unless it is given."""
        changes.setdefault("updated_at", self._clock())
        names = ", ".join(f"{name} = ?" for name in changes)
        sql = f"UPDATE executions SET {names} WHERE id = ?"  # noqa: S608 - our own names
        with self.transaction():
            self._do(sql, *changes.values(), number)
            return self.execution(number)

    # steps

    def set_step(self, step: KeptStep) -> None:
        """Written over what is known of this step; the steps of an owner stay in order."""
        values = asdict(step)
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        changed = ", ".join(f"{name} = excluded.{name}" for name in values)
        self._do(
            f"INSERT INTO steps ({names}) VALUES ({marks}) "  # noqa: S608 - our own names
            f"ON CONFLICT (owner, name) DO UPDATE SET {changed}",
            *values.values(),
        )

    def step(self, owner: str, name: str) -> KeptStep | None:
        rows = self._all("SELECT * FROM steps WHERE owner = ? AND name = ?", owner, name)
        return KeptStep(**dict(rows[0])) if rows else None

    def steps(self, owner: str) -> list[KeptStep]:
        """In the order in which they began."""
        rows = self._all("SELECT * FROM steps WHERE owner = ? ORDER BY rowid", owner)
        return [KeptStep(**dict(row)) for row in rows]

    def begun_steps(self) -> list[KeptStep]:
        """Those of any owner that began and have no end."""
        rows = self._all("SELECT * FROM steps WHERE state = 'RUNNING' ORDER BY rowid")
        return [KeptStep(**dict(row)) for row in rows]

    def largest_output(self, digest: str, name: str) -> int:
        """Bytes that this task of this container wrote at most, 0 when it never ended well."""
        sql = "SELECT MAX(bytes) AS most FROM steps WHERE digest = ? AND name = ?"
        return int(self._all(sql, digest, name)[0]["most"] or 0)

    def forget_steps(self, owner: str) -> None:
        self._do("DELETE FROM steps WHERE owner = ?", owner)

    # orders

    def add_order(self, order: Order, execution: Execution) -> Execution | None:
        """Write an order down with its execution; None when it was there already."""
        with self.transaction():
            if self.order(order.execution_id) is not None:
                return None
            try:
                kept = self.add_execution(execution)
                self._insert("orders", asdict(replace(order, local_id=kept.id)))
            except sqlite3.IntegrityError as error:
                raise Refusal(
                    Kind.CONFLICT,
                    "ORDER_REPLAYED",
                    f"order {order.execution_id}: expected a line of its own, got line "
                    f"{order.line} of {order.envelope_digest}, which another order has",
                ) from error
            return kept

    def order(self, execution_id: int) -> Order | None:
        rows = self._all("SELECT * FROM orders WHERE execution_id = ?", execution_id)
        return Order(**dict(rows[0])) if rows else None

    def open_orders(self) -> list[Order]:
        """Orders without an outcome, oldest first."""
        rows = self._all("SELECT * FROM orders WHERE outcome = '' ORDER BY execution_id")
        return [Order(**dict(row)) for row in rows]

    def set_outcome(self, execution_id: int, envelope_digest: str) -> bool:
        """Give an order its one outcome; False when it has one."""
        done = self._do(
            "UPDATE orders SET outcome = ? WHERE execution_id = ? AND outcome = ''",
            envelope_digest,
            execution_id,
        )
        return done.rowcount == 1

    def order_ended_by(self, envelope_digest: str) -> Order | None:
        """The order whose outcome this is."""
        rows = self._all("SELECT * FROM orders WHERE outcome = ?", envelope_digest)
        return Order(**dict(rows[0])) if rows else None

    def reopen_order(self, execution_id: int) -> None:
        """Its outcome was refused for good: it needs another one."""
        self._do("UPDATE orders SET outcome = '' WHERE execution_id = ?", execution_id)

    # drafts

    def add_draft(self, draft: Draft) -> None:
        statements = json.dumps(
            [[b64encode(s.payload).decode(), s.about, s.lane] for s in draft.statements]
        )
        now = self._clock()
        with self.transaction():
            self._do("DELETE FROM drafts WHERE at < ?", now - DRAFTS_KEPT_S)
            self._do(
                "INSERT OR REPLACE INTO drafts VALUES (?, ?, ?, ?, ?)",
                draft.digest,
                draft.uid,
                statements,
                draft.effect,
                now,
            )

    def draft(self, digest: str) -> Draft | None:
        rows = self._all("SELECT * FROM drafts WHERE digest = ?", digest)
        if not rows:
            return None
        statements = tuple(
            DraftedStatement(b64decode(payload), about, lane)
            for payload, about, lane in json.loads(rows[0]["statements"])
        )
        return Draft(digest, rows[0]["uid"], statements, rows[0]["effect"])

    # outbox

    def add_outgoing(self, entry: Outgoing) -> None:
        """Keep a signed statement until its receipt; one that is there already stays as it is,
        unless it was refused: then it is tried again, behind what waits."""
        values = asdict(entry) | {"refusal": json.dumps(entry.refusal), "since": self._clock()}
        del values["seq"]
        refused = "DELETE FROM outbox WHERE envelope_digest = ? AND state = 'refused'"
        with self.transaction():
            self._do(refused, entry.envelope_digest)
            if not self.has_outgoing(entry.envelope_digest):
                self._insert("outbox", values)

    def outgoing(self, envelope_digest: str) -> Outgoing | None:
        rows = self._all("SELECT * FROM outbox WHERE envelope_digest = ?", envelope_digest)
        return _outgoing(rows[0]) if rows else None

    def has_outgoing(self, envelope_digest: str) -> bool:
        """Asked of every entry that is told; much quicker than to read it."""
        return bool(self._all("SELECT 1 FROM outbox WHERE envelope_digest = ?", envelope_digest))

    def waiting(self) -> list[Outgoing]:
        """What has no receipt yet, in the order it was released."""
        return [
            _outgoing(row)
            for row in self._all("SELECT * FROM outbox WHERE state = 'waiting' ORDER BY seq")
        ]

    def outbox_standing(self) -> tuple[int, float]:
        """How many entries wait, and since when the oldest does."""
        sql = "SELECT COUNT(*) AS number, MIN(since) AS since FROM outbox WHERE state = 'waiting'"
        row = self._all(sql)[0]
        return row["number"], row["since"] or 0.0

    def first_of_lanes(self) -> list[str]:
        """Digests of what waits longest in each lane; what has no lane waits for nobody."""
        sql = (
            "SELECT envelope_digest, MIN(seq) AS first FROM outbox WHERE state = 'waiting' "
            "GROUP BY CASE lane WHEN '' THEN envelope_digest ELSE lane END ORDER BY first"
        )
        return [row["envelope_digest"] for row in self._all(sql)]

    def registered_number(self) -> int:
        """The highest number that a dataset of this site was ever registered under, 0 for none."""
        sql = (
            "SELECT MAX(CAST(SUBSTR(about, 9) AS INTEGER)) AS most FROM outbox "
            "WHERE about LIKE 'dataset:%' AND state != 'refused'"
        )
        return max(int(self._all(sql)[0]["most"] or 0), int(self.fact("dataset_number") or 0))

    def take_number(self, number: int) -> None:
        """The ledger has a dataset of this number."""
        if number > self.registered_number():
            self.set_fact("dataset_number", str(number))

    def recalls(self) -> bool:
        """Rows of it were lost, and not all was told yet that the ledger knows."""
        return bool(self.fact("recalls"))

    def sent_about(self, about: str) -> list[Outgoing]:
        """What was released about one thing, newest first, refused ones left out."""
        sql = "SELECT * FROM outbox WHERE about = ? AND state != 'refused' ORDER BY seq DESC"
        return [_outgoing(row) for row in self._all(sql, about)]

    def settle(self, envelope_digest: str, receipt: bytes, thing_id: str) -> None:
        """The receipt is there and was checked."""
        self._do(
            "UPDATE outbox SET state = 'accepted', receipt = ?, id = ? WHERE envelope_digest = ?",
            receipt,
            thing_id,
            envelope_digest,
        )

    def settle_refused(self, envelope_digest: str, refusal: tuple[str, str, str]) -> None:
        self._do(
            "UPDATE outbox SET state = 'refused', refusal = ? WHERE envelope_digest = ?",
            json.dumps(refusal),
            envelope_digest,
        )

    # reviews

    def add_review(self, kind: str, local_id: int) -> Review:
        """One that waits stays as it is; one that was decided is asked again."""
        with self.transaction():
            self._do(
                "INSERT INTO reviews (kind, local_id, since, decision) VALUES (?, ?, ?, '') "
                "ON CONFLICT (kind, local_id) DO UPDATE SET since = excluded.since, decision = '' "
                "WHERE decision != ''",
                kind,
                local_id,
                self._clock(),
            )
            sql = "SELECT * FROM reviews WHERE kind = ? AND local_id = ?"
            return Review(**dict(self._all(sql, kind, local_id)[0]))

    def reviews(self) -> list[Review]:
        """Those that wait, oldest first."""
        rows = self._all("SELECT * FROM reviews WHERE decision = '' ORDER BY id")
        return [Review(**dict(row)) for row in rows]

    def review(self, number: int) -> Review:
        """One that waits."""
        rows = self._all("SELECT * FROM reviews WHERE id = ?", number)
        if not rows or rows[0]["decision"]:
            got = f"one that was {rows[0]['decision']}" if rows else "none"
            raise Refusal(
                Kind.NOT_FOUND,
                "REVIEW_NOT_FOUND",
                f"review {number}: expected one that waits, got {got}; "
                "`housecall review ls` lists them",
            )
        return Review(**dict(rows[0]))

    def close_reviews(self, local_id: int, decision: str) -> None:
        """Nobody needs to decide any more."""
        sql = "UPDATE reviews SET decision = ? WHERE local_id = ? AND decision = ''"
        self._do(sql, decision, local_id)


def _execution(row: sqlite3.Row) -> Execution:
    values = dict(row)
    flags = {name: bool(values[name]) for name in ("ignore_errors", "partial")}
    return Execution(**values | flags | {"state": State(values["state"])})


def _outgoing(row: sqlite3.Row) -> Outgoing:
    kind, code, text = json.loads(row["refusal"])
    return Outgoing(**dict(row) | {"refusal": (kind, code, text)})
