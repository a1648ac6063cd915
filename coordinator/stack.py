"""Room for what nests deeply and is in the ledger already.

Earlier versions bounded nesting by what was left of Python's stack in the notary's thread, which is
all but empty. Whoever opens or replays such an entry is further down: with Python's own limit, what
was accepted there is too deep here. What is new is bounded by `rules/bounds.py`.
"""

from __future__ import annotations

import sys

FRAMES = 3_000
"""Three times what the notary's thread had. A frame takes a kilobyte or so of a thread's 8 MiB."""


def give_room() -> None:
    """For every thread of this program."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), FRAMES))
