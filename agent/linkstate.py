"""How the link stands, for `GetStatus`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class LinkState:
    """`problem` is why it is down, or what is wrong though it is up; times are seconds."""

    connected: bool = False
    connected_at: float = 0.0
    problem: str = ""
    lost_at: float = field(default_factory=time.monotonic)
    """Monotonic: the start, or the end of the last stream that was welcomed."""
    next_try_at: float = 0.0
    """Of the wall clock, for display: when a link that is down is tried again."""
    busy_since: float | None = None
    """Monotonic; None while the link's thread waits for a message or a try, or has ended."""
    ended: bool = False
    """For good: it is not tried again."""

    def works(self) -> None:
        """The link's thread begins something that has to end."""
        self.busy_since = time.monotonic()

    def rests(self) -> None:
        self.busy_since = None

    def waits(self, seconds: float) -> float:
        """Gives back how long the link's thread waits for its next try."""
        self.next_try_at = time.time() + seconds
        return seconds

    def welcomed(self, problem: str) -> None:
        self.connected, self.connected_at, self.problem = True, time.time(), problem

    def disconnected(self) -> None:
        if self.connected:
            self.lost_at = time.monotonic()
        self.connected = False

    @property
    def down_s(self) -> float:
        """How long there has been no stream; 0 while there is one."""
        return 0.0 if self.connected else time.monotonic() - self.lost_at
