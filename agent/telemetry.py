"""An agent with its metrics served and its spans reported."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import ParamSpec

from agent.metrics import Meters, Standing
from agent.records import Execution
from agent.server import Agent
from agent.step import OWN_ENDS
from agent.traces import Traces
from housecall import tracing
from housecall.scraping import scraped

Words = ParamSpec("Words")
log = logging.getLogger(__name__)


@contextmanager
def observed(agent: Agent) -> Iterator[Agent]:
    """The agent, entered. Raises Refusal where an address or an endpoint cannot be used."""
    settings = agent.settings
    meters = Meters(agent.journal)
    meters.registry.register(Standing(agent))
    with closing(tracing.tracer(settings.trace_endpoint, "housecall-agent")) as tracer:
        traces = Traces(tracer, agent.journal, agent.runner.cage.instance) if tracer.on else None
        _follow_steps(agent, meters, traces)
        if traces:
            _follow_orders(agent, traces)
        with agent, scraped(meters.registry, settings.metrics_listen):
            yield agent


def _follow_steps(agent: Agent, meters: Meters, traces: Traces | None) -> None:
    """Ends that are told again, of steps that ended long ago, are not counted again."""
    before = agent.runner.listener
    begun: set[tuple[str, str]] = set()

    def listener(owner: str, step: str, state: str) -> None:
        before(owner, step, state)
        if state == "RUNNING":
            begun.add((owner, step))
        else:
            ended(owner, step)

    @_harmless
    def ended(owner: str, step: str) -> None:
        kept = agent.journal.step(owner, step)
        again = (owner, step) not in begun and (
            kept is None or not kept.code or kept.code in OWN_ENDS
        )
        begun.discard((owner, step))
        if kept is None or again:
            return
        meters.step(kept)
        if traces:
            traces.step(kept)

    agent.runner.listener = listener


def _follow_orders(agent: Agent, traces: Traces) -> None:
    before = agent.runs.changed

    def changed(execution: Execution) -> None:
        before(execution)
        told(execution)

    told = _harmless(traces.changed)
    agent.runs.changed = agent.orders.outcomes.changed = changed
    agent.orders.received = _harmless(traces.received)
    agent.releases.accepted = _harmless(traces.accepted)


def _harmless(tell: Callable[Words, None]) -> Callable[Words, None]:
    """Work never fails because it could not be told of."""

    @functools.wraps(tell)
    def told(*words: Words.args, **named: Words.kwargs) -> None:
        try:
            tell(*words, **named)
        except Exception:
            log.exception("telemetry failed")

    return told
