"""What Prometheus is told of the coordinator. Each metric has its row in docs/telemetry.md.

Counters and histograms are kept as things happen; what the store, the fleet and the certificates
say is read at the scrape. Labels are methods, kinds, codes and states: never names or ids.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from coordinator.authority import CertificateAuthority
from coordinator.fleet import Fleet
from coordinator.models import Execution
from coordinator.notary import Accepted
from coordinator.standing import KNOWN_STATES
from coordinator.store import Store
from coordinator.store.backups import last_backup
from housecall.errors import Refusal
from housecall.process import Process
from housecall.v1 import statements_pb2 as pb

PREFIX = "housecall_coordinator_"
_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Meters:
    """Counters and histograms, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(Process())
        self.calls = Histogram(
            f"{PREFIX}rpc_seconds",
            "Unary calls answered, by method and status code.",
            ["method", "code"],
            buckets=_QUICK,
            registry=registry,
        )
        self.streams = Gauge(
            f"{PREFIX}streams", "Streams that are open.", ["method"], registry=registry
        )
        self.streams_ended = Counter(
            f"{PREFIX}streams_ended", "Streams that ended.", ["method", "code"], registry=registry
        )
        self.accepted = Counter(
            f"{PREFIX}statements_accepted", "New ledger entries.", ["kind"], registry=registry
        )
        self.repeated = Counter(
            f"{PREFIX}statements_repeated",
            "Statements that were in the ledger and got their receipt again.",
            registry=registry,
        )
        self.refused = Counter(
            f"{PREFIX}statements_refused", "Statements refused.", ["code"], registry=registry
        )
        self.append = Histogram(
            f"{PREFIX}append_seconds",
            "From a statement's arrival at the notary until it is durable.",
            buckets=_QUICK,
            registry=registry,
        )
        self.batch = Histogram(
            f"{PREFIX}batch_statements",
            "Statements that one commit made durable.",
            buckets=_SIZES,
            registry=registry,
        )
        self.database_errors = Counter(
            f"{PREFIX}database_errors", "Errors of the database.", ["error"], registry=registry
        )

    def watch_database(self, store: Store) -> None:
        @event.listens_for(store.engine, "handle_error")
        def failed(context: Any) -> None:
            self.database_errors.labels(type(context.sqlalchemy_exception).__name__).inc()

    def submitted(self, envelope: bytes, answer: Future[Accepted]) -> None:
        """A statement came to the notary; its answer is counted."""
        began = time.perf_counter()

        def answered(done: Future[Accepted]) -> None:
            error = done.exception()
            if error is not None:
                self.refused.labels(code_of(error)).inc()
                return
            self.append.observe(time.perf_counter() - began)
            accepted = done.result()
            if accepted.effect is None:
                self.repeated.inc()
            else:
                self.accepted.labels(accepted.kind).inc()

        answer.add_done_callback(answered)


def code_of(error: BaseException | None) -> str:
    """The refusal's code; "" for none."""
    if error is None:
        return ""
    return error.code if isinstance(error, Refusal) else "INTERNAL"


class Standing(Collector):
    """What is read at the scrape. A database that is away takes its own metrics with it only."""

    def __init__(self, store: Store, fleet: Fleet, authority: CertificateAuthority) -> None:
        self._store, self._fleet, self._authority = store, fleet, authority

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(f"{PREFIX}info", "The running version.", labels=["version"])
        info.add_metric([version("housecall")], 1)
        yield info
        yield self._certificates()
        yield GaugeMetricFamily(
            f"{PREFIX}sites_connected",
            "Sites whose stream is at this replica.",
            self._fleet.connected(),
        )
        yield self._reported()
        yield from self._stored()

    def _certificates(self) -> Metric:
        family = GaugeMetricFamily(
            f"{PREFIX}certificate_expiry_timestamp_seconds",
            "When the coordinator's certificates expire.",
            labels=["certificate"],
        )
        expiries = {
            "root": self._authority.root.not_valid_after_utc,
            "issuing": self._authority.issuing.not_valid_after_utc,
            "server": self._authority.server_expires_at,
        }
        for name, at in expiries.items():
            if at is not None:
                family.add_metric([name], at.timestamp())
        return family

    def _reported(self) -> Metric:
        """Zeros are said, too: a series that comes and goes cannot be told from a failed scrape."""
        counts = dict.fromkeys(sorted(KNOWN_STATES), 0)
        for _, doing in self._fleet.all_progress():
            if doing.state in counts:  # a replica of another version may tell of others
                counts[doing.state] += 1
        family = GaugeMetricFamily(
            f"{PREFIX}orders_reported",
            "Orders by the state that their sites last said.",
            labels=["state"],
        )
        for state, count in counts.items():
            name = pb.ExecutionState.Name(state).removeprefix("EXECUTION_STATE_").lower()
            family.add_metric([name], count)
        return family

    def _stored(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(f"{PREFIX}database_up", "Whether the database answered.")
        try:
            with self._store.read() as reader:
                size = reader.tree_size()
                orders = reader.count(Execution, state=pb.EXECUTION_STATE_ORDERED)
                backup = last_backup(reader, datetime.now(UTC))
        except (SQLAlchemyError, Refusal):
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield GaugeMetricFamily(f"{PREFIX}ledger_entries", "Entries of the ledger.", size)
        yield GaugeMetricFamily(f"{PREFIX}orders_open", "Orders without an outcome.", orders)
        yield GaugeMetricFamily(
            f"{PREFIX}last_backup_timestamp_seconds",
            "When the last backup was begun; 0 = never.",
            backup.taken_at.timestamp() if backup else 0,
        )
