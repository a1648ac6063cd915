"""Refusals over gRPC, both ways, and what every channel of ours has: options and deadlines.

A refusal travels as `google.rpc.Status` with one `ErrorInfo` (reason = code, domain "housecall",
metadata kind). Anything else that a server raises is INTERNAL with a reference that is in its log.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from housecall.errors import Kind, Refusal

log = logging.getLogger(__name__)

STATUS: dict[Kind, grpc.StatusCode] = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
    Kind.CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    Kind.NOT_READY: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Kind.INTERNAL: grpc.StatusCode.INTERNAL,
}

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.http2.ping_timeout_ms", 15_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_reconnect_backoff_ms", 20_000),
    ("grpc.use_local_subchannel_pool", 1),
]
"""Pings find a half-open connection in 35 s, and keep tables of NATs and proxies from forgetting
it; a coordinator takes them from 5 s on. For the pings by which gRPC measures bandwidth only
`ping_timeout` counts. Channels share no connection, nor each other's waits."""
CALL_SECONDS = 30.0
"""Of a unary call that names no deadline."""


def refusal_of(error: BaseException) -> Refusal:
    """The refusal that an exception stands for; unexpected ones are logged under a reference."""
    if isinstance(error, Refusal):
        return error
    reference = secrets.token_hex(4)
    log.error("internal error", extra={"reference": reference}, exc_info=error)
    return Refusal(
        Kind.INTERNAL,
        "INTERNAL",
        f"internal error, reference {reference}: the server's log has it under this reference",
    )


def status_of(refusal: Refusal) -> grpc.Status:
    """A rich gRPC status for `context.abort_with_status`."""
    from google.protobuf import any_pb2
    from google.rpc import error_details_pb2, status_pb2
    from grpc_status import rpc_status

    info = error_details_pb2.ErrorInfo(
        reason=refusal.code, domain="housecall", metadata={"kind": refusal.kind.value}
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(
        code=STATUS[refusal.kind].value[0], message=refusal.message, details=[detail]
    )
    return rpc_status.to_status(status)


def from_rpc_error(error: grpc.RpcError, peer: str) -> Refusal:
    """The refusal that a server sent, or one that explains the transport's failure."""
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # what a stub raises is both
    except ValueError:
        status = None
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == "housecall":
            return Refusal(Kind(info.metadata["kind"]), info.reason, status.message)
    return _transport_refusal(error.code(), error.details() or "", peer)


class _Deadline(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        if client_call_details.timeout is None:
            client_call_details = client_call_details._replace(timeout=CALL_SECONDS)
        return continuation(client_call_details, request)


def bounded(channel: grpc.Channel) -> grpc.Channel:
    """The channel, with a deadline for every unary call. Streams end by keepalive."""
    return grpc.intercept_channel(channel, _Deadline())


RENEWAL = (
    "ask the operator for a token made with --renew, leave the identity folder where it is, and "
    "run `enroll` with that token"
)
"""What mends an identity whose certificate ran out. Its keys are good: revoking them, or moving
them away, would lose what was signed by them and not sent."""
_TLS_PROBLEMS: tuple[tuple[str, str, str], ...] = (
    ("not yet valid", "CLOCK_SKEW", "a certificate is not valid yet: check this machine's clock"),
    (
        "has expired",
        "CERTIFICATE_EXPIRED",
        f"a certificate has expired: check the clock; where it is this side's own, {RENEWAL}",
    ),
    (
        "certificate_expired",
        "CERTIFICATE_EXPIRED",
        f"this side's certificate has expired: check the clock; else {RENEWAL}",
    ),
    ("ertificate", "WRONG_CA", "it is not certified by the CA pinned at enrolment"),
    ("andshake", "TLS_FAILED", "the TLS handshake failed"),
)
_CUT = (
    "Socket closed",
    "Connection reset",
    "Broken pipe",
    "andshake read failed",
    "andshake write failed",
)
"""In the middle of a handshake as anywhere: nobody said no, as when a balancer's target died, or a
coordinator is frozen and the handshake's time is over."""


def _transport_refusal(code: grpc.StatusCode, details: str, peer: str) -> Refusal:
    if code is grpc.StatusCode.CANCELLED:
        return Refusal(Kind.UNAVAILABLE, "CANCELLED", f"the call to {peer} was cancelled")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Refusal(Kind.UNAVAILABLE, "DEADLINE", f"no answer from {peer} in time: try again")
    for mark, name, text in _TLS_PROBLEMS:
        if name == "TLS_FAILED" and any(each in details for each in _CUT):
            continue
        if code is grpc.StatusCode.UNAVAILABLE and mark in details:
            return Refusal(Kind.UNAUTHENTICATED, name, f"{peer}: {text} ({details})")
    if code is grpc.StatusCode.UNAVAILABLE:
        return Refusal(
            Kind.UNAVAILABLE, "UNREACHABLE", f"cannot reach {peer}: is it running? ({details})"
        )
    return Refusal(Kind.INTERNAL, "RPC_FAILED", f"{peer} answered {code.name}: {details}")


@contextlib.contextmanager
def refusals(peer: str) -> Iterator[None]:
    """Calls to `peer` inside raise `Refusal` in place of `grpc.RpcError`."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, peer) from None
