"""The rules, one a kind of statement: when is it acceptable, and which rows follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coordinator.rules import (
    associations,
    benchmarks,
    containers,
    datasets,
    executions,
    models,
    participants,
    results,
)
from coordinator.rules.fact import Effect, Fact, Rule
from housecall.statement import Statement

RULES: Mapping[str, Rule] = {
    "JoinTokenIssued": participants.token_issued,
    "JoinTokenRevoked": participants.token_revoked,
    "ParticipantEnrolled": participants.enrolled,
    "ParticipantRevoked": participants.revoked,
    "ContainerRegistered": containers.registered,
    "BenchmarkRegistered": benchmarks.registered,
    "BenchmarkPolicyChanged": benchmarks.policy_changed,
    "ModelRegistered": models.registered,
    "DatasetRegistered": datasets.registered,
    "DatasetOperational": datasets.operational,
    "AssociationRequested": associations.requested,
    "AssociationDecided": associations.decided,
    "AssociationWithdrawn": associations.withdrawn,
    "ExecutionRequested": executions.requested,
    "ExecutionCancelled": executions.cancelled,
    "ExecutionEnded": executions.ended,
    "ResultSubmitted": results.submitted,
}

CHECKS: Mapping[str, Callable[[Any], None]] = {
    "ContainerRegistered": containers.check,
    "BenchmarkRegistered": benchmarks.check,
}
"""What a rule leaves out: it asks nothing but the statement, and takes long."""


def check(opened: Statement) -> None:
    """Before the rule, and before there is a transaction. Raises Refusal."""
    if asked := CHECKS.get(opened.kind):
        asked(opened.predicate)


__all__ = ["RULES", "Effect", "Fact", "Rule", "check"]
