"""The edge: every call gets its caller, is checked against the method table, and has its refusals
turned into rich statuses. Servicers behind it never see gRPC's contexts for either."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing, contextmanager
from typing import Any, TypeAlias, TypeVar

import grpc

from coordinator.caller import ROLES, Caller, CallerRole, read_certificate, set_caller
from coordinator.models import Participant
from coordinator.policy import check_method
from coordinator.store import Store
from coordinator.streams import Streams
from coordinator.telemetry import Telemetry
from housecall.errors import Kind, Refusal
from housecall.identity import split_id
from housecall.rpc import STATUS, refusal_of, status_of
from housecall.tracing import TRACEPARENT
from housecall.v1 import statements_pb2 as pb

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
T = TypeVar("T")

UNARY_SECONDS = 45.0
"""More than what the store and the notary may take before they say no themselves."""


class Gatekeeper:
    """Certificate -> Caller. Asks the store at every call: revocation holds at once."""

    def __init__(self, store: Store, trust_domain: str) -> None:
        self._store = store
        self._trust_domain = trust_domain

    def admit(self, method: str, auth_context: Any) -> Caller:
        name, key_digest, expires_at = read_certificate(auth_context)
        trust_domain, kind, short = split_id(name)
        if trust_domain != self._trust_domain:
            raise Refusal(
                Kind.UNAUTHENTICATED,
                "TRUST_DOMAIN_FOREIGN",
                f"{name}: expected a name of {self._trust_domain}",
            )
        signing_key = b""
        if kind == "join":
            role, key_is_known = CallerRole.JOINER, key_digest.startswith(f"sha256:{short}")
        else:
            participant = self._participant(name)
            role = ROLES[pb.Role.ValueType(participant.role)]
            key_is_known = key_digest == participant.tls_key_digest
            signing_key = participant.signing_key
        if not key_is_known:  # a CA of an organisation's own may have siblings under its root
            raise Refusal(
                Kind.UNAUTHENTICATED,
                "CERTIFICATE_FOREIGN",
                f"{name}: expected a certificate of the key that was enrolled, got one of another",
            )
        check_method(method, role)
        return Caller(name, role, key_digest, expires_at, signing_key)

    def _participant(self, name: str) -> Participant:
        with self._store.read() as reader:
            participant = reader.find(Participant, name)
        if participant is None or participant.revoked_index is not None:
            raise Refusal(
                Kind.UNAUTHENTICATED,
                "REVOKED",
                f"{name} is not enrolled here any more: ask the operator for a new join token",
            )
        return participant


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each handler by its kind; knows no service. Tells `telemetry` of every call, and
    `streams` of every stream."""

    def __init__(
        self, gatekeeper: Gatekeeper, telemetry: Telemetry, pool: Executor, streams: Streams
    ) -> None:
        self._gatekeeper, self._telemetry, self._pool = gatekeeper, telemetry, pool
        self._streams = streams

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        if handler.request_streaming or handler.response_streaming:
            return self._wrap_stream(handler, method)
        return self._wrap_unary(handler, method)

    async def _enter(self, method: str, context: Any) -> None:
        """The store is asked in a thread: where it hangs, the loop and its streams do not."""
        auth = context.auth_context()
        set_caller(await self._within(self._gatekeeper.admit, method, auth))

    async def _within(self, work: Callable[..., T], *arguments: Any) -> T:
        """In the pool, with the caller's context, and within the bound of every unary call: whoever
        set no deadline of its own gets an answer too."""
        loop = asyncio.get_running_loop()
        call = functools.partial(contextvars.copy_context().run, work, *arguments)
        try:
            async with asyncio.timeout(UNARY_SECONDS):
                return await loop.run_in_executor(self._pool, call)
        except TimeoutError:
            raise Refusal(
                Kind.UNAVAILABLE,
                "STORE_SLOW",
                f"no answer within {UNARY_SECONDS:.0f} s: try again, the same statement counts "
                "once",
            ) from None

    def _wrap_unary(self, handler: Any, method: str) -> Handler:
        """Plain functions run in the pool, coroutines on the loop."""
        is_coroutine = inspect.iscoroutinefunction(handler.unary_unary)

        def admitted(request: Any, context: Any) -> Any:
            set_caller(self._gatekeeper.admit(method, context.auth_context()))
            return handler.unary_unary(request, context)

        async def call(request: Any, context: Any) -> Any:
            began, refusal = time.perf_counter(), None
            try:
                if not is_coroutine:
                    return await self._within(admitted, request, context)
                await self._enter(method, context)
                return await handler.unary_unary(request, context)
            except Exception as error:
                refusal = refusal_of(error)
                return await context.abort_with_status(status_of(refusal))
            finally:
                self._telemetry.called(method, _traceparent(context), began, refusal)

        return grpc.unary_unary_rpc_method_handler(
            call, handler.request_deserializer, handler.response_serializer
        )

    def _wrap_stream(self, handler: Any, method: str) -> Handler:
        behaviour = handler.stream_stream or handler.unary_stream
        build = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )

        is_generator = inspect.isasyncgenfunction(behaviour)

        async def call(request: Any, context: Any) -> None:
            """It writes itself what a generator gives: gRPC would not tell one that is held up in a
            write that it is cancelled."""
            try:
                name = read_certificate(context.auth_context())[0]
                with self._streaming(method), self._streams.opened(name):
                    await self._enter(method, context)
                    if not is_generator:
                        await behaviour(request, context)
                        return
                    async with aclosing(behaviour(request, context)) as responses:
                        async for response in responses:
                            await context.write(response)
            except Exception as error:
                await context.abort_with_status(status_of(refusal_of(error)))

        return build(call, handler.request_deserializer, handler.response_serializer)

    @contextmanager
    def _streaming(self, method: str) -> Iterator[None]:
        self._telemetry.stream_began(method)
        status = "CANCELLED"  # whatever is no Exception: the caller went away
        try:
            yield
            status = "OK"
        except Refusal as refusal:
            status = STATUS[refusal.kind].name
            raise
        except Exception:
            status = "INTERNAL"
            raise
        finally:
            self._telemetry.stream_ended(method, status)


def _traceparent(context: Any) -> str:
    """The caller's span, where it named one."""
    said = dict(context.invocation_metadata() or ())
    return str(said.get(TRACEPARENT, ""))
