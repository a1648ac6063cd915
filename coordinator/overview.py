"""What operators see at a glance: the coordinator, its sites, and who waits for whom since when.

Only reads. Of each list the oldest thousand are shown; the counts are whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, TypeVar

from sqlmodel import SQLModel, col

from coordinator import views
from coordinator.fleet import Fleet
from coordinator.models import Association, Execution, JoinToken, Participant
from coordinator.store import Reader
from housecall.times import stamp
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb

Row = TypeVar("Row", bound=SQLModel)
Overview = reg.GetOverviewResponse
MOST = 1000


def overview(
    reader: Reader, fleet: Fleet, *, version: str, serving_since: datetime, now: datetime
) -> Overview:
    sites = list(_sites(reader, fleet))
    replicas = {fleet.replica, *(each.replica for each in sites if each.site.connected)}
    open_executions = {"state": pb.EXECUTION_STATE_ORDERED}
    open_requests = {"state": reg.ASSOCIATION_STATE_REQUESTED}
    executions = reader.page(Execution, col(Execution.id), None, MOST, **open_executions)
    requests = reader.page(Association, col(Association.id), None, MOST, **open_requests)
    return Overview(
        coordinator=_coordinator(
            reader,
            version=version,
            serving_since=serving_since,
            now=now,
            replicas=sorted(replicas - {""}),
        ),
        sites=sites,
        executions=[_execution(reader, row, fleet) for row in executions],
        executions_open=reader.count(Execution, **open_executions),
        requests=[_request(reader, row) for row in requests],
        requests_open=reader.count(Association, **open_requests),
        tokens=list(_tokens(reader, now)),
    )


def _coordinator(
    reader: Reader, *, version: str, serving_since: datetime, now: datetime, replicas: list[str]
) -> Overview.Coordinator:
    size = reader.tree_size()
    found = Overview.Coordinator(
        version=version,
        database=reader.database,
        now=stamp(now),
        serving_since=stamp(serving_since),
        ledger_size=size,
        replicas=replicas,
    )
    if size:
        found.checkpoint_at.CopyFrom(stamp(reader.entry(size - 1).accepted_at))
    return found


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
    return Overview.OpenExecution(
        execution=views.execution(reader, row, fleet),
        site=row.site,
        requester=row.requester,
        accepted=fleet.progress_of(row.id) is not None,
    )


def _request(reader: Reader, row: Association) -> Overview.OpenRequest:
    events = reader.events(row.id)
    voted = {each.actor for each in events if each.what in ("approve", "reject")}
    return Overview.OpenRequest(
        association_id=row.id,
        benchmark_id=row.benchmark_id,
        dataset_id=row.dataset_id,
        model_id=row.model_id,
        requester=row.requester,
        since=stamp(reader.entry(row.ledger_index).accepted_at),
        approvals=len({each.actor for each in events if each.what == "approve"}),
        votes_needed=reader.benchmark(row.benchmark_id).votes_needed,
        waits_for=sorted(reader.committee(row.benchmark_id) - voted),
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
