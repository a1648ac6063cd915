"""A site under test: a real agent with its socket, link and journal, over a fake engine, and a real
coordinator with a benchmark that a committee member and a model owner made."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc
import yaml

from agent.identity import enrol
from agent.server import Agent
from agent.settings import Settings
from housecall import statement
from housecall.rpc import refusals
from housecall.v1 import ledger_pb2, ledger_pb2_grpc, site_pb2, site_pb2_grpc
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.agent.fake_engine import FakeEngine, FakeStep
from tests.coordinator import world as coordinators
from tests.coordinator.world import Party, World, register_container, sha

T = TypeVar("T")
SECONDS = 20.0

PREPARATION = """
container_type: DockerImage
image: prep:1
tasks:
  prepare:
    input_volumes:
      data_path: {mount_path: /raw/data, type: directory}
      labels_path: {mount_path: /raw/labels, type: directory}
      parameters_file: {mount_path: /parameters.yaml, type: file}
    output_volumes:
      output_path: {mount_path: /data, type: directory}
      output_labels_path: {mount_path: /labels, type: directory}
      report_file: {mount_path: /report.yaml, type: file}
  sanity_check:
    input_volumes:
      data_path: {mount_path: /data, type: directory}
      labels_path: {mount_path: /labels, type: directory}
  statistics:
    input_volumes:
      data_path: {mount_path: /data, type: directory}
      labels_path: {mount_path: /labels, type: directory}
    output_volumes:
      output_path: {mount_path: /statistics.yaml, type: file}
"""
METRICS_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["accuracy"],
    "properties": {"accuracy": {"type": "number"}, "cases": {"type": "integer"}},
}


def prepare(step: FakeStep) -> int:
    """Copies upper-cased; a file that is prepared already is kept as it stands."""
    if step.spec.labels["housecall.step"] == "sanity_check":
        todo = step.path("/data") / "todo"
        return 3 if todo.exists() and todo.read_text() != "done" else 0
    if step.spec.labels["housecall.step"] == "statistics":
        cases = len(list(step.path("/data").iterdir()))
        step.path("/statistics.yaml").write_text(yaml.safe_dump({"cases": cases}))
        return 0
    for source, target in (("/raw/data", "/data"), ("/raw/labels", "/labels")):
        for file in step.path(source).iterdir():
            made = step.path(target) / file.name
            if not made.exists():
                made.write_text(file.read_text().upper())
    names = [file.name for file in step.path("/data").iterdir()]
    report = {
        "status": dict.fromkeys(names, 1),
        "status_name": {name: "todo" if name == "todo" else "ready" for name in names},
    }
    step.path("/report.yaml").write_text(yaml.safe_dump(report))
    step.log(f"{len(names)} cases")
    return 0


def infer(step: FakeStep) -> int:
    for file in step.path("/in/data").iterdir():
        (step.path("/out") / file.name).write_text("1")
    step.log("inferred")
    return 0


def evaluate(step: FakeStep) -> int:
    cases = len(list(step.path("/in/predictions").iterdir()))
    step.path("/out/results.yaml").write_text(yaml.safe_dump({"accuracy": 0.5, "cases": cases}))
    return 0


def wait_for(condition: Callable[[], T | None], seconds: float = SECONDS) -> T:
    """Until it is truthy."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


@dataclass
class Bench:
    """A coordinator with benchmark 1, whose reference model is model 1."""

    world: World
    carla: Party
    mona: Party
    engine: FakeEngine = field(default_factory=FakeEngine)
    preparation: pb.Pin = field(default_factory=pb.Pin)
    models: list[pb.Pin] = field(default_factory=list)

    def add_model(
        self, name: str, script: Callable[[FakeStep], int] = infer, environment: str = "{}"
    ) -> pb.Pin:
        """`environment` is YAML: what the task's environment sets."""
        self.engine.add_image(sha(f"image of {name}"), script)
        config = coordinators.MODEL_CONFIG.replace(
            "  infer:\n", f"  infer:\n    run_args: {{environment: {environment}}}\n"
        )
        pin = register_container(self.mona, name, pb.CONTAINER_ROLE_MODEL, config)
        self.mona.state(pb.ModelRegistered(name=name, container=pin))
        model = pb.Pin(id=len(self.models) + 1, digest=pin.digest)
        self.models.append(model)
        return model

    def found(self, **fields: object) -> None:
        reference = self.add_model("reference")
        self.engine.add_image(sha("image of preparation"), prepare)
        self.engine.add_image(sha("image of evaluator"), evaluate)
        self.preparation = register_container(
            self.carla, "preparation", pb.CONTAINER_ROLE_PREPARATION, PREPARATION
        )
        said = coordinators.benchmark_statement(self.carla, reference)
        said.preparation.CopyFrom(self.preparation)
        said.metrics_schema = json.dumps(METRICS_SCHEMA)
        said.policy.models.mode = pb.APPROVAL_MODE_ALWAYS
        for name, value in fields.items():
            setattr(said, name, value)
        assert self.carla.state(said).id == "1"

    def approve_model(self, model: pb.Pin) -> None:
        self.mona.state(pb.AssociationRequested(benchmark_id=1, model_id=model.id))

    def order(self, *models: pb.Pin, dataset_id: str = "north/1") -> int:
        """The first execution id."""
        lines = [pb.RequestedExecution(dataset_id=dataset_id, model=model) for model in models]
        said = pb.ExecutionRequested(benchmark_id=1, purpose=pb.PURPOSE_BENCHMARK, executions=lines)
        return int(self.carla.state(said).id)


@dataclass
class Site:
    """A site's folder, its agent while it runs, and calls over its socket."""

    bench: Bench
    folder: Path
    settings: Settings
    agent: Agent

    @property
    def data(self) -> Path:
        return self.folder / "hospital"

    @contextlib.contextmanager
    def api(self) -> Iterator[site_pb2_grpc.SiteApiStub]:
        address = f"unix:{self.settings.socket}"
        with grpc.insecure_channel(address) as channel, refusals("agent"):
            yield site_pb2_grpc.SiteApiStub(channel)

    def work(self, method: str, request: object) -> list[site_pb2.WorkEvent]:
        with self.api() as api:
            return list(getattr(api, method)(request, timeout=SECONDS))

    def draft(self, method: str, request: object) -> site_pb2.WorkEvent.Draft:
        (draft,) = [e.draft for e in self.work(method, request) if e.HasField("draft")]
        return draft

    def release(self, draft: site_pb2.WorkEvent.Draft) -> list[site_pb2.ReleaseResponse.Sent]:
        with self.api() as api:
            request = site_pb2.ReleaseRequest(digest=draft.digest)
            return list(api.Release(request, timeout=SECONDS).sent)

    def registration(self, **fields: object) -> site_pb2.DraftDatasetRequest:
        values: dict[str, object] = {
            "name": "scans",
            "description": "of the breast",
            "location": "North",
            "data_path": str(self.data / "data"),
            "labels_path": str(self.data / "labels"),
            "benchmark_id": 1,
        }
        return site_pb2.DraftDatasetRequest(**values | fields)  # type: ignore[arg-type]

    def register(self, **fields: object) -> str:
        (sent,) = self.release(self.draft("DraftDataset", self.registration(**fields)))
        return sent.id

    def prepare(self, dataset_id: str = "north/1") -> list[site_pb2.WorkEvent]:
        return self.work("PrepareDataset", site_pb2.PrepareDatasetRequest(dataset_id=dataset_id))

    def dataset(self, dataset_id: str = "north/1") -> site_pb2.LocalDataset:
        with self.api() as api:
            request = site_pb2.GetLocalDatasetRequest(id=dataset_id)
            return api.GetLocalDataset(request, timeout=SECONDS).dataset

    def operational(self, dataset_id: str = "north/1") -> None:
        request = site_pb2.DraftOperationalRequest(dataset_id=dataset_id)
        self.release(self.draft("DraftOperational", request))

    def associate(self, dataset_id: str = "north/1") -> site_pb2.WorkEvent.Draft:
        request = site_pb2.DraftAssociationRequest(dataset_id=dataset_id, benchmark_id=1)
        return self.draft("DraftAssociation", request)

    def ready(self) -> None:
        """Registered, prepared, operational, associated and approved."""
        self.register()
        self.prepare()
        self.operational()
        self.release(self.associate())
        vote = pb.AssociationDecided(association_id=1, decision=pb.DECISION_APPROVE, reason="good")
        self.bench.carla.state(vote)

    def run(self, **fields: object) -> list[site_pb2.RunRow]:
        selection = site_pb2.RunSelection(benchmark_id=1, dataset_id="north/1", **fields)  # type: ignore[arg-type]
        with self.api() as api:
            request = site_pb2.RunBenchmarkRequest(selection=selection)
            events = list(api.RunBenchmark(request, timeout=SECONDS))
        return list(events[-1].table.rows)

    def reviews(self) -> list[site_pb2.Review]:
        with self.api() as api:
            request = site_pb2.ListReviewsRequest()
            return list(api.ListReviews(request, timeout=SECONDS).reviews)

    def wait_linked(self) -> None:
        wait_for(lambda: self.agent.link.state.connected)


@contextlib.contextmanager
def bench(folder: Path, **fields: object) -> Iterator[Bench]:
    with coordinators.world(folder) as made:
        carla, mona = (made.join(name, pb.ROLE_PERSON) for name in ("carla", "mona"))
        found = Bench(made, carla, mona)
        found.found(**fields)
        yield found


def enrolled(bench: Bench, folder: Path, name: str = "north", **settings: object) -> Settings:
    """Data in `hospital`, an identity, and the settings to serve with."""
    for part in ("data", "labels"):
        (folder / "hospital" / part).mkdir(parents=True, exist_ok=True)
        for case in ("a", "b", "c"):
            (folder / "hospital" / part / f"{case}.txt").write_text(f"{part} of {case}")
    run = Path(tempfile.mkdtemp(prefix="hc-"))
    values: dict[str, object] = {
        "state_dir": run / "state",
        "socket": run / "run" / "agent.sock",
        "allowed_paths": [folder / "hospital"],
        "disk_reserve_bytes": 0,
        "stop_grace_s": 1,
        "heartbeat_s": 0.2,
    }
    made = Settings(**values | settings)  # type: ignore[arg-type]
    enrol(bench.world.token(name, pb.ROLE_SITE), made.identity_dir)
    return made


@contextlib.contextmanager
def serving(bench: Bench, folder: Path, settings: Settings) -> Iterator[Site]:
    with Agent(settings, lambda _: bench.engine) as agent:
        made = Site(bench, folder, settings, agent)
        made.wait_linked()
        yield made


def bench_ledger(bench: Bench) -> ledger_pb2_grpc.LedgerStub:
    return ledger_pb2_grpc.LedgerStub(bench.carla.channel)


def bundle_of(bench: Bench, execution_id: int) -> ledger_pb2.Bundle:
    """Of the statement that ordered it."""
    found = bench.carla.registry.GetExecution(reg.GetExecutionRequest(id=execution_id)).execution
    request = ledger_pb2.GetBundleRequest(envelope_digest=found.origin.envelope_digest)
    return bench_ledger(bench).GetBundle(request).bundle


def payload(draft: site_pb2.WorkEvent.Draft, number: int = 0) -> pb.ResultSubmitted:
    """A drafted result's predicate."""
    predicate = statement.open_payload(draft.statements[number])[1]
    assert isinstance(predicate, pb.ResultSubmitted)
    return predicate
