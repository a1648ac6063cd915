"""What those who are enrolled might try, and what must not come of it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from coordinator.caller import Caller, CallerRole
from coordinator.notary import Notary
from coordinator.opening import Opened, open_envelope
from coordinator.rebuild import check_store
from coordinator.rules import associations
from coordinator.store import Store
from housecall import statement
from housecall.v1 import fleet_pb2, ledger_pb2, ledger_pb2_grpc
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.test_fleet import Agent, order_line, prepared
from tests.coordinator.test_rules import Cast, container, refused
from tests.coordinator.world import World, benchmark_statement, register_model, sha


@pytest.fixture
def cast(coordinator: World) -> Cast:
    return Cast(coordinator)


def test_a_foreign_dataset_cannot_be_made_a_reference_to_run_tests_on(cast: Cast) -> None:
    """Somebody's own benchmark gives no right to another site's dataset."""
    dataset_id = cast.approved(cast.north)
    own = benchmark_statement_of_mona(cast)
    own.policy.reference_dataset_id = dataset_id
    number = int(cast.mona.state(own).id)
    line = pb.RequestedExecution(dataset_id=dataset_id, model=cast.other)
    order = pb.ExecutionRequested(benchmark_id=number, purpose=pb.PURPOSE_TEST, executions=[line])
    assert refused(cast.mona, order).code == "NOT_APPROVED"


def benchmark_statement_of_mona(cast: Cast) -> pb.BenchmarkRegistered:
    own = pb.BenchmarkRegistered()
    own.CopyFrom(cast.benchmark)
    own.name = "mona's"
    del own.committee[:]
    own.committee.append(cast.mona.name)
    return own


def test_two_orders_of_several_lines_in_one_batch(cast: Cast, coordinator: World) -> None:
    """Their executions get numbers of their own, and the ledger makes them again."""
    datasets = [cast.approved(cast.north)]
    second = int(cast.south.state(cast.request(cast.south, cast.dataset(cast.south))).id)
    approve = pb.AssociationDecided(
        association_id=second, decision=pb.DECISION_APPROVE, reason="good"
    )
    cast.carla.state(approve)
    datasets.append("south/1")
    third = register_model(cast.mona, "third")
    for model in (cast.other, third):
        number = int(cast.mona.state(pb.AssociationRequested(benchmark_id=1, model_id=model.id)).id)
        approve.association_id = number
        cast.carla.state(approve)
    store = Store(coordinator.settings.store_url)
    notary = Notary(store, coordinator.house.ledger)
    caller = Caller(cast.carla.name, CallerRole.PERSON, "", datetime.now(UTC))
    futures = []
    for model in (cast.other, third):
        lines = [pb.RequestedExecution(dataset_id=d, model=model) for d in datasets]
        order = pb.ExecutionRequested(
            benchmark_id=1, purpose=pb.PURPOSE_BENCHMARK, executions=lines
        )
        payload = statement.build(order, {"x": sha("x")})
        envelope = statement.sign(payload, cast.carla.identity.signing_key)
        futures.append(notary.submit(envelope, caller))
    with notary:
        assert [future.result(20).id for future in futures] == ["1", "3"]
    listed = cast.carla.registry.ListExecutions(reg.ListExecutionsRequest()).executions
    assert [execution.id for execution in listed] == [1, 2, 3, 4]
    assert check_store(store).differences == []
    store.close()


def test_hello_says_nothing_of_others_executions(coordinator: World) -> None:
    north = coordinator.join("north", pb.ROLE_SITE)
    carla, _, other = prepared(coordinator, north)
    carla.state(order_line("north/1", other))
    evil = coordinator.join("evil", pb.ROLE_SITE)
    lie = fleet_pb2.Progress(execution_id=1, state=pb.EXECUTION_STATE_SUCCEEDED, step="lie")
    agent = Agent(evil)
    agent.send(progress=lie)
    agent.send(hello=fleet_pb2.Hello(doing=[lie]))
    Agent(evil)
    execution = carla.registry.GetExecution(reg.GetExecutionRequest(id=1)).execution
    assert (execution.state, execution.step) == (pb.EXECUTION_STATE_ORDERED, "")


def test_one_member_cannot_approve_in_the_place_of_two(coordinator: World) -> None:
    carla, kim, mona = (coordinator.join(n, pb.ROLE_PERSON) for n in ("carla", "kim", "mona"))
    said = benchmark_statement(
        carla, register_model(mona, "m"), committee=[carla.name, kim.name], votes_needed=2
    )
    carla.state(said)
    said.policy.models.mode = pb.APPROVAL_MODE_ALWAYS
    change = pb.BenchmarkPolicyChanged(benchmark_id=1, policy=said.policy)
    assert "needs 2 votes" in refused(carla, change).message


def test_texts_are_bounded(cast: Cast) -> None:
    refusal = refused(cast.mona, container(name="x" * 201))
    assert refusal.code == "FIELD_TOO_LONG"
    assert "at most 200 characters, got 201" in refusal.message
    long = benchmark_statement_of_mona(cast)
    long.description = "x" * 10_001
    assert refused(cast.mona, long).code == "FIELD_TOO_LONG"


def test_an_operator_may_cancel_what_nobody_else_cancels(coordinator: World) -> None:
    north = coordinator.join("north", pb.ROLE_SITE)
    carla, _, other = prepared(coordinator, north)
    carla.state(order_line("north/1", other))
    coordinator.operator.state(pb.ExecutionCancelled(execution_ids=[1], reason="flood"))
    execution = carla.registry.GetExecution(reg.GetExecutionRequest(id=1)).execution
    assert (execution.state, execution.reason) == (pb.EXECUTION_STATE_CANCELLED, "flood")


def test_a_second_spelling_of_an_envelope_is_no_second_entry(cast: Cast) -> None:
    said = pb.BenchmarkPolicyChanged(benchmark_id=1, policy=cast.benchmark.policy)
    said.stated_at.GetCurrentTime()
    payload = statement.build(said, {"x": sha("x")})
    envelope = statement.sign(payload, cast.carla.identity.signing_key)
    from housecall.v1 import ledger_pb2, ledger_pb2_grpc

    stub = ledger_pb2_grpc.LedgerStub(cast.carla.channel)
    stub.Append(ledger_pb2.AppendRequest(envelope=envelope))
    with pytest.raises(Exception, match="canonical"):
        stub.Append(ledger_pb2.AppendRequest(envelope=envelope + b" "))


def test_nobody_cites_the_test_of_another_model_to_see_it(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the policy names no reference dataset a model needs no test, but what it cites is one
    of its own. What was accepted before that was looked at shows nothing."""
    dataset_id = cast.dataset(cast.north)
    test = cast.request(cast.north, dataset_id).test_digest
    late = register_model(cast.mona, "late")
    request = pb.AssociationRequested(benchmark_id=1, model_id=late.id, test_digest=test)
    assert refused(cast.mona, request).code == "TEST_DIFFERS"
    request.test_digest = sha("nothing")
    assert refused(cast.mona, request).code == "TEST_MISSING"
    request.test_digest = test
    with monkeypatch.context() as before:
        before.setattr(associations, "_check_test", lambda *_: None)
        number = int(cast.mona.state(request).id)
    asked = reg.GetAssociationRequest(id=number)
    assert not cast.carla.registry.GetAssociation(asked).association.test_metrics.fields


def test_statements_that_wait_take_no_thread_from_others(
    coordinator: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of one person's than there are threads, while the notary reads the first."""
    mona, free = coordinator.join("mona", pb.ROLE_PERSON), threading.Event()

    def slow(envelope: bytes, caller: Caller) -> Opened:
        free.wait(60)
        return open_envelope(envelope, caller)

    monkeypatch.setattr("coordinator.notary.open_envelope", slow)
    payload = statement.build(container(), {"x": sha("x")})
    envelope = statement.sign(payload, mona.identity.signing_key)
    stub = ledger_pb2_grpc.LedgerStub(mona.channel)
    request = ledger_pb2.AppendRequest(envelope=envelope)
    waiting = [stub.Append.future(request) for _ in range(coordinator.settings.threads + 1)]
    try:
        asked = reg.GetCallerRequest()
        assert coordinator.operator.registry.GetCaller(asked, timeout=25).name
        assert not any(each.done() for each in waiting)
    finally:
        free.set()
    assert {each.result(30).id for each in waiting} == {"1"}
