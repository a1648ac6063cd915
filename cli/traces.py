"""The spans of one command, where an endpoint for them is set.

A root in the trace of every statement that it made, so that what follows at the coordinator and at
sites stands below it; and one of its own for what it read, which those are linked to. Loaded only
then, and the SDK only at the very end.
"""

from __future__ import annotations

import logging
import time

import click

from housecall import tracing
from housecall.tracing import TRACEPARENT, Place, Span, Value

DELIVERY_SECONDS = 1.0


class CommandTrace:
    """From the start of the command to `end`."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = tracing.checked(endpoint)
        self._began = time.time()
        self._own = tracing.fresh()
        self._stated: list[Place] = []
        self._name = "housecall"

    def metadata(self) -> list[tuple[str, str]]:
        """What tells the coordinator that a call belongs to this command."""
        self._called()
        return [(TRACEPARENT, self._own.traceparent)]

    def stated(self, envelope_digest: str) -> None:
        """The command made this statement."""
        self._called()
        self._stated.append(tracing.of_envelope(envelope_digest))

    def end(self, exit_code: int, code: str) -> None:
        """Report, in a second at most; lost where nobody takes them."""
        now = time.time()
        said: dict[str, Value] = {"exit_code": exit_code}
        tracer = tracing.tracer(self._endpoint, "housecall", seconds=DELIVERY_SECONDS)
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # nothing to do about it here
        tracer.report(Span(self._name, self._own, self._began, now, code, said))
        for root in self._stated:
            tracer.report(Span(self._name, root, self._began, now, code, said, link=self._own))
        tracer.close()

    def _called(self) -> None:
        """The command's name is that of whoever calls: groups are walked through on the way."""
        context = click.get_current_context(silent=True)
        self._name = context.command_path if context else self._name
