"""Starts an agent or a coordinator exactly as its command does, with a hand on its commits.

    python -m tests.faults.launch agent|coordinator ARGUMENTS...

FAULTS_BOUNDARY names a file, the trap. While it has a line `before NAME` or `after NAME`, the next
durable commit of that name ends the process as kill -9 does, on that side of it, and the trap is
gone; a line `before` or `after` stands for any commit, `fresh` for every side at which nobody died
yet. Beside it lie `seen`, the names of the commits that programs of this kind make, and `hit`,
where they died. FAULTS_VARIANT breaks the program on purpose (`variants.py`). The programs
themselves know nothing of this.
"""

from __future__ import annotations

import importlib
import os
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any, SupportsIndex, cast

from tests.faults import variants

FRESH, SEEN, HIT = "fresh", "seen", "hit"


class Boundary:
    """Dies where it is told to."""

    def __init__(self, trap: Path) -> None:
        self._trap = trap
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def at(self, side: str, name: str) -> None:
        with self._lock:
            if name not in self._seen:
                self._seen.add(name)
                _append(self._trap.with_name(SEEN), name)
            here, wanted = f"{side} {name}", lines(self._trap)
            fresh = FRESH in wanted and here not in lines(self._trap.with_name(HIT))
            if fresh or here in wanted or side in wanted:
                self._trap.unlink(missing_ok=True)
                _append(self._trap.with_name(HIT), here)
                os.kill(os.getpid(), signal.SIGKILL)


def lines(file: Path) -> list[str]:
    """None of a file that is not there."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _append(file: Path, line: str) -> None:
    with file.open("a") as out:
        out.write(line + "\n")


def journal_commits(boundary: Boundary) -> None:
    """Every COMMIT of the agent's journal, by who asked for it."""
    real = sqlite3.connect

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql != "COMMIT":
                return super().execute(sql, *values)
            name = _asker()
            boundary.at("before", name)
            done = super().execute(sql)
            boundary.at("after", name)
            return done

    def connect(path: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        if Path(str(path)).name == "journal.sqlite":
            options["factory"] = Watched
        return cast(sqlite3.Connection, real(path, *arguments, **options))

    sqlite3.connect = cast(Any, connect)


def _asker() -> str:
    """`module.function>method`: the method of the journal, and who called it."""
    frame, method = sys._getframe(2), ""
    while frame is not None:
        module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module.startswith("agent.journal"):
            method = function
        elif module.startswith("agent."):
            return f"{module.removeprefix('agent.')}.{function}>{method}"
        frame = frame.f_back  # type: ignore[assignment]
    return method


def store_commits(boundary: Boundary) -> None:
    """Every commit of the coordinator's writer, by the kinds of statements in it; not those of the
    check at its start, which makes all tables again in memory."""
    from coordinator.ledger import Batch
    from coordinator.store.writer import Writer

    kinds: set[str] = set()
    append, commit = Batch.append, Writer.commit

    def noted(self: Batch, envelope: bytes, opened: Any, **rest: Any) -> int:
        kinds.add(opened.kind)
        return append(self, envelope, opened, **rest)

    def committed(self: Writer) -> None:
        names = sorted(kinds) or ["nothing"]
        kinds.clear()
        if not self.session.get_bind().engine.url.database:
            return commit(self)
        for name in names:
            boundary.at("before", name)
        commit(self)
        for name in names:
            boundary.at("after", name)
        return None

    Batch.append = noted  # type: ignore[method-assign,assignment]
    Writer.commit = committed  # type: ignore[method-assign]


def sleep(seconds: float | SupportsIndex) -> None:
    """libfaketime 0.9.10 refuses the call behind `time.sleep` where monotonic clocks stay true."""
    threading.Event().wait(float(seconds))


def main() -> None:
    which = sys.argv.pop(1)
    if "LD_PRELOAD" in os.environ:
        time.sleep = sleep
    boundary = Boundary(Path(os.environ["FAULTS_BOUNDARY"]))
    (journal_commits if which == "agent" else store_commits)(boundary)
    if variant := os.environ.get("FAULTS_VARIANT"):
        variants.VARIANTS[variant].apply()
    importlib.import_module(f"{which}.__main__").main()


if __name__ == "__main__":
    main()
