"""Addresses as people write them: `host:port`, where a host is a DNS name or an IP address."""

from __future__ import annotations

import ipaddress
import re

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NUMBERS = re.compile(r"[0-9.]+")


def split(text: str, least_port: int = 1) -> tuple[str, int]:
    """(host, port) of `name:port`, `1.2.3.4:port` or `[v6]:port`; the host without brackets. Raises
    ValueError, which says what was expected and got."""
    host, _, port = text.rpartition(":")
    if re.fullmatch("[0-9]{1,5}", port) and least_port <= int(port) <= 65535 and _is_host(host):
        return host.removeprefix("[").removesuffix("]"), int(port)
    raise ValueError(
        "expected host:port, as coordinator.example.org:8443 or [2001:db8::1]:8443, with a port "
        f"from {least_port} to 65535, got {text!r}"
    )


def _is_host(text: str) -> bool:
    try:
        if text.startswith("[") and text.endswith("]"):
            return bool(ipaddress.IPv6Address(text[1:-1]))
        if _NUMBERS.fullmatch(text):
            return bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False
    return len(text) <= 253 and bool(_NAME.fullmatch(text))
