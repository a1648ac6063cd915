"""An OpenTelemetry collector that keeps what it is sent: the real protocol over real gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Seen:
    """One span; ids in hex, `parent` "" for a root, `link` the span linked to."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    link: str
    began: int
    ended: int
    error: str
    attributes: dict[str, str | int] = field(hash=False)


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    endpoint: str = ""
    seen: list[Seen] = field(default_factory=list)

    def Export(
        self, request: pb.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> pb.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.seen += [_seen(named["service.name"], each) for each in scope.spans]
        return pb.ExportTraceServiceResponse()

    def named(self, name: str, service: str = "") -> list[Seen]:
        return [each for each in self.seen if each.name == name and service in ("", each.service)]

    def of_trace(self, trace: str) -> list[Seen]:
        return [each for each in self.seen if each.trace == trace]


def _seen(service: str, span: trace_pb2.Span) -> Seen:
    said = {each.key: _value(each.value) for each in span.attributes}
    return Seen(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.links[0].span_id.hex() if span.links else "",
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.message,
        said,
    )


def _value(value: common_pb2.AnyValue) -> str | int:
    return value.string_value or value.int_value


@contextmanager
def collecting(credentials: grpc.ServerCredentials | None = None) -> Iterator[Collector]:
    made = Collector()
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        register(made, server)
        if credentials is None:
            made.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        else:
            made.endpoint = (
                f"https://localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
            )
        server.start()
        yield made
        server.stop(0).wait()
