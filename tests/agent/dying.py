"""`python -m tests.agent.dying WORK PATH...`: does the work at each path, and is killed a step
later at each (`tests/dying.py`).

    open     a step is a statement that SQLite is given
    salvage  a step is a change of a file's name, or a database that is opened
    deliver  a step is a file of an output that is opened or renamed
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from agent.journal import Journal
from agent.salvage import salvage
from agent.staging import Output
from tests.dying import count_down, one_after_the_other

NAMES = frozenset({"os.link", "os.rename", "os.remove", "sqlite3.connect"})
FILES = frozenset({"open", "os.rename"})


def dying(work: str, paths: list[Path]) -> list[str]:
    """How the process at each path ended."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.agent.dying", work, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = done.stdout.split()
    assert set(said) == {"killed", "done"}, done.stderr
    assert said == sorted(said, reverse=True), "each was killed a step later"
    return said


def open_and_die(path: Path, left: int) -> None:
    step, connect = count_down(left), sqlite3.connect

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*arguments, **options)
        db.set_trace_callback(lambda _statement: step())
        return db

    sqlite3.connect = watched  # type: ignore[assignment]
    Journal(path).close()


def salvage_and_die(path: Path, left: int) -> None:
    step_at(NAMES, left)
    salvage(path)


def deliver_and_die(path: Path, left: int) -> None:
    step_at(FILES, left)
    Output(path).deliver()


def step_at(events: frozenset[str], left: int) -> None:
    step = count_down(left)

    def watch(event: str, _arguments: tuple[object, ...]) -> None:
        if event in events:
            step()

    sys.addaudithook(watch)


WORKS = {"open": open_and_die, "salvage": salvage_and_die, "deliver": deliver_and_die}


def main() -> None:
    work = WORKS[sys.argv[1]]
    one_after_the_other(lambda path, left: work(Path(path), left), sys.argv[2:])


if __name__ == "__main__":
    main()
