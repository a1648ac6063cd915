"""Whether this machine's clock was set: its word less the time since the boot stays the same."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from agent.uptime import since_boot

NOTICED_S = 10.0
"""Less is what time synchronisation does all day."""
log = logging.getLogger(__name__)


class Clock:
    """`set_by` is told how many seconds the clock was put forward, or back when negative."""

    def __init__(
        self, set_by: Callable[[float], None], *, wall: Callable[[], float] = time.time
    ) -> None:
        self._set_by, self._wall = set_by, wall
        self._booted_at = wall() - since_boot()

    def look(self) -> None:
        booted_at = self._wall() - since_boot()
        by = booted_at - self._booted_at
        if abs(by) >= NOTICED_S:
            self._booted_at = booted_at
            log.warning("clock was set", extra={"by_s": round(by, 1)})
            self._set_by(by)
