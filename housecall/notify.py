"""Telling systemd: sd_notify(3) over the socket that NOTIFY_SOCKET names, a no-op without one."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send one notification, as `READY=1` or `STOPPING=1`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), address)
