"""Orders: checked, written down, consented to, and each ended by exactly one outcome.

1. The order's bundle holds, is an ExecutionRequested, and has the line; the dataset is ours.
2. It is journalled; only then may the link acknowledge it.
3. Whoever signed it may: a member of the committee, or for a test the model's owner.
4. The policy says yes, no, or ask; asked, it waits for a person (`reviews.py`).
5. It ends with its result, released by the policy or a person, or with ExecutionEnded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from agent.consent import Decision
from agent.execution import Executor, Recipe
from agent.identity import Uplink
from agent.journal import Journal
from agent.lacks import PASSING
from agent.outcomes import Outcomes
from agent.records import ENDED, Execution, Order, State
from agent.release import by_policy
from agent.runs import RETRY_S, Runs
from agent.untaken import Untaken
from agent.worker import Job, Worker
from housecall.errors import Kind, Refusal
from housecall.tracing import of_order
from housecall.v1 import ledger_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.verify import verify_bundle

log = logging.getLogger(__name__)
ENDED_THERE = "ended there"
"""The outcome of an order that the coordinator cancelled: nothing is sent for it."""
PURPOSE_NAMES = {pb.PURPOSE_BENCHMARK: "BENCHMARK", pb.PURPOSE_TEST: "TEST"}


class Orders:
    def __init__(
        self,
        journal: Journal,
        uplink: Uplink,
        executor: Executor,
        runs: Runs,
        outcomes: Outcomes,
        worker: Worker,
    ) -> None:
        self._journal, self._uplink, self._executor = journal, uplink, executor
        self._runs, self.outcomes, self._worker = runs, outcomes, worker
        self.untaken = Untaken(journal)
        self.received: Callable[[Execution, float], None] = lambda _execution, _began: None

    def receive(self, execution_id: int, bundle: ledger_pb2.Bundle, line: int) -> None:
        """Check it and write it down, or refuse; knows it when it comes again."""
        began = time.time()
        verified = verify_bundle(bundle, self._uplink.identity.verifier_key)  # 1
        said = verified.statement.predicate
        if not isinstance(said, pb.ExecutionRequested) or line >= len(said.executions):
            raise _invalid(execution_id, f"an ExecutionRequested with a line {line}")
        asked = said.executions[line]
        if asked.dataset_id.partition("/")[0] != self._uplink.identity.short_name:
            raise _invalid(execution_id, "a dataset of this site", asked.dataset_id)
        if said.purpose not in PURPOSE_NAMES:
            raise _invalid(execution_id, "purpose benchmark or test")
        order = Order(
            execution_id,
            bundle.SerializeToString(),
            line,
            verified.statement.envelope_digest,
            verified.signer,
        )
        execution = Execution(
            benchmark_id=said.benchmark_id,
            model_id=asked.model.id,
            model_digest=asked.model.digest,
            dataset_id=asked.dataset_id,
            purpose=PURPOSE_NAMES[said.purpose],
            execution_id=execution_id,
            state=State.ORDERED,
        )
        self.untaken.require_trusted(verified, execution)
        kept = self._journal.add_order(order, execution)  # 2
        if kept is not None:
            trace = of_order(order.envelope_digest, line).trace
            ids = {"order": execution_id, "execution": kept.id, "trace_id": trace}
            log.info("order written down", extra=ids)
            self.received(kept, began)

    def consider(self, execution_id: int) -> None:
        """Begin to decide on an order that was written down."""
        self._worker.spawn(f"order:{execution_id}", lambda job: self._consider(execution_id, job))

    def reconcile(self) -> None:
        """Every open order goes on where it is: at the start, and now and then, since a full disk
        may have kept an end from being said."""
        for order in self._journal.open_orders():
            execution = self._journal.execution(order.local_id)
            if execution.state is State.ORDERED:
                self.consider(order.execution_id)
            elif execution.state is State.WAITING_RELEASE or execution.state in ENDED:
                self.outcomes.ended(execution)

    def doing(self) -> list[Execution]:
        """What this site holds and has not ended."""
        return [self._journal.execution(order.local_id) for order in self._journal.open_orders()]

    def cancelled_there(self, execution_id: int) -> None:
        """The coordinator cancelled or ended it: nothing is left to be said."""
        self.untaken.forget(execution_id)
        order = self._journal.order(execution_id)
        if order is None or order.outcome:
            return
        try:
            problem = "cancelled by the committee"
            self._runs.cancel(order.local_id, problem, outcome=ENDED_THERE)
        except Refusal as refusal:
            if refusal.code != "EXECUTION_ENDED":
                raise
            self._journal.set_outcome(execution_id, ENDED_THERE)
        log.info("order cancelled", extra={"order": execution_id})

    def cancel(self, local_id: int, releaser: pb.Releaser) -> None:
        """A person at the site cancels an execution, ordered or not."""
        user = releaser.local_user.name or f"uid {releaser.local_user.uid}"
        problem = f"cancelled at the site by {user}"
        self._runs.cancel(local_id, problem, by=releaser.SerializeToString())

    def require_entitled(self, execution: Execution, recipe: Recipe) -> None:
        """3."""
        order = self._journal.order(execution.execution_id)
        assert order is not None
        entitled = set(recipe.benchmark.statement.committee)
        if execution.purpose == "TEST":
            entitled.add(recipe.model.owner)
        if order.requested_by not in entitled:
            raise Refusal(
                Kind.NOT_ALLOWED,
                "ORDER_NOT_ENTITLED",
                f"order {execution.execution_id}: expected it from the committee of benchmark "
                f"{recipe.benchmark.id}, got it from {order.requested_by}",
            )
        if recipe.model_container.digest != execution.model_digest:
            raise _invalid(
                execution.execution_id,
                f"model {execution.model_id} with digest {recipe.model_container.digest}",
                execution.model_digest,
            )

    def recipe(self, execution: Execution) -> Recipe:
        return self._executor.recipe(
            execution.benchmark_id, execution.model_id, execution.dataset_id
        )

    def _consider(self, execution_id: int, job: Job) -> None:
        order = self._journal.order(execution_id)
        assert order is not None
        while not job.stop.asked():
            execution = self._journal.execution(order.local_id)
            if execution.state is not State.ORDERED:
                return
            try:
                recipe = self.recipe(execution)
                self.require_entitled(execution, recipe)
                self._carry_out(execution, recipe, self.outcomes.decide(execution, recipe))
                return
            except Refusal as refusal:
                if refusal.kind not in PASSING:
                    self._fail(execution, refusal)
                    return
            except Exception:
                log.exception("order failed", extra={"order": execution_id})
                text = f"order {execution_id}: internal error; see the agent's log"
                self._fail(execution, Refusal(Kind.INTERNAL, "INTERNAL", text))
                return
            job.stop.wait(RETRY_S)

    def _carry_out(self, execution: Execution, recipe: Recipe, decision: Decision) -> None:
        """4."""
        log.info(
            "consent",
            extra={"execution": execution.id, "decision": decision.run, "rule": decision.rule},
        )
        if decision.run == "allow":
            self._runs.start_ordered(execution.id, recipe)
        elif decision.run == "refuse":
            rule = by_policy(decision.policy_digest, decision.rule)
            self.outcomes.refuse(execution, "CONSENT_REFUSED", rule, expected=State.ORDERED)
        else:
            self._ask(execution)

    def _ask(self, execution: Execution) -> None:
        with self._journal.transaction():
            if self._journal.execution(execution.id).state is not State.ORDERED:
                return  # cancelled while it was considered
            self._journal.add_review("RUN", execution.id)
            asked = self._journal.update_execution(execution.id, state=State.WAITING_CONSENT)
        self.outcomes.changed(asked)

    def _fail(self, execution: Execution, refusal: Refusal) -> None:
        entitled = refusal.code != "ORDER_NOT_ENTITLED"
        state = State.FAILED if entitled else State.REFUSED
        with self._journal.transaction():
            if self._journal.execution(execution.id).state is not State.ORDERED:
                return  # cancelled, or taken from the cache, while it was considered
            failed = self._journal.update_execution(
                execution.id, state=state, reason=refusal.code, problem=refusal.message
            )
        self.outcomes.ended(failed)


def _invalid(execution_id: int, expected: str, got: str = "something else") -> Refusal:
    return Refusal(
        Kind.INVALID,
        "ORDER_INVALID",
        f"order {execution_id}: expected {expected}, got {got}; tell the operator",
    )
