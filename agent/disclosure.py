"""What others are told of preparations, as far as this site consents: the setting
`report_preparations`, which is off until a person at the site wrote another word.

    off     nothing
    steps   a dataset's id and benchmark, its state, the step that runs
    shares  these, and cases by status in whole percent (`report.py`)

The agent looks at its own pace (`upkeep.py`) and says what changed; a Hello says all of it. Only
datasets whose registration was accepted, and that are not operational, are told of.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agent import catalog as states
from agent import report
from agent.catalog import Catalog, Dataset
from agent.journal import Journal
from housecall.v1 import fleet_pb2

LOOK_S = 3.0
READ_S = 10.0
READING_SHARE = 20
"""A report is read again after READ_S, and after this many times what reading it took."""
LEAST_CASES = 10
TOLD = frozenset({states.PREPARING, states.OUTSTANDING, states.BROKEN, states.PREPARED})
Consent = Literal["off", "steps", "shares"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Read:
    """A report as it was read, by what its file was then; not before `again_at` once more."""

    file: tuple[int, ...]
    again_at: float
    shares: Mapping[str, int] = field(default_factory=dict)


class Disclosure:
    """`look` is for one thread, the others for any. `say` sends what changed."""

    def __init__(
        self, catalog: Catalog, journal: Journal, consent: Consent, *, minimum_count: int
    ) -> None:
        self._catalog, self._journal, self.consent = catalog, journal, consent
        self._least = max(minimum_count, LEAST_CASES)
        self._told: Mapping[str, fleet_pb2.Preparing] = {}
        self._read: dict[int, _Read] = {}
        self.say: Callable[[fleet_pb2.Preparing], None] = lambda _said: None

    def told(self) -> list[fleet_pb2.Preparing]:
        """All of it."""
        return list(self._told.values())

    def of(self, dataset_id: str) -> fleet_pb2.Preparing | None:
        return self._told.get(dataset_id)

    def look(self) -> None:
        """Say what changed since the last time. It is known here before it is said: a Hello that
        is made meanwhile has it."""
        if self.consent == "off":
            return
        before = self._told
        found = [self._preparing(each) for each in self._catalog.all() if self._may_tell(each)]
        self._told = now = {each.dataset_id: each for each in found}
        gone = [fleet_pb2.Preparing(dataset_id=each) for each in before.keys() - now.keys()]
        for said in [each for each in found if each != before.get(each.dataset_id)] + gone:
            self.say(said)
            _note(said, before.get(said.dataset_id))

    def _may_tell(self, dataset: Dataset) -> bool:
        if dataset.state not in TOLD:
            return False
        registered = self._journal.outgoing(dataset.envelope_digest)
        return registered is not None and registered.state == "accepted"

    def _preparing(self, dataset: Dataset) -> fleet_pb2.Preparing:
        kept = self._journal.steps(f"dataset:{dataset.number}")
        runs = [each.name for each in kept if each.state == "RUNNING"]
        return fleet_pb2.Preparing(
            dataset_id=dataset.id,
            state=fleet_pb2.PreparationState.Value(f"PREPARATION_STATE_{dataset.state}"),
            step=runs[-1] if runs and dataset.state == states.PREPARING else "",
            benchmark_id=dataset.benchmark_id,
            shares=self._shares(dataset) if self.consent == "shares" else {},
        )

    def _shares(self, dataset: Dataset) -> Mapping[str, int]:
        """A report that is being written, and cannot be read now, counts as it did before."""
        path, began = self._catalog.folder(dataset.number) / "report.yaml", time.monotonic()
        file, known = _file(path), self._read.get(dataset.number)
        if not file:
            return {}
        if known and (known.file == file or began < known.again_at):
            return known.shares
        found = report.shares(path, self._least)
        if found is None and known:
            found = dict(known.shares)
        took = time.monotonic() - began
        again_at = began + max(READ_S, READING_SHARE * took)
        self._read[dataset.number] = _Read(file, again_at, found or {})
        return found or {}


def _file(path: Path) -> tuple[int, ...]:
    """Which content it has; () when there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _note(said: fleet_pb2.Preparing, before: fleet_pb2.Preparing | None) -> None:
    """The shares alone are no line in the log."""
    if before is None or (said.state, said.step) != (before.state, before.step):
        state = fleet_pb2.PreparationState.Name(said.state).removeprefix("PREPARATION_STATE_")
        extra = {"dataset": said.dataset_id, "state": state, "step": said.step}
        log.info("preparation told", extra=extra)
