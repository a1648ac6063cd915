"""From the agent's own words to the messages of the local API; nothing is decided here."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from agent import events
from agent.catalog import Catalog, Dataset
from agent.disclosure import Disclosure
from agent.journal import Journal
from agent.records import Execution, Outgoing
from agent.results import LocalResult
from agent.reviews import Shown
from housecall.v1 import ledger_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb


def timestamp(seconds: float) -> Timestamp | None:
    """None for a time that is not known."""
    if not seconds:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return stamp


def steps_of(journal: Journal, owner: str) -> list[pb.StepRecord]:
    return [pb.StepRecord.FromString(kept.record) for kept in journal.steps(owner)]


class Messages:
    """Makes messages of what the catalog and the journal hold."""

    def __init__(
        self, catalog: Catalog, journal: Journal, disclosure: Disclosure, executions: Path
    ) -> None:
        self._catalog, self._journal, self._executions = catalog, journal, executions
        self._disclosure = disclosure

    def event(self, event: events.Event) -> site_pb2.WorkEvent:
        if isinstance(event, events.Amount):
            return site_pb2.WorkEvent(
                amount=site_pb2.WorkEvent.Amount(
                    label=event.label, done=event.done, total=event.total, unit=event.unit
                )
            )
        if isinstance(event, events.StepChange):
            return site_pb2.WorkEvent(
                step=site_pb2.WorkEvent.StepChange(
                    step=event.step,
                    state=pb.StepState.Value(f"STEP_STATE_{event.state}"),
                    seconds=event.seconds,
                    exit_code=event.exit_code,
                    code=event.code,
                    text=event.text,
                )
            )
        if isinstance(event, events.LogLine):
            line = site_pb2.WorkEvent.LogLine(step=event.step, text=event.text)
            return site_pb2.WorkEvent(log=line)
        if isinstance(event, events.Drafted):
            draft = site_pb2.WorkEvent.Draft(digest=event.digest, statements=event.statements)
            return site_pb2.WorkEvent(draft=draft)
        done = site_pb2.WorkEvent.Done(text=event.text)
        if event.dataset:
            done.dataset.CopyFrom(self.dataset(self._catalog.get(str(event.dataset))))
        return site_pb2.WorkEvent(done=done)

    def dataset(self, dataset: Dataset) -> site_pb2.LocalDataset:
        registered = self._journal.outgoing(dataset.envelope_digest)
        folder = self._catalog.folder(dataset.number) / "prepared"
        prepared = dataset.data_path if dataset.already_prepared else str(folder)
        message = site_pb2.LocalDataset(
            id=dataset.id,
            name=dataset.name,
            description=dataset.description,
            location=dataset.location,
            state=site_pb2.LocalDatasetState.Value(f"LOCAL_DATASET_STATE_{dataset.state}"),
            accepted=registered is not None and registered.state == "accepted",
            preparation=pb.Pin(id=dataset.preparation_id, digest=dataset.preparation_digest),
            raw_fingerprint=dataset.raw_fingerprint,
            prepared_fingerprint=dataset.prepared_fingerprint,
            already_prepared=dataset.already_prepared,
            data_path=dataset.data_path,
            labels_path=dataset.labels_path,
            prepared_path=prepared,
            cases=dataset.cases,
            steps=steps_of(self._journal, f"dataset:{dataset.number}"),
            problem=dataset.problem,
            reported=self._disclosure.of(dataset.id),
        )
        json_format.ParseDict(dict(dataset.statistics), message.statistics)
        return message

    def execution(self, execution: Execution, log_tail: str = "") -> site_pb2.LocalExecution:
        return site_pb2.LocalExecution(
            id=execution.id,
            execution_id=execution.execution_id,
            benchmark_id=execution.benchmark_id,
            model_id=execution.model_id,
            dataset_id=execution.dataset_id,
            state=pb.ExecutionState.Value(f"EXECUTION_STATE_{execution.state}"),
            step=execution.step,
            reason=execution.reason,
            problem=execution.problem,
            created_at=timestamp(execution.created_at),
            updated_at=timestamp(execution.updated_at),
            steps=steps_of(self._journal, f"execution:{execution.source_id}"),
            log_tail=log_tail,
        )

    def result(self, result: LocalResult) -> site_pb2.LocalResult:
        execution = result.execution
        said = pb.ResultSubmitted.FromString(execution.result)
        folder = self._executions / str(execution.source_id)
        message = site_pb2.LocalResult(
            name=result.name,
            benchmark_id=execution.benchmark_id,
            model_id=execution.model_id,
            dataset_id=execution.dataset_id,
            metrics=said.metrics,
            partial=said.partial,
            finished_at=timestamp(execution.finished_at),
            steps=said.steps,
            local_execution_id=execution.id,
            predictions_path=str(folder / "predictions"),
            local_outputs_path=str(folder / "local_outputs"),
        )
        if result.sent is not None and result.sent.state == "accepted":
            message.submitted = result.released
            message.ledger_index = receipt_of(result.sent).ledger_index
        return message

    def review(self, shown: Shown, benchmark: str, model: str, owner: str) -> site_pb2.Review:
        execution = shown.execution
        return site_pb2.Review(
            id=shown.review.id,
            kind=site_pb2.ReviewKind.Value(f"REVIEW_KIND_{shown.review.kind}"),
            execution_id=execution.execution_id,
            benchmark_id=execution.benchmark_id,
            benchmark_name=benchmark,
            dataset_id=execution.dataset_id,
            model=pb.Pin(id=execution.model_id, digest=execution.model_digest),
            model_name=model,
            model_owner=owner,
            requested_by=shown.order.requested_by,
            since=timestamp(shown.review.since),
            statement=shown.statement,
            digest=shown.digest,
        )


def sent(entry: Outgoing) -> site_pb2.ReleaseResponse.Sent:
    local = entry.lane if entry.about.startswith("dataset:") else ""  # known without a receipt
    message = site_pb2.ReleaseResponse.Sent(
        envelope_digest=entry.envelope_digest, id=entry.id or local, kind=entry.kind
    )
    if entry.state == "accepted":
        message.receipt.CopyFrom(receipt_of(entry))
    return message


def receipt_of(entry: Outgoing) -> ledger_pb2.Receipt:
    return ledger_pb2.Receipt.FromString(entry.receipt)
