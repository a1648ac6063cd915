"""Work that is killed (SIGKILL, by itself) a step later in each process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable


def count_down(left: int) -> Callable[[], None]:
    """To be called before every step; before the step after `left` others it kills."""

    def step() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    return step


def one_after_the_other(work: Callable[[str, int], None], things: Iterable[str]) -> None:
    """Does the work at the n-th thing in a process of its own, which is killed before its n-th
    step. Prints a line a process: `killed`, or `done` where it came to its end first."""
    for number, thing in enumerate(things):
        child = os.fork()
        if child == 0:
            work(thing, number)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if killed else "done" if status == 0 else f"failed {status}")
