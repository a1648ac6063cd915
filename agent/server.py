"""The agent put together: every room made once, started in order, stopped in the other.

Nothing is decided here. `Agent` is a context manager; tests pass an engine of their own.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType

from agent import gpus
from agent.catalog import Catalog
from agent.clock import Clock
from agent.consent import PolicyFile
from agent.containers import Containers
from agent.datasets import Datasets
from agent.disclosure import LOOK_S, Disclosure
from agent.engines.port import Engine, Limits
from agent.environment import PATIENT_S, Environment
from agent.execution import Executor
from agent.fingerprints import Fingerprinter
from agent.identity import Uplink
from agent.journal import Journal
from agent.journal_file import require_site
from agent.link import Link
from agent.local.messages import Messages
from agent.local.room import Rooms
from agent.local_api import LocalApi
from agent.lock import only_one
from agent.means import Bounds, Means
from agent.orders import Orders
from agent.outbox import Outbox
from agent.outcomes import Outcomes
from agent.participation import Participation
from agent.pipeline import StepRunner
from agent.preparation import Preparation
from agent.registry import Registry
from agent.release import Releases
from agent.results import Results
from agent.reviews import Reviews
from agent.runs import Runs
from agent.settings import Settings
from agent.step import Cage, Clocks
from agent.upkeep import Duty, Upkeep
from agent.worker import Worker

log = logging.getLogger(__name__)
FALLBACK_MEMORY, FALLBACK_CPUS = 4 << 30, 1.0
LOG_BYTES = 10 << 20
RECONCILE_S = 30.0
BACKUP_S = 3600.0
Engines = Callable[[bool], Engine]
"""An engine, with leave to pull or without."""


class Agent:
    """All rooms of one site's agent; serves while it is entered."""

    def __init__(self, settings: Settings, engines: Engines) -> None:
        state = settings.state_dir
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        self.settings = settings
        self._close = ExitStack()
        self._lock = only_one(state)
        self.policy = PolicyFile(settings.policy_file)
        self.outward = settings.outward()
        self.uplink = Uplink(settings.identity_dir, self.outward.proxy)
        name = self.uplink.identity.name
        require_site(state / "journal.sqlite", name)
        self.journal = Journal(state / "journal.sqlite")
        if not self.journal.fact("site"):
            self.journal.set_fact("site", name)
        self._build(state, engines)

    def _build(self, state: Path, engines: Engines) -> None:
        settings, journal = self.settings, self.journal
        self._engines = (engines(settings.allow_pull), engines(False))
        self.engine, local = self._engines
        found = gpus.discover()
        self.environment = Environment(self.engine, found)
        self.worker = Worker(settings.slots)
        self.gpus = gpus.GpuPool(found)
        self.runner = StepRunner(self.engine, self.gpus, journal, self._cage())
        self.registry = Registry(self.uplink, journal)
        self.catalog = Catalog(
            state / "datasets",
            site=self.uplink.identity.short_name,
            allowed=settings.allowed_paths,
            forbidden=state,
        )
        self.disclosure = Disclosure(
            self.catalog,
            journal,
            settings.report_preparations,
            minimum_count=settings.minimum_count,
        )
        self.containers = Containers(
            self.engine,
            local,
            state / "files",
            allow_local=settings.allow_local_files,
            outward=self.outward,
        )
        self.results = Results(journal)
        self.releases = Releases(journal, self.catalog, self.uplink)
        self._build_work(state)
        self._build_orders()
        self._build_edges()

    def _build_work(self, state: Path) -> None:
        """Preparations and executions, and what people do with datasets."""
        settings, journal = self.settings, self.journal
        fingerprints = Fingerprinter(state / "fingerprints.sqlite")
        bounds = Bounds(
            Clocks(settings.wall_limit_s, settings.silence_limit_s),
            settings.max_output_bytes,
            settings.minimum_count,
        )
        means = Means(
            self.catalog, self.registry, self.containers, self.runner, fingerprints, journal, bounds
        )
        patient = partial(self.environment.facts, PATIENT_S)
        self.executor = Executor(state / "executions", means, patient)
        self.runs = Runs(journal, self.executor, self.worker)
        self.runner.listener = self.runs.on_step
        self.datasets = Datasets(
            self.catalog,
            journal,
            self.registry,
            fingerprints,
            Preparation(means),
            self.releases,
            self.worker,
        )
        self.participation = Participation(
            self.catalog,
            journal,
            self.registry,
            self.executor,
            self.runs,
            self.results,
            self.releases,
            self.worker,
        )

    def _build_orders(self) -> None:
        outcomes = Outcomes(self.journal, self.policy, self.executor, self.results, self.releases)
        self.runs.ended = outcomes.ended
        self.releases.reopened = outcomes.ended
        self.orders = Orders(
            self.journal, self.uplink, self.executor, self.runs, outcomes, self.worker
        )
        self.reviews = Reviews(
            self.journal, self.orders, outcomes, self.runs, self.results, self.releases
        )

    def _build_edges(self) -> None:
        settings = self.settings
        self.link = Link(
            self.uplink,
            self.journal,
            self.orders,
            Outbox(self.journal, self.releases, self.uplink),
            environment=self.environment.facts,
            counts=self.worker.counts,
            preparing=self.disclosure.told,
            heartbeat_s=settings.heartbeat_s,
            max_skew_s=settings.max_clock_skew_s,
        )
        self.releases.wake = self.link.wake
        self.disclosure.say = self.link.preparing
        self.runs.changed = self.orders.outcomes.changed = self.link.progress
        self.local_api = LocalApi(self._rooms())

    def _cage(self) -> Cage:
        settings = self.settings
        instance = self.journal.fact("instance") or uuid.uuid4().hex
        self.journal.set_fact("instance", instance)
        # An engine that is away now may be back for the first step.
        facts = self.environment.facts(PATIENT_S)
        return Cage(
            user=settings.user,
            limits=Limits(
                memory_bytes=settings.memory_limit
                or facts.memory_bytes // settings.slots
                or FALLBACK_MEMORY,
                cpus=settings.cpus or facts.cpus / settings.slots or FALLBACK_CPUS,
                pids=settings.pids,
                tmp_bytes=settings.tmp_bytes,
                log_bytes=LOG_BYTES,
            ),
            shm_bytes=settings.shm_bytes,
            grace_s=settings.stop_grace_s,
            log_level=settings.container_log_level,
            state_dir=settings.state_dir,
            disk_reserve=settings.disk_reserve_bytes,
            instance=instance,
        )

    def _rooms(self) -> Rooms:
        return Rooms(
            settings=self.settings,
            uplink=self.uplink,
            journal=self.journal,
            catalog=self.catalog,
            registry=self.registry,
            containers=self.containers,
            executor=self.executor,
            worker=self.worker,
            runs=self.runs,
            results=self.results,
            releases=self.releases,
            datasets=self.datasets,
            participation=self.participation,
            orders=self.orders,
            reviews=self.reviews,
            policy=self.policy,
            messages=Messages(
                self.catalog, self.journal, self.disclosure, self.settings.state_dir / "executions"
            ),
            link_state=lambda: self.link.state,
            environment=self.environment.facts,
            gpus=self.gpus,
        )

    def __enter__(self) -> Agent:
        self._close.callback(self._release_all)
        self.runner.reserve()
        self._reconcile()
        self.worker.start()
        self._close.callback(lambda: self.worker.close(self.settings.stop_grace_s + 5))
        self._close.enter_context(self._upkeep())
        sweep = Duty("sweep", RECONCILE_S, self._sweep)  # an engine that hangs holds up no other
        self._close.enter_context(Upkeep([sweep], "sweep"))
        self._close.enter_context(self.local_api)
        link = threading.Thread(target=self.link.run, name="link", daemon=True)
        link.start()
        self._close.callback(lambda: link.join(5))
        self._close.callback(self.link.close)
        renewal = threading.Thread(
            target=self.uplink.keep_renewed,
            args=(self.link.reconnect,),
            name="renewal",
            daemon=True,
        )
        renewal.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close.close()

    def _reconcile(self) -> None:
        """What the journal says is under way, is; what it says was released, is."""
        self.releases.reconcile()
        self.datasets.reconcile()
        self.runs.reconcile()
        self.orders.reconcile()

    def _upkeep(self) -> Upkeep:
        duties = (
            Duty("reconcile", RECONCILE_S, self._reconcile),
            Duty("disclose", LOOK_S, self.disclosure.look),
            Duty("backup", BACKUP_S, self.journal.back_up),
            Duty("clock", LOOK_S, Clock(self.link.clock_set).look),
            Duty("trust", LOOK_S, self._take_trusted),
        )
        return Upkeep(duties)

    def _take_trusted(self) -> None:
        """Orders that were not taken for their signer come again with the next Welcome."""
        if self.orders.untaken.trusted_anew():
            self.link.reconnect()

    def _sweep(self) -> None:
        removed = self.runner.strays.sweep(lambda: self.datasets.live() | self.runs.live())
        if removed:
            log.info("containers of ended work removed", extra={"count": removed})

    def _release_all(self) -> None:
        self.uplink.close()
        self.journal.close()
        for engine in self._engines:
            engine.close()
        os.close(self._lock)
