"""A socket in systemd's place: what a program tells it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WATCHDOG_S = 0.6
FEED_WITHIN_S = 20.0


class Notices:
    """What came in on NOTIFY_SOCKET."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def forget(self) -> None:
        """Nothing that came so far counts."""
        self._channel.setblocking(False)
        try:
            while True:
                self._channel.recv(200)
        except BlockingIOError:
            return

    def fed_within(self, seconds: float) -> bool:
        """Whether a WATCHDOG=1 comes in that time, from now on."""
        self.forget()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._channel.settimeout(left)
            try:
                if self._channel.recv(200) == b"WATCHDOG=1":
                    return True
            except TimeoutError:
                return False
        return False

    def fed(self) -> bool:
        return self.fed_within(FEED_WITHIN_S)

    def starved(self) -> bool:
        """Systemd's patience is over. One feed may have been on its way when the hang began."""
        self.fed_within(WATCHDOG_S / 3)
        return not self.fed_within(WATCHDOG_S)


@contextmanager
def watching(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notices]:
    """NOTIFY_SOCKET and a watchdog of WATCHDOG_S for this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        path = folder / "notify"
        channel.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        yield Notices(channel)
