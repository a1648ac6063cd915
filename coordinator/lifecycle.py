"""States and lawful moves, pure: what may follow what, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from housecall.errors import Kind, Refusal
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb

_REQUESTED = reg.ASSOCIATION_STATE_REQUESTED
_APPROVED = reg.ASSOCIATION_STATE_APPROVED
_REJECTED = reg.ASSOCIATION_STATE_REJECTED
_WITHDRAWN = reg.ASSOCIATION_STATE_WITHDRAWN

ASSOCIATION_MOVES: Mapping[int, frozenset[int]] = {
    # An approved association may be rejected later: that revokes it. Rejected and withdrawn are
    # final; a new request makes a new association.
    _REQUESTED: frozenset({_APPROVED, _REJECTED, _WITHDRAWN}),
    _APPROVED: frozenset({_REJECTED, _WITHDRAWN}),
    _REJECTED: frozenset(),
    _WITHDRAWN: frozenset(),
}

LIVE_ASSOCIATIONS = (_REQUESTED, _APPROVED)

ENDED_EXECUTIONS = (
    pb.EXECUTION_STATE_SUCCEEDED,
    pb.EXECUTION_STATE_FAILED,
    pb.EXECUTION_STATE_REFUSED,
    pb.EXECUTION_STATE_CANCELLED,
)
"""States an execution never leaves; every other may move to any of them."""

SITE_ENDINGS = (
    pb.EXECUTION_STATE_FAILED,
    pb.EXECUTION_STATE_REFUSED,
    pb.EXECUTION_STATE_CANCELLED,
)
"""What a site may state with ExecutionEnded."""


def association_word(state: int) -> str:
    return reg.AssociationState.Name(reg.AssociationState.ValueType(state))[18:].lower()


def check_association_move(association_id: int, state: int, to: int) -> None:
    """Refuses a move that the table lacks."""
    if to not in ASSOCIATION_MOVES[state]:
        raise Refusal(
            Kind.CONFLICT,
            "ASSOCIATION_STATE",
            f"association {association_id} is {association_word(state)}: it cannot become "
            f"{association_word(to)}; `housecall association show {association_id}` tells why",
        )


def votes_outcome(decisions: Mapping[str, int], votes_needed: int) -> int:
    """The state that the members' latest decisions amount to: one rejection rejects, `votes_needed`
    approvals approve, anything less leaves it requested."""
    if pb.DECISION_REJECT in decisions.values():
        return _REJECTED
    approvals = sum(1 for decision in decisions.values() if decision == pb.DECISION_APPROVE)
    return _APPROVED if approvals >= votes_needed else _REQUESTED
