"""`python -m tests.coordinator.dying URL...`: migrates each store, and is killed a step later at
each (`tests/dying.py`). A step is a thing that is asked of the database.
"""

from __future__ import annotations

import sys

import alembic.command  # noqa: F401 - once, before the processes part
from sqlalchemy import Engine, event

from coordinator.store import migrate
from tests.dying import count_down, one_after_the_other


def migrate_and_die(url: str, left: int) -> None:
    step = count_down(left)

    def count(*_: object) -> None:
        step()

    for what in ("before_cursor_execute", "commit"):
        event.listen(Engine, what, count)
    migrate(url)


if __name__ == "__main__":
    one_after_the_other(migrate_and_die, sys.argv[1:])
