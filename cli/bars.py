"""Progress on a terminal, drawn by rich: a bar for each thing that is counted and a clock for each
step that runs, below the lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.text import Text

from cli.meter import Meter, clock_text
from cli.output import clean
from cli.progress import Lines
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb


class _Label(ProgressColumn):
    """What is counted; of a step how long it has been running."""

    def render(self, task: Task) -> Text:
        if task.fields["counted"]:
            return Text(task.description)
        return Text(f"{task.description} {clock_text(task.elapsed or 0)}")


class _Bar(BarColumn):
    """None for a step, whose end nobody knows."""

    def render(self, task: Task) -> Text:  # type: ignore[override]
        return super().render(task) if task.fields["counted"] else Text()  # type: ignore[return-value]


class _Amount(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["amount"])


class Bars(Lines):
    """Bars that are full, and steps that ended, go away."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, console: Console | None = None
    ) -> None:
        super().__init__(clock)
        self._progress = Progress(
            _Label(),
            _Bar(),
            _Amount(),
            console=console or Console(stderr=True),
            get_time=clock,
        )
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

    def step(self, step: site_pb2.WorkEvent.StepChange, prefix: str) -> None:
        label = clean(f"{prefix}{step.step}: running")
        if step.state != pb.STEP_STATE_RUNNING:
            self._drop(label)
            super().step(step, prefix)
        elif label not in self._tasks:
            self._add(label, counted=False)

    def amount(self, label: str, meter: Meter, now: float) -> None:
        if meter.total and meter.done >= meter.total:
            self._drop(label)
            return
        if label not in self._tasks:
            self._add(label, counted=True)
        self._progress.update(
            self._tasks[label],
            completed=meter.done,
            total=meter.total or None,
            amount=meter.text(now),
        )

    def write(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def drawing(self) -> RenderableType:
        """What stands below the lines now."""
        return self._progress.get_renderable()

    def _add(self, label: str, *, counted: bool) -> None:
        task = self._progress.add_task(label, total=None, amount="", counted=counted)
        self._tasks[label] = task

    def _drop(self, label: str) -> None:
        task = self._tasks.pop(label, None)
        if task is not None:
            self._progress.remove_task(task)
