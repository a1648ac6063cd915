"""The world that is hurt: a coordinator, people, some sites, and links between them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.committee import Committee
from tests.faults.coordinators import Coordinators
from tests.faults.desk import Desk
from tests.faults.engine import EngineProgram
from tests.faults.foreign import Foreign
from tests.faults.journals import JournalWatch
from tests.faults.newcomers import Newcomers
from tests.faults.people import SitePeople
from tests.faults.plan import Options
from tests.faults.programs import Keeper, wait_for
from tests.faults.proxy import Relay
from tests.faults.sites import Site
from tests.faults.variants import VARIANTS
from tests.faults.watch import Watch


@dataclass
class World:
    """Everything that runs, and what is known of it. `lacks` is what cannot be hurt here; `damaged`
    are executions whose files were."""

    options: Options
    lacks: list[str]
    keeper: Keeper
    relay: Relay
    engine: EngineProgram
    coordinators: Coordinators
    watch: Watch
    foreign: Foreign
    desks: dict[str, Desk]
    sites: list[Site]
    committee: Committee
    newcomers: Newcomers
    people: list[SitePeople]
    journals: JournalWatch
    damaged: set[tuple[str, int]] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def traps(self) -> dict[str, list[Path]]:
        """At commits, by the kind of fault that sets them."""
        return {
            "agent-boundary": [site.trap for site in self.sites],
            "coordinator-boundary": [each.trap for each in self.coordinators.replicas],
        }

    def start(self) -> None:
        """From now on everybody goes about their work; returns when a model runs."""
        began = time.monotonic()
        for thread in (
            self.committee.thread,
            self.newcomers.thread,
            *(each.thread for each in self.people),
        ):
            thread.start()
        wait_for(lambda: self.watch.ran("infer", since=began), "a model runs", 180)

    def break_on_purpose(self, variant: str) -> None:
        """From now on some programs are broken in the way of `variants.py`; they are back when
        this returns."""
        agents = [site.program for site in self.sites]
        replicas = [replica.program for replica in self.coordinators.replicas]
        for program in agents if VARIANTS[variant].program == "agent" else replicas:
            program.end()
            program.environment["FAULTS_VARIANT"] = variant
            program.start()
        wait_for(lambda: all(each.answers() for each in self.coordinators.replicas), "coordinators")
        wait_for(lambda: all(each.connected() for each in self.sites), "links are up again")
