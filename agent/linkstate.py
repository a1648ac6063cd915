"""How the link stands, for `GetStatus`."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class LinkState:
    """`problem` is why it is down, or what is wrong though it is up; times are seconds."""

    connected: bool = False
    connected_at: float = 0.0
    problem: str = ""

    def welcomed(self, problem: str) -> None:
        self.connected, self.connected_at, self.problem = True, time.time(), problem

    def disconnected(self) -> None:
        self.connected = False
