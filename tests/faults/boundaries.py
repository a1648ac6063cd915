"""Kills at durable commits: every commit that a program makes gets its turn, on both sides.

Which commits there are, the programs say as they make them (`launch.py`). A trap that is set takes
any of them, or some of those at which fewest died. When its time is over the traps of all programs
of the kind stay set for what nobody died at yet: rare commits are met when they come.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.faults.launch import FRESH, HIT, SEEN, lines
from tests.faults.programs import Program

SIDES = ("before", "after")
DUE = 0.7
"""How often a trap takes only sides at which fewest died."""
RESTARTS = 0.2
"""How often a program is killed to meet its trap at its next start."""


class Armed:
    """A trap that was set. What counts as a fault is a death in it, now or later: `deaths`."""

    def __init__(self, text: str, trap: Path, traps: Sequence[Path], rest: Sequence[str]) -> None:
        self.text, self._trap, self._traps, self._rest = text, trap, traps, rest

    def heal(self) -> None:
        for trap in self._traps:
            if trap == self._trap or not trap.exists():
                set_trap(trap, *self._rest)


def arm(
    program: Program,
    trap: Path,
    traps: Sequence[Path],
    choice: random.Random,
    only: Sequence[str],
) -> Armed | None:
    """`traps` are those of all programs of its kind; they lie in one folder. `only` are the sides
    that are wanted, where not all are: the traps stay for them."""
    known, hits = only or sides(trap.parent), Counter(lines(trap.parent / HIT))
    if not known or not program.alive:
        return None
    least = min(hits[each] for each in known)
    due = sorted(each for each in known if hits[each] == least)
    # What is due may be rare: some traps take any commit, some begin with a start.
    wanted = choice.sample(due, max(1, len(due) // 2)) if choice.random() < DUE else known
    set_trap(trap, *wanted)
    if choice.random() < RESTARTS:
        program.kill()
    text = f"{program.name}, {len(wanted)} of {len(known)} sides of commits"
    return Armed(text, trap, traps, only or [FRESH])


def disarm(traps: Sequence[Path]) -> None:
    for trap in traps:
        trap.unlink(missing_ok=True)


def sides(folder: Path) -> list[str]:
    """Those of all commits that programs with traps in `folder` ever made."""
    return sorted(f"{side} {name}" for name in {*lines(folder / SEEN)} for side in SIDES)


def deaths(folder: Path) -> list[str]:
    """The sides at which somebody died, as often as somebody did."""
    return lines(folder / HIT)


def set_trap(trap: Path, *wanted: str) -> None:
    """For the lines that `launch.py` knows; whoever reads it sees all of them or none."""
    fresh = trap.with_suffix(".new")
    fresh.write_text("\n".join(wanted))
    fresh.replace(trap)
