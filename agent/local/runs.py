"""Runs, results and executions over the local API."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Iterator

import grpc

from agent.events import Amount, LogLine, StepChange
from agent.execution import Recipe, require_partial_allowed
from agent.local.messages import receipt_of
from agent.local.room import Room
from agent.participation import require_approved
from agent.records import Execution, State
from agent.registry import Model
from agent.release import local_user
from agent.runs import Started
from agent.steplog import tail
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of
from housecall.v1 import site_pb2 as site
from housecall.v1 import site_pb2_grpc

ANSWERED = (State.SUCCEEDED, State.WAITING_RELEASE)


class RunCalls(Room, site_pb2_grpc.SiteApiServicer):
    def PlanRun(
        self, request: site.PlanRunRequest, context: grpc.ServicerContext
    ) -> site.PlanRunResponse:
        asked = request.selection
        response = site.PlanRunResponse(
            disk_free_bytes=shutil.disk_usage(self.rooms.settings.state_dir).free
        )
        for model in self._models(asked):
            recipe = self.rooms.executor.recipe(asked.benchmark_id, model.id, asked.dataset_id)
            cached = self.runs.cached(recipe, partial=asked.ignore_model_errors)
            there = self.rooms.containers.presence(recipe.model_container)
            response.items.add(
                model_id=model.id,
                model_name=model.name,
                from_cache=cached is not None and not asked.rerun,
                image_digest=recipe.model_container.statement.image_digest,
                image_present=there.image_present,
                image_bytes=there.image_bytes,
                additional_files_present=there.files_present,
            )
        dataset = self.catalog.get(asked.dataset_id)
        pin = self.rooms.registry.benchmark(asked.benchmark_id).statement.evaluator
        evaluator = self.rooms.registry.container(pin.id, pin.digest)
        there = self.rooms.containers.presence(evaluator)
        response.items.add(
            model_id=0,
            model_name="evaluator",
            image_digest=evaluator.statement.image_digest,
            image_present=there.image_present,
            image_bytes=there.image_bytes,
            additional_files_present=there.files_present,
        )
        response.prepared_bytes = sum(
            file.stat().st_size
            for part in self.catalog.parts(dataset, prepared=True).values()
            for file in part.rglob("*")
            if file.is_file()
        )
        return response

    def RunBenchmark(
        self, request: site.RunBenchmarkRequest, context: grpc.ServicerContext
    ) -> Iterator[site.RunEvent]:
        self.uid(context)
        models = self._models(request.selection)
        said: queue.Queue[site.RunEvent] = queue.Queue()
        for model in models:
            arguments = (model, request.selection, said, context)
            threading.Thread(target=self._run, args=arguments, daemon=True).start()
        rows: dict[int, site.RunRow] = {}
        while len(rows) < len(models):
            try:
                event = said.get(timeout=0.5)
            except queue.Empty:
                if not context.is_active():
                    return
                continue
            if event.HasField("row"):
                rows[event.row.model_id] = event.row
            yield event
        table = site.RunEvent.Table(rows=[rows[model.id] for model in models])
        yield site.RunEvent(table=table)

    def ListLocalResults(
        self, request: site.ListLocalResultsRequest, context: grpc.ServicerContext
    ) -> site.ListLocalResultsResponse:
        found = [
            self.messages.result(each)
            for each in self.results.all()
            if request.benchmark_id in (0, each.execution.benchmark_id)
            and request.dataset_id in ("", each.execution.dataset_id)
        ]
        return site.ListLocalResultsResponse(results=found)

    def GetLocalResult(
        self, request: site.GetLocalResultRequest, context: grpc.ServicerContext
    ) -> site.GetLocalResultResponse:
        result = self.results.get(request.name)
        response = site.GetLocalResultResponse(result=self.messages.result(result))
        if result.released and result.sent is not None and result.sent.state == "accepted":
            try:
                bundle = self.rooms.registry.bundle(result.sent.envelope_digest)
                response.bundle.CopyFrom(bundle)
            except Refusal as refusal:
                if refusal.kind is not Kind.UNAVAILABLE:
                    raise
                response.result.ledger_index = receipt_of(result.sent).ledger_index
        return response

    def DraftResult(
        self, request: site.DraftResultRequest, context: grpc.ServicerContext
    ) -> Iterator[site.WorkEvent]:
        uid = self.uid(context)
        result = self.results.get(request.name)
        if not request.supersede:
            self.results.require_not_submitted(result.name)
        else:
            self.results.require_newer(result)
        execution = result.execution
        answers = execution.state is State.WAITING_RELEASE and execution.purpose == "BENCHMARK"
        item = self.results.item(execution, "BENCHMARK", local_user(uid), order=answers)
        effect: dict[str, object] = (
            {"execution": execution.id, "state": State.SUCCEEDED} if answers else {}
        )
        effect["released"] = execution.id
        draft = self.rooms.releases.draft(uid, [item], effect)
        yield self.messages.event(draft)

    def ListLocalExecutions(
        self, request: site.ListLocalExecutionsRequest, context: grpc.ServicerContext
    ) -> site.ListLocalExecutionsResponse:
        found = [self.messages.execution(each) for each in self.journal.executions()]
        wanted = [each for each in found if request.state in (0, each.state)]
        return site.ListLocalExecutionsResponse(executions=wanted)

    def GetLocalExecution(
        self, request: site.GetLocalExecutionRequest, context: grpc.ServicerContext
    ) -> site.GetLocalExecutionResponse:
        execution = self.journal.execution(request.id)
        logs = self.rooms.executor.folder(execution.source_id) / "logs"
        message = self.messages.execution(execution, tail(logs))
        return site.GetLocalExecutionResponse(execution=message)

    def CancelLocalExecution(
        self, request: site.CancelLocalExecutionRequest, context: grpc.ServicerContext
    ) -> site.CancelLocalExecutionResponse:
        self.rooms.orders.cancel(request.id, local_user(self.uid(context)))
        return site.CancelLocalExecutionResponse()

    def _models(self, asked: site.RunSelection) -> list[Model]:
        dataset = self.catalog.get(asked.dataset_id)
        require_approved(self.rooms.registry, asked.benchmark_id, dataset.id)
        benchmark = self.rooms.registry.benchmark(asked.benchmark_id)
        require_partial_allowed(benchmark, asked.ignore_model_errors)
        approved = self.rooms.registry.approved_models(asked.benchmark_id)
        if not asked.model_ids:
            return approved
        known = {model.id: model for model in approved}
        for number in asked.model_ids:
            if number not in known:
                raise Refusal(
                    Kind.NOT_READY,
                    "NOT_APPROVED",
                    f"model {number}: expected one that is approved for benchmark "
                    f"{asked.benchmark_id} ({', '.join(map(str, known))}), got another",
                )
        return [known[number] for number in dict.fromkeys(asked.model_ids)]

    def _run(
        self,
        model: Model,
        asked: site.RunSelection,
        said: queue.Queue[site.RunEvent],
        context: grpc.ServicerContext,
    ) -> None:
        """One model, in a thread of its own; always ends with its row."""
        row = site.RunRow(model_id=model.id, model_name=model.name)
        try:
            recipe = self.rooms.executor.recipe(asked.benchmark_id, model.id, asked.dataset_id)
            started = self.runs.start(
                recipe,
                "BENCHMARK",
                rerun=asked.rerun,
                ignore_errors=asked.ignore_model_errors,
            )
            self._follow(model, started, said, context)
            execution = self.journal.execution(started.execution.id)
            row.from_cache = started.job is None
            _fill(row, execution, recipe)
        except BaseException as error:
            refusal = refusal_of(error)
            row.error_code, row.error = refusal.code, refusal.message
        said.put(site.RunEvent(row=row))

    def _follow(
        self,
        model: Model,
        started: Started,
        said: queue.Queue[site.RunEvent],
        context: grpc.ServicerContext,
    ) -> None:
        if started.job is None:
            return
        for event in started.job.feed.follow(context.is_active):
            if isinstance(event, Amount | StepChange | LogLine):
                step = site.RunEvent.StepEvent(
                    model_id=model.id, model_name=model.name, event=self.messages.event(event)
                )
                said.put(site.RunEvent(step=step))
        started.job.wait()


def _fill(row: site.RunRow, execution: Execution, recipe: Recipe) -> None:
    row.local_execution_id, row.partial = execution.id, execution.partial
    if execution.state in ANSWERED:
        row.result = recipe.name
    else:
        row.error_code = execution.reason or execution.state
        row.error = execution.problem
