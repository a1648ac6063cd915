"""Reads of Registry and Ledger for the site's people, passed on over the agent's own connection.

Bytes are not opened. What changes anything is never passed on: people's statements are signed by
people, the site's are released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from agent.identity import Uplink
from agent.local.relay import uid_of
from housecall.rpc import CALL_SECONDS
from housecall.v1 import ledger_pb2, registry_pb2

NEVER = frozenset({"/housecall.v1.Ledger/Append"})


def methods() -> dict[str, bool]:
    """Full name of every method that is passed on, and whether it answers with a stream."""
    found = {}
    for file, name in ((registry_pb2, "Registry"), (ledger_pb2, "Ledger")):
        service = file.DESCRIPTOR.services_by_name[name]
        for method in service.methods:
            found[f"/{service.full_name}/{method.name}"] = method.server_streaming
    return {name: streams for name, streams in found.items() if name not in NEVER}


class Forward(grpc.GenericRpcHandler):
    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink
        self._methods = methods()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        name = handler_call_details.method
        if name not in self._methods:
            return None
        if self._methods[name]:
            return grpc.unary_stream_rpc_method_handler(self._stream(name))
        return grpc.unary_unary_rpc_method_handler(self._unary(name))

    def _unary(self, name: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            uid_of(context.peer())
            with self._uplink.identity.refusals():
                method: Any = self._uplink.channel.unary_unary(name)
                answer: bytes = method(request, timeout=CALL_SECONDS)
                return answer

        return call

    def _stream(self, name: str) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
        def call(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            uid_of(context.peer())
            with self._uplink.identity.refusals():
                method: Any = self._uplink.channel.unary_stream(name)
                answers = method(request)
                if not context.add_callback(answers.cancel):  # whoever asked has gone already
                    answers.cancel()
                yield from answers

        return call
