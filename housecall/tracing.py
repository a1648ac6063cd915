"""Traces: where a span stands follows from what was signed, so that nothing has to carry it.

 1. A statement's trace is the first 16 bytes of its envelope's SHA-256, and its root span, which
    whoever stated it reports, the next 8.
 2. An execution is a span below the root of the ExecutionRequested that ordered it, by its line;
    a step is a span below its execution, by its container's name at the engine.
 3. Every other span has its parent's ids and a name of its own.

Command line, every replica of the coordinator and the agent find the same ids, after days offline
and after restarts. Reporting is left to `spans.py`, imported only where an endpoint is named.
Source: W3C Trace Context (`traceparent`).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from housecall.errors import Kind, Refusal

TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
Value = str | int | float | bool


@dataclass(frozen=True)
class Place:
    """A span's ids. `parent_id` is 0 for a root."""

    trace_id: int
    span_id: int
    parent_id: int = 0

    def child(self, *names: str | int) -> Place:
        """The span below this one that has these names."""
        said = f"{self.traceparent}/{'/'.join(map(str, names))}"
        span_id = hashlib.sha256(said.encode()).digest()[:8]
        return Place(self.trace_id, int.from_bytes(span_id, "big"), self.span_id)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"

    @property
    def trace(self) -> str:
        """The trace's id as logs and tools show it."""
        return f"{self.trace_id:032x}"


def of_envelope(envelope_digest: str) -> Place:
    """1. The root span of a statement, from its `sha256:<hex>`."""
    hexadecimal = envelope_digest.removeprefix("sha256:")
    return Place(int(hexadecimal[:32], 16), int(hexadecimal[32:48], 16))


def of_order(envelope_digest: str, line: int) -> Place:
    """2. The span of the execution that this line of an ExecutionRequested ordered."""
    return of_envelope(envelope_digest).child("execution", line)


def of_name(*names: str | int) -> Place:
    """The root of a trace that belongs to no statement, such as work started at a site."""
    return of_envelope(hashlib.sha256("/".join(map(str, names)).encode()).hexdigest())


def fresh() -> Place:
    """The root of a trace of its own."""
    return of_envelope(secrets.token_hex(24))


def read(traceparent: str) -> Place | None:
    """The place that a caller named; None where it is none."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return None
    return Place(int(found[1], 16), int(found[2], 16))


@dataclass(frozen=True)
class Span:
    """What took place from `began` to `ended`, in seconds since the epoch. `code` is that of the
    refusal it ended with, "" for none. `link` is a span of another trace that led to it."""

    name: str
    at: Place
    began: float
    ended: float
    code: str = ""
    attributes: Mapping[str, Value] = field(default_factory=dict)
    link: Place | None = None


class Tracer:
    """Where spans are reported to. This one was told no endpoint and keeps none."""

    on: bool = False

    def report(self, span: Span) -> None:
        """Never blocks and never fails."""

    def close(self) -> None:
        """Report what is left, in bounded time."""

    @contextmanager
    def during(self, name: str, at: Place, **attributes: Value) -> Iterator[None]:
        """A span of what is done inside, with the code of the refusal that ends it."""
        began, code = time.time(), ""
        try:
            yield
        except Refusal as refusal:
            code = refusal.code
            raise
        except BaseException:
            code = "INTERNAL"
            raise
        finally:
            self.report(Span(name, at, began, time.time(), code, attributes))


def tracer(endpoint: str, service: str, *, seconds: float = 3.0) -> Tracer:
    """For `https://host:port`, or `http://127.0.0.1:port`; "" reports nothing. Delivering a batch
    takes at most so many seconds. Raises Refusal."""
    if not checked(endpoint):
        return Tracer()
    from housecall.spans import Reporter

    return Reporter(endpoint, service, seconds)


def checked(endpoint: str) -> str:
    """The setting as it is; refuses what would send spans in the clear over a network."""
    if not endpoint:
        return endpoint
    parts = urlsplit(endpoint)
    clear = parts.scheme == "http" and _is_loopback(parts.hostname or "")
    if not parts.hostname or not (parts.scheme == "https" or clear):
        raise Refusal(
            Kind.INVALID,
            "SETTINGS_INVALID",
            "trace_endpoint: expected https://host:port, or http://127.0.0.1:port for a collector "
            f"on this machine, got {endpoint!r}; correct it",
        )
    return endpoint


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
