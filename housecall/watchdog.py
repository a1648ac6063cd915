"""Feeds systemd's watchdog with progress: `WATCHDOG=1` is sent after a probe came back, and never
by a timer alone.

A probe passes the program's own doors and threads. Three ends count:

 1. it returns: the program works, and systemd is told;
 2. it raises `Refusal`: a door said no, as it does when a database is away or a disk is full. That
    is an answer, and a restart would not mend it: systemd is told as well;
 3. it hangs, or raises anything else: nothing is said, and systemd restarts the program when
    `WatchdogSec` is over. SIGABRT then writes every thread's stack to the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from housecall.errors import Refusal
from housecall.notify import feeding_interval, notify

log = logging.getLogger(__name__)


class Stuck(Exception):
    """A part of the program does not move; the message names it."""


def _answered(error: Exception | None) -> None:
    if error is None:
        notify("WATCHDOG=1")
    elif isinstance(error, Refusal):
        log.warning("alive, but refused", extra={"code": error.code})
        notify("WATCHDOG=1")
    else:
        log.error("not alive", extra={"problem": str(error)}, exc_info=error)


def _stacks_on_abort() -> None:
    if not faulthandler.is_enabled():
        faulthandler.enable()


@contextlib.contextmanager
def fed(probe: Callable[[], None]) -> Iterator[None]:
    """While it is entered, a thread feeds the watchdog; does nothing where systemd has none."""
    interval, stop = feeding_interval(), threading.Event()
    if interval is None:
        yield
        return

    def feed() -> None:
        while not stop.is_set():
            try:
                probe()
            except Exception as error:
                _answered(error)
            else:
                _answered(None)
            stop.wait(interval)

    _stacks_on_abort()
    threading.Thread(target=feed, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


@contextlib.asynccontextmanager
async def fed_by_loop(probe: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """The same, as a task of the running event loop: a loop that hangs feeds nothing."""
    interval = feeding_interval()
    if interval is None:
        yield
        return

    async def feed() -> None:
        while True:
            try:
                await probe()
            except Exception as error:
                _answered(error)
            else:
                _answered(None)
            await asyncio.sleep(interval)

    _stacks_on_abort()
    task = asyncio.create_task(feed(), name="watchdog")
    try:
        yield
    finally:
        task.cancel()
