"""Telling systemd: sd_notify(3) over the socket that NOTIFY_SOCKET names, a no-op without one.

What is told when is left to the programs; `housecall/watchdog.py` feeds the watchdog.
"""

from __future__ import annotations

import os
import socket

FEEDS_A_LIMIT = 3
"""One feed may be late, or lost, without a restart."""


def notify(state: str) -> None:
    """Send one notification, as `READY=1` or `STOPPING=1`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), address)


def feeding_interval() -> float | None:
    """Seconds from one `WATCHDOG=1` to the next, by sd_watchdog_enabled(3); None = no watchdog."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(limit) / 1e6 / FEEDS_A_LIMIT if limit.isdecimal() and int(limit) else None
