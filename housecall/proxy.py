"""The HTTP proxy on the way out: which one counts, and what it says when it fails.

1. A proxy that was set counts; else HTTPS_PROXY of the environment, in either case.
2. Loopback, Unix sockets and what NO_PROXY names are dialled directly, whoever named the proxy.
3. The proxy is asked by CONNECT (RFC 9110, 9.3.6) and resolves the name; TLS runs through it
   end to end.
4. A password is shown nowhere: not in `repr`, not in a message.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
import urllib.parse
from dataclasses import dataclass, field

from housecall.errors import Kind, Refusal

PROBE_SECONDS = 5.0
DEFAULT_PORT = 80
_BEHIND = (502, 503, 504)
"""Answers of a proxy that is there, but cannot reach what it was asked for."""


@dataclass(frozen=True)
class Proxy:
    """`authorization` is the value of the header Proxy-Authorization, "" for none."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def channel_options(self) -> list[tuple[str, int | str]]:
        """For a gRPC channel. The password goes by a header: gRPC splits a URL at any `@`."""
        options: list[tuple[str, int | str]] = [("grpc.http_proxy", f"http://{self.name}")]
        if self.authorization:
            header = f"Proxy-Authorization:{self.authorization}"
            options.append(("grpc.http_connect_headers", header))
        return options


def parse(url: str, password: str = "") -> Proxy:
    """The proxy that `http://[user[:password]@]host[:port]` names. `password`, as from a file,
    wins over the URL's. Raises Refusal PROXY_INVALID, which does not quote the URL."""
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        raise _invalid("a URL", "something else") from None
    if parts.scheme != "http":
        raise _invalid("scheme http: a proxy is asked by plain CONNECT", parts.scheme)
    if not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise _invalid("http://[user:password@]host:port", "another URL")
    user = urllib.parse.unquote(parts.username or "")
    password = password or urllib.parse.unquote(parts.password or "")
    if not user and password:
        raise _invalid("a user for the password: http://user@host:port", "none")
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return Proxy(host, port, f"Basic {pair}" if user else "")


def chosen(address: str, given: Proxy | None = None, variable: str = "HTTPS_PROXY") -> Proxy | None:
    """The proxy on the way to `address` (host:port, or unix:path); None = dial it directly."""
    if is_direct(address):
        return None
    url = _variable(variable)
    return given or (parse(url) if url else None)


def is_set(given: Proxy | None = None, variable: str = "HTTPS_PROXY") -> bool:
    """Whether rule 1 names one at all."""
    return given is not None or bool(_variable(variable))


def is_direct(address: str) -> bool:
    """Rule 2."""
    if address.startswith("unix:"):
        return True
    host = (urllib.parse.urlsplit(f"//{address}").hostname or "").rstrip(".")
    literal = _literal(host)
    if host == "localhost" or (literal is not None and literal.is_loopback):
        return True
    entries = (entry.strip().lower() for entry in _variable("NO_PROXY").split(","))
    return any(_exempts(entry, host, literal) for entry in entries if entry)


def _exempts(
    entry: str, host: str, literal: ipaddress.IPv4Address | ipaddress.IPv6Address | None
) -> bool:
    """An entry is `*`, a domain that stands for its subdomains too, an address, or a network."""
    if literal is None:
        domain = entry.removeprefix("*").removeprefix(".").partition(":")[0]
        return entry == "*" or host == domain or host.endswith(f".{domain}")
    try:
        return entry == "*" or literal in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return entry.rpartition(":")[0] == host


def probe(proxy: Proxy, address: str, seconds: float = PROBE_SECONDS) -> Refusal | None:
    """Ask the proxy for a tunnel to `address` by a socket of our own: what is wrong, or None where
    it opens one."""
    what = f"proxy {proxy.name} on the way to {address}"
    try:
        status = _status(proxy, address, seconds)
    except TimeoutError:
        return _unreachable(f"{what}: expected an answer within {seconds:g} s, got none")
    except OSError as error:
        return _unreachable(f"{what}: cannot reach it: {error.strerror or error}")
    if status is None:
        return _unreachable(f"{what}: it hung up without an answer")
    if 200 <= status < 300:
        return None
    if status in _BEHIND:
        text = f"{what}: it answered {status}: it cannot reach the coordinator; is that running?"
        return Refusal(Kind.UNAVAILABLE, "UNREACHABLE", text)
    return Refusal(Kind.UNAVAILABLE, "PROXY_REFUSED", f"{what}: {_no(status, proxy)}")


def _no(status: int, proxy: Proxy) -> str:
    if status == 407 and proxy.authorization:
        return "it answered 407: it does not accept the user and password that were set for it"
    if status == 407:
        return "it answered 407: it wants a user and a password; set them for it"
    if status == 403:
        return "it answered 403: it does not allow this address; ask who runs it to allow CONNECT"
    return f"expected an answer 200 to CONNECT, got {status or 'no HTTP'}; is it an HTTP proxy?"


def _status(proxy: Proxy, address: str, seconds: float) -> int | None:
    """Of the answer to a CONNECT; 0 where it is no HTTP, None where there is none."""
    lines = [f"CONNECT {address} HTTP/1.1", f"Host: {address}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    with socket.create_connection((proxy.host, proxy.port), seconds) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        first = connection.recv(64)
    if not first:
        return None
    words = first.split()
    known = words[0].startswith(b"HTTP/") and len(words) > 1 and words[1].isdigit()
    return int(words[1]) if known else 0


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _variable(name: str) -> str:
    return os.environ.get(name.lower()) or os.environ.get(name) or ""


def _unreachable(message: str) -> Refusal:
    text = f"{message}; check the proxy's address, and that it runs"
    return Refusal(Kind.UNAVAILABLE, "PROXY_UNREACHABLE", text)


def _invalid(expected: str, got: str) -> Refusal:
    text = (
        f"proxy: expected {expected}, got {got}; correct the agent's setting proxy, or HTTPS_PROXY"
    )
    return Refusal(Kind.INVALID, "PROXY_INVALID", text)
