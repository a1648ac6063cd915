"""Metrics and traces of the coordinator put together, for as long as it serves.

Spans: "accept" of every statement, in the trace that its envelope names; "accept answer" of what
answers an order (a result, an end), in the order's trace, below what the site submitted. A read
that came with a `traceparent` has a span below its caller's. Without an endpoint, none of it costs
more than a comparison.
"""

from __future__ import annotations

import secrets
import time
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType

from coordinator.fleet import Fleet
from coordinator.founding import House
from coordinator.metrics import Meters, Standing, code_of
from coordinator.notary import Accepted, Notary
from coordinator.settings import Settings
from coordinator.store import Store
from housecall import statement, tracing
from housecall.errors import Refusal
from housecall.rpc import STATUS
from housecall.scraping import scraped
from housecall.tracing import Place, Span, Value
from housecall.v1 import statements_pb2 as pb


class Telemetry:
    """Enter it to serve metrics and to report spans. Raises Refusal where it cannot."""

    def __init__(self, settings: Settings, store: Store, house: House, fleet: Fleet) -> None:
        self._listen, self._store = settings.metrics_listen, store
        self._meters = Meters()
        self._meters.watch_database(store)
        self._meters.registry.register(Standing(store, fleet, house.authority))
        self._tracer = tracing.tracer(settings.trace_endpoint, "housecall-coordinator")
        self._close = ExitStack()

    def __enter__(self) -> Telemetry:
        with ExitStack() as stack:
            stack.callback(self._tracer.close)
            stack.enter_context(scraped(self._meters.registry, self._listen))
            self._close = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close.close()

    def follow(self, notary: Notary) -> None:
        """Count and trace what this notary accepts and refuses."""
        notary.observers.append(self._meters.submitted)
        notary.listeners.append(lambda batch: self._meters.batch.observe(len(batch)))
        if self._tracer.on:
            notary.observers.append(self._trace_statement)

    def called(
        self, method: str, traceparent: str, began: float, refusal: Refusal | None = None
    ) -> None:
        """A unary call that began at `began`, by `time.perf_counter`, was answered."""
        seconds, ended = time.perf_counter() - began, time.time()
        status = STATUS[refusal.kind].name if refusal else "OK"
        self._meters.calls.labels(method, status).observe(seconds)
        caller = tracing.read(traceparent) if self._tracer.on else None
        if caller is not None:
            at = caller.child(method, secrets.token_hex(8))
            self._tracer.report(Span(method, at, ended - seconds, ended, code_of(refusal)))

    def stream_began(self, method: str) -> None:
        self._meters.streams.labels(method).inc()

    def stream_ended(self, method: str, status: str) -> None:
        self._meters.streams.labels(method).dec()
        self._meters.streams_ended.labels(method, status).inc()

    def _trace_statement(self, envelope: bytes, answer: Future[Accepted]) -> None:
        began = time.time()

        def answered(done: Future[Accepted]) -> None:
            error = done.exception()
            if error is not None:
                at = tracing.of_envelope(statement.digest(envelope)).child(
                    "refuse", secrets.token_hex(8)
                )
                self._tracer.report(Span("refuse", at, began, time.time(), code_of(error)))
                return
            accepted = done.result()
            if accepted.effect is not None:  # an envelope sent again has its span
                name, at, said = self._place(accepted)
                self._tracer.report(Span(name, at, began, time.time(), attributes=said))

        answer.add_done_callback(answered)

    def _place(self, accepted: Accepted) -> tuple[str, Place, dict[str, Value]]:
        """Its span's name, where it stands, and what it says."""
        said: dict[str, Value] = {"kind": accepted.kind, "ledger_index": accepted.index}
        predicate = statement.unverified(accepted.envelope).predicate
        if isinstance(predicate, pb.ResultSubmitted | pb.ExecutionEnded) and predicate.execution_id:
            said["execution_id"] = predicate.execution_id
            with self._store.read() as reader:
                row = reader.execution(predicate.execution_id)
                order = reader.entry(row.ledger_index).envelope_digest
            at = tracing.of_order(order, row.line).child("submit").child("accept")
            return "accept answer", at, said
        at = tracing.of_envelope(statement.digest(accepted.envelope)).child("accept")
        return "accept", at, said
