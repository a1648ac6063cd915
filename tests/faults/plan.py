"""The schedule of a run: which fault, when, for how long. A seed decides all of it in advance.

What a fault meets is up to real programs: the same seed hurts the same things in the same order,
and the world answers as it happens to.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

SPACING_S = 3.1
SUBSTITUTES = 2
OUTLASTING = 0.2
TICKS = (1, 2, 3, 4, 6, 9, 12, 24, 36)
"""Quarters of a second that models take: the longest outlive a restart of their agent."""


@dataclass(frozen=True)
class Options:
    """What a run is asked for. `replicas` 0 means one coordinator on SQLite; without `sides` traps
    take every side of every commit."""

    seed: int
    seconds: float
    faults: int
    folder: Path
    replicas: int = 2
    sites: int = 3
    variant: str = ""
    only: tuple[str, ...] = ("",)
    sides: tuple[str, ...] = ()
    rest_s: float = 180.0
    live_restore: bool = True
    ticks: tuple[int, ...] = TICKS


@dataclass(frozen=True)
class Kind:
    """How often a fault happens, beside others, and how long it lasts. `patience` is the longest
    deadline of the programs that such a fault can outlast; 0 = none that matters."""

    weight: int
    shortest: float
    longest: float
    patience: float = 0.0

    def lasts(self, choice: random.Random) -> float:
        """Most are short: what comes back at once is as telling as what stays away. Some outlast
        every deadline."""
        if self.patience and choice.random() < OUTLASTING:
            return self.patience * choice.uniform(1.05, 1.25)
        return self.shortest + (self.longest - self.shortest) * choice.random() ** 2


KINDS = {
    "agent-kill": Kind(12, 0.0, 3.0),
    "agent-boundary": Kind(34, 3.0, 6.0),
    "agent-stop": Kind(6, 0.5, 8.0),
    "agent-terminate": Kind(3, 0.0, 2.0),
    "coordinator-kill": Kind(8, 0.0, 3.0),
    "coordinator-boundary": Kind(16, 3.0, 6.0),
    "coordinator-stop": Kind(4, 0.5, 8.0, 20.0),
    "coordinator-terminate": Kind(2, 0.0, 2.0),
    "postgres-kill": Kind(4, 0.0, 3.0),
    "postgres-backend-kill": Kind(4, 0.0, 0.0),
    "postgres-stop": Kind(3, 0.5, 6.0, 25.0),
    "engine-kill": Kind(4, 0.0, 3.0),
    "engine-containerd-kill": Kind(3, 0.0, 0.0),
    "engine-stop": Kind(3, 0.5, 8.0, 15.0),
    "engine-terminate": Kind(3, 0.0, 0.0),
    "container-kill": Kind(6, 0.0, 0.0),
    "container-stop": Kind(4, 0.5, 5.0),
    "link-cut": Kind(5, 0.0, 0.0),
    "link-refused": Kind(4, 0.5, 6.0),
    "link-half-open": Kind(4, 0.5, 10.0, 40.0),
    "link-one-way": Kind(3, 0.5, 8.0),
    "link-slow": Kind(4, 1.0, 6.0),
    "link-throttled": Kind(3, 1.0, 6.0),
    "link-dropping": Kind(4, 1.0, 6.0),
    "site-disk-full": Kind(4, 1.0, 6.0),
    "coordinator-disk-full": Kind(3, 1.0, 5.0),
    "output-damaged": Kind(3, 0.0, 0.0),
    "cache-damaged": Kind(4, 0.0, 0.0),
    "data-damaged": Kind(3, 1.0, 6.0),
    "agent-clock": Kind(4, 1.0, 8.0),
    "coordinator-clock": Kind(3, 1.0, 8.0),
    "postgres-clock": Kind(3, 1.0, 8.0),
    "image-lost": Kind(3, 0.5, 6.0),
    "wire-down": Kind(3, 0.5, 8.0),
    "wire-lossy": Kind(3, 1.0, 8.0),
    "wire-silent": Kind(4, 0.5, 10.0, 40.0),
    "wire-rejecting": Kind(3, 0.5, 6.0),
    "wire-spent": Kind(3, 1.0, 8.0),
    "wire-slow": Kind(3, 1.0, 6.0),
}


@dataclass(frozen=True)
class Fault:
    """One planned fault: `at` seconds from the first, healed `seconds` later. `dice` decides the
    rest. Where it meets nothing, one of the kinds `instead` takes its place."""

    number: int
    at: float
    kind: str
    seconds: float
    dice: int
    instead: tuple[str, ...]

    def choice(self) -> random.Random:
        return random.Random(self.dice)


def schedule(options: Options) -> list[Fault]:
    """As many faults as asked for, spread over the time, or as many as the time holds."""
    choice = random.Random(options.seed)
    kinds = {
        name: kind
        for name, kind in KINDS.items()
        if _fits(name, options) and name.startswith(options.only)
    }
    count = options.faults or max(1, int(options.seconds / SPACING_S))
    spacing = options.seconds / count
    weights = [kind.weight for kind in kinds.values()]
    made = []
    for number in range(count):
        name, *instead = choice.choices([*kinds], weights, k=1 + SUBSTITUTES)
        kind = kinds[name]
        at = spacing * (number + choice.random())
        lasts = kind.lasts(choice)
        dice = choice.randrange(2**32)
        made.append(Fault(number, at, name, lasts, dice, tuple(instead)))
    return made


def _fits(name: str, options: Options) -> bool:
    return bool(options.replicas) or not name.startswith("postgres")
