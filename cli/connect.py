"""Which end answers a command, and the channel to it.

At a site that is the agent, on its Unix socket; elsewhere the coordinator, by mutual TLS with the
person's own identity. Reads that both answer go to the coordinator when there is an identity (or
`--profile` names one), else to the agent; `--socket` on the command line always means the agent.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from cli import credentials
from cli.settings import Settings
from housecall.credentials import load
from housecall.errors import Kind, Refusal
from housecall.rpc import CALL_SECONDS, CHANNEL_OPTIONS, bounded, refusals
from housecall.users import group_name, user_name

if TYPE_CHECKING:
    from cli.traces import CommandTrace
    from housecall.identity import Identity

T = TypeVar("T")
_CUT_OFF = ("UNREACHABLE", "CANCELLED")
"""How a stream ends whose other end crashed, or stopped."""


@dataclass(frozen=True)
class End:
    """An open channel and who is at its other end. `refusals` surrounds calls; `verifier_key` is
    the ledger's, as pinned at enrolment; "" at a site, whose agent checks proofs itself. `trace`
    is told what is asked and stated."""

    channel: grpc.Channel
    peer: str
    refusals: Callable[[], contextlib.AbstractContextManager[None]]
    at_site: bool
    verifier_key: str = ""
    trace: CommandTrace | None = None

    def call(self, method: Callable[..., T], request: Any, *, seconds: float = CALL_SECONDS) -> T:
        """One unary call with a deadline. Raises Refusal."""
        named = {"metadata": self.trace.metadata()} if self.trace else {}
        with self.refusals():
            return method(request, timeout=seconds, **named)

    def stream(self, method: Callable[..., Any], request: Any, *, look: str = "") -> Iterator[Any]:
        """A server stream; the call ends when the iterator is closed, or by keepalive when the
        other end is gone. `look` is the command that shows work which outlives the other end.
        Raises Refusal."""
        begun = False
        try:
            with self.refusals():
                call = method(request)
                try:
                    for event in call:
                        begun = True
                        yield event
                finally:
                    call.cancel()
        except Refusal as refusal:
            if not (begun and look and refusal.code in _CUT_OFF):
                raise
            text = f"{refusal.message}; what was begun goes on: `{look}`"
            raise Refusal(refusal.kind, refusal.code, text) from None

    def pages(self, method: Callable[..., Any], request: Any, field: str) -> list[Any]:
        """All items of a list that comes in pages."""
        request.page_size = 1000
        items: list[Any] = []
        while True:
            response = self.call(method, request)
            items.extend(getattr(response, field))
            if not response.next_page_token:
                return items
            request.page_token = response.next_page_token


@contextlib.contextmanager
def site(settings: Settings) -> Iterator[End]:
    """The agent of the site that this machine belongs to."""
    path = settings.socket.absolute()
    if not has_socket(settings):
        raise Refusal(
            Kind.NOT_READY,
            "NO_AGENT",
            f"no agent's socket at {path}: run this at the site and start housecall-agent, or name "
            "the socket by --socket or HOUSECALL_SOCKET",
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise _denied(path)
    peer = f"agent at {path}"
    with bounded(grpc.insecure_channel(f"unix:{path}", options=CHANNEL_OPTIONS)) as channel:
        yield End(channel, peer, partial(refusals, peer), at_site=True)


def has_socket(settings: Settings) -> bool:
    """Refuses with SOCKET_DENIED where this user may not even look."""
    try:
        settings.socket.stat()
    except PermissionError:
        raise _denied(settings.socket.absolute()) from None
    except OSError:
        return False
    return True


def _denied(path: Path) -> Refusal:
    me, group = user_name(os.geteuid()), _nearest(path).stat().st_gid
    way = "give the socket a group by the setting socket_group"
    if group:  # root's own is nobody's to join
        way = f"`usermod -aG {group_name(group)} {me}`, which counts from the next login on"
    return Refusal(
        Kind.NOT_ALLOWED,
        "SOCKET_DENIED",
        f"agent's socket {path}: expected one that user {me} may use, got no right to; ask who "
        f"administers this machine: {way}",
    )


def _nearest(path: Path) -> Path:
    """The socket, or of the folders that it lies in the last that this user may look at."""
    for each in (path, *path.parents):
        with contextlib.suppress(OSError):
            each.stat()
            return each
    return path


@contextlib.contextmanager
def coordinator(settings: Settings) -> Iterator[End]:
    """The coordinator, as the person whose identity is at hand; renewed when that is due."""
    folder = settings.identity_folder
    load(folder)
    problem = credentials.renew_if_due(folder)
    if problem:
        settings.note(f"warning: {problem}")
    person = load(folder)
    with person.connect() as channel:
        yield End(
            channel,
            f"coordinator {person.address}",
            person.refusals,
            at_site=False,
            verifier_key=person.verifier_key,
            trace=settings.trace,
        )


@contextlib.contextmanager
def signer(settings: Settings) -> Iterator[tuple[End, Identity]]:
    """The coordinator, and the identity with its signing key: for commands that state something."""
    from housecall.identity import Identity

    with coordinator(settings) as end:
        yield end, Identity.load(settings.identity_folder)


def reads_at_site(settings: Settings) -> bool:
    """Whether reads go to the agent. Refuses where there is neither end."""
    if settings.profile or (settings.enrolled and not settings.socket_chosen):
        return False
    if settings.socket_chosen or has_socket(settings):
        return True
    raise Refusal(
        Kind.NOT_READY,
        "NO_END",
        f"neither an identity in {settings.identity_folder} nor an agent's socket at "
        f"{settings.socket}: enrol with `housecall enroll --token TOKEN`, or at a site name its "
        "agent's socket by --socket or HOUSECALL_SOCKET",
    )


@contextlib.contextmanager
def reader(settings: Settings) -> Iterator[End]:
    """The end that answers reads."""
    with site(settings) if reads_at_site(settings) else coordinator(settings) as end:
        yield end
