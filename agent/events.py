"""What happens to a piece of work, live: in-process events that any number of callers follow.

A `Feed` belongs to one piece of work and outlives its callers; who joins late first gets what was
said before (of log lines only the newest). Translating events to messages is left to the edge.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

KEPT_LINES = 200
KEPT_EVENTS = 200
MOST_WAITING = 5_000
_END = object()


@dataclass(frozen=True)
class Amount:
    """How much of something counted is done; `unit` is bytes or cases."""

    label: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class StepChange:
    """`state` is one of PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED."""

    step: str
    state: str
    seconds: float = 0.0
    exit_code: int = 0
    code: str = ""
    text: str = ""


@dataclass(frozen=True)
class LogLine:
    step: str
    text: str


@dataclass(frozen=True)
class Drafted:
    """Exactly what would leave: the statements' payloads, in the order they are sent."""

    digest: str
    statements: tuple[bytes, ...]


@dataclass(frozen=True)
class Done:
    """How it ended when nothing leaves; `dataset` is a local number, 0 for none."""

    text: str
    dataset: int = 0


Event = Amount | StepChange | LogLine | Drafted | Done


class Feed:
    """The events of one piece of work; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._said: deque[tuple[int, Event]] = deque(maxlen=KEPT_EVENTS)
        self._lines: deque[tuple[int, Event]] = deque(maxlen=KEPT_LINES)
        self._amounts: dict[str, tuple[int, Event]] = {}
        self._followers: list[queue.Queue[object]] = []
        self._closed = False

    def emit(self, event: Event) -> None:
        with self._lock:
            numbered = (next(self._numbers), event)
            if isinstance(event, Amount):
                self._amounts[event.label] = numbered
            else:
                (self._lines if isinstance(event, LogLine) else self._said).append(numbered)
            for follower in self._followers:
                if not isinstance(event, LogLine) or follower.qsize() < MOST_WAITING:
                    follower.put(event)  # lines that a slow caller misses are in the log

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for follower in self._followers:
                follower.put(_END)

    def follow(self, wanted: Callable[[], bool] = lambda: True) -> Iterator[Event]:
        """Everything kept so far, then live until the end, or until it is not `wanted` any more."""
        mine: queue.Queue[object] = queue.Queue()
        with self._lock:
            kept = (*self._said, *self._amounts.values(), *self._lines)
            for _, event in sorted(kept, key=lambda numbered: numbered[0]):
                mine.put(event)
            if self._closed:
                mine.put(_END)
            self._followers.append(mine)
        try:
            yield from _drain(mine, wanted)
        finally:
            with self._lock:
                self._followers.remove(mine)


def _drain(mine: queue.Queue[object], wanted: Callable[[], bool]) -> Iterator[Event]:
    while wanted():
        try:
            event = mine.get(timeout=0.5)
        except queue.Empty:
            continue
        if event is _END:
            return
        assert isinstance(event, Event)
        yield event
