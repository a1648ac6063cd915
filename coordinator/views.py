"""Rows and entries as the messages that people read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.struct_pb2 import Struct

from coordinator.fleet import Fleet
from coordinator.ledger import predicate_of
from coordinator.models import (
    Association,
    Benchmark,
    Container,
    Dataset,
    Execution,
    JoinToken,
    LedgerEntry,
    Model,
    Participant,
    Result,
)
from coordinator.preparations import Preparation
from coordinator.store import Reader
from housecall.nesting import READABLE_LEVELS, levels_of
from housecall.times import stamp
from housecall.v1 import authority_pb2 as auth
from housecall.v1 import fleet_pb2
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb


def _shown(struct: Struct) -> Struct:
    """Nothing of what nests more deeply than a message can, as an earlier version took: the entry
    has it, and whatever else is in a list is shown."""
    return struct if levels_of(struct) <= READABLE_LEVELS else Struct()


def origin(entry: LedgerEntry) -> reg.Origin:
    return reg.Origin(
        ledger_index=entry.ledger_index,
        envelope_digest=entry.envelope_digest,
        owner=entry.signer,
        accepted_at=stamp(entry.accepted_at),
    )


def container(reader: Reader, row: Container) -> reg.Container:
    entry = reader.entry(row.ledger_index)
    return reg.Container(id=row.id, origin=origin(entry), statement=predicate_of(entry))


def benchmark(reader: Reader, row: Benchmark) -> reg.Benchmark:
    entry = reader.entry(row.ledger_index)
    said: pb.BenchmarkRegistered = predicate_of(entry)
    reference = reader.model(row.reference_model_id)
    return reg.Benchmark(
        id=row.id,
        origin=origin(entry),
        statement=said,
        policy=pb.BenchmarkPolicy.FromString(row.policy),
        pins=reg.Benchmark.ContainerPins(
            preparation=said.preparation,
            reference_model_container=pb.Pin(id=reference.container_id, digest=reference.digest),
            evaluator=said.evaluator,
        ),
    )


def model(reader: Reader, row: Model) -> reg.Model:
    entry = reader.entry(row.ledger_index)
    return reg.Model(id=row.id, origin=origin(entry), statement=predicate_of(entry))


def dataset(reader: Reader, row: Dataset, preparation: Preparation | None) -> reg.Dataset:
    entry = reader.entry(row.ledger_index)
    message = preparing(row, preparation)
    message.origin.CopyFrom(origin(entry))
    message.statement.CopyFrom(predicate_of(entry))
    message.prepared_fingerprint = row.prepared_fingerprint or ""
    if row.operational_index is not None:
        said: pb.DatasetOperational = predicate_of(reader.entry(row.operational_index))
        message.statistics.CopyFrom(_shown(said.statistics))
    return message


def preparing(row: Dataset, said: Preparation | None) -> reg.Dataset:
    """How far a dataset is, without what it is."""
    message = reg.Dataset(id=row.id, state=reg.DatasetState.ValueType(row.state))
    if said is not None:
        message.preparing_at.CopyFrom(stamp(said.at))
        message.preparing.CopyFrom(
            fleet_pb2.Preparing(
                dataset_id=row.id,
                state=said.state,
                step=said.step,
                benchmark_id=said.benchmark_id,
                shares=said.shares,
            )
        )
    return message


def association(reader: Reader, row: Association) -> reg.Association:
    events = reader.events(row.id)
    test = reader.result_by_digest(row.test_digest) if row.test_digest else None
    message = reg.Association(
        id=row.id,
        origin=origin(reader.entry(row.ledger_index)),
        benchmark_id=row.benchmark_id,
        dataset_id=row.dataset_id,
        model_id=row.model_id,
        state=reg.AssociationState.ValueType(row.state),
        test_digest=row.test_digest,
        approvals=list(reader.votes(row.id).values()).count("approve"),
        votes_needed=reader.benchmark(row.benchmark_id).votes_needed,
        history=[
            reg.Association.Event(
                ledger_index=event.ledger_index,
                at=stamp(event.at),
                actor=event.actor,
                what=event.what,
                reason=event.reason,
            )
            for event in events
        ],
    )
    if test and _is_test_of(row, test, reader.benchmark(row.benchmark_id)):
        said: pb.ResultSubmitted = predicate_of(reader.entry(test.ledger_index))
        message.test_metrics.CopyFrom(_shown(said.metrics))
    return message


def _is_test_of(row: Association, test: Result, benchmark: Benchmark) -> bool:
    """An earlier version took a model's request whatever result it cited; who sees the request
    need not see that one."""
    dataset_id = row.dataset_id or test.dataset_id
    expected = (benchmark.id, dataset_id, row.model_id or benchmark.reference_model_id)
    got = (test.benchmark_id, test.dataset_id, test.model_id)
    return got == expected and test.purpose == pb.PURPOSE_TEST


def result(reader: Reader, row: Result) -> reg.Result:
    entry = reader.entry(row.ledger_index)
    said: pb.ResultSubmitted = predicate_of(entry)
    if levels_of(said.metrics) > READABLE_LEVELS:
        said.ClearField("metrics")
    return reg.Result(
        id=row.id,
        name=row.name,
        origin=origin(entry),
        superseded_by=row.superseded_by,
        statement=said,
    )


def progress(row: Execution, fleet: Fleet) -> tuple[pb.ExecutionState.ValueType, str, datetime]:
    """(state, step, since when): of one that is open, as its site last said."""
    state = pb.ExecutionState.ValueType(row.state)
    doing = fleet.progress_of(row.id)
    if doing and state == pb.EXECUTION_STATE_ORDERED:
        return doing.state, doing.step, doing.at
    return state, "", row.updated_at


def execution(reader: Reader, row: Execution, fleet: Fleet) -> reg.Execution:
    state, step, updated_at = progress(row, fleet)
    return reg.Execution(
        id=row.id,
        origin=origin(reader.entry(row.ledger_index)),
        benchmark_id=row.benchmark_id,
        dataset_id=row.dataset_id,
        model=pb.Pin(id=row.model_id, digest=row.model_digest),
        purpose=pb.Purpose.ValueType(row.purpose),
        state=state,
        step=step,
        reason=row.reason,
        updated_at=stamp(updated_at),
    )


def site(row: Participant, fleet: Fleet) -> reg.Site:
    standing = fleet.standing(row.name)
    times: dict[str, Any] = {
        field: stamp(value)
        for field in ("connected_at", "heard_at")
        if (value := getattr(standing, field)) is not None
    }
    return reg.Site(
        name=row.name,
        connected=standing.connected,
        agent_version=standing.agent_version,
        gpus=standing.gpus,
        running=standing.running,
        waiting=standing.waiting,
        clock_skew_seconds=standing.clock_skew_seconds,
        **times,
    )


def token(row: JoinToken, state: auth.TokenState.ValueType) -> auth.Token:
    return auth.Token(
        token_id=row.token_id,
        name=row.name,
        role=pb.Role.ValueType(row.role),
        state=state,
        expires_at=stamp(row.expires_at),
    )
