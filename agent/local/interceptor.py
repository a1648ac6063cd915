"""The one place where refusals become gRPC statuses, for every method of the local API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc

from agent.disk import explained
from housecall.rpc import refusal_of, status_of

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Refusals(grpc.ServerInterceptor):
    """Anything that a method raises ends the call with a rich status."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler: Any = continuation(handler_call_details)
        if handler is None:
            return None
        codecs = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream), *codecs)
        return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary), *codecs)


def _unary(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(request, context)
        except Exception as error:
            _abort(context, error)

    return call


def _stream(method: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from method(request, context)
        except Exception as error:
            _abort(context, error)

    return call


def _abort(context: grpc.ServicerContext, error: Exception) -> None:
    context.abort_with_status(status_of(refusal_of(explained(error))))
