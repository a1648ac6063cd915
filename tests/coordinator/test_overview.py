"""What operators see: sites, open executions and requests, tokens; and that nobody else does."""

from __future__ import annotations

import contextlib
import socket
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from coordinator import overview as overviews
from coordinator.fleet import Fleet
from coordinator.rebuild import check_store
from coordinator.replicas import Replica, Replicas
from coordinator.store import Reader, Store
from coordinator.store.backups import Backup, note_backup
from coordinator.store.databases import parse_url, place
from housecall.rpc import from_rpc_error
from housecall.times import stamp
from housecall.v1 import fleet_pb2, ledger_pb2, ledger_pb2_grpc
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.test_fleet import Agent, order_line, prepared
from tests.coordinator.world import Party, World, benchmark_statement, register_model

SECONDS = 20.0


def overview(party: Party) -> reg.GetOverviewResponse:
    return party.registry.GetOverview(reg.GetOverviewRequest(), timeout=SECONDS)


def ledger_size(party: Party) -> int:
    checkpoint = ledger_pb2_grpc.LedgerStub(party.channel).GetCheckpoint(
        ledger_pb2.GetCheckpointRequest()
    )
    return int(checkpoint.checkpoint.split("\n")[1])


def now() -> datetime:
    return datetime.now(UTC)


def test_only_operators_are_answered(coordinator: World) -> None:
    for name, role in (("ada", pb.ROLE_PERSON), ("north", pb.ROLE_SITE)):
        with pytest.raises(grpc.RpcError) as caught:
            overview(coordinator.join(name, role))
        assert from_rpc_error(caught.value, "coordinator").code == "METHOD_NOT_ALLOWED"


def test_the_coordinator_itself(coordinator: World) -> None:
    before = now()
    coordinator.join("ada", pb.ROLE_PERSON)
    found = overview(coordinator.operator).coordinator
    on_postgresql = coordinator.settings.database_url
    assert found.database == ("postgresql" if on_postgresql else "sqlite")
    assert found.ledger_size == ledger_size(coordinator.operator)
    assert found.serving_since.ToDatetime(UTC) < before <= found.checkpoint_at.ToDatetime(UTC)
    assert found.checkpoint_at.ToDatetime(UTC) <= found.now.ToDatetime(UTC) <= now()


def test_a_caller_hears_the_coordinators_time_and_version(coordinator: World) -> None:
    before = now()
    found = coordinator.operator.registry.GetCaller(reg.GetCallerRequest())
    assert before <= found.coordinator_time.ToDatetime(UTC) <= now()
    assert found.coordinator_version == overview(coordinator.operator).coordinator.version


def test_sites_stand_as_they_connect_and_leave(coordinator: World) -> None:
    north = coordinator.join("north", pb.ROLE_SITE)
    coordinator.join("south", pb.ROLE_SITE)
    agent = Agent(north)
    connected, never = overview(coordinator.operator).sites
    assert (connected.site.connected, connected.site.agent_version) == (True, "test")
    expires = connected.certificate_expires_at.ToDatetime(UTC)
    assert timedelta(days=6) < expires - now() < timedelta(days=31)
    assert not never.site.connected
    assert not never.site.HasField("heard_at")
    assert not never.HasField("certificate_expires_at")
    agent.close()
    deadline = time.monotonic() + SECONDS
    while (left := overview(coordinator.operator).sites[0]).site.connected:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert left.site.HasField("heard_at")
    assert left.certificate_expires_at.ToDatetime(UTC) == expires


def test_a_revoked_site_is_not_waited_for(coordinator: World) -> None:
    north = coordinator.join("north", pb.ROLE_SITE)
    coordinator.operator.state(pb.ParticipantRevoked(name=north.name, reason="gone"))
    assert not overview(coordinator.operator).sites


def test_an_order_is_open_until_it_ends(coordinator: World) -> None:
    north = coordinator.join("north", pb.ROLE_SITE)
    carla, _, other = prepared(coordinator, north)
    carla.state(order_line("north/1", other))
    found = overview(coordinator.operator)
    (row,) = found.executions
    assert (row.site, row.requester, row.accepted) == (north.name, carla.name, False)
    assert row.execution.state == pb.EXECUTION_STATE_ORDERED
    assert found.executions_open == 1
    agent = Agent(north)
    waits = fleet_pb2.Progress(execution_id=1, state=pb.EXECUTION_STATE_WAITING_CONSENT)
    agent.send(progress=waits)
    deadline = time.monotonic() + SECONDS
    while not (row := overview(coordinator.operator).executions[0]).accepted:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert row.execution.state == pb.EXECUTION_STATE_WAITING_CONSENT
    carla.state(pb.ExecutionCancelled(execution_ids=[1], reason="no more"))
    ended = overview(coordinator.operator)
    assert (len(ended.executions), ended.executions_open) == (0, 0)
    agent.close()


def test_an_order_is_as_its_site_says_since_then_and_whatever_stream_says_it(
    coordinator: World,
) -> None:
    north = coordinator.join("north", pb.ROLE_SITE)
    carla, _, other = prepared(coordinator, north)
    carla.state(order_line("north/1", other))
    state, since = pb.EXECUTION_STATE_QUEUED, now() - timedelta(days=9)
    waits = fleet_pb2.Progress(
        execution_id=1, state=state, since=stamp(since), waits_for=fleet_pb2.WAIT_REASON_DISK
    )
    for _ in range(2):
        agent = Agent(north, doing=[waits])
        (row,) = overview(coordinator.operator).executions
        assert (row.execution.state, row.waits_for) == (state, fleet_pb2.WAIT_REASON_DISK)
        assert abs(row.execution.updated_at.ToDatetime(UTC) - since) < timedelta(seconds=SECONDS)
        agent.close()


def test_a_request_waits_for_those_who_have_not_voted(coordinator: World) -> None:
    north = coordinator.join("north", pb.ROLE_SITE)
    carla, _, _ = prepared(coordinator, north)
    mona = coordinator.parties["mona"]
    before = now()
    late = register_model(mona, "late")
    mona.state(pb.AssociationRequested(benchmark_id=1, model_id=late.id))
    found = overview(coordinator.operator)
    (row,) = found.requests
    assert (row.association_id, row.model_id, row.requester) == (3, late.id, mona.name)
    assert list(row.waits_for) == [carla.name]
    assert (row.approvals, row.votes_needed, found.requests_open) == (0, 1, 1)
    assert before <= row.since.ToDatetime(UTC) <= now()


def test_votes_are_shown_as_they_count(coordinator: World) -> None:
    """Not one that was changed, nor a revoked member's, who is not waited for either."""
    carla, kim, lou, mona = (
        coordinator.join(name, pb.ROLE_PERSON) for name in ("carla", "kim", "lou", "mona")
    )
    committee = [carla.name, kim.name, lou.name]
    reference, late = register_model(mona, "reference"), register_model(mona, "late")
    carla.state(benchmark_statement(carla, reference, committee=committee, votes_needed=3))
    number = int(mona.state(pb.AssociationRequested(benchmark_id=1, model_id=late.id)).id)

    def vote(member: Party, decision: pb.Decision.ValueType) -> None:
        said = pb.AssociationDecided(association_id=number, decision=decision, reason="so it is")
        member.state(said)

    def shown() -> tuple[int, int, list[str]]:
        (row,) = overview(coordinator.operator).requests
        asked = reg.GetAssociationRequest(id=number)
        association = carla.registry.GetAssociation(asked).association
        return row.approvals, association.approvals, list(row.waits_for)

    vote(carla, pb.DECISION_APPROVE)
    vote(kim, pb.DECISION_APPROVE)
    assert shown() == (2, 2, [lou.name])
    coordinator.operator.state(pb.ParticipantRevoked(name=kim.name, reason="left"))
    assert shown() == (1, 1, [lou.name])
    coordinator.operator.state(pb.ParticipantRevoked(name=lou.name, reason="left"))
    assert shown() == (1, 1, [])
    vote(carla, pb.DECISION_REJECT)
    asked = reg.GetAssociationRequest(id=number)
    assert carla.registry.GetAssociation(asked).association.approvals == 0


def test_tokens_that_can_be_used_still(coordinator: World) -> None:
    coordinator.token("later", pb.ROLE_PERSON)
    coordinator.join("ada", pb.ROLE_PERSON)
    (token,) = overview(coordinator.operator).tokens
    assert (token.name, token.role) == ("spiffe://test/person/later", pb.ROLE_PERSON)
    assert token.issued_at.ToDatetime(UTC) < now() < token.expires_at.ToDatetime(UTC)
    with contextlib.closing(Store(coordinator.settings.store_url)) as store, store.read() as reader:
        for hours, open_ones in ((0, 1), (2, 0)):
            assert len(at(reader, now() + timedelta(hours=hours)).tokens) == open_ones


def at(reader: Reader, moment: datetime, backup_within: float = 0) -> reg.GetOverviewResponse:
    """The overview of one coordinator at a moment; `backup_within` in hours."""
    within = timedelta(hours=backup_within)
    known = Replicas(Replica("one"))
    return overviews.overview(reader, Fleet(), known, backup_within=within, now=moment)


def test_the_one_coordinator_is_listed(coordinator: World) -> None:
    agent = Agent(coordinator.join("north", pb.ROLE_SITE))
    found = overview(coordinator.operator)
    (replica,) = found.replicas
    assert list(found.coordinator.replicas) == [replica.name]
    assert (replica.host, replica.sites) == (socket.gethostname(), 1)
    assert (replica.version, replica.serving_since) == (
        found.coordinator.version,
        found.coordinator.serving_since,
    )
    assert replica.store == place(parse_url(coordinator.settings.store_url))
    agent.close()


def test_a_backup_by_a_clock_that_was_ahead_hides_no_other(coordinator: World) -> None:
    today, day, year = now(), timedelta(days=1), timedelta(days=365)
    with contextlib.closing(Store(coordinator.settings.store_url)) as store:

        def last(moment: datetime) -> tuple[int, bool]:
            with store.read() as reader:
                found = at(reader, moment, 26).coordinator
                return found.last_backup.ledger_size, found.backup_overdue

        note_backup(store, Backup(today + year, 3))
        assert last(today) == (0, True)
        note_backup(store, Backup(today - 2 * day, 5))
        assert last(today) == (5, True)
        note_backup(store, Backup(today + timedelta(minutes=4), 7))  # of a machine a little ahead
        assert last(today) == (7, False)
        assert last(today + year) == (7, True)


def test_the_last_backup_and_whether_it_is_overdue(coordinator: World) -> None:
    found = overview(coordinator.operator).coordinator
    assert found.backup_overdue
    assert not found.HasField("last_backup")
    began = now()
    with contextlib.closing(Store(coordinator.settings.store_url)) as store:
        for backup in (Backup(began, 7), Backup(began - timedelta(days=1), 3)):
            note_backup(store, backup)
        found = overview(coordinator.operator).coordinator
        assert found.last_backup == reg.GetOverviewResponse.Backup(
            taken_at=stamp(began), ledger_size=7
        )
        assert not found.backup_overdue
        with store.read() as reader:
            for hours, within, overdue in ((25, 26, False), (27, 26, True), (27, 0, False)):
                moment = began + timedelta(hours=hours)
                assert at(reader, moment, within).coordinator.backup_overdue is overdue
        assert check_store(store, signatures=True).differences == []
