"""A small world to read: one benchmark, two models, two sites' datasets. Lists come in pages of
one, so that a client that forgets to turn them is found out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message

from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.v1 import registry_pb2 as registry
from housecall.v1 import statements_pb2 as pb
from tests.cli.fake_ledger import Registered
from tests.cli.servicer import Servicer, refuse

ADA = "spiffe://demo/person/ada"
NORTH = "spiffe://demo/site/north"
CONFIGURATION = "container_type: DockerImage\nimage: x\n"


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def origin(owner: str, letter: str, index: int = 0) -> registry.Origin:
    return registry.Origin(ledger_index=index, envelope_digest=digest(letter), owner=owner)


def container_digest(number: int) -> str:
    """Of the container with this number."""
    return statement.container_digest(digest("b"), CONFIGURATION, f"n: {number}\n", "")


def page(response: Any, field: str, items: list[Any], request: Any) -> Any:
    start = int(request.page_token or 0)
    getattr(response, field).extend(items[start : start + 1])
    if start + 1 < len(items):
        response.next_page_token = str(start + 1)
    return response


class FakeRegistry(Servicer):
    """Its lists are public, to be changed by a test. Containers and models are really signed."""

    def __init__(self) -> None:
        super().__init__()
        self.containers = [
            registry.Container(
                id=n,
                statement=pb.ContainerRegistered(
                    name=name,
                    role=pb.CONTAINER_ROLE_MODEL,
                    image_digest=digest("b"),
                    configuration=CONFIGURATION,
                    parameters=f"n: {n}\n",
                    container_digest=container_digest(n),
                ),
            )
            for n, name in ((1, "prepare"), (2, "evaluate"), (3, "forest"))
        ]
        self.models = [
            registry.Model(
                id=n,
                statement=pb.ModelRegistered(
                    name=name, container=pb.Pin(id=3, digest=container_digest(3))
                ),
            )
            for n, name in ((1, "forest"), (2, "neighbours"))
        ]
        self.key = Ed25519PrivateKey.generate()
        self.problem: grpc.StatusCode | None = None
        self.overview = registry.GetOverviewResponse()
        self.signed: dict[str, Registered] = {}
        for container in self.containers:
            container.origin.CopyFrom(self.origin_of(container.statement))
        for model in self.models:
            model.origin.CopyFrom(self.origin_of(model.statement))
        self.benchmark = registry.Benchmark(
            id=1,
            origin=origin(ADA, "d", 7),
            statement=pb.BenchmarkRegistered(
                name="tissue",
                preparation=pb.Pin(id=1, digest=container_digest(1)),
                reference_model=pb.Pin(id=1, digest=container_digest(3)),
                evaluator=pb.Pin(id=2, digest=container_digest(2)),
                committee=[ADA],
                votes_needed=1,
            ),
            policy=pb.BenchmarkPolicy(datasets=pb.AutoApproval(mode=pb.APPROVAL_MODE_NEVER)),
        )
        self.datasets = [
            registry.Dataset(
                id=f"{site}/1",
                origin=origin(f"spiffe://demo/site/{site}", "e"),
                state=registry.DATASET_STATE_OPERATIONAL,
                statement=pb.DatasetRegistered(dataset_id=f"{site}/1", name=f"{site} tissue"),
                prepared_fingerprint=digest("f"),
            )
            for site in ("north", "south")
        ]
        self.associations = [
            registry.Association(
                id=n,
                origin=origin(NORTH, "5"),
                benchmark_id=1,
                dataset_id=dataset.id,
                state=registry.ASSOCIATION_STATE_APPROVED,
                approvals=1,
                votes_needed=1,
                history=[registry.Association.Event(actor=NORTH, what="requested")],
            )
            for n, dataset in enumerate(self.datasets, 1)
        ]
        self.results = [
            registry.Result(
                id=1,
                name="north/b1m1d1",
                origin=origin(NORTH, "6", 2**53 + 1),
                statement=pb.ResultSubmitted(
                    benchmark_id=1,
                    dataset_id="north/1",
                    model=pb.Pin(id=1, digest=container_digest(3)),
                    purpose=pb.PURPOSE_BENCHMARK,
                ),
            )
        ]
        self.results[0].statement.metrics.update({"auc": 0.9, "cases": 12})
        self.executions: list[registry.Execution] = []
        self.sites = [
            registry.Site(name=NORTH, connected=True, agent_version="0.1.0"),
            registry.Site(name="spiffe://demo/site/south"),
        ]

    def origin_of(self, predicate: Message) -> registry.Origin:
        """Of a statement that ada signs for this; the ledger finds it in `signed`."""
        envelope = statement.sign(statement.build(predicate, {}), self.key)
        name = statement.digest(envelope)
        self.signed[name] = Registered(ADA, self.key, envelope)
        return registry.Origin(envelope_digest=name, owner=ADA)

    def GetCaller(
        self, request: registry.GetCallerRequest, context: grpc.ServicerContext
    ) -> registry.GetCallerResponse:
        return registry.GetCallerResponse(name=ADA, role=pb.ROLE_PERSON)

    def ListBenchmarks(self, request: Any, context: grpc.ServicerContext) -> Any:
        return page(registry.ListBenchmarksResponse(), "benchmarks", [self.benchmark], request)

    def GetBenchmark(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.id != 1:
            text = f"benchmark {request.id}: there is none; see `housecall benchmark ls`"
            refuse(context, Refusal(Kind.NOT_FOUND, "BENCHMARK_NOT_FOUND", text))
        return registry.GetBenchmarkResponse(benchmark=self.benchmark, models=self.models)

    def ListContainers(self, request: Any, context: grpc.ServicerContext) -> Any:
        return page(registry.ListContainersResponse(), "containers", self.containers, request)

    def GetContainer(self, request: Any, context: grpc.ServicerContext) -> Any:
        return registry.GetContainerResponse(container=self.containers[request.id - 1])

    def ListModels(self, request: Any, context: grpc.ServicerContext) -> Any:
        return page(registry.ListModelsResponse(), "models", self.models, request)

    def GetModel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return registry.GetModelResponse(model=self.models[request.id - 1])

    def ListDatasets(self, request: Any, context: grpc.ServicerContext) -> Any:
        return page(registry.ListDatasetsResponse(), "datasets", self.datasets, request)

    def GetDataset(self, request: Any, context: grpc.ServicerContext) -> Any:
        return registry.GetDatasetResponse(dataset=self.datasets[0])

    def ListAssociations(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        wanted = [a for a in self.associations if request.state in (0, a.state)]
        return page(registry.ListAssociationsResponse(), "associations", wanted, request)

    def GetAssociation(self, request: Any, context: grpc.ServicerContext) -> Any:
        return registry.GetAssociationResponse(association=self.associations[request.id - 1])

    def ListResults(self, request: Any, context: grpc.ServicerContext) -> Any:
        wanted = [r for r in self.results if request.purpose in (0, r.statement.purpose)]
        return page(registry.ListResultsResponse(), "results", wanted, request)

    def GetResult(self, request: Any, context: grpc.ServicerContext) -> Any:
        return registry.GetResultResponse(result=self.results[0])

    def ListExecutions(self, request: Any, context: grpc.ServicerContext) -> Any:
        return page(registry.ListExecutionsResponse(), "executions", self.executions, request)

    def GetExecution(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        if self.problem is not None:
            context.abort(self.problem, "away")
        found = next(e for e in self.executions if e.id == request.id)
        return registry.GetExecutionResponse(execution=found)

    def GetOverview(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self.overview

    def ListSites(self, request: Any, context: grpc.ServicerContext) -> Any:
        found = [site for site in self.sites if site.connected or not request.connected]
        return page(registry.ListSitesResponse(), "sites", found, request)

    def WatchBenchmark(
        self, request: registry.WatchBenchmarkRequest, context: grpc.ServicerContext
    ) -> Iterator[registry.WatchBenchmarkResponse]:
        cell = registry.WatchBenchmarkResponse.Cell(
            dataset_id="north/1", model_id=1, state=pb.EXECUTION_STATE_RUNNING, step="infer"
        )
        board = registry.WatchBenchmarkResponse(
            dataset_ids=["north/1"], model_ids=[1, 2], cells=[cell], sites=self.sites
        )
        yield board
        board.cells[0].submitted = True
        yield board
