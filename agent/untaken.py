"""Orders that were not taken, since their signer enrolled anew: they wait for a person of the site.

Kept in memory alone: the coordinator tells every open order again after each Hello.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.journal import Journal
from agent.records import Execution
from agent.registry import require_same_person
from housecall.errors import Refusal
from housecall.verify import Verified


@dataclass(frozen=True)
class UntakenOrder:
    """`since` is in seconds since the epoch, `trusted` what the site trusted of the signer then."""

    execution: Execution
    signer: str
    enrolment_digest: str
    trusted: list[str]
    since: float


class Untaken:
    """The link's thread adds and takes away; others look."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._orders: dict[int, UntakenOrder] = {}

    def orders(self) -> list[UntakenOrder]:
        return list(self._orders.values())

    def require_trusted(self, verified: Verified, execution: Execution) -> None:
        """Raises SIGNER_CHANGED, and remembers the order."""
        number, signer = execution.execution_id, verified.signer
        trusted = self._journal.trusted(signer)  # trust may be given at any moment
        try:
            require_same_person(self._journal, verified)
        except Refusal:
            before = self._orders.get(number)
            since = before.since if before else self._journal.now()
            digest = verified.enrolment_digest
            self._orders[number] = UntakenOrder(execution, signer, digest, trusted, since)
            raise
        self.forget(number)

    def forget(self, execution_id: int) -> None:
        self._orders.pop(execution_id, None)

    def keep(self, execution_ids: set[int]) -> None:
        """The others are open no more."""
        for number in set(self._orders) - execution_ids:
            self.forget(number)

    def trusted_anew(self) -> bool:
        """Whether a person has trusted a signer since; the order comes again with a new Welcome."""
        anew = [
            each.execution.execution_id
            for each in self.orders()
            if self._journal.trusted(each.signer) != each.trusted
        ]
        for number in anew:
            self.forget(number)
        return bool(anew)
