"""Kills at durable commits: every commit that a program makes gets its turn, on both sides.

Which commits there are, the programs say as they make them (`launch.py`). A trap waits for any of
those at which fewest kills happened, so that in the end all had theirs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.faults.programs import Program

SIDES = ("before", "after")
RESTARTS = 0.25
"""How often a program is killed to meet its trap at its next start."""


class Armed:
    """A trap that was set; it counts as a fault when somebody died in it."""

    def __init__(self, file: Path, text: str) -> None:
        self.text = text
        self._file = file

    def heal(self) -> None:
        self._file.unlink(missing_ok=True)

    @property
    def struck(self) -> bool:
        return not self._file.exists()


def arm(program: Program, file: Path, peers: Sequence[Path], choice: random.Random) -> Armed | None:
    """Wait for a commit; those that are due among all `peers`, programs of one kind, first."""
    hits = Counter(hit for peer in peers for hit in _lines(peer.with_suffix(".hit")))
    known = {f"{side} {name}" for name in _lines(file.with_suffix(".seen")) for side in SIDES}
    if not known or not program.alive or file.exists():
        return None
    least = min(hits[each] for each in known)
    due = sorted(each for each in known if hits[each] == least)
    # What is due may be rare: half of the traps take any commit, some begin with a start.
    wanted = choice.sample(due, max(1, len(due) // 2)) if choice.random() < 0.5 else sorted(known)
    fresh = file.with_suffix(".new")
    fresh.write_text("\n".join(wanted))
    fresh.replace(file)
    if choice.random() < RESTARTS:
        program.kill()
    return Armed(file, f"{program.name}, {len(wanted)} of {len(known)} sides of commits")


def coverage(files: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Which sides of commits there are, and those at which somebody died."""
    names = {name for file in files for name in _lines(file.with_suffix(".seen"))}
    known = {f"{side} {name}" for name in names for side in SIDES}
    hit = {line for file in files for line in _lines(file.with_suffix(".hit"))}
    return sorted(known), sorted(hit & known)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
