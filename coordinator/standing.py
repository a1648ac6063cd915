"""What is known of a site's agent and of the orders it works on, and how replicas write it down."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from housecall.v1 import fleet_pb2
from housecall.v1 import statements_pb2 as pb

MOST_CHARACTERS = 100
"""Of a text that an agent says of itself: a standing fits in one note between replicas."""

KNOWN_STATES = frozenset(pb.ExecutionState.values()) - {pb.EXECUTION_STATE_UNSPECIFIED}
"""That an order may be in, as its site says."""


@dataclass(frozen=True)
class Standing:
    """What is known of a site's agent. `replica` serves it or did so last, "" for one that is gone;
    `number` grows with every stream of any site."""

    connected: bool = False
    connected_at: datetime | None = None
    heard_at: datetime | None = None
    agent_version: str = ""
    gpus: int = 0
    running: int = 0
    waiting: int = 0
    clock_skew_seconds: float = 0.0
    certificate_expires_at: datetime | None = None
    replica: str = ""
    number: int = 0
    session_id: str = ""
    yields: bool = False

    @property
    def rank(self) -> tuple[bool, int]:
        """The stream with the highest is served: the newest, but one that yields is after all that
        do not."""
        return not self.yields, self.number

    def written(self) -> dict[str, Any]:
        """As JSON takes it, without what is as it is by default."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in values.items()
            if value != getattr(_NOTHING, name)
        }


_NOTHING = Standing()
_TIMES = ("connected_at", "heard_at", "certificate_expires_at")


def read_standing(written: dict[str, Any]) -> Standing:
    """Fields of a newer version are passed over."""
    known = {each.name for each in fields(Standing)}
    values = {name: value for name, value in written.items() if name in known}
    for name in _TIMES:
        if name in values:
            values[name] = datetime.fromisoformat(values[name])
    return Standing(**values)


class Word(NamedTuple):
    """Which of two words of a site is the newer, whoever tells them and whatever their clocks say:
    the one on the newer stream, by its number; of one stream's, the later one, by its turn at the
    replica that serves it."""

    number: int
    turn: int


@dataclass(frozen=True)
class Doing:
    """An order's progress, as its site last said: `at` is since when, by this side's clock."""

    word: Word
    at: datetime
    state: pb.ExecutionState.ValueType
    step: str
    waits_for: fleet_pb2.WaitReason.ValueType = fleet_pb2.WAIT_REASON_UNSPECIFIED

    def written(self) -> list[Any]:
        return [self.word, self.at.isoformat(), self.state, self.step, self.waits_for]


def read_doing(written: list[Any]) -> Doing:
    word, at, state, step, waits_for = written
    return Doing(
        Word(*word),
        datetime.fromisoformat(at),
        pb.ExecutionState.ValueType(state),
        step,
        fleet_pb2.WaitReason.ValueType(waits_for),
    )


def began_at(
    said: fleet_pb2.Progress, known: Doing | None, *, now: datetime, skew_s: float
) -> datetime:
    """Since when it is so: by the site's word, less the difference of its clock, and not after now.
    Of an older agent, that says none: since it first said the same."""
    if said.HasField("since"):
        with contextlib.suppress(ValueError, OverflowError):  # no time that a clock can show
            return min(now, said.since.ToDatetime(UTC) - timedelta(seconds=skew_s))
    same = known and (known.state, known.step) == (said.state, said.step[:MOST_CHARACTERS])
    return known.at if known and same else now
