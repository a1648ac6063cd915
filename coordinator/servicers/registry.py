"""The Registry service: typed reads, each scoped to what the caller may see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import grpc
from sqlmodel import SQLModel

from coordinator import views
from coordinator.board import snapshot
from coordinator.caller import CallerRole, current_caller
from coordinator.fleet import Fleet
from coordinator.models import (
    Association,
    Benchmark,
    Container,
    Dataset,
    Execution,
    Model,
    Participant,
    Result,
)
from coordinator.overview import overview
from coordinator.paging import everyone, page
from coordinator.preparations import Preparation
from coordinator.replicas import Replicas
from coordinator.store import Reader, Store
from coordinator.visibility import Eyes
from housecall.errors import Kind, Refusal
from housecall.times import stamp
from housecall.v1 import registry_pb2 as pb
from housecall.v1 import registry_pb2_grpc, statements_pb2

Row = TypeVar("Row", bound=SQLModel)
Context = grpc.ServicerContext

BOARD_SECONDS = 0.2  # boards are redrawn at most this often


class RegistryServicer(registry_pb2_grpc.RegistryServicer):
    def __init__(
        self, store: Store, fleet: Fleet, replicas: Replicas, backup_within: timedelta
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._replicas = replicas
        self._backup_within = backup_within

    def GetCaller(self, request: pb.GetCallerRequest, context: Context) -> pb.GetCallerResponse:
        caller = current_caller()
        with self._store.read() as reader:
            role = reader.participant(caller.name).role
        return pb.GetCallerResponse(
            name=caller.name,
            role=statements_pb2.Role.ValueType(role),
            certificate_expires_at=stamp(caller.certificate_expires_at),
            coordinator_time=stamp(datetime.now(UTC)),
            coordinator_version=version("housecall"),
        )

    def ListContainers(
        self, request: pb.ListContainersRequest, context: Context
    ) -> pb.ListContainersResponse:
        with self._store.read() as reader:
            where = {"owner": request.owner}
            shown, token = page(
                reader, Container, request, everyone, where, partial(views.container, reader)
            )
            return pb.ListContainersResponse(containers=shown, next_page_token=token)

    def GetContainer(
        self, request: pb.GetContainerRequest, context: Context
    ) -> pb.GetContainerResponse:
        with self._store.read() as reader:
            found = views.container(reader, reader.container(request.id))
            return pb.GetContainerResponse(container=found)

    def ListBenchmarks(
        self, request: pb.ListBenchmarksRequest, context: Context
    ) -> pb.ListBenchmarksResponse:
        with self._store.read() as reader:
            where = {"owner": request.owner}
            shown, token = page(
                reader, Benchmark, request, everyone, where, partial(views.benchmark, reader)
            )
            return pb.ListBenchmarksResponse(benchmarks=shown, next_page_token=token)

    def GetBenchmark(
        self, request: pb.GetBenchmarkRequest, context: Context
    ) -> pb.GetBenchmarkResponse:
        with self._store.read() as reader:
            row = reader.benchmark(request.id)
            return pb.GetBenchmarkResponse(
                benchmark=views.benchmark(reader, row),
                models=[views.model(reader, model) for model in reader.approved_models(row)],
            )

    def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        with self._store.read() as reader:
            shown, token = page(
                reader,
                Model,
                request,
                everyone,
                {"owner": request.owner},
                partial(views.model, reader),
            )
            return pb.ListModelsResponse(models=shown, next_page_token=token)

    def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        with self._store.read() as reader:
            return pb.GetModelResponse(model=views.model(reader, reader.model(request.id)))

    def ListDatasets(
        self, request: pb.ListDatasetsRequest, context: Context
    ) -> pb.ListDatasetsResponse:
        with self._store.read() as reader:
            eyes = Eyes(reader, current_caller())
            where: dict[str, Any] = {"site": request.owner}
            if request.benchmark_id:
                where["preparation_digest"] = reader.benchmark(
                    request.benchmark_id
                ).preparation_digest

            def visible(row: Dataset) -> bool:
                return self._sees_dataset(eyes, row)

            shown, token = page(
                reader, Dataset, request, visible, where, partial(self._dataset, reader, eyes)
            )
            return pb.ListDatasetsResponse(datasets=shown, next_page_token=token)

    def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:
        with self._store.read() as reader:
            eyes = Eyes(reader, current_caller())

            def visible(row: Dataset) -> bool:
                return self._sees_dataset(eyes, row)

            row = _seen(reader.find(Dataset, request.id), visible, "dataset", request.id)
            return pb.GetDatasetResponse(dataset=self._dataset(reader, eyes, row))

    def _preparing(self, row: Dataset) -> Preparation | None:
        """What is known of its way to being operational."""
        if row.state != pb.DATASET_STATE_REGISTERED:
            return None
        return self._fleet.preparation_of(row.id, row.site)

    def _sees_dataset(self, eyes: Eyes, row: Dataset) -> bool:
        if eyes.dataset(row):
            return True
        said = self._preparing(row)
        return said is not None and eyes.preparation(row, said)

    def _dataset(self, reader: Reader, eyes: Eyes, row: Dataset) -> pb.Dataset:
        if eyes.dataset(row):
            return views.dataset(reader, row, self._preparing(row))
        said = self._preparing(row)
        shown = said if said is not None and eyes.preparation(row, said) else None
        return views.preparing(row, shown)

    def ListAssociations(
        self, request: pb.ListAssociationsRequest, context: Context
    ) -> pb.ListAssociationsResponse:
        with self._store.read() as reader:
            where = {
                "benchmark_id": request.benchmark_id,
                "dataset_id": request.dataset_id,
                "model_id": request.model_id,
                "state": request.state,
            }
            eyes = Eyes(reader, current_caller())
            shown, token = page(
                reader,
                Association,
                request,
                eyes.association,
                where,
                partial(views.association, reader),
            )
            return pb.ListAssociationsResponse(associations=shown, next_page_token=token)

    def GetAssociation(
        self, request: pb.GetAssociationRequest, context: Context
    ) -> pb.GetAssociationResponse:
        with self._store.read() as reader:
            row = reader.find(Association, request.id)
            eyes = Eyes(reader, current_caller())
            seen = _seen(row, eyes.association, "association", request.id)
            return pb.GetAssociationResponse(association=views.association(reader, seen))

    def ListResults(
        self, request: pb.ListResultsRequest, context: Context
    ) -> pb.ListResultsResponse:
        with self._store.read() as reader:
            eyes = Eyes(reader, current_caller())
            where = {
                "benchmark_id": request.benchmark_id,
                "dataset_id": request.dataset_id,
                "model_id": request.model_id,
                "purpose": request.purpose,
            }

            def visible(row: Result) -> bool:
                stands = request.include_superseded or not row.superseded_by
                return stands and eyes.result(row)

            shown, token = page(
                reader, Result, request, visible, where, partial(views.result, reader)
            )
            return pb.ListResultsResponse(results=shown, next_page_token=token)

    def GetResult(self, request: pb.GetResultRequest, context: Context) -> pb.GetResultResponse:
        with self._store.read() as reader:
            match request.WhichOneof("result"):
                case "name":
                    row = reader.result_by_name(request.name)
                case "envelope_digest":
                    row = reader.result_by_digest(request.envelope_digest)
                case _:
                    row = reader.find(Result, request.id)
            asked = request.name or request.envelope_digest or request.id
            seen = _seen(row, Eyes(reader, current_caller()).result, "result", asked)
            return pb.GetResultResponse(result=views.result(reader, seen))

    def ListExecutions(
        self, request: pb.ListExecutionsRequest, context: Context
    ) -> pb.ListExecutionsResponse:
        with self._store.read() as reader:
            eyes = Eyes(reader, current_caller())
            where = {"benchmark_id": request.benchmark_id, "dataset_id": request.dataset_id}

            def visible(row: Execution) -> bool:
                if not eyes.execution(row):
                    return False
                seen = views.execution(reader, row, self._fleet)
                return request.state in (statements_pb2.EXECUTION_STATE_UNSPECIFIED, seen.state)

            shown, token = page(
                reader,
                Execution,
                request,
                visible,
                where,
                lambda row: views.execution(reader, row, self._fleet),
            )
            return pb.ListExecutionsResponse(executions=shown, next_page_token=token)

    def GetExecution(
        self, request: pb.GetExecutionRequest, context: Context
    ) -> pb.GetExecutionResponse:
        with self._store.read() as reader:
            row = reader.find(Execution, request.id)
            eyes = Eyes(reader, current_caller())
            seen = _seen(row, eyes.execution, "execution", request.id)
            return pb.GetExecutionResponse(execution=views.execution(reader, seen, self._fleet))

    def ListSites(self, request: pb.ListSitesRequest, context: Context) -> pb.ListSitesResponse:
        with self._store.read() as reader:
            eyes = Eyes(reader, current_caller())

            def visible(row: Participant) -> bool:
                wanted = not request.connected or self._fleet.standing(row.name).connected
                return wanted and eyes.site(row.name)

            where = {"role": statements_pb2.ROLE_SITE}
            shown, token = page(
                reader,
                Participant,
                request,
                visible,
                where,
                lambda row: views.site(row, self._fleet),
            )
            return pb.ListSitesResponse(sites=shown, next_page_token=token)

    def GetOverview(
        self, request: pb.GetOverviewRequest, context: Context
    ) -> pb.GetOverviewResponse:
        with self._store.read() as reader:
            return overview(
                reader,
                self._fleet,
                self._replicas,
                backup_within=self._backup_within,
                now=datetime.now(UTC),
            )

    async def WatchBenchmark(
        self, request: pb.WatchBenchmarkRequest, context: Any
    ) -> AsyncIterator[pb.WatchBenchmarkResponse]:
        caller = current_caller()
        seen = 0
        shown: pb.WatchBenchmarkResponse | None = None

        def look() -> pb.WatchBenchmarkResponse:
            with self._store.read() as reader:
                if reader.participant(caller.name).revoked_index is not None:
                    raise Refusal(Kind.UNAUTHENTICATED, "REVOKED", f"{caller.name} is revoked")
                benchmark = reader.benchmark(request.benchmark_id)
                eyes = Eyes(reader, caller)
                operator = caller.role is CallerRole.OPERATOR
                if benchmark.id not in eyes.committees and not operator:
                    raise Refusal(
                        Kind.NOT_ALLOWED,
                        "NOT_COMMITTEE",
                        f"watching benchmark {benchmark.id} is for its committee",
                    )
                return snapshot(reader, benchmark, self._fleet)

        while True:
            board = await asyncio.to_thread(look)
            if board != shown:
                shown = board
                yield board
            await asyncio.sleep(BOARD_SECONDS)
            seen = await self._fleet.next_version(seen)


def _seen(row: Row | None, visible: Callable[[Row], bool], what: str, asked: object) -> Row:
    """The row, or the same refusal whether it is missing or hidden."""
    if row is None or not visible(row):
        raise Refusal(
            Kind.NOT_FOUND,
            f"{what.upper()}_NOT_FOUND",
            f"there is no {what} {asked}, or it is not yours to see",
        )
    return row
