"""Replicas that die, drain, or lose their database: nothing is lost, nothing counts twice."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from housecall import client, statement
from housecall.errors import Kind, Refusal
from housecall.rpc import from_rpc_error
from housecall.v1 import fleet_pb2, ledger_pb2, ledger_pb2_grpc
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests import postgres
from tests.coordinator.replicas import Group, replicas
from tests.coordinator.test_fleet import Agent, order_line, prepared, until
from tests.coordinator.world import (
    MODEL_CONFIG,
    RELEASER,
    Party,
    sha,
)

CALL_SECONDS = 10.0


@pytest.fixture
def group(postgresql_url: str, tmp_path: Path) -> Iterator[Group]:
    with replicas(tmp_path, postgresql_url) as made:
        yield made


def container(party: Party, name: str) -> bytes:
    """The envelope of a statement that is accepted once, whatever came before it."""
    image = sha(f"image of {name}")
    said = pb.ContainerRegistered(
        name=name,
        role=pb.CONTAINER_ROLE_MODEL,
        image_digest=image,
        configuration=MODEL_CONFIG,
        container_digest=statement.container_digest(image, MODEL_CONFIG, "", ""),
    )
    return statement.sign(statement.build(said, {"test": image}), party.identity.signing_key)


def send(channel: grpc.Channel, envelope: bytes) -> ledger_pb2.AppendResponse:
    """Raises Refusal."""
    try:
        request = ledger_pb2.AppendRequest(envelope=envelope)
        return ledger_pb2_grpc.LedgerStub(channel).Append(request, timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        raise from_rpc_error(error, "coordinator") from None


def send_until_accepted(channel: grpc.Channel, envelope: bytes) -> int:
    """As every client does: the same envelope again while there is no answer. Its index."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return send(channel, envelope).receipt.ledger_index
        except Refusal as refusal:
            if refusal.kind is not Kind.UNAVAILABLE or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def ledger(party: Party) -> dict[str, int]:
    """Index by envelope digest; fails where one is there twice."""
    stub, found = ledger_pb2_grpc.LedgerStub(party.channel), list[tuple[str, int]]()
    while entries := stub.ListEntries(
        ledger_pb2.ListEntriesRequest(start=len(found), count=1000)
    ).entries:
        found += [(statement.digest(each.envelope), each.ledger_index) for each in entries]
    assert [index for _, index in found] == list(range(len(found)))
    assert max(Counter(digest for digest, _ in found).values()) == 1
    return dict(found)


def test_a_replica_that_is_killed_loses_nothing(group: Group) -> None:
    north = group.world.join("north", pb.ROLE_SITE)
    carla, _, model = prepared(group.world, north)
    mona = group.world.parties["mona"]
    first, second = group
    agent = Agent(first.party(north))
    accepted: dict[str, int] = {}

    def write(which: int) -> None:
        with client.connect(mona.identity) as channel:
            for number in range(25):
                envelope = container(mona, f"{which}/{number}")
                accepted[statement.digest(envelope)] = send_until_accepted(channel, envelope)

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, which) for which in range(6)]
        until(lambda: len(accepted) > 30, "some were accepted")
        first.stop(signal.SIGKILL)
        assert agent.ended()
        for writer in writers:
            writer.result(90)
    assert len(accepted) == 150
    found = ledger(second.party(group.world.operator))
    assert accepted.items() <= found.items()
    successor = Agent(second.party(north), session_id="again")
    second.party(carla).state(order_line("north/1", model))
    assert successor.next("order").order.execution_id == 1
    successor.close()


def test_the_database_restarts_under_them(tmp_path: Path) -> None:
    with postgres.server() as server, server.database() as name:
        with server.connect() as admin:  # as in earnest: what was answered survives a crash
            admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = on")
        with replicas(tmp_path, server.url(name)) as group:
            restart_under(group, server)


def restart_under(group: Group, server: postgres.Server) -> None:
    north = group.world.join("north", pb.ROLE_SITE)
    carla, _, model = prepared(group.world, north)
    here, there = (each.party(carla) for each in group)
    agent = Agent(group.replicas[1].party(north))
    assert agent.next("news")  # it has opened: what needs the store is behind it
    server.stop()
    envelope = container(carla, "meanwhile")
    with pytest.raises(Refusal) as caught:
        send(here.channel, envelope)
    assert caught.value.kind is Kind.UNAVAILABLE
    server.start()
    index = send_until_accepted(here.channel, envelope)
    assert send_until_accepted(there.channel, envelope) == index
    here.state(order_line("north/1", model))
    assert agent.next("order").order.execution_id == 1
    sites = group.replicas[0].party(group.world.operator).registry
    until(
        lambda: sites.ListSites(reg.ListSitesRequest()).sites[0].connected,
        "the other replica knows the site again",
    )
    agent.close()


def dataset(north: Party, preparation: pb.Pin, number: int) -> bytes:
    said = pb.DatasetRegistered(
        dataset_id=f"north/{number}",
        name="data",
        preparation=preparation,
        raw_fingerprint=sha(f"raw {number}"),
        releaser=RELEASER,
    )
    payload = statement.build(said, {"test": said.raw_fingerprint})
    return statement.sign(payload, north.identity.signing_key)


def hammer(channel: grpc.Channel, envelopes: list[bytes]) -> dict[str, int | str]:
    """What each was answered: its index, or the kind of its refusal."""
    answers: dict[str, int | str] = {}
    for envelope in envelopes:
        try:
            index: int | str = send(channel, envelope).receipt.ledger_index
        except Refusal as refusal:
            index = refusal.kind.value
        answers[statement.digest(envelope)] = index
    return answers


def receipts(agent: Agent) -> tuple[dict[str, int], str]:
    """What the stream answers until it ends, and the code that it ends with."""
    found: dict[str, int] = {}
    try:
        while True:
            said = agent.next("receipted").receipted
            found[said.envelope_digest] = said.receipt.ledger_index
    except grpc.RpcError as error:
        return found, from_rpc_error(error, "coordinator").code


def test_a_replica_that_is_stopped_drains(group: Group) -> None:
    """Every statement that got a receipt is in the ledger once, the others can be sent again."""
    north = group.world.join("north", pb.ROLE_SITE)
    carla, _, _ = prepared(group.world, north)
    mona = group.world.parties["mona"]
    pins = carla.registry.GetBenchmark(reg.GetBenchmarkRequest(id=1)).benchmark.pins
    first, second = group
    watching = first.party(carla).registry.WatchBenchmark(reg.WatchBenchmarkRequest(benchmark_id=1))
    assert next(watching).dataset_ids == ["north/1"]
    agent = Agent(first.party(north))
    datasets = [dataset(north, pins.preparation, number) for number in range(2, 1000)]
    said = [[container(mona, f"{which}/{n}") for n in range(60)] for which in range(4)]
    operator = second.party(group.world.operator)
    before = len(ledger(operator))
    answered: Future[tuple[dict[str, int], str]] = Future()
    reading = threading.Thread(target=lambda: answered.set_result(receipts(agent)))
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(hammer, first.party(mona).channel, each) for each in said]
        for envelope in datasets:
            agent.send(submit=fleet_pb2.Submit(envelope=envelope))
        reading.start()
        until(lambda: len(ledger(operator)) > before, "some of them were accepted")
        began = time.monotonic()
        assert first.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 8  # of the ten that it may take
    with pytest.raises(grpc.RpcError) as watched:
        list(watching)
    assert from_rpc_error(watched.value, "coordinator").code == "DRAINING"
    on_stream, code = answered.result(10)
    reading.join()
    assert code == "DRAINING"
    unary: dict[str, int | str] = {}
    for call in calls:
        unary |= call.result()
    found = ledger(operator)
    assert on_stream.items() <= found.items()
    taken = {statement.digest(envelope) for envelope in datasets} & found.keys()
    assert taken == on_stream.keys()  # whatever was accepted was answered
    refusals = {answer for answer in unary.values() if isinstance(answer, str)}
    assert refusals == {"unavailable"}
    for digest, answer in unary.items():
        assert isinstance(answer, str) or found[digest] == answer
    channel = second.party(mona).channel
    for envelope in (each for batch in said for each in batch):
        index = send_until_accepted(channel, envelope)
        assert found.get(statement.digest(envelope), index) == index
    assert len(set(ledger(operator).values())) == len(ledger(operator))
