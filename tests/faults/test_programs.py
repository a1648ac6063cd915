"""Programs of the harness: what is hurt is theirs alone."""

from __future__ import annotations

import os

from tests.faults.programs import descendants, processes


def test_nothing_is_below_a_program_that_is_not_there() -> None:
    assert os.getpid() in processes()
    assert descendants(0) == []
