"""What the agent looks after while it runs, each duty at its own pace, by the monotonic clock.

Reconciling is idempotent: what goes on by itself is left alone. A duty that is refused (the engine
is away, the disk is full) is tried again at its next turn.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.disk import explained
from housecall.rpc import refusal_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Duty:
    name: str
    every_s: float
    perform: Callable[[], object]


class Upkeep:
    """Performs its duties in turn; serves while it is entered, on a thread of its own."""

    def __init__(self, duties: Sequence[Duty], name: str = "upkeep") -> None:
        self._due = [(0.0, duty) for duty in duties]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Upkeep:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.is_set():
            now = time.monotonic()
            self._due = [
                (now + duty.every_s, duty) if at <= now and self._done(duty) else (at, duty)
                for at, duty in self._due
            ]
            next_at = min(at for at, _ in self._due)
            self._stop.wait(max(0.1, next_at - time.monotonic()))

    def _done(self, duty: Duty) -> bool:
        try:
            duty.perform()
        except Exception as error:
            code = refusal_of(explained(error)).code
            log.warning("duty put off", extra={"duty": duty.name, "code": code})
        return True
