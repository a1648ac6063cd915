"""The edge: every call gets its caller, is checked against the method table, and has its refusals
turned into rich statuses. Servicers behind it never see gRPC's contexts for either."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from coordinator.caller import ROLES, Caller, CallerRole, read_certificate, set_caller
from coordinator.models import Participant
from coordinator.policy import check_method
from coordinator.store import Store
from housecall.errors import Kind, Refusal
from housecall.identity import split_id
from housecall.rpc import refusal_of, status_of
from housecall.v1 import statements_pb2 as pb

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Gatekeeper:
    """Certificate -> Caller. Asks the store at every call: revocation holds at once."""

    def __init__(self, store: Store, trust_domain: str) -> None:
        self._store = store
        self._trust_domain = trust_domain

    def admit(self, method: str, auth_context: Any) -> Caller:
        name, key_digest, expires_at = read_certificate(auth_context)
        trust_domain, kind, _ = split_id(name)
        if trust_domain != self._trust_domain:
            raise Refusal(
                Kind.UNAUTHENTICATED,
                "TRUST_DOMAIN_FOREIGN",
                f"{name}: expected a name of {self._trust_domain}",
            )
        role = CallerRole.JOINER if kind == "join" else self._participant_role(name)
        check_method(method, role)
        return Caller(name, role, key_digest, expires_at)

    def _participant_role(self, name: str) -> CallerRole:
        with self._store.read() as reader:
            participant = reader.find(Participant, name)
        if participant is None or participant.revoked_index is not None:
            raise Refusal(
                Kind.UNAUTHENTICATED,
                "REVOKED",
                f"{name} is not enrolled here any more: ask the operator for a new join token",
            )
        return ROLES[pb.Role.ValueType(participant.role)]


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each handler by its kind; knows no service."""

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper

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
        if inspect.iscoroutinefunction(handler.unary_unary):
            return self._wrap_coroutine(handler, method)
        return self._wrap_function(handler, method)

    def _enter(self, method: str, context: Any) -> None:
        set_caller(self._gatekeeper.admit(method, context.auth_context()))

    def _wrap_function(self, handler: Any, method: str) -> Handler:
        def call(request: Any, context: Any) -> Any:
            try:
                self._enter(method, context)
                return handler.unary_unary(request, context)
            except Exception as error:
                status = status_of(refusal_of(error))
                context.set_trailing_metadata(status.trailing_metadata)
                return context.abort(status.code, status.details)

        return grpc.unary_unary_rpc_method_handler(
            call, handler.request_deserializer, handler.response_serializer
        )

    def _wrap_coroutine(self, handler: Any, method: str) -> Handler:
        async def call(request: Any, context: Any) -> Any:
            try:
                self._enter(method, context)
                return await handler.unary_unary(request, context)
            except Exception as error:
                return await context.abort_with_status(status_of(refusal_of(error)))

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

        async def write(request: Any, context: Any) -> None:
            try:
                self._enter(method, context)
                await behaviour(request, context)
            except Refusal as refusal:
                await context.abort_with_status(status_of(refusal))

        async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                self._enter(method, context)
                async for response in behaviour(request, context):
                    yield response
            except Refusal as refusal:
                await context.abort_with_status(status_of(refusal))

        call = generate if inspect.isasyncgenfunction(behaviour) else write
        return build(call, handler.request_deserializer, handler.response_serializer)
