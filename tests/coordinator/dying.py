"""`python -m tests.coordinator.dying URL...`: migrates each store in a process of its own, which is
killed (SIGKILL, by itself) right before the n-th thing that it asks of the n-th database.

Prints a line a process: `killed`, or `done` where it came to its end first.
"""

from __future__ import annotations

import os
import signal
import sys

import alembic.command  # noqa: F401 - once, before the processes part
from sqlalchemy import Engine, event

from coordinator.store import migrate


def migrate_and_die(url: str, left: int) -> None:
    def count(*_: object) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    for what in ("before_cursor_execute", "commit"):
        event.listen(Engine, what, count)
    migrate(url)


def main() -> None:
    for number, url in enumerate(sys.argv[1:]):
        child = os.fork()
        if child == 0:
            migrate_and_die(url, number)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if killed else "done" if status == 0 else f"failed {status}")


if __name__ == "__main__":
    main()
