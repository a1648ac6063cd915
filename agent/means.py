"""What preparations and executions both work with."""

from __future__ import annotations

from dataclasses import dataclass

from agent.catalog import Catalog
from agent.containers import Containers
from agent.fingerprints import Fingerprinter
from agent.journal import Journal
from agent.pipeline import StepRunner
from agent.registry import Registry
from agent.step import Clocks


@dataclass(frozen=True)
class Bounds:
    """The site's bounds on outputs and steps."""

    clocks: Clocks
    max_output_bytes: int
    minimum_count: int


@dataclass(frozen=True)
class Means:
    catalog: Catalog
    registry: Registry
    containers: Containers
    runner: StepRunner
    fingerprints: Fingerprinter
    journal: Journal
    bounds: Bounds
