"""When are a benchmark's registration and its policy's changes acceptable."""

from __future__ import annotations

import json

from jsonschema import Draft202012Validator, SchemaError

from coordinator.caller import CallerRole
from coordinator.models import Benchmark, CommitteeMember, Dataset
from coordinator.rules.fact import (
    Effect,
    Fact,
    conflict,
    invalid,
    limit_text,
    not_entitled,
    require_role,
    require_text,
)
from coordinator.rules.models import check_pin
from coordinator.store import Writer
from housecall.identity import split_id
from housecall.v1 import statements_pb2 as pb

MOST_SCHEMA = 32 * 1024


def check(said: pb.BenchmarkRegistered) -> None:
    """Its schemas are some."""
    _check_schema("statistics_schema", said.statistics_schema)
    _check_schema("metrics_schema", said.metrics_schema)


def registered(writer: Writer, said: pb.BenchmarkRegistered, fact: Fact) -> Effect:
    require_role(fact, CallerRole.PERSON, CallerRole.OPERATOR)
    require_text(said, ["name"])
    limit_text(said, ["description"])
    if existing := writer.benchmark_named(said.name):
        raise conflict("BENCHMARK_EXISTS", f"benchmark {existing.id} is called {said.name} already")
    _check_containers(writer, said)
    committee = _check_committee(writer, said, fact)
    _check_policy(writer, said.policy)
    number = writer.next_id(Benchmark)
    writer.add(
        Benchmark(
            id=number,
            ledger_index=fact.index,
            envelope_digest=fact.statement.envelope_digest,
            owner=fact.caller.name,
            name=said.name,
            preparation_digest=said.preparation.digest,
            reference_model_id=said.reference_model.id,
            evaluator_digest=said.evaluator.digest,
            votes_needed=said.votes_needed,
            allow_partial_results=said.allow_partial_results,
            policy=said.policy.SerializeToString(),
        ),
        *(CommitteeMember(benchmark_id=number, name=name) for name in sorted(committee)),
    )
    return Effect(str(number))


def policy_changed(writer: Writer, said: pb.BenchmarkPolicyChanged, fact: Fact) -> Effect:
    benchmark = writer.benchmark(said.benchmark_id)
    if fact.caller.name not in writer.committee(benchmark.id):
        raise not_entitled(fact, f"expected a committee member of benchmark {benchmark.id}")
    _check_policy(writer, said.policy)
    if benchmark.votes_needed > 1 and _approves_more(said.policy):
        raise not_entitled(
            fact,
            f"benchmark {benchmark.id} needs {benchmark.votes_needed} votes: one member cannot let "
            "a policy approve in their place",
        )
    benchmark.policy = said.policy.SerializeToString()
    writer.add(benchmark)
    return Effect(str(benchmark.id))


def _approves_more(policy: pb.BenchmarkPolicy) -> bool:
    """Whether anything would be approved without a vote."""
    never = pb.APPROVAL_MODE_NEVER
    return (policy.datasets.mode, policy.models.mode) != (never, never)


def _check_containers(writer: Writer, said: pb.BenchmarkRegistered) -> None:
    for pin, role, what in (
        (said.preparation, pb.CONTAINER_ROLE_PREPARATION, "preparation"),
        (said.evaluator, pb.CONTAINER_ROLE_EVALUATOR, "evaluator"),
    ):
        container = writer.container(pin.id)
        if container.role != role:
            raise invalid(
                "CONTAINER_ROLE",
                f"container {container.id} ({container.name}): expected one with role {what}",
            )
        check_pin(pin, container.id, container.digest, what)
    model = writer.model(said.reference_model.id)
    check_pin(said.reference_model, model.id, model.digest, "reference model")


def _check_schema(field: str, text: str) -> None:
    if not text:
        return
    if len(text) > MOST_SCHEMA:
        raise invalid("SCHEMA_INVALID", f"{field}: expected at most {MOST_SCHEMA} characters")
    try:
        Draft202012Validator.check_schema(json.loads(text))
    except (ValueError, SchemaError, RecursionError) as error:
        raise invalid(
            "SCHEMA_INVALID",
            f"{field}: expected a JSON Schema 2020-12, got one with a mistake: "
            f"{str(error).splitlines()[0]}",
        ) from error


def _check_committee(writer: Writer, said: pb.BenchmarkRegistered, fact: Fact) -> set[str]:
    committee = set(said.committee)
    if fact.caller.name not in committee:
        raise invalid(
            "COMMITTEE_INVALID", f"expected {fact.caller.name}, who registers it, in the committee"
        )
    for name in committee:
        if split_id(name)[1] != "person":
            raise invalid("COMMITTEE_INVALID", f"{name}: expected a person")
        if writer.participant(name).revoked_index is not None:
            raise invalid("COMMITTEE_INVALID", f"{name} is revoked")
    if not 1 <= said.votes_needed <= len(committee):
        raise invalid(
            "COMMITTEE_INVALID",
            f"votes_needed: expected 1 to {len(committee)} (the committee), got "
            f"{said.votes_needed}",
        )
    return committee


def _check_policy(writer: Writer, policy: pb.BenchmarkPolicy) -> None:
    for field in ("datasets", "models"):
        if getattr(policy, field).mode == pb.APPROVAL_MODE_UNSPECIFIED:
            raise invalid("POLICY_INVALID", f"policy.{field}: expected never, always or allowlist")
    if policy.reference_dataset_id:
        writer.get(Dataset, policy.reference_dataset_id, "dataset")
