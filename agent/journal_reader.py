"""The journal read from outside, beside an agent that writes it: for the doctor.

Read-only, and of any schema that has what is asked for; what is missing raises `sqlite3.Error`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any

WAIT_S = 5.0
COUNTS = {
    "executions": "SELECT state, reason, step, count(*) FROM executions GROUP BY 1, 2, 3",
    "orders": "SELECT CASE outcome WHEN '' THEN 'open' ELSE 'ended' END, count(*) "
    "FROM orders GROUP BY 1",
    "steps": "SELECT name, state, code, count(*) FROM steps GROUP BY 1, 2, 3",
    "outbox": "SELECT kind, state, json_extract(refusal, '$[1]'), count(*) "
    "FROM outbox GROUP BY 1, 2, 3",
    "reviews": "SELECT kind, decision, count(*) FROM reviews GROUP BY 1, 2",
    "facts": "SELECT name, value FROM facts WHERE name IN ('cursor', 'schema_version')",
}
"""States, codes and words of ours, counted: nothing that names data."""
_OPEN = (
    "SELECT id, execution_id, benchmark_id, model_id, state, step, reason, updated_at "
    "FROM executions WHERE state NOT IN ('SUCCEEDED', 'FAILED', 'REFUSED', 'CANCELLED') ORDER BY id"
)


class JournalReader:
    """Open while it is entered."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=WAIT_S)

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()

    def without_receipt(self) -> int:
        return int(self._one("SELECT count(*) FROM outbox WHERE state = 'waiting'"))

    def largest_output(self) -> int:
        """Bytes that the largest step's outputs took."""
        return int(self._one("SELECT max(bytes) FROM steps") or 0)

    def count(self, what: str) -> list[tuple[Any, ...]]:
        """One of `COUNTS`."""
        return self._db.execute(COUNTS[what]).fetchall()

    def open_executions(self) -> list[dict[str, Any]]:
        """Those that have not ended, without their dataset."""
        cursor = self._db.execute(_OPEN)
        names = [each[0] for each in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def _one(self, sql: str) -> Any:
        row = self._db.execute(sql).fetchone()
        return row[0] if row else None
