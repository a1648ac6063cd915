"""Work at the site as it happens: bars, changes of steps, and the tail of the logs.

Here the facts are lines; on a terminal they are drawn by `bars.py`, which loads rich. All of it
goes to standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import click

from cli.messages import word
from cli.meter import Meter, duration
from cli.output import clean
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb

_STEP_STATES = pb.StepState.DESCRIPTOR


class Lines:
    """Progress as lines: for logs and pipes. `clock` gives seconds, never going back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._meters: dict[str, Meter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to restore."""

    def show(self, event: site_pb2.WorkEvent, prefix: str = "") -> None:
        """One event; Draft and Done are the caller's."""
        kind = event.WhichOneof("event")
        if kind == "amount":
            amount = event.amount
            label = clean(prefix + amount.label)
            meter = self._meters.setdefault(label, Meter(self._clock()))
            meter.update(amount.done, amount.total, amount.unit)
            self.amount(label, meter, self._clock())
        elif kind == "step":
            self.step(event.step, prefix)
        elif kind == "log":
            self.write(clean(f"{prefix}{event.log.step} | {event.log.text}".rstrip()))

    def step(self, step: site_pb2.WorkEvent.StepChange, prefix: str) -> None:
        self.write(clean(prefix + step_text(step)))

    def amount(self, label: str, meter: Meter, now: float) -> None:
        if meter.due(now):
            self.write(f"{label}: {meter.text(now)}")

    def write(self, text: str) -> None:
        click.echo(text, err=True)


def view() -> Lines:
    """Bars on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        return Lines()
    from cli.bars import Bars

    return Bars()


def step_text(step: site_pb2.WorkEvent.StepChange) -> str:
    """`infer: succeeded in 12.0 s`, or why it failed."""
    text = f"{step.step}: {word(_STEP_STATES, step.state) or 'unknown'}"
    if step.seconds:
        text += f" in {duration(step.seconds)}"
    if step.state == pb.STEP_STATE_FAILED:
        text += f", exit code {step.exit_code}"
    return f"{text}: {step.text} [{step.code}]" if step.code else text
