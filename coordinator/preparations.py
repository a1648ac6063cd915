"""How far datasets are that are not operational, where their sites consent to tell it.

Lives on the event loop; `of` is for any thread. In memory alone, as the progress of orders is: a
site says all of it in its Hello, and replicas tell each other (coordinator/gossip.py). What was
said belongs to the stream that it was said on, by its number: it stands until the site has a newer
one. So a site that consents no more is believed at its next Hello.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coordinator.standing import Word
from housecall.shares import bounded
from housecall.v1 import fleet_pb2 as pb

_NOTHING = pb.PREPARATION_STATE_UNSPECIFIED
STEPS = frozenset({"prepare", "sanity_check", "statistics"})


@dataclass(frozen=True)
class Preparation:
    """What a site said of a dataset; UNSPECIFIED takes back what was said before."""

    word: Word
    at: datetime
    state: pb.PreparationState.ValueType
    step: str = ""
    benchmark_id: int = 0
    shares: Mapping[str, int] = field(default_factory=dict)

    def written(self) -> list[Any]:
        at = self.at.isoformat()
        return [self.word, at, self.state, self.step, self.benchmark_id, dict(self.shares)]


def read_preparation(written: list[Any]) -> Preparation:
    word, at, state, step, benchmark_id, shares = written
    return Preparation(
        Word(*word),
        datetime.fromisoformat(at),
        pb.PreparationState.ValueType(state),
        step,
        benchmark_id,
        dict(shares),
    )


def taken(said: pb.Preparing, word: Word, at: datetime) -> Preparation:
    """Of what an agent says, no more than it may say."""
    return Preparation(
        word,
        at,
        said.state if said.state in pb.PreparationState.values() else _NOTHING,
        said.step if said.step in STEPS else "",
        said.benchmark_id,
        bounded(said.shares),
    )


class Preparations:
    """By dataset. `tell` is called with each whose site said something here."""

    def __init__(self) -> None:
        self.tell: Callable[[str], None] = lambda dataset_id: None
        self._known: dict[str, Preparation] = {}

    def say(self, dataset_id: str, said: Preparation) -> None:
        self._known[dataset_id] = said
        self.tell(dataset_id)

    def merge(self, dataset_id: str, said: Preparation) -> None:
        """Another replica's word on a dataset."""
        known = self._known.get(dataset_id)
        if known is None or said.word >= known.word:
            self._known[dataset_id] = said

    def of(self, dataset_id: str) -> Preparation | None:
        return self._known.get(dataset_id)

    def all(self) -> list[str]:
        return list(self._known)
