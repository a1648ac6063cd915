"""A file from the web into a file of ours: through the site's proxy, and from public places only.

 1. A source is reached through the proxy that was set, else the environment's; the proxy then
    resolves its name. Without one the name is resolved here, and the checked address is dialled.
 2. Addresses that are not public are refused unless the site allows them, at every redirect anew
    (`addresses.py`).
 3. https is checked against the system's CAs and those of the site's own file.
 4. A transfer that breaks is taken up where it broke, as long as each try brings something.

That it is the right content only its digest says: `additional_files.py`.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from agent.addresses import public, require_public_behind_proxy, resolved
from agent.unpacking import refuse
from housecall.errors import Kind, Refusal
from housecall.proxy import Proxy, chosen

CHUNK = 2**20
READ_TIMEOUT_S = 60
FETCH_S = 6 * 3600
MOST_REDIRECTS = 5
MOST_TRIES = 5
"""In a row without a byte."""
RETRY_S = 1.0
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Outward:
    """How this site fetches. `ca_file` (PEM) adds to the CAs that the system trusts."""

    proxy: Proxy | None = None
    ca_file: Path | None = None
    allow_private: bool = False

    def tls(self) -> ssl.SSLContext:
        """Raises OSError where `ca_file` holds no certificates."""
        context = ssl.create_default_context()
        if self.ca_file is not None:
            context.load_verify_locations(self.ca_file)
        return context


class _Broken(Exception):
    """What the network did, apart from what the disk does."""


@dataclass
class _Transfer:
    """What has arrived in `file`, and the validator (RFC 9110, 13.1.5) by which the server tells
    the same content from a changed one."""

    file: IO[bytes]
    most_bytes: int
    size: int = 0
    furthest: int = 0
    validator: str = ""

    @property
    def headers(self) -> dict[str, str]:
        headers = {"User-Agent": "housecall", "Accept-Encoding": "identity"}
        if self.size and self.validator:
            headers |= {"Range": f"bytes={self.size}-", "If-Range": self.validator}
        return headers

    def begin(self, answer: http.client.HTTPResponse) -> None:
        """Where the server does not go on from `size`, from the start."""
        goes_on = (answer.getheader("Content-Range") or "").startswith(f"bytes {self.size}-")
        if answer.status == 206 and goes_on:
            return
        if answer.status != 200:
            raise _Broken(str(answer.status))
        self.file.seek(0)
        self.file.truncate()
        self.size = 0
        etag = answer.getheader("ETag") or ""
        strong = "" if etag.startswith("W/") else etag
        self.validator = strong or answer.getheader("Last-Modified") or ""

    def take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.furthest = max(self.furthest, self.size)
        if self.size > self.most_bytes:
            refuse(Kind.INVALID, "UNSAFE", f"at most {self.most_bytes} bytes", "more")
        self.file.write(chunk)


def fetch(
    url: str,
    target: Path,
    most_bytes: int,
    *,
    outward: Outward,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Raises Refusal ADDITIONAL_FILES_UNAVAILABLE, _UNSAFE, _PRIVATE or STEP_STOPPED, and OSError
    where the disk does."""
    host, until, tries = _host(url), time.monotonic() + FETCH_S, 0

    def check() -> None:
        if stopped():
            text = f"additional files from {host}: the fetch was stopped; start it again"
            raise Refusal(Kind.CONFLICT, "STEP_STOPPED", text)
        if time.monotonic() > until:
            _unavailable(host, f"no end of it within {FETCH_S} s")

    with target.open("wb") as file:
        transfer = _Transfer(file, most_bytes)
        while True:
            before = transfer.furthest
            try:
                _once(url, transfer, outward, check)
                return
            except _Broken as broken:
                tries = 0 if transfer.furthest > before else tries + 1
                if not transfer.furthest or tries >= MOST_TRIES:
                    _unavailable(host, str(broken))
            time.sleep(RETRY_S)
            check()


def _once(url: str, transfer: _Transfer, outward: Outward, check: Callable[[], None]) -> None:
    with _opened(url, transfer.headers, outward) as answer:
        transfer.begin(answer)
        for chunk in _chunks(answer):
            check()
            transfer.take(chunk)


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        with _network():
            chunk = answer.read1(CHUNK)
        if not chunk:
            break
        yield chunk
    if answer.length:
        raise _Broken(f"an end {answer.length} bytes too early")


@contextlib.contextmanager
def _opened(
    url: str, headers: dict[str, str], outward: Outward
) -> Iterator[http.client.HTTPResponse]:
    """The answer behind the redirects. Raises _Broken."""
    for _ in range(MOST_REDIRECTS + 1):
        connection, target, more = _way(url, outward)
        with contextlib.closing(connection):
            with _network():
                connection.request("GET", target, headers=headers | more)
                answer = connection.getresponse()
            with answer:
                if answer.status not in _REDIRECTS:
                    yield answer
                    return
            url = urllib.parse.urljoin(url, answer.getheader("Location") or "")
    raise _Broken(f"more than {MOST_REDIRECTS} redirects")


def _way(url: str, outward: Outward) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """The connection to be used, what to ask it for, and what to say to a proxy besides."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in _PORTS:
        refuse(Kind.INVALID, "UNAVAILABLE", "http or https", parts.scheme or "a path")
    with _network():  # a port that is none
        host, port = _host(url), parts.port or _PORTS[parts.scheme]
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    variable = "HTTPS_PROXY" if parts.scheme == "https" else "HTTP_PROXY"
    proxy = chosen(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", outward.proxy, variable)
    if proxy is None:
        return _direct(parts.scheme, host, port, outward), target, {}
    require_public_behind_proxy(host, port, allow_private=outward.allow_private)  # 2
    said = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
    if parts.scheme == "http":
        plain = http.client.HTTPConnection(proxy.host, proxy.port, timeout=READ_TIMEOUT_S)
        return plain, urllib.parse.urlunsplit(parts._replace(fragment="")), said
    tunnelled = http.client.HTTPSConnection(
        proxy.host, proxy.port, timeout=READ_TIMEOUT_S, context=outward.tls()
    )
    tunnelled.set_tunnel(host, port, headers=said)
    return tunnelled, target, {}


def _direct(scheme: str, host: str, port: int, outward: Outward) -> http.client.HTTPConnection:
    """A connection whose socket is there already: to an address that was checked."""
    with _network():
        addresses = resolved(host, port)
    allowed = public(host, addresses, allow_private=outward.allow_private)
    with _network():
        dialled = _dial(allowed, port)
        if scheme == "https":
            dialled = outward.tls().wrap_socket(dialled, server_hostname=host)
    connection = http.client.HTTPConnection(host, port, timeout=READ_TIMEOUT_S)
    connection.default_port = _PORTS[scheme]
    connection.sock = dialled
    return connection


def _dial(addresses: list[str], port: int) -> socket.socket:
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), READ_TIMEOUT_S)
    return socket.create_connection((addresses[-1], port), READ_TIMEOUT_S)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Broken(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"a certificate that is not trusted here ({error.verify_message})"
    if isinstance(error, OSError):
        return f"{error.strerror or error}"
    return type(error).__name__


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or "nowhere"


def _unavailable(host: str, got: str) -> NoReturn:
    refuse(Kind.UNAVAILABLE, "UNAVAILABLE", f"an archive from {host}", got)
