"""The stream over real mutual TLS: who is connected, receipts, orders, and who wins."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from sqlalchemy import event

from coordinator.store import Store
from coordinator.welcome import Welcomes
from housecall import client, statement, verify
from housecall.times import stamp
from housecall.v1 import fleet_pb2, fleet_pb2_grpc
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.world import (
    RELEASER,
    Party,
    World,
    benchmark_statement,
    operational_statement,
    register_dataset,
    register_model,
    result_statement,
    sha,
    world,
)
from tests.faults.proxy import Relay, Trouble

SECONDS = 20


def until(holds: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


class Agent:
    """The agent's end of one stream, message by message."""

    def __init__(self, party: Party, **hello: object) -> None:
        self._outgoing: queue.Queue[fleet_pb2.AgentMessage | None] = queue.Queue()
        stub = fleet_pb2_grpc.FleetStub(party.channel)
        self._incoming = stub.Connect(iter(self._outgoing.get, None), timeout=SECONDS)
        said = fleet_pb2.Hello(agent_version="test", local_time=stamp(datetime.now(UTC)))
        for name, value in hello.items():
            if isinstance(value, list):
                getattr(said, name).extend(value)
            else:
                setattr(said, name, value)
        self.send(hello=said)
        self.welcome = self.next("welcome").welcome

    def send(self, **message: object) -> None:
        self._outgoing.put(fleet_pb2.AgentMessage(**message))  # type: ignore[arg-type]

    def next(self, kind: str) -> fleet_pb2.CoordinatorMessage:
        """The next message of that kind; others are passed over."""
        for message in self._incoming:
            if message.WhichOneof("message") == kind:
                return message
        raise AssertionError(f"the stream ended without {kind}")

    def ended(self) -> bool:
        try:
            for _ in self._incoming:
                pass
        except grpc.RpcError as error:
            return error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        return True

    def rest(self) -> list[str | None]:
        """The kinds of all messages until the stream ends."""
        kinds: list[str | None] = []
        with contextlib.suppress(grpc.RpcError):
            for message in self._incoming:
                kinds.append(message.WhichOneof("message"))
        return kinds

    def close(self) -> None:
        self._outgoing.put(None)


@pytest.fixture
def north(coordinator: World) -> Party:
    return coordinator.join("north", pb.ROLE_SITE)


def prepared(coordinator: World, north: Party) -> tuple[Party, pb.Pin, pb.Pin]:
    """A benchmark with an approved dataset north/1 and approved models 1 and 2."""
    carla = coordinator.join("carla", pb.ROLE_PERSON)
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    reference, other = register_model(mona, "reference"), register_model(mona, "other")
    said = benchmark_statement(carla, reference)
    carla.state(said)
    dataset_id = register_dataset(north, said.preparation)
    north.state(operational_statement(dataset_id))
    test = result_statement(north, 1, dataset_id, reference, pb.PURPOSE_TEST)
    north.state(test)
    digest = north.registry.GetResult(reg.GetResultRequest(name="north/b1m1d1")).result
    north.state(
        pb.AssociationRequested(
            benchmark_id=1,
            dataset_id=dataset_id,
            test_digest=digest.origin.envelope_digest,
            releaser=RELEASER,
        )
    )
    mona.state(pb.AssociationRequested(benchmark_id=1, model_id=other.id))
    for number in (1, 2):
        vote = pb.AssociationDecided(
            association_id=number, decision=pb.DECISION_APPROVE, reason="good"
        )
        carla.state(vote)
    return carla, reference, other


def order_line(dataset_id: str, model: pb.Pin) -> pb.ExecutionRequested:
    line = pb.RequestedExecution(dataset_id=dataset_id, model=model)
    return pb.ExecutionRequested(benchmark_id=1, purpose=pb.PURPOSE_BENCHMARK, executions=[line])


def test_statements_on_the_stream_get_receipts_that_check(coordinator: World, north: Party) -> None:
    carla, _, _ = prepared(coordinator, north)
    agent = Agent(north)
    preparation = carla.registry.GetBenchmark(reg.GetBenchmarkRequest(id=1)).benchmark
    said = pb.DatasetRegistered(
        dataset_id="north/2",
        name="more",
        preparation=preparation.pins.preparation,
        raw_fingerprint=sha("more"),
        releaser=RELEASER,
    )
    payload = statement.build(said, {"dataset north/2": said.raw_fingerprint})
    envelope = statement.sign(payload, north.identity.signing_key)
    agent.send(submit=fleet_pb2.Submit(envelope=envelope))
    receipted = agent.next("receipted").receipted
    assert receipted.id == "north/2"
    assert receipted.envelope_digest == statement.digest(envelope)
    verify.check_receipt(envelope, receipted.receipt, north.identity.verifier_key)
    agent.send(submit=fleet_pb2.Submit(envelope=envelope))
    again = agent.next("receipted").receipted
    assert again.receipt.ledger_index == receipted.receipt.ledger_index


def test_a_refused_statement_is_answered_with_its_code(coordinator: World, north: Party) -> None:
    agent = Agent(north)
    payload = statement.build(pb.ExecutionEnded(execution_id=7), {"execution": sha("7")})
    envelope = statement.sign(payload, north.identity.signing_key)
    agent.send(submit=fleet_pb2.Submit(envelope=envelope))
    refused = agent.next("refused").refused
    assert (refused.code, refused.kind) == ("EXECUTION_NOT_FOUND", "not found")


def test_orders_come_at_once_and_again_until_they_ended(coordinator: World, north: Party) -> None:
    carla, _, other = prepared(coordinator, north)
    agent = Agent(north)
    assert not agent.welcome.orders
    carla.state(order_line("north/1", other))
    order = agent.next("order").order
    opened = verify.verify_bundle(order.bundle, north.identity.verifier_key)
    assert opened.signer == carla.name
    assert isinstance(opened.statement.predicate, pb.ExecutionRequested)
    assert opened.statement.predicate.executions[order.line].model == other
    doing = fleet_pb2.Progress(
        execution_id=order.execution_id, state=pb.EXECUTION_STATE_RUNNING, step="infer"
    )
    agent.send(progress=doing)
    second = Agent(north)
    assert [o.execution_id for o in second.welcome.orders] == [order.execution_id]
    result = result_statement(north, 1, "north/1", other, pb.PURPOSE_BENCHMARK)
    result.execution_id = order.execution_id
    north.state(result)
    assert not Agent(north).welcome.orders


def test_a_hello_costs_a_question_however_much_it_says(coordinator: World, north: Party) -> None:
    carla, _, other = prepared(coordinator, north)
    carla.state(order_line("north/1", other))
    running, queued = pb.EXECUTION_STATE_RUNNING, pb.EXECUTION_STATE_QUEUED
    hello = fleet_pb2.Hello(
        doing=[
            *(fleet_pb2.Progress(execution_id=number, state=queued) for number in range(50_000)),
            fleet_pb2.Progress(execution_id=1, state=running),
        ]
    )
    store = Store(coordinator.settings.store_url)
    welcomes, asked = Welcomes(store, coordinator.house.ledger), []
    event.listen(store.engine, "before_cursor_execute", lambda *said: asked.append(said[2]))
    assert [each.state for each in welcomes.own(hello, north.name)] == [running]
    assert welcomes.own(hello, carla.name) == []
    assert len([question for question in asked if "execution" in question]) == 2
    message, _ = welcomes.welcome(north.name, hello)
    cancelled = message.welcome.cancelled_execution_ids
    assert sorted(cancelled) == [0, *range(2, 50_000)]
    store.close()


def test_agents_that_wait_for_the_store_hold_up_no_watcher(
    coordinator: World, north: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    carla, _, _ = prepared(coordinator, north)
    count = min(32, (os.cpu_count() or 1) + 4)  # threads of the loop's own pool
    sites = [coordinator.join(f"site{number}", pb.ROLE_SITE) for number in range(count)]
    waits, goes_on = threading.Semaphore(0), threading.Event()

    def own(_self: Welcomes, _hello: fleet_pb2.Hello, _site: str) -> list[fleet_pb2.Progress]:
        waits.release()
        goes_on.wait(SECONDS)
        return []

    monkeypatch.setattr(Welcomes, "own", own)
    with ThreadPoolExecutor(count) as dialling:
        dials = [dialling.submit(Agent, each) for each in sites]
        try:
            for _ in range(min(count, coordinator.settings.threads)):
                assert waits.acquire(timeout=SECONDS)
            request = reg.WatchBenchmarkRequest(benchmark_id=1)
            board = next(iter(carla.registry.WatchBenchmark(request, timeout=SECONDS / 2)))
            assert list(board.dataset_ids) == ["north/1"]
        finally:
            goes_on.set()
    for dial in dials:
        dial.result().close()


def test_cancelling_reaches_the_site_and_is_final(coordinator: World, north: Party) -> None:
    carla, _, other = prepared(coordinator, north)
    agent = Agent(north)
    carla.state(order_line("north/1", other))
    number = agent.next("order").order.execution_id
    carla.state(pb.ExecutionCancelled(execution_ids=[number], reason="mistake"))
    assert agent.next("cancel").cancel.execution_id == number
    execution = carla.registry.GetExecution(reg.GetExecutionRequest(id=number)).execution
    assert execution.state == pb.EXECUTION_STATE_CANCELLED


def test_the_newest_stream_of_a_site_wins(coordinator: World, north: Party) -> None:
    first = Agent(north)
    second = Agent(north)
    assert first.next("superseded")
    assert first.ended()
    sites = coordinator.operator.registry.ListSites(reg.ListSitesRequest()).sites
    assert [site.connected for site in sites] == [True]
    second.close()


def test_a_revoked_sites_stream_ends_and_it_cannot_come_back(
    coordinator: World, north: Party
) -> None:
    agent = Agent(north)
    coordinator.operator.state(pb.ParticipantRevoked(name=north.name, reason="left"))
    assert agent.ended()
    with pytest.raises(grpc.RpcError) as caught:
        Agent(north)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_welcome_proves_that_the_ledger_continues(coordinator: World, north: Party) -> None:
    before = Agent(north).welcome.checkpoint
    prepared(coordinator, north)
    welcome = Agent(north, checkpoint=before).welcome
    newer = verify.check_consistency(
        before, welcome.checkpoint, list(welcome.consistency_proof), north.identity.verifier_key
    )
    assert newer.size > verify.check_checkpoint(before, north.identity.verifier_key).size


def test_what_concerns_a_site_comes_from_its_cursor_on(coordinator: World, north: Party) -> None:
    prepared(coordinator, north)
    agent = Agent(north)
    news = agent.next("news").news
    assert statement.unverified(news.envelope).kind == "DatasetRegistered"
    later = Agent(north, cursor=news.ledger_index + 1)
    assert later.next("news").news.ledger_index > news.ledger_index


def test_the_end_of_what_a_site_missed_is_told(coordinator: World, north: Party) -> None:
    prepared(coordinator, north)
    agent = Agent(north)
    told = [agent.next("news").news for _ in range(5)]
    kinds = [statement.unverified(each.envelope).kind for each in told]
    assert (kinds[0], kinds[-1]) == ("DatasetRegistered", "AssociationDecided")
    assert agent.next("caught_up")
    missed = Agent(north, cursor=told[-1].ledger_index)
    assert missed.next("news").news == told[-1]
    assert missed.next("caught_up")
    assert Agent(north, cursor=10**6).next("caught_up")


def test_a_revoked_sites_stream_ends_though_it_reads_nothing(
    coordinator: World, north: Party
) -> None:
    """The coordinator is held up in a write, and ends the stream all the same."""
    _, reference, _ = prepared(coordinator, north)
    agent = Agent(north, cursor=10**6)
    wordy = result_statement(north, 1, "north/1", reference, pb.PURPOSE_TEST)
    wordy.metrics.update({"text": "x" * 700_000})
    for _ in range(12):  # more news than the windows of a connection hold
        last = north.registry.GetResult(reg.GetResultRequest(name="north/b1m1d1")).result
        wordy.supersedes = last.origin.envelope_digest
        north.state(wordy)
    coordinator.operator.state(pb.ParticipantRevoked(name=north.name, reason="left"))
    until(lambda: not site(coordinator, north).connected, "the stream ended", 3.0)
    assert agent.ended()


def test_an_agent_that_is_gone_without_a_word_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUSECALL_COORDINATOR_KEEPALIVE_SECONDS", "1")
    relay = Relay()
    with world(tmp_path) as coordinator:
        north = coordinator.join("north", pb.ROLE_SITE)
        link = relay.add("north", [int(coordinator.settings.listen.rpartition(":")[2])])
        identity = replace(north.identity, address=f"127.0.0.1:{link.port}")
        far = Party(identity, client.connect(identity))
        agent = Agent(far)
        assert site(coordinator, north).connected
        relay.set(link, Trouble(stalled=frozenset({"up", "down"})))
        until(lambda: not site(coordinator, north).connected, "it is noticed", 10.0)
        relay.close()
        assert agent.ended()
        far.channel.close()


def site(coordinator: World, party: Party) -> reg.Site:
    sites = coordinator.operator.registry.ListSites(reg.ListSitesRequest()).sites
    return next(each for each in sites if each.name == party.name)
