"""Work at the site as it happens: bars, changes of steps, and the tail of the logs.

On a terminal the bars are rich's; elsewhere the same facts are lines. All of it goes to standard
error. Rich is loaded only where there is a terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from cli.messages import word
from cli.meter import Meter, duration
from cli.output import clean
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

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
            self.write(clean(prefix + step_text(event.step)))
        elif kind == "log":
            self.write(clean(f"{prefix}{event.log.step} | {event.log.text}".rstrip()))

    def amount(self, label: str, meter: Meter, now: float) -> None:
        if meter.due(now):
            self.write(f"{label}: {meter.text(now)}")

    def write(self, text: str) -> None:
        click.echo(text, err=True)


class Bars(Lines):
    """Progress on a terminal: a bar for each thing that is counted, below the lines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._progress = _rich_progress()
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def amount(self, label: str, meter: Meter, now: float) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=None, amount="")
        self._progress.update(
            self._tasks[label],
            completed=meter.done,
            total=meter.total or None,
            amount=meter.text(now),
        )

    def write(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


def view() -> Lines:
    """Bars on a terminal, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Lines()


def step_text(step: site_pb2.WorkEvent.StepChange) -> str:
    """`infer: succeeded in 12.0 s`, or why it failed."""
    text = f"{step.step}: {word(_STEP_STATES, step.state) or 'unknown'}"
    if step.seconds:
        text += f" in {duration(step.seconds)}"
    if step.state == pb.STEP_STATE_FAILED:
        text += f", exit code {step.exit_code}"
    return f"{text}: {step.text} [{step.code}]" if step.code else text


def _rich_progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        console=Console(stderr=True),
    )
