"""Spans to an OpenTelemetry collector: OTLP over gRPC, in batches, from a thread of the SDK's.

Imported only where an endpoint is named. Spans that cannot be delivered are lost; the work that
they tell of never waits for them. Ids are ours (`tracing.py`): the SDK asks for them while it
starts a span, in the thread that reports it.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator

from housecall.tracing import Place, Span, Tracer

_started: ContextVar[Place] = ContextVar("the place of the span that is being started")
_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)


class Reporter(Tracer):
    on = True

    def __init__(self, endpoint: str, service: str, seconds: float) -> None:
        # What cannot be delivered is tried again: only what was given up is news.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        exporter = OTLPSpanExporter(
            endpoint, insecure=endpoint.startswith("http://"), timeout=seconds
        )
        self._provider = TracerProvider(
            resource=Resource({SERVICE_NAME: service}),
            id_generator=_Ids(),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("housecall")

    def report(self, span: Span) -> None:
        token = _started.set(span.at)
        try:
            made = self._tracer.start_span(
                span.name,
                _parent(span.at),
                attributes={f"housecall.{key}": value for key, value in span.attributes.items()},
                links=[trace.Link(_context(span.link))] if span.link else [],
                start_time=int(span.began * 1e9),
            )
        finally:
            _started.reset(token)
        if span.code:
            made.set_attribute("housecall.code", span.code)
            made.set_status(trace.Status(trace.StatusCode.ERROR, span.code))
        made.end(int(max(span.began, span.ended) * 1e9))

    def close(self) -> None:
        self._provider.shutdown()


class _Ids(IdGenerator):
    def generate_span_id(self) -> int:
        return _started.get().span_id

    def generate_trace_id(self) -> int:
        return _started.get().trace_id


def _context(at: Place) -> trace.SpanContext:
    return trace.SpanContext(at.trace_id, at.span_id, is_remote=True, trace_flags=_SAMPLED)


def _parent(at: Place) -> Context:
    """A root's is empty: nothing that this thread does besides may become its parent."""
    if not at.parent_id:
        return Context()
    above = Place(at.trace_id, at.parent_id)
    return trace.set_span_in_context(trace.NonRecordingSpan(_context(above)), Context())
