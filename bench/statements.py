"""Durable signed statements a second: streams from 50 agents against unary calls with one ORM
transaction each, on the same kind of store.

Two coordinators serve side by side, each a process with an SQLite file of its own: the real program
and `bench.orm_coordinator`. Both do the same work for a statement: mutual TLS, signature, rule,
ledger entry with its tree nodes, rows, full synchronisation, receipt with inclusion proof and
signed checkpoint. Everything is signed beforehand. Rounds are interleaved, the median counts, from
the moment that all are connected to the last receipt; one receipt an agent and round is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc

from bench.coordinators import served
from bench.figure import figure, progress
from bench.process import cpu_seconds
from housecall import statement
from housecall.identity import Identity
from housecall.times import stamp
from housecall.v1 import fleet_pb2, fleet_pb2_grpc, ledger_pb2, ledger_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from housecall.verify import check_receipt
from tests.coordinator.world import (
    PREPARATION_CONFIG,
    RELEASER,
    World,
    register_container,
    sha,
)

AGENTS = 50
STREAM_EACH, UNARY_EACH = 40, 12
ROUNDS = 5
WAIT_S = 120.0
HEARD_ALL = 1 << 40  # a cursor past the end: news of earlier rounds stays away

Receipts = dict[bytes, ledger_pb2.Receipt]
Client = Callable[["Agent", list[bytes]], Coroutine[None, None, Receipts]]


@dataclass
class Agent:
    """An enrolled site with an open channel; `connected` is set when its clock may start."""

    identity: Identity
    channel: grpc.aio.Channel
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    begin: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Side:
    """One of the two coordinators, how many statements each agent sends it a round and how, and
    what was measured so far: statements a second, seconds of the server's CPU a statement."""

    made: World
    pid: int
    client: Client
    each: int
    preparation: pb.Pin
    sites: list[Identity]
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main() -> None:
    """Measure in temporary folders and print the figure."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="housecall-bench-")))
        ours = stack.enter_context(_side(folder / "streams", "coordinator", stream, STREAM_EACH))
        program = "bench.orm_coordinator"
        base = stack.enter_context(_side(folder / "unary", program, unary_calls, UNARY_EACH))
        for number in range(ROUNDS + 1):
            for side in (ours, base):
                asyncio.run(_round(side, first=1 + number * side.each))
                progress(f"statements: {side.client.__name__}, {side.rates[-1]:.0f} a second")
        ours_per_s, base_per_s = (statistics.median(side.rates[1:]) for side in (ours, base))
        ours_cpu, base_cpu = (statistics.median(side.cpu[1:]) for side in (ours, base))
    values = {
        "streams_per_s": ours_per_s,
        "unary_orm_per_s": base_per_s,
        "streams_server_cpu_s_each": ours_cpu,
        "unary_orm_server_cpu_s_each": base_cpu,
        "agents": AGENTS,
    }
    figure("statements", ours_per_s / base_per_s, 3.0, True, values)


@contextlib.contextmanager
def _side(folder: Path, program: str, client: Client, each: int) -> Iterator[Side]:
    """A coordinator of its own, served by `python -m program`, with 50 sites enrolled."""
    with served(folder, program) as at:
        made = World(folder, at.house, at.settings)
        try:
            made.enter("olga", at.token)
            owner = made.join("owner", pb.ROLE_PERSON)
            sites = [made.join(f"site-{number}", pb.ROLE_SITE) for number in range(AGENTS)]
            role = pb.CONTAINER_ROLE_PREPARATION
            preparation = register_container(owner, "prep", role, PREPARATION_CONFIG)
            for site in sites:
                site.channel.close()
            yield Side(made, at.pid, client, each, preparation, [site.identity for site in sites])
        finally:
            made.close()


async def _round(side: Side, first: int) -> None:
    """Every agent sends datasets `first` and on; the clock runs once all are connected."""
    batches = [registrations(site, side.preparation, first, side.each) for site in side.sites]
    begin = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(linked(site, begin)) for site in side.sites]
        tasks = [
            asyncio.create_task(side.client(agent, batch))
            for agent, batch in zip(agents, batches, strict=True)
        ]
        for agent, task in zip(agents, tasks, strict=True):
            connected = asyncio.create_task(agent.connected.wait())
            await asyncio.wait((connected, task), return_when=asyncio.FIRST_COMPLETED)
        began, cpu_before = time.perf_counter(), cpu_seconds(side.pid)
        begin.set()
        answers = await asyncio.wait_for(asyncio.gather(*tasks), WAIT_S)
        seconds, cpu = time.perf_counter() - began, cpu_seconds(side.pid) - cpu_before
    for receipts, batch in zip(answers, batches, strict=True):
        check_receipt(batch[-1], receipts[batch[-1]], side.made.house.ledger.verifier_key)
    side.rates.append(AGENTS * side.each / seconds)
    side.cpu.append(cpu / (AGENTS * side.each))


@contextlib.asynccontextmanager
async def linked(site: Identity, begin: asyncio.Event) -> AsyncIterator[Agent]:
    """Within, its channel is open; it sends once `begin` is set."""
    credentials = grpc.ssl_channel_credentials(site.root_pem, site.tls_key_pem, site.chain_pem)
    options = [
        ("grpc.ssl_target_name_override", "coordinator.housecall"),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.secure_channel(site.address, credentials, options=options) as channel:
        await channel.channel_ready()
        yield Agent(site, channel, begin=begin)


def registrations(site: Identity, preparation: pb.Pin, first: int, count: int) -> list[bytes]:
    """Signed registrations of datasets `first` and on."""
    made = []
    for number in range(first, first + count):
        dataset_id = f"{site.short_name}/{number}"
        said = pb.DatasetRegistered(
            dataset_id=dataset_id,
            name="bench",
            preparation=preparation,
            raw_fingerprint=sha(dataset_id),
            releaser=RELEASER,
        )
        payload = statement.build(said, {f"dataset {dataset_id}": said.raw_fingerprint})
        made.append(statement.sign(payload, site.signing_key))
    return made


async def stream(agent: Agent, batch: list[bytes]) -> Receipts:
    """Everything submitted on one stream; receipts come back as they are made."""
    by_digest = {statement.digest(envelope): envelope for envelope in batch}
    receipts: Receipts = {}
    call = fleet_pb2_grpc.FleetStub(agent.channel).Connect()
    hello = fleet_pb2.Hello(local_time=stamp(datetime.now(UTC)), cursor=HEARD_ALL)
    await call.write(fleet_pb2.AgentMessage(hello=hello))
    await call.read()
    agent.connected.set()
    await agent.begin.wait()
    for envelope in batch:
        await call.write(fleet_pb2.AgentMessage(submit=fleet_pb2.Submit(envelope=envelope)))
    while len(receipts) < len(batch):
        message = await call.read()
        assert isinstance(message, fleet_pb2.CoordinatorMessage), "the stream ended early"
        assert message.WhichOneof("message") != "refused", message
        if message.HasField("receipted"):
            receipts[by_digest[message.receipted.envelope_digest]] = message.receipted.receipt
    call.cancel()
    return receipts


async def unary_calls(agent: Agent, batch: list[bytes]) -> Receipts:
    """One call after another, as an agent with unary calls would."""
    stub = ledger_pb2_grpc.LedgerStub(agent.channel)
    agent.connected.set()
    await agent.begin.wait()
    receipts: Receipts = {}
    for envelope in batch:
        response = await stub.Append(ledger_pb2.AppendRequest(envelope=envelope))
        receipts[envelope] = response.receipt
    return receipts
