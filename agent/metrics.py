"""What Prometheus is told of the agent. Each metric has its row in docs/telemetry.md.

Steps and the journal are counted as things happen; all else is read from the live rooms at the
scrape. Labels are tasks, states and codes: never datasets, paths or people.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agent import gpus
from agent.journal import Journal
from agent.records import KeptStep, State
from housecall.process import Process
from housecall.v1 import statements_pb2 as pb

if TYPE_CHECKING:
    from agent.server import Agent

PREFIX = "housecall_agent_"
TASKS = frozenset({"prepare", "sanity_check", "statistics", "infer", "evaluate"})
_LONG = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class Meters:
    """Counters and histograms, in a registry of their own."""

    def __init__(self, journal: Journal) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(Process())
        self._steps = Counter(
            f"{PREFIX}steps", "Steps that ended.", ["task", "code"], registry=registry
        )
        self._seconds = Histogram(
            f"{PREFIX}step_seconds", "Time of steps.", ["task"], buckets=_LONG, registry=registry
        )
        self._commits = Histogram(
            f"{PREFIX}journal_commit_seconds",
            "Commits of the journal, each with its synchronisation to disk.",
            buckets=_QUICK,
            registry=registry,
        )
        journal.committed = self._commits.observe

    def step(self, kept: KeptStep) -> None:
        """A step ended."""
        task = kept.name if kept.name in TASKS else "other"
        self._steps.labels(task, kept.code or "OK").inc()
        self._seconds.labels(task).observe(pb.StepRecord.FromString(kept.record).seconds)


class Standing(Collector):
    """The agent as it is at the scrape."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._gpus = len(gpus.discover())

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(f"{PREFIX}info", "The running version.", labels=["version"])
        info.add_metric([version("housecall")], 1)
        yield info
        yield from self._link()
        yield from self._outbox()
        yield from self._work()
        yield from self._machine()

    def _link(self) -> Iterator[Metric]:
        state, uplink = self._agent.link.state, self._agent.uplink
        yield _gauge("link_up", "Whether the stream to the coordinator is up.", state.connected)
        yield _gauge(
            "link_down_seconds",
            "How long the stream has been down; 0 while it is up.",
            state.down_s,
        )
        yield _gauge(
            "clock_skew_seconds",
            "This machine's clock less the coordinator's, at the last welcome.",
            uplink.skew_s,
        )
        yield _gauge(
            "certificate_expiry_timestamp_seconds",
            "When this site's certificate expires.",
            uplink.identity.certificate.not_valid_after_utc.timestamp(),
        )

    def _outbox(self) -> Iterator[Metric]:
        waiting, since = self._agent.journal.outbox_standing()
        oldest = max(0.0, time.time() - since) if waiting else 0.0
        yield _gauge("outbox_waiting", "Statements without a receipt.", waiting)
        yield _gauge("outbox_oldest_seconds", "How long the oldest of them has waited.", oldest)

    def _work(self) -> Iterator[Metric]:
        journal, worker = self._agent.journal, self._agent.worker
        running, waiting = worker.counts()
        yield _gauge("slots", "Executions and preparations that may run at once.", worker.slots)
        yield _gauge("slots_running", "Those that run.", running)
        yield _gauge("slots_waiting", "Those that wait for a slot.", waiting)
        yield _gauge("reviews_waiting", "What waits for a person's yes.", len(journal.reviews()))
        yield _gauge("orders_open", "Orders without an outcome.", len(journal.open_orders()))
        family = GaugeMetricFamily(
            f"{PREFIX}executions", "Executions of this site, by state.", labels=["state"]
        )
        counts = journal.execution_counts()
        for state in State:
            family.add_metric([state.lower()], counts.get(state, 0))
        yield family

    def _machine(self) -> Iterator[Metric]:
        held = sum(len(uuids) for uuids in self._agent.gpus.holders().values())
        yield _gauge("gpus", "GPUs that steps can be given.", self._gpus)
        yield _gauge("gpus_in_use", "GPUs that running steps have.", held)
        free = shutil.disk_usage(self._agent.settings.state_dir).free
        yield _gauge("disk_free_bytes", "Free on the disk of the agent's state.", free)
        reserve = self._agent.settings.disk_reserve_bytes
        yield _gauge("disk_reserve_bytes", "Free space below which no step starts.", reserve)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, what, value)
