"""What the agents' journals say, read from outside while they are in use, and in the end."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.acknowledged import Acknowledged
from tests.faults.sites import Site

POLL_S = 0.5
ENDED = ("SUCCEEDED", "FAILED", "REFUSED", "CANCELLED")


@dataclass(frozen=True)
class Entry:
    """One of a site's outbox."""

    site: str
    digest: str
    kind: str
    about: str
    state: str
    code: str


@dataclass
class Released:
    """Everything that any outbox was ever seen to hold, even if it is gone since."""

    entries: dict[str, Entry] = field(default_factory=dict)


class JournalWatch:
    """Reads every journal twice a second until it is closed. `unwritten` are orders, each with its
    site, that were acknowledged and not in the journal."""

    def __init__(self, sites: Sequence[Site], coordinator_logs: Sequence[Path]) -> None:
        self._sites, self._acknowledged = sites, Acknowledged(coordinator_logs)
        self.released = Released()
        self.unwritten: set[tuple[str, int]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            for site in self._sites:
                self._look(site)

    def _look(self, site: Site) -> None:
        for entry in outbox(site):
            self.released.entries[entry.digest] = entry
        acknowledged = self._acknowledged.by(site.name)  # before the journal is read
        rows = ask(site.journal, "SELECT execution_id FROM orders")
        if rows is not None:
            missing = acknowledged - {row[0] for row in rows}
            self.unwritten |= {(site.name, number) for number in missing}


def outbox(site: Site) -> list[Entry]:
    rows = ask(site.journal, "SELECT envelope_digest, kind, about, state, refusal FROM outbox")
    return [
        Entry(site.name, row[0], row[1], row[2], row[3], row[4] if row[3] == "refused" else "")
        for row in rows or []
    ]


def open_work(site: Site) -> list[str]:
    """What has not ended, a line each; what cannot be read now is not known to have ended."""
    questions = {
        "execution {} is {}": f"SELECT id, state FROM executions WHERE state NOT IN {ENDED}",
        "step {} of {} runs": "SELECT name, owner FROM steps WHERE state = 'RUNNING'",
        "order {} has no outcome": "SELECT execution_id FROM orders WHERE outcome = ''",
        "outbox {} {}": "SELECT kind, envelope_digest FROM outbox WHERE state = 'waiting'",
        "review {} {}": "SELECT kind, local_id FROM reviews WHERE decision = ''",
    }
    found = []
    for text, sql in questions.items():
        rows = ask(site.journal, sql)
        if rows is None:
            return [f"{site.name}: the journal cannot be read"]
        found += [f"{site.name}: {text.format(*row)}" for row in rows if _counts(site, text, row)]
    return found


def _counts(site: Site, text: str, row: Sequence[Any]) -> bool:
    """A test that a person started stands finished at the site for good: it waits for nobody."""
    return not (
        text.startswith("execution") and row[1] == "WAITING_RELEASE" and _local(site, row[0])
    )


def _local(site: Site, local_id: int) -> bool:
    rows = ask(site.journal, f"SELECT execution_id FROM executions WHERE id = {int(local_id)}")
    return rows is not None and rows[0][0] == 0


def open_executions(site: Site) -> list[int]:
    rows = ask(site.journal, f"SELECT id FROM executions WHERE state NOT IN {ENDED}") or []
    return [row[0] for row in rows]


def checkpoint(site: Site) -> str:
    rows = ask(site.journal, "SELECT value FROM facts WHERE name = 'checkpoint'")
    return str(rows[0][0]) if rows else ""


def orders(site: Site) -> dict[int, int]:
    """The site's own number of each order's execution."""
    rows = ask(site.journal, "SELECT execution_id, local_id FROM orders") or []
    return {row[0]: row[1] for row in rows}


def ask(journal: Path, sql: str) -> list[tuple[Any, ...]] | None:
    """Read only: a reader that may write would finish what a killed agent left undone."""
    try:
        with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=2)) as db:
            return db.execute(sql).fetchall()
    except sqlite3.Error:
        return None
