"""Streams that are open here, by who opened them: those of a revoked participant end at once,
whatever they wait for.

A stream is known before its caller is looked up in the store: either that look finds the
revocation, or the revocation finds the stream. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from housecall.errors import Kind, Refusal


class Streams:
    """The task of each open stream, and its caller's name."""

    def __init__(self) -> None:
        self._open: dict[asyncio.Task[object], str] = {}

    @contextmanager
    def opened(self, name: str) -> Iterator[None]:
        """While this task serves a stream of `name`. Raises REVOKED where that ended it."""
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = name
        try:
            yield
        except asyncio.CancelledError:
            if task in self._open:  # the caller went away, or this process stops
                raise
            raise Refusal(Kind.UNAUTHENTICATED, "REVOKED", f"{name} is revoked") from None
        finally:
            self._open.pop(task, None)

    def revoke(self, name: str) -> None:
        for task in [task for task, who in self._open.items() if who == name]:
            del self._open[task]
            task.cancel()
