"""A plain connection to the coordinator, direct or through a proxy's tunnel."""

from __future__ import annotations

import socket

from agent.doctor.scene import Address
from housecall.proxy import Proxy

MOST_ANSWER_BYTES = 65536


def dial(address: Address, proxy: Proxy | None, seconds: float) -> socket.socket:
    """Raises OSError; a proxy that opens no tunnel is one, too."""
    if proxy is None:
        return socket.create_connection((address.host, address.port), seconds)
    opened = socket.create_connection((proxy.host, proxy.port), seconds)
    try:
        opened.sendall(_asked(address, proxy))
        _require_opened(_head(opened))
    except BaseException:
        opened.close()
        raise
    return opened


def _asked(address: Address, proxy: Proxy) -> bytes:
    lines = [f"CONNECT {address} HTTP/1.1", f"Host: {address}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


def _head(opened: socket.socket) -> bytes:
    """The answer up to its empty line, and not a byte of what the coordinator says behind it."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < MOST_ANSWER_BYTES:
        byte = opened.recv(1)
        if not byte:
            break
        head += byte
    return head


def _require_opened(head: bytes) -> None:
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[1].startswith(b"2"):
        raise ConnectionError("the proxy opened no tunnel")
