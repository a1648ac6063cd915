"""An agent's local API with canned work: dataset north/1, its result b1m4d1, two reviews.

Drafts are real statements; `Release` knows only the digest of the newest one. `problem`, when
set, is refused by every draft; where it `hangs`, a preparation or a run waits until its caller is
gone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc

from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.v1 import ledger_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.site_pb2 import WorkEvent
from tests.cli.fake_registry import digest
from tests.cli.servicer import Servicer, refuse

CHECKPOINT = "demo.ledger\n13\nAAAA\n\n— demo sig\n"


def amount(done: int, total: int) -> WorkEvent:
    return WorkEvent(
        amount=WorkEvent.Amount(label="raw data", done=done, total=total, unit="bytes")
    )


def step(name: str, state: pb.StepState.ValueType, **facts: Any) -> WorkEvent:
    return WorkEvent(step=WorkEvent.StepChange(step=name, state=state, **facts))


class FakeSite(Servicer):
    def __init__(self) -> None:
        super().__init__()
        self.problem: Refusal | None = None
        self.online = True
        self.verifier_key = ""
        self.bundle: ledger_pb2.Bundle | None = None
        self.state = site_pb2.LOCAL_DATASET_STATE_PREPARED
        self.drafted = b""
        self.hangs = False
        self.status: site_pb2.GetStatusResponse | None = None
        self.looks = 1_000
        self.ordered = 7
        self.waiting = b'{"what": "would leave"}'
        self.metrics: dict[str, Any] = {}
        self.left_alone = threading.Event()
        self.rows = [
            site_pb2.RunRow(model_id=1, model_name="forest", result="b1m1d1", from_cache=True),
            site_pb2.RunRow(model_id=2, model_name="tree", result="b1m2d1", partial=True),
            site_pb2.RunRow(
                model_id=3,
                model_name="net",
                error_code="STEP_FAILED",
                error="infer ended with 3",
                local_execution_id=5,
            ),
        ]
        self.dataset = site_pb2.LocalDataset(
            id="north/1",
            name="tissue",
            accepted=True,
            raw_fingerprint=digest("a"),
            data_path="/data/north",
            prepared_path="/var/lib/prepared",
            cases={"done": 40, "todo": 2},
        )

    def GetStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.looks -= 1
        if self.looks < 0:
            refuse(context, Refusal(Kind.UNAVAILABLE, "AGENT_STOPPING", "the agent stops"))
        return self.status or site_pb2.GetStatusResponse(
            site="spiffe://demo/site/north",
            connected=True,
            verifier_key=self.verifier_key,
            disk_free_bytes=2**60 + 1,
        )

    def ListLocalDatasets(self, request: Any, context: grpc.ServicerContext) -> Any:
        return site_pb2.ListLocalDatasetsResponse(datasets=[self._dataset()])

    def GetLocalDataset(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.id != "north/1":
            text = f"dataset {request.id}: there is none here; see `housecall dataset ls --mine`"
            refuse(context, Refusal(Kind.NOT_FOUND, "DATASET_NOT_FOUND", text))
        return site_pb2.GetLocalDatasetResponse(dataset=self._dataset())

    def DraftDataset(self, request: Any, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        self.asked.append(request)
        self._check(context)
        yield amount(0, 4096)
        yield amount(4096, 4096)
        yield self._draft(pb.DatasetRegistered(dataset_id="north/1", name=request.name))

    def DraftOperational(self, request: Any, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        self.asked.append(request)
        self._check(context)
        yield self._draft(pb.DatasetOperational(dataset_id=request.dataset_id))

    def DraftAssociation(self, request: Any, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        self.asked.append(request)
        yield step("infer", pb.STEP_STATE_RUNNING)
        yield WorkEvent(log=WorkEvent.LogLine(step="infer", text="batch 1\x1b[2J of 2"))
        yield step("infer", pb.STEP_STATE_SUCCEEDED, seconds=12)
        asked = pb.AssociationRequested(dataset_id="north/1", benchmark_id=request.benchmark_id)
        draft = self._draft(asked)
        test = pb.ResultSubmitted(benchmark_id=1, dataset_id="north/1")
        test.metrics.update(self.metrics)
        draft.draft.statements.insert(0, statement.build(test, {}))
        yield draft

    def DraftWithdrawal(self, request: Any, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        self.asked.append(request)
        yield self._draft(
            pb.AssociationWithdrawn(association_id=request.association_id, reason=request.reason)
        )

    def DraftResult(self, request: Any, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        self.asked.append(request)
        self._check(context)
        result = pb.ResultSubmitted(benchmark_id=1, dataset_id="north/1")
        result.metrics.update(self.metrics)
        yield self._draft(result)

    def Release(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        if request.digest != statement.digest(self.drafted):
            text = f"digest {request.digest}: expected that of a draft; draft it again"
            refuse(context, Refusal(Kind.NOT_FOUND, "DRAFT_UNKNOWN", text))
        return site_pb2.ReleaseResponse(sent=[self._sent()])

    def PrepareDataset(self, request: Any, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        self.asked.append(request)
        yield step("prepare", pb.STEP_STATE_RUNNING)
        self._hang(context)
        yield step("prepare", pb.STEP_STATE_SUCCEEDED, seconds=3)
        yield WorkEvent(done=WorkEvent.Done(text="prepared 42 cases", dataset=self._dataset()))

    def StopPreparation(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        return site_pb2.StopPreparationResponse()

    def CheckDataset(self, request: Any, context: grpc.ServicerContext) -> Iterator[WorkEvent]:
        self.asked.append(request)
        yield WorkEvent(done=WorkEvent.Done(text="raw data: unchanged", dataset=self._dataset()))

    def PlanRun(self, request: Any, context: grpc.ServicerContext) -> Any:
        item = site_pb2.PlanRunResponse.Item(model_id=2, model_name="tree", image_bytes=3 * 2**30)
        return site_pb2.PlanRunResponse(items=[item], disk_free_bytes=2**40)

    def RunBenchmark(
        self, request: Any, context: grpc.ServicerContext
    ) -> Iterator[site_pb2.RunEvent]:
        self.asked.append(request)
        running = site_pb2.RunEvent.StepEvent(
            model_id=2, model_name="tree", event=step("infer", pb.STEP_STATE_RUNNING)
        )
        yield site_pb2.RunEvent(step=running)
        self._hang(context)
        yield site_pb2.RunEvent(row=self.rows[0])
        yield site_pb2.RunEvent(table=site_pb2.RunEvent.Table(rows=self.rows))

    def ListLocalResults(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        return site_pb2.ListLocalResultsResponse(results=[self._result()])

    def GetLocalResult(self, request: Any, context: grpc.ServicerContext) -> Any:
        return site_pb2.GetLocalResultResponse(result=self._result(), bundle=self.bundle)

    def ListReviews(self, request: Any, context: grpc.ServicerContext) -> Any:
        return site_pb2.ListReviewsResponse(reviews=[self._review(1), self._review(2)])

    def GetReview(self, request: Any, context: grpc.ServicerContext) -> Any:
        return site_pb2.GetReviewResponse(review=self._review(request.id))

    def ApproveReview(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        sent = self._sent() if request.id == 2 else None
        return site_pb2.ApproveReviewResponse(sent=sent)

    def RefuseReview(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        return site_pb2.RefuseReviewResponse()

    def ListLocalExecutions(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        return site_pb2.ListLocalExecutionsResponse(executions=[self._execution()])

    def GetLocalExecution(self, request: Any, context: grpc.ServicerContext) -> Any:
        return site_pb2.GetLocalExecutionResponse(execution=self._execution())

    def CancelLocalExecution(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        return site_pb2.CancelLocalExecutionResponse()

    def _hang(self, context: grpc.ServicerContext) -> None:
        if self.hangs:
            if not context.add_callback(self.left_alone.set):
                self.left_alone.set()  # it has gone already
            self.left_alone.wait(30)

    def _check(self, context: grpc.ServicerContext) -> None:
        if self.problem:
            refuse(context, self.problem)

    def _draft(self, predicate: Any) -> WorkEvent:
        self.drafted = statement.build(predicate, {"dataset north/1": digest("a")})
        draft = WorkEvent.Draft(digest=statement.digest(self.drafted), statements=[self.drafted])
        return WorkEvent(draft=draft)

    def _sent(self) -> site_pb2.ReleaseResponse.Sent:
        receipt = ledger_pb2.Receipt(ledger_index=12, checkpoint=CHECKPOINT)
        return site_pb2.ReleaseResponse.Sent(
            envelope_digest=digest("9"),
            receipt=receipt if self.online else None,
            id="north/1",
            kind="DatasetRegistered",
        )

    def _dataset(self) -> site_pb2.LocalDataset:
        self.dataset.state = self.state
        return self.dataset

    def _result(self) -> site_pb2.LocalResult:
        result = site_pb2.LocalResult(
            name="b1m4d1", benchmark_id=1, model_id=4, dataset_id="north/1"
        )
        result.metrics.update({"auc": 0.987654321, "cases": 42, "interval": [0.9, 1]})
        result.submitted = self.bundle is not None
        return result

    def _review(self, number: int) -> site_pb2.Review:
        return site_pb2.Review(
            id=number,
            kind=site_pb2.REVIEW_KIND_RUN if number == 1 else site_pb2.REVIEW_KIND_RELEASE,
            benchmark_id=1,
            benchmark_name="tissue",
            model=pb.Pin(id=4, digest=digest("4")),
            model_name="late",
            statement=self.waiting,
            digest=digest("8"),
            execution_id=self.ordered,
        )

    def _execution(self) -> site_pb2.LocalExecution:
        return site_pb2.LocalExecution(
            id=5,
            benchmark_id=1,
            model_id=3,
            dataset_id="north/1",
            state=pb.EXECUTION_STATE_FAILED,
            reason="STEP_FAILED",
            log_tail="line one\nline two\n",
        )
