"""When may a dataset or a model ask to take part, and who decides."""

from __future__ import annotations

from coordinator.caller import CallerRole
from coordinator.lifecycle import association_word, check_association_move, votes_outcome
from coordinator.models import Association, AssociationEvent, Benchmark, Dataset, Model, Result
from coordinator.rules.datasets import own_dataset, require_releaser
from coordinator.rules.fact import (
    Effect,
    Fact,
    conflict,
    invalid,
    not_entitled,
    not_ready,
    require_role,
    require_text,
)
from coordinator.store import Writer
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb

DECISIONS = {"approve": pb.DECISION_APPROVE, "reject": pb.DECISION_REJECT}


def requested(writer: Writer, said: pb.AssociationRequested, fact: Fact) -> Effect:
    """A dataset cites the reference model's test on it; a model its test on the reference dataset,
    where the benchmark's policy names one, and otherwise any test of its own, or none."""
    benchmark = writer.benchmark(said.benchmark_id)
    policy = pb.BenchmarkPolicy.FromString(benchmark.policy)
    if said.WhichOneof("target") == "dataset_id":
        require_releaser(said)
        _check_dataset(writer, said, benchmark, own_dataset(writer, said.dataset_id, fact))
        target, approval = f"dataset {said.dataset_id}", policy.datasets
    else:
        _check_model(writer, said, benchmark, policy, fact)
        target, approval = f"model {said.model_id}", policy.models
    if live := writer.live_association(benchmark.id, said.dataset_id, said.model_id):
        raise conflict(
            "ASSOCIATION_EXISTS",
            f"{target} and benchmark {benchmark.id}: association {live.id} is "
            f"{association_word(live.state)} already",
        )
    return _record(writer, said, fact, _approved_by_policy(writer, benchmark, approval, fact))


def _check_dataset(
    writer: Writer, said: pb.AssociationRequested, benchmark: Benchmark, dataset: Dataset
) -> None:
    if dataset.state != reg.DATASET_STATE_OPERATIONAL:
        raise not_ready(
            "DATASET_NOT_OPERATIONAL",
            f"dataset {dataset.id}: expected it operational; run `housecall dataset "
            f"set-operational {dataset.id}` first",
        )
    if dataset.preparation_digest != benchmark.preparation_digest:
        raise invalid(
            "PREPARATION_DIFFERS",
            f"dataset {dataset.id} was prepared by container {dataset.preparation_digest}, "
            f"benchmark {benchmark.id} expects {benchmark.preparation_digest}: register and "
            "prepare it for this benchmark",
        )
    _check_test(writer, said, benchmark, dataset.id, benchmark.reference_model_id)


def _check_model(
    writer: Writer,
    said: pb.AssociationRequested,
    benchmark: Benchmark,
    policy: pb.BenchmarkPolicy,
    fact: Fact,
) -> None:
    require_role(fact, CallerRole.PERSON, CallerRole.OPERATOR)
    model: Model = writer.model(said.model_id)
    if model.owner != fact.caller.name:
        raise not_entitled(fact, f"model {model.id} is {model.owner}'s")
    if model.id == benchmark.reference_model_id:
        raise conflict(
            "ASSOCIATION_EXISTS",
            f"model {model.id} is the reference model of benchmark {benchmark.id} already",
        )
    if policy.reference_dataset_id:
        _check_test(writer, said, benchmark, policy.reference_dataset_id, model.id)
    elif fact.is_new and said.test_digest:  # an earlier version did not look at it
        _check_test(writer, said, benchmark, "", model.id)


def _check_test(
    writer: Writer,
    said: pb.AssociationRequested,
    benchmark: Benchmark,
    dataset_id: str,
    model_id: int,
) -> None:
    """`dataset_id` is empty where the test may be on any."""
    test: Result | None = writer.result_by_digest(said.test_digest) if said.test_digest else None
    if test is None:
        where = f"dataset {dataset_id}" if dataset_id else "any dataset"
        raise invalid(
            "TEST_MISSING",
            f"expected the digest of an accepted test of model {model_id} on {where} in benchmark "
            f"{benchmark.id}, got {said.test_digest or 'none'}",
        )
    got = (test.benchmark_id, test.dataset_id, test.model_id, test.purpose)
    expected = (benchmark.id, dataset_id or test.dataset_id, model_id, pb.PURPOSE_TEST)
    if got != expected:
        raise invalid(
            "TEST_DIFFERS",
            f"the cited test is of benchmark, dataset, model {got[:3]}, expected {expected[:3]} "
            "with purpose test",
        )


def _approved_by_policy(
    writer: Writer, benchmark: Benchmark, approval: pb.AutoApproval, fact: Fact
) -> bool:
    if approval.mode == pb.APPROVAL_MODE_ALWAYS:
        return True
    if approval.mode == pb.APPROVAL_MODE_ALLOWLIST:
        return fact.caller.name in {*approval.allowlist, *writer.committee(benchmark.id)}
    return False


def _record(writer: Writer, said: pb.AssociationRequested, fact: Fact, by_policy: bool) -> Effect:
    number = writer.next_id(Association)
    state = reg.ASSOCIATION_STATE_APPROVED if by_policy else reg.ASSOCIATION_STATE_REQUESTED
    association = Association(
        id=number,
        ledger_index=fact.index,
        benchmark_id=said.benchmark_id,
        dataset_id=said.dataset_id,
        model_id=said.model_id,
        requester=fact.caller.name,
        state=state,
        test_digest=said.test_digest,
    )
    writer.add(association)
    _tell(writer, association, fact, "requested")
    if by_policy:
        _tell(writer, association, fact, "approved by policy")
    return _effect(association)


def decided(writer: Writer, said: pb.AssociationDecided, fact: Fact) -> Effect:
    """A vote of a committee member who did not ask for it."""
    association = writer.association(said.association_id)
    benchmark = writer.benchmark(association.benchmark_id)
    if fact.caller.name not in writer.committee(benchmark.id):
        raise not_entitled(fact, f"expected a committee member of benchmark {benchmark.id}")
    if fact.caller.name == association.requester:
        raise not_entitled(fact, "the requester cannot decide on the own request")
    require_text(said, ["reason"])
    if said.decision not in (pb.DECISION_APPROVE, pb.DECISION_REJECT):
        raise invalid("DECISION_INVALID", "decision: expected approve or reject")
    word = "approve" if said.decision == pb.DECISION_APPROVE else "reject"
    votes = _votes(writer, association)
    if votes.get(fact.caller.name) == said.decision:
        raise conflict("VOTE_EXISTS", f"{fact.caller.name} voted {word} already")
    votes[fact.caller.name] = said.decision
    outcome = votes_outcome(votes, benchmark.votes_needed)
    if outcome == association.state or outcome == reg.ASSOCIATION_STATE_REQUESTED:
        check_association_move(association.id, association.state, reg.ASSOCIATION_STATE_REJECTED)
    else:
        check_association_move(association.id, association.state, outcome)
        association.state = outcome
    writer.add(association)
    _tell(writer, association, fact, word, said.reason)
    return _effect(association)


def withdrawn(writer: Writer, said: pb.AssociationWithdrawn, fact: Fact) -> Effect:
    """By whoever asked for it."""
    association = writer.association(said.association_id)
    if fact.caller.name != association.requester:
        raise not_entitled(fact, f"association {association.id} was {association.requester}'s")
    if fact.caller.role is CallerRole.SITE:
        require_releaser(said)
    withdrawn_state = reg.ASSOCIATION_STATE_WITHDRAWN
    check_association_move(association.id, association.state, withdrawn_state)
    association.state = withdrawn_state
    writer.add(association)
    _tell(writer, association, fact, "withdrawn", said.reason)
    return _effect(association)


def _votes(writer: Writer, association: Association) -> dict[str, int]:
    """Each member's latest decision on this association; those who were revoked have none."""
    return {name: DECISIONS[word] for name, word in writer.votes(association.id).items()}


def _tell(
    writer: Writer, association: Association, fact: Fact, what: str, reason: str = ""
) -> None:
    writer.add(
        AssociationEvent(
            association_id=association.id,
            number=len(writer.events(association.id)) + 1,
            ledger_index=fact.index,
            at=fact.at,
            actor=fact.caller.name,
            what=what,
            reason=reason,
        )
    )


def _effect(association: Association) -> Effect:
    concerned = {association.requester} if "/site/" in association.requester else set()
    return Effect(str(association.id), frozenset(concerned))
