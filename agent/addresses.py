"""Where sources may be: at public addresses only, unless the site allows others.

 1. Loopback, private, link-local and other addresses that are not public are refused: a
    registration must not reach into the hospital.
 2. A source that is dialled directly is dialled at the address that was checked.
 3. A proxy is asked for a name, resolves it by itself, and may choose among its addresses. So one
    private address that this machine's DNS gives the name is enough for a no. A name that is not
    known here, or for which no answer comes in time, is the proxy's to judge.

Connections are left to `fetching.py`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import socket
import threading

from housecall.errors import Kind, Refusal

DNS_S = 3.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolved(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order in which they are to be tried. Raises OSError, and
    ValueError for a name that is none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def public(host: str, addresses: list[str], *, allow_private: bool) -> list[str]:
    """Those that may be dialled; refuses with ADDITIONAL_FILES_PRIVATE where there is none."""
    allowed = [each for each in addresses if allow_private or _is_public(each)]
    if not allowed:
        raise _private(host, addresses)
    return allowed


def require_public_behind_proxy(host: str, port: int, *, allow_private: bool) -> None:
    """3."""
    if allow_private:
        return
    addresses = [host] if _literal(_written(host)) else [host, *_known_here(host, port)]
    if not all(_is_public(each) for each in addresses):
        raise _private(host, addresses[1:])


def _known_here(host: str, port: int) -> list[str]:
    """[] where DNS gives no address, or no answer: in many hospitals only the proxy knows more."""
    answers: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            answers.put(resolved(host, port))
        answers.put([])

    threading.Thread(target=ask, name="dns", daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return answers.get(timeout=DNS_S)
    return []


def _is_public(host: str) -> bool:
    written = _written(host)
    found = _literal(written)
    if found is None:
        return not (written == "localhost" or written.endswith(".localhost"))
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            found = inner
    return found.is_global and not found.is_multicast


def _written(host: str) -> str:
    """As a proxy is asked for it: full-width digits are digits there."""
    with contextlib.suppress(UnicodeError):  # on which http.client fails, too
        host = host.encode("idna").decode()
    return host.rstrip(".").lower()


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that the text stands for, also as inet_aton(3) takes it: 127.1, 0x7f000001."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.partition("%")[0])
    with contextlib.suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(host))
    return None


def _private(host: str, addresses: list[str]) -> Refusal:
    found = [each for each in addresses if each != host]
    got = f"{host} ({', '.join(found)})" if found else host
    return Refusal(
        Kind.NOT_ALLOWED,
        "ADDITIONAL_FILES_PRIVATE",
        f"additional files: expected a source at a public address, got {got}; where this "
        "site means to fetch from its own network: the setting allow_private_sources",
    )
