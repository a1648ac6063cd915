"""A real coordinator on loopback: own CA, SQLite, mutual TLS; and people to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from google.protobuf.message import Message

from coordinator.adoption import Adopted
from coordinator.founding import House, found, operator_token
from coordinator.server import serving
from coordinator.settings import Settings
from housecall import client, statement, tokens
from housecall.identity import (
    Identity,
    make_csr,
    spiffe_id,
)
from housecall.rpc import refusals
from housecall.v1 import authority_pb2, authority_pb2_grpc, ledger_pb2, registry_pb2_grpc
from housecall.v1 import statements_pb2 as pb

TRUST_DOMAIN = "test"

PREPARATION_CONFIG = """
container_type: DockerImage
image: prep:1
tasks:
  prepare:
    input_volumes:
      data_path: {mount_path: /in/data, type: directory}
      labels_path: {mount_path: /in/labels, type: directory}
    output_volumes:
      output_path: {mount_path: /out/data, type: directory}
      output_labels_path: {mount_path: /out/labels, type: directory}
  sanity_check:
    input_volumes:
      data_path: {mount_path: /in/data, type: directory}
      labels_path: {mount_path: /in/labels, type: directory}
  statistics:
    input_volumes:
      data_path: {mount_path: /in/data, type: directory}
      labels_path: {mount_path: /in/labels, type: directory}
    output_volumes:
      output_path: {mount_path: /out/statistics.yaml, type: file}
"""
MODEL_CONFIG = """
container_type: DockerImage
image: model:1
tasks:
  infer:
    input_volumes:
      data_path: {mount_path: /in/data, type: directory}
    output_volumes:
      output_path: {mount_path: /out, type: directory}
"""
EVALUATOR_CONFIG = """
container_type: DockerImage
image: evaluator:1
tasks:
  evaluate:
    input_volumes:
      predictions: {mount_path: /in/predictions, type: directory}
      labels: {mount_path: /in/labels, type: directory}
    output_volumes:
      output_path: {mount_path: /out/results.yaml, type: file}
"""
RELEASER = pb.Releaser(local_user=pb.Releaser.LocalUser(uid=1000, name="dora"))


def sha(text: str) -> str:
    return statement.digest(text.encode())


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(settings: Settings, house: House) -> Iterator[int]:
    """Serve from a thread with its own event loop; gives the port."""
    started: Future[int] = Future()
    stop: Future[asyncio.Event] = Future()

    async def serve() -> None:
        event = asyncio.Event()
        try:
            async with serving(settings, house) as port:
                stop.set_result(event)
                started.set_result(port)
                await event.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        yield started.result(timeout=30)
    finally:
        if stop.done():
            loop.call_soon_threadsafe(stop.result().set)
        thread.join(timeout=30)
        loop.close()


@dataclass
class Party:
    """An enrolled participant with an open channel."""

    identity: Identity
    channel: grpc.Channel

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def registry(self) -> registry_pb2_grpc.RegistryStub:
        return registry_pb2_grpc.RegistryStub(self.channel)

    def state(self, said: Message) -> ledger_pb2.AppendResponse:
        return client.append(self.channel, self.identity, said, {"test": sha("subject")})


@dataclass
class World:
    """One coordinator with an operator; `join` enrols more."""

    folder: Path
    house: House
    settings: Settings
    parties: dict[str, Party] = field(default_factory=dict)

    @property
    def operator(self) -> Party:
        return self.parties["olga"]

    def token(
        self,
        name: str,
        role: pb.Role.ValueType,
        expires_at: datetime | None = None,
        *,
        renews: bool = False,
    ) -> str:
        """A join token's text, made the way the CLI makes it."""
        kind = "site" if role == pb.ROLE_SITE else "person"
        expires_at = expires_at or datetime.now(UTC) + timedelta(hours=1)
        spiffe = spiffe_id(TRUST_DOMAIN, kind, name)
        new = tokens.new_token(spiffe, role, expires_at, renews=renews)
        request = authority_pb2.IssueTokenRequest(
            envelope=new.envelope(self.operator.identity.signing_key), csr=new.csr
        )
        with refusals("coordinator"):
            response = authority_pb2_grpc.AuthorityStub(self.operator.channel).IssueToken(request)
        chain = list(response.certificate_chain)
        return tokens.write(new.certified(self.house.address, response.root_certificate, chain))

    def run_out(self, folder: Path) -> None:
        """The certificate of the identity in `folder` ran out a minute ago."""
        held = Identity.load(folder)
        key = load_pem_private_key(held.tls_key_pem, password=None)
        assert isinstance(key, EllipticCurvePrivateKey)
        until, authority = datetime.now(UTC) - timedelta(minutes=1), self.house.authority
        leaf = authority.certify(make_csr(key, held.name), held.name, until)
        replace(held, chain_pem=authority.chain_pem(leaf).encode()).save(folder)

    def join(self, name: str, role: pb.Role.ValueType) -> Party:
        return self.enter(name, self.token(name, role))

    def enter(self, name: str, token: str) -> Party:
        identity = client.enrol(token, self.folder / "identities" / name)
        party = self.parties[name] = Party(identity, client.connect(identity))
        return party

    def close(self) -> None:
        for party in self.parties.values():
            party.channel.close()


@contextlib.contextmanager
def world(
    folder: Path,
    database_url: str = "",
    adopted: Adopted | None = None,
    archive_dir: Path | None = None,
) -> Iterator[World]:
    port = free_port()
    settings = Settings(
        state_dir=folder / "coordinator",
        listen=f"127.0.0.1:{port}",
        database_url=database_url,
        archive_dir=archive_dir,
    )
    house = found(settings, TRUST_DOMAIN, f"127.0.0.1:{port}", adopted)
    token = operator_token(settings, house, "olga")
    with running(settings, house):
        made = World(folder, house, settings)
        made.enter("olga", token)
        try:
            yield made
        finally:
            made.close()


# What most stories need: containers, models, a benchmark, datasets.


def register_container(
    party: Party, name: str, role: pb.ContainerRole.ValueType, configuration: str
) -> pb.Pin:
    image = sha(f"image of {name}")
    said = pb.ContainerRegistered(
        name=name,
        role=role,
        image_digest=image,
        configuration=configuration,
        container_digest=statement.container_digest(image, configuration, "", ""),
    )
    return pb.Pin(id=int(party.state(said).id), digest=said.container_digest)


def register_model(party: Party, name: str) -> pb.Pin:
    container = register_container(party, name, pb.CONTAINER_ROLE_MODEL, MODEL_CONFIG)
    response = party.state(pb.ModelRegistered(name=name, container=container))
    return pb.Pin(id=int(response.id), digest=container.digest)


def benchmark_statement(
    owner: Party, reference: pb.Pin, **fields: object
) -> pb.BenchmarkRegistered:
    never = pb.AutoApproval(mode=pb.APPROVAL_MODE_NEVER)
    said = pb.BenchmarkRegistered(
        name="bench",
        preparation=register_container(
            owner, "prep", pb.CONTAINER_ROLE_PREPARATION, PREPARATION_CONFIG
        ),
        evaluator=register_container(
            owner, "evaluator", pb.CONTAINER_ROLE_EVALUATOR, EVALUATOR_CONFIG
        ),
        reference_model=reference,
        committee=[owner.name],
        votes_needed=1,
        policy=pb.BenchmarkPolicy(datasets=never, models=never),
    )
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(said, name)[:]
            getattr(said, name).extend(value)
        else:
            setattr(said, name, value)
    return said


def register_dataset(site: Party, preparation: pb.Pin, number: int = 1) -> str:
    dataset_id = f"{site.identity.short_name}/{number}"
    said = pb.DatasetRegistered(
        dataset_id=dataset_id,
        name="data",
        preparation=preparation,
        raw_fingerprint=sha(f"raw {dataset_id}"),
        releaser=RELEASER,
    )
    site.state(said)
    return dataset_id


def operational_statement(dataset_id: str) -> pb.DatasetOperational:
    said = pb.DatasetOperational(
        dataset_id=dataset_id,
        raw_fingerprint=sha(f"raw {dataset_id}"),
        prepared_fingerprint=sha(f"prepared {dataset_id}"),
        releaser=RELEASER,
    )
    said.statistics.update({"cases": 3})
    return said


def result_statement(
    party: Party, benchmark_id: int, dataset_id: str, model: pb.Pin, purpose: pb.Purpose.ValueType
) -> pb.ResultSubmitted:
    from housecall.v1 import registry_pb2 as reg

    benchmark = party.registry.GetBenchmark(reg.GetBenchmarkRequest(id=benchmark_id)).benchmark
    said = pb.ResultSubmitted(
        benchmark_id=benchmark_id,
        benchmark_digest=benchmark.origin.envelope_digest,
        dataset_id=dataset_id,
        prepared_fingerprint=sha(f"prepared {dataset_id}"),
        model=model,
        evaluator=benchmark.pins.evaluator,
        purpose=purpose,
        releaser=RELEASER,
    )
    said.metrics.update({"auc": 0.9, "cases": 3})
    return said
