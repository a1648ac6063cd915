"""`python -m tests.agent.dying WORK PATH...`: does the work on the journal at each path, in a
process of its own that is killed (SIGKILL, by itself) right before the n-th step at the n-th path.

    open     a step is a statement that SQLite is given
    salvage  a step is a change of a file's name, or a database that is opened

Prints a line a process: `killed`, or `done` where it came to its end first.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.journal import Journal
from agent.salvage import salvage

NAMES = frozenset({"os.link", "os.rename", "os.remove", "sqlite3.connect"})


def count_down(left: int) -> Callable[[], None]:
    def step() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    return step


def open_and_die(path: Path, left: int) -> None:
    step, connect = count_down(left), sqlite3.connect

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*arguments, **options)
        db.set_trace_callback(lambda _statement: step())
        return db

    sqlite3.connect = watched  # type: ignore[assignment]
    Journal(path).close()


def salvage_and_die(path: Path, left: int) -> None:
    step = count_down(left)

    def watch(event: str, _arguments: tuple[object, ...]) -> None:
        if event in NAMES:
            step()

    sys.addaudithook(watch)
    salvage(path)


WORKS = {"open": open_and_die, "salvage": salvage_and_die}


def main() -> None:
    work = WORKS[sys.argv[1]]
    for number, path in enumerate(sys.argv[2:]):
        child = os.fork()
        if child == 0:
            work(Path(path), number)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if killed else "done" if status == 0 else f"failed {status}")


if __name__ == "__main__":
    main()
