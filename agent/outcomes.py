"""Outcomes: each order ends by exactly one, its result or ExecutionEnded, released by the policy or
by a person. Taking orders in is left to `orders.py`, asking people to `reviews.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from agent.consent import Decision, PolicyFile, Question
from agent.execution import Executor, Recipe
from agent.journal import Journal
from agent.records import Execution, State
from agent.registry import Model
from agent.release import Item, Releases, by_policy
from agent.results import Results
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb

log = logging.getLogger(__name__)
ENDINGS = {
    State.FAILED: pb.EXECUTION_STATE_FAILED,
    State.REFUSED: pb.EXECUTION_STATE_REFUSED,
    State.CANCELLED: pb.EXECUTION_STATE_CANCELLED,
}


class Outcomes:
    def __init__(
        self,
        journal: Journal,
        policy: PolicyFile,
        executor: Executor,
        results: Results,
        releases: Releases,
    ) -> None:
        self._journal, self._policy, self._executor = journal, policy, executor
        self._results, self._releases = results, releases
        self.changed: Callable[[Execution], None] = lambda _: None

    def refuse(
        self, execution: Execution, reason: str, releaser: pb.Releaser, *, expected: State
    ) -> bool:
        """The site's no, with CONSENT_REFUSED or RELEASE_REFUSED. False when it is no longer in
        the state `expected`: it was decided, or cancelled, meanwhile."""
        refused = replace(execution, state=State.REFUSED, reason=reason)
        return self._end(refused, releaser, expected=expected)

    def ended(self, execution: Execution) -> None:
        """An ordered execution has its result, or has none."""
        if execution.state is not State.WAITING_RELEASE:
            self._end(execution, self._who_ended(execution))
            return
        try:
            decision = self.decide(execution)
        except Exception:  # a result is never lost to the policy: a person decides
            log.exception("policy failed", extra={"execution": execution.id})
            decision = Decision("ask", "ask", "default", "")
        if decision.release != "allow":
            self._ask(execution)
            return
        releaser = by_policy(decision.policy_digest, decision.rule)
        item = self._results.item(execution, execution.purpose, releaser, order=True)
        self._send(execution, item, State.SUCCEEDED)

    def _ask(self, execution: Execution) -> None:
        with self._journal.transaction():
            if self._journal.execution(execution.id).state is not State.WAITING_RELEASE:
                return  # cancelled, or released, meanwhile
            self._journal.add_review("RELEASE", execution.id)
        self.changed(execution)

    def decide(self, execution: Execution, recipe: Recipe | None = None) -> Decision:
        """What the policy says now."""
        policy = self._policy.current()
        if not policy.rules:
            return Decision("ask", "ask", "default", policy.digest)
        try:
            model = self._model(execution, recipe)
        except Refusal:
            return Decision("ask", "ask", "default", policy.digest)
        question = Question(
            execution.benchmark_id, model.owner, execution.model_digest, execution.purpose
        )
        return policy.decide(question, datetime.now(UTC))

    def _model(self, execution: Execution, recipe: Recipe | None) -> Model:
        if recipe is not None:
            return recipe.model
        return self._executor.recipe(
            execution.benchmark_id, execution.model_id, execution.dataset_id
        ).model

    def _end(self, execution: Execution, releaser: pb.Releaser, **found: State) -> bool:
        """False when the order has its outcome already, or something else came first."""
        order = self._journal.order(execution.execution_id)
        if order is None or order.outcome:
            return False
        said = pb.ExecutionEnded(
            execution_id=execution.execution_id,
            state=ENDINGS[execution.state],
            reason=execution.reason or execution.state,
            releaser=releaser,
        )
        subjects = {f"execution {execution.execution_id}": order.envelope_digest}
        item = Item(said, subjects, f"ended:{execution.execution_id}", execution.dataset_id)
        return self._send(execution, item, execution.state, **found)

    def _send(self, execution: Execution, item: Item, state: State, **found: State) -> bool:
        """5. False when something else came first."""
        try:
            effect = {"execution": execution.id, "state": state, "reason": execution.reason}
            self._releases.send(item, effect | found)
        except Refusal as refusal:
            if refusal.code not in ("ORDER_ENDED", "REVIEW_DECIDED"):
                raise
            return False
        return True

    def _who_ended(self, execution: Execution) -> pb.Releaser:
        """The person who cancelled it; else the policy releases the code of its end."""
        if execution.state is State.CANCELLED and execution.cancelled_by:
            return pb.Releaser.FromString(execution.cancelled_by)
        return self._by_rule("failures")

    def _by_rule(self, rule: str) -> pb.Releaser:
        return by_policy(self._policy.current().digest, rule)
