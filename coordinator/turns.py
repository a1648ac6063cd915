"""A queue in which everybody who waits has a turn: one each, over and over. One's own stay in their
order; whoever puts many in holds up nobody else's one."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Anybody's thread puts, one takes."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}  # in the order of their turns
        self._changed = threading.Condition()
        self._last = ""
        self._over = False

    def put(self, name: str, item: T) -> bool:
        """Whether it is taken: not after the end."""
        with self._changed:
            if not self._over:
                self._waiting.setdefault(name, deque()).append(item)
                self._changed.notify()
            return not self._over

    def end(self) -> None:
        """What is there is still given out."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def take(self) -> T | None:
        """Whoever's turn it is; waits for it. None = the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            return self._next()

    def take_at_once(self) -> T | None:
        """None where nobody waits."""
        with self._changed:
            return self._next()

    def _next(self) -> T | None:
        if self._last in self._waiting:  # behind who came meanwhile
            self._waiting[self._last] = self._waiting.pop(self._last)
        if not self._waiting:
            return None
        self._last, own = next(iter(self._waiting.items()))
        item = own.popleft()
        if not own:
            del self._waiting[self._last]
        return item
