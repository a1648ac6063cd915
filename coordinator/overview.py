"""What operators see at a glance: the coordinators, their sites, and who waits for whom since when.

Only reads. Of each list the oldest thousand are shown; the counts are whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlmodel import SQLModel, col

from coordinator import views
from coordinator.fleet import Fleet
from coordinator.models import Association, Execution, JoinToken, Participant
from coordinator.replicas import Replicas
from coordinator.store import Reader
from coordinator.store.backups import last_backup
from housecall.times import stamp
from housecall.v1 import fleet_pb2
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb

Row = TypeVar("Row", bound=SQLModel)
Overview = reg.GetOverviewResponse
MOST = 1000


def overview(
    reader: Reader,
    fleet: Fleet,
    replicas: Replicas,
    *,
    backup_within: timedelta,
    now: datetime,
) -> Overview:
    """`backup_within` is how old the last backup may be; none = as old as it likes."""
    sites = list(_sites(reader, fleet))
    coordinator = _coordinator(reader, replicas, now)
    _add_backup(coordinator, reader, now, backup_within)
    open_executions = {"state": pb.EXECUTION_STATE_ORDERED}
    open_requests = {"state": reg.ASSOCIATION_STATE_REQUESTED}
    executions = reader.page(Execution, col(Execution.id), None, MOST, **open_executions)
    requests = reader.page(Association, col(Association.id), None, MOST, **open_requests)
    return Overview(
        coordinator=coordinator,
        sites=sites,
        executions=[_execution(reader, row, fleet) for row in executions],
        executions_open=reader.count(Execution, **open_executions),
        requests=[_request(reader, row) for row in requests],
        requests_open=reader.count(Association, **open_requests),
        tokens=list(_tokens(reader, now)),
        replicas=list(_replicas(replicas, sites)),
    )


def _coordinator(reader: Reader, replicas: Replicas, now: datetime) -> Overview.Coordinator:
    size, own = reader.tree_size(), replicas.own
    found = Overview.Coordinator(
        version=own.version,
        database=reader.database,
        now=stamp(now),
        ledger_size=size,
        replicas=[each.name for each in replicas.all()],
    )
    if own.serving_since:
        found.serving_since.CopyFrom(stamp(own.serving_since))
    if size:
        found.checkpoint_at.CopyFrom(stamp(reader.entry(size - 1).accepted_at))
    return found


def _add_backup(
    found: Overview.Coordinator, reader: Reader, now: datetime, within: timedelta
) -> None:
    backup = last_backup(reader, now)
    if backup:
        found.last_backup.taken_at.CopyFrom(stamp(backup.taken_at))
        found.last_backup.ledger_size = backup.ledger_size
    found.backup_overdue = bool(within) and (backup is None or now - backup.taken_at > within)


def _replicas(replicas: Replicas, sites: list[Overview.SiteStanding]) -> Iterator[Overview.Replica]:
    served = Counter(each.replica for each in sites if each.site.connected)
    for each in replicas.all():
        found = Overview.Replica(
            name=each.name,
            host=each.host,
            version=each.version,
            store=each.store,
            sites=served[each.name],
        )
        if each.serving_since:
            found.serving_since.CopyFrom(stamp(each.serving_since))
        yield found


def _sites(reader: Reader, fleet: Fleet) -> Iterator[Overview.SiteStanding]:
    order = col(Participant.enrolled_index)
    enrolled = {"role": pb.ROLE_SITE, "revoked_index": None}
    for row in _all(reader, Participant, order, **enrolled):
        standing = fleet.standing(row.name)
        found = Overview.SiteStanding(site=views.site(row, fleet), replica=standing.replica)
        if standing.certificate_expires_at is not None:
            found.certificate_expires_at.CopyFrom(stamp(standing.certificate_expires_at))
        yield found


def _execution(reader: Reader, row: Execution, fleet: Fleet) -> Overview.OpenExecution:
    doing = fleet.progress_of(row.id)
    return Overview.OpenExecution(
        execution=views.execution(reader, row, fleet),
        site=row.site,
        requester=row.requester,
        accepted=doing is not None,
        waits_for=doing.waits_for if doing else fleet_pb2.WAIT_REASON_UNSPECIFIED,
    )


def _request(reader: Reader, row: Association) -> Overview.OpenRequest:
    votes = reader.votes(row.id)
    missing = reader.committee(row.benchmark_id) - votes.keys()
    return Overview.OpenRequest(
        association_id=row.id,
        benchmark_id=row.benchmark_id,
        dataset_id=row.dataset_id,
        model_id=row.model_id,
        requester=row.requester,
        since=stamp(reader.entry(row.ledger_index).accepted_at),
        approvals=list(votes.values()).count("approve"),
        votes_needed=reader.benchmark(row.benchmark_id).votes_needed,
        waits_for=sorted(
            name for name in missing if reader.participant(name).revoked_index is None
        ),
    )


def _tokens(reader: Reader, now: datetime) -> Iterator[Overview.OpenToken]:
    unused = {"used_index": None, "revoked_index": None}
    for row in _all(reader, JoinToken, col(JoinToken.issued_index), **unused):
        if row.expires_at > now:
            yield Overview.OpenToken(
                token_id=row.token_id,
                name=row.name,
                role=pb.Role.ValueType(row.role),
                issued_at=stamp(reader.entry(row.issued_index).accepted_at),
                expires_at=stamp(row.expires_at),
            )


def _all(reader: Reader, table: type[Row], order: Any, **where: Any) -> Iterator[Row]:
    """Every row, page by page."""
    after = None
    while rows := reader.page(table, order, after, MOST, **where):
        yield from rows
        after = getattr(rows[-1], order.key)
