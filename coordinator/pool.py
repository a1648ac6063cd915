"""The threads that serve unary calls, or agents' streams; it counts what they take up and end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Pool(ThreadPoolExecutor):
    """`moves` grows with each call that a thread takes up, and with each that ends."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self.moves = 0

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        def counted() -> T:
            self._move()
            try:
                return call(*args, **kwargs)
            finally:
                self._move()

        return super().submit(counted)

    def _move(self) -> None:
        with self._lock:
            self.moves += 1
