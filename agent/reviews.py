"""The review queue: what waits for a person of the site, and what follows from yes and no."""

from __future__ import annotations

from dataclasses import dataclass

from agent.journal import Journal
from agent.orders import Orders
from agent.outcomes import Outcomes
from agent.records import Execution, Order, Outgoing, Review, State
from agent.release import Releases, digest_of, local_user
from agent.results import Results
from agent.runs import Runs
from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.v1 import ledger_pb2


@dataclass(frozen=True)
class Shown:
    """A review as one user sees it: what would run, or exactly what would leave."""

    review: Review
    execution: Execution
    order: Order
    statement: bytes
    digest: str


class Reviews:
    def __init__(
        self,
        journal: Journal,
        orders: Orders,
        outcomes: Outcomes,
        runs: Runs,
        results: Results,
        releases: Releases,
    ) -> None:
        self._journal, self._orders, self._outcomes, self._runs = journal, orders, outcomes, runs
        self._results, self._releases = results, releases

    def all(self, uid: int) -> list[Shown]:
        return [self._shown(review, uid) for review in self._journal.reviews()]

    def get(self, number: int, uid: int) -> Shown:
        return self._shown(self._journal.review(number), uid)

    def approve(self, number: int, digest: str, uid: int) -> Outgoing | None:
        """Yes to exactly what was shown: run it, or release it."""
        shown = self.get(number, uid)
        if digest != shown.digest:
            raise _differs(number, shown.digest, digest)
        if shown.review.kind == "RELEASE":
            draft = self._draft(shown.execution, uid)
            if draft != digest:
                raise _differs(number, draft, digest)
            return self._releases.release(draft, uid)[0]
        recipe = self._orders.recipe(shown.execution)
        if not self._runs.start_ordered(shown.execution.id, recipe):
            raise _decided(number)
        return None

    def refuse(self, number: int, uid: int) -> Outgoing | None:
        """No: the order ends REFUSED, by this user."""
        shown = self.get(number, uid)
        reason, expected = "CONSENT_REFUSED", State.WAITING_CONSENT
        if shown.review.kind == "RELEASE":
            reason, expected = "RELEASE_REFUSED", State.WAITING_RELEASE
        user = local_user(uid)
        if not self._outcomes.refuse(shown.execution, reason, user, expected=expected):
            raise _decided(number)
        order = self._journal.order(shown.execution.execution_id)
        if order is None:
            return None
        sent = self._releases.wait_for([order.outcome])
        return sent[0] if sent else None

    def _draft(self, execution: Execution, uid: int) -> str:
        item = self._results.item(execution, execution.purpose, local_user(uid), order=True)
        effect = {"execution": execution.id, "state": State.SUCCEEDED}
        return self._releases.draft(uid, [item], effect).digest

    def _shown(self, review: Review, uid: int) -> Shown:
        execution = self._journal.execution(review.local_id)
        order = self._journal.order(execution.execution_id)
        assert order is not None, "only orders are reviewed"
        if review.kind == "RUN":
            bundle = ledger_pb2.Bundle.FromString(order.bundle)
            payload = statement.unverified(bundle.statement.envelope).payload
        else:
            item = self._results.item(execution, execution.purpose, local_user(uid), order=True)
            payload = statement.build(item.predicate, item.subjects)
        return Shown(review, execution, order, payload, digest_of([payload]))


def _decided(number: int) -> Refusal:
    return Refusal(
        Kind.CONFLICT,
        "REVIEW_DECIDED",
        f"review {number}: somebody else decided it just now",
    )


def _differs(number: int, shown: str, approved: str) -> Refusal:
    return Refusal(
        Kind.CONFLICT,
        "REVIEW_DIGEST_DIFFERS",
        f"review {number}: expected the digest that is shown now, {shown}, got "
        f"{approved}; look at it again and approve what it shows",
    )
