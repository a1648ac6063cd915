"""What an order waits for instead of ending: it is missing now, and may be there again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from agent.uptime import since_boot
from housecall.errors import Kind, Refusal

DAY_S = 86400.0
MOST_RETRY_S = 60.0
PASSING = frozenset({Kind.UNAVAILABLE, Kind.UNAUTHENTICATED, Kind.EXHAUSTED})
"""Noes that are no answer: nobody is there, a clock or a certificate is wrong for now, the disk is
full."""
LACKS = {
    "ENGINE_UNREACHABLE": math.inf,
    "DISK_FULL": math.inf,
    "STEP_START_FAILED": math.inf,
    "IMAGE_PULL_FAILED": DAY_S,
    "ADDITIONAL_FILES_UNAVAILABLE": DAY_S,
    "CHECKER_FAILED": DAY_S,
}
"""For how many seconds each is waited for: for ever where the site alone can mend it. Starts of a
step are counted besides (`pipeline.MOST_TRIES`)."""


@dataclass
class Patience:
    """Of one piece of work: how long it stays away next, and `since` when, by the clock on the
    wall, it lacks what, by code."""

    wait_s: float
    since: dict[str, float]
    _began: dict[str, float] = field(default_factory=dict)

    def next_wait(self) -> float:
        wait, self.wait_s = self.wait_s, min(2 * self.wait_s, MOST_RETRY_S)
        return wait

    def bears(self, refusal: Refusal) -> bool:
        """Whether it waits for this, still. What the agent waits begins anew when it starts."""
        if refusal.kind not in PASSING or refusal.code not in LACKS:
            return False
        now = since_boot()
        return now - self._began.setdefault(refusal.code, now) <= LACKS[refusal.code]
