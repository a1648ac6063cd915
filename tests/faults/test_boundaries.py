"""Traps at commits: who dies at which, and what is left of the trap."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.faults import boundaries
from tests.faults.launch import FRESH

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, pathlib
from tests.faults.launch import Boundary
boundary = Boundary(pathlib.Path(sys.argv[1]))
for name in sys.argv[2:]:
    boundary.at("before", name)
    boundary.at("after", name)
"""


def dies(trap: Path, *commits: str) -> bool:
    """A program that makes these commits, with this trap."""
    words = [sys.executable, "-c", PROGRAM, str(trap), *commits]
    code = subprocess.run(words, cwd=ROOT, check=False).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_a_named_side(tmp_path: Path) -> None:
    trap = tmp_path / "north"
    boundaries.set_trap(trap, "after settle")
    assert not dies(trap, "receive")
    assert dies(trap, "receive", "settle")
    assert not dies(trap, "settle")
    assert boundaries.deaths(tmp_path) == ["after settle"]


def test_any_commit(tmp_path: Path) -> None:
    trap = tmp_path / "north"
    boundaries.set_trap(trap, "after")
    assert dies(trap, "made")
    assert boundaries.deaths(tmp_path) == ["after made"]


def test_fresh_sides_are_those_of_all_programs_of_a_kind(tmp_path: Path) -> None:
    north, south = tmp_path / "north", tmp_path / "south"
    for trap in (north, south, north):
        boundaries.set_trap(trap, FRESH)
        dies(trap, "receive", "settle")
    assert boundaries.deaths(tmp_path) == ["before receive", "after receive", "before settle"]
    assert len(boundaries.sides(tmp_path)) == 4
