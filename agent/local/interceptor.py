"""The one place where refusals become gRPC statuses, for every method of the local API; and where
streams that would hold too many of its threads are refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import grpc

from agent.disk import explained
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of, status_of

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Refusals(grpc.ServerInterceptor):
    """Anything that a method raises ends the call with a rich status; of streams, at most
    `most_streams` are open at once."""

    def __init__(self, most_streams: int) -> None:
        self._most = most_streams
        self._room = threading.Semaphore(most_streams)

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
            stream = _stream(handler.unary_stream, self._held)
            return grpc.unary_stream_rpc_method_handler(stream, *codecs)
        return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary), *codecs)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Room for one more stream, until it ends."""
        if not self._room.acquire(blocking=False):
            raise Refusal(
                Kind.EXHAUSTED,
                "AGENT_BUSY",
                f"the agent's socket: expected at most {self._most} commands that follow work, got "
                "one more; end some: the work goes on",
            )
        try:
            yield
        finally:
            self._room.release()


def _unary(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(request, context)
        except Exception as error:
            _abort(context, error)

    return call


def _stream(
    method: Callable[..., Iterator[Any]], held: Callable[[], AbstractContextManager[None]]
) -> Callable[..., Iterator[Any]]:
    def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            with held():
                yield from method(request, context)
        except Exception as error:
            _abort(context, error)

    return call


def _abort(context: grpc.ServicerContext, error: Exception) -> None:
    context.abort_with_status(status_of(refusal_of(explained(error))))
