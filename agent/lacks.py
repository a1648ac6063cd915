"""What an order waits for instead of ending: it is missing now, and may be there again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.uptime import since_boot
from housecall.errors import Kind, Refusal
from housecall.v1 import fleet_pb2

DAY_S = 86400.0
MOST_RETRY_S = 60.0
PASSING = frozenset({Kind.UNAVAILABLE, Kind.UNAUTHENTICATED, Kind.EXHAUSTED})
"""Noes that are no answer: nobody is there, a clock or a certificate is wrong for now, the disk is
full."""


class Lack(NamedTuple):
    """For how many seconds it is waited for, and what the wait is called."""

    seconds: float
    waits_for: fleet_pb2.WaitReason.ValueType


LACKS = {
    "ENGINE_UNREACHABLE": Lack(math.inf, fleet_pb2.WAIT_REASON_ENGINE),
    "DISK_FULL": Lack(math.inf, fleet_pb2.WAIT_REASON_DISK),
    "STEP_START_FAILED": Lack(math.inf, fleet_pb2.WAIT_REASON_ENGINE),
    "IMAGE_PULL_FAILED": Lack(DAY_S, fleet_pb2.WAIT_REASON_IMAGE),
    "ADDITIONAL_FILES_UNAVAILABLE": Lack(DAY_S, fleet_pb2.WAIT_REASON_FILES),
    "CHECKER_FAILED": Lack(DAY_S, fleet_pb2.WAIT_REASON_MEMORY),
}
"""By code: for ever where the site alone can mend it. Starts of a step are counted besides
(`pipeline.MOST_TRIES`)."""


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
        """Whether it waits for this, still. What the agent waits begins anew when it starts, and
        when something else was missing meanwhile."""
        if refusal.kind not in PASSING or refusal.code not in LACKS:
            return False
        now = since_boot()
        self._began = {refusal.code: self._began.get(refusal.code, now)}
        return now - self._began[refusal.code] <= LACKS[refusal.code].seconds
