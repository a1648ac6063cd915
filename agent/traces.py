"""The agent's spans: where they stand, and when they are reported.

    execution               from the order's arrival to the receipt of its outcome
      receive               the order is checked and written down
      consent, queue        waiting for a yes, for a slot
      <task>                each container, by the name it has at the engine
      release, submit       waiting for a person's yes, for the receipt
    <kind of statement>     the root of what the site states by itself

Ids follow from the order (`housecall/tracing.py`), so that a restart changes nothing. Work that
nobody ordered has a trace of its own, named by the agent and the work.
"""

from __future__ import annotations

import threading
import time

from agent.journal import Journal
from agent.records import Execution, KeptStep, Order, Outgoing, State
from housecall import statement, tracing
from housecall.tracing import Place, Span, Tracer, Value
from housecall.v1 import statements_pb2 as pb

_PHASES = {
    State.ORDERED: "consent",
    State.WAITING_CONSENT: "consent",
    State.QUEUED: "queue",
    State.WAITING_RELEASE: "release",
}


def of_owner(journal: Journal, instance: str, owner: str) -> Place:
    """The span that the steps of "execution:<id>" or "dataset:<number>" stand below."""
    order = _order(journal, owner)
    if order is None:
        return tracing.of_name(instance, owner)
    return tracing.of_order(order.envelope_digest, order.line)


def _order(journal: Journal, owner: str) -> Order | None:
    kind, _, number = owner.partition(":")
    if kind != "execution":
        return None
    return journal.order(journal.execution(int(number)).execution_id)


def of_step(journal: Journal, instance: str, owner: str, container: str) -> Place:
    """A container's span, by its name at the engine: a step that is tried again has another one.
    Its `traceparent` is what the container is given as TRACEPARENT."""
    return of_owner(journal, instance, owner).child("step", container)


class Traces:
    """Told by the rooms what happened; reports each span when it has ended."""

    def __init__(self, tracer: Tracer, journal: Journal, instance: str) -> None:
        self._tracer, self._journal, self._instance = tracer, journal, instance
        self._began = time.time()
        self._lock = threading.Lock()
        self._phases: dict[int, tuple[str, float]] = {}

    def received(self, execution: Execution, began: float) -> None:
        """An order was written down."""
        at = self._of_execution(execution).child("receive")
        said = {"execution_id": execution.execution_id}
        self._tracer.report(Span("receive", at, began, time.time(), attributes=said))

    def changed(self, execution: Execution) -> None:
        """An ordered execution is in another state."""
        now, phase = time.time(), _PHASES.get(execution.state, "")
        with self._lock:
            before, since = self._phases.get(execution.id, self._first(execution))
            if phase == before:
                return
            self._phases[execution.id] = (phase, now)
        self._phase(execution, before, since, now)

    def step(self, kept: KeptStep) -> None:
        """A step ended."""
        record = pb.StepRecord.FromString(kept.record)
        said: dict[str, Value] = {
            "step": kept.name,
            "owner": kept.owner,
            "image_digest": record.image_digest,
            "exit_code": record.exit_code,
            "tries": kept.tries,
        }
        if (order := _order(self._journal, kept.owner)) is not None:
            said["execution_id"] = order.execution_id
        at = of_step(self._journal, self._instance, kept.owner, kept.container)
        began = record.started_at.ToMicroseconds() / 1e6
        self._tracer.report(Span(kept.name, at, began, began + record.seconds, kept.code, said))

    def accepted(self, entry: Outgoing) -> None:
        """A statement of this site has its receipt."""
        now = time.time()
        predicate = statement.unverified(entry.envelope).predicate
        said: dict[str, Value] = {"kind": entry.kind}
        order = self._journal.order(getattr(predicate, "execution_id", 0))
        if order is None:
            root = tracing.of_envelope(entry.envelope_digest)
            self._tracer.report(Span(entry.kind, root, entry.since, now, attributes=said))
            return
        execution = self._journal.execution(order.local_id)
        at = tracing.of_order(order.envelope_digest, order.line)
        with self._lock:
            phase, since = self._phases.pop(execution.id, ("", 0.0))
        self._phase(execution, phase, since, entry.since)
        self._tracer.report(Span("submit", at.child("submit"), entry.since, now, attributes=said))
        said = {"execution_id": order.execution_id, "state": execution.state.lower()}
        code = execution.reason
        self._tracer.report(Span("execution", at, execution.created_at, now, code, said))

    def _first(self, execution: Execution) -> tuple[str, float]:
        """What it waited for before anything was heard of it: unknown after a restart."""
        new = execution.created_at >= self._began
        return ("consent", execution.created_at) if new else ("", 0.0)

    def _phase(self, execution: Execution, phase: str, since: float, now: float) -> None:
        if phase:
            at = self._of_execution(execution).child(phase)
            said = {"execution_id": execution.execution_id}
            self._tracer.report(Span(phase, at, since, now, attributes=said))

    def _of_execution(self, execution: Execution) -> Place:
        return of_owner(self._journal, self._instance, f"execution:{execution.id}")
