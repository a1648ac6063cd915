"""What the committee does while everything breaks: order, cancel, decide, change policies.

Everything is said until it is accepted or refused; what was said and what came back is kept at
their desks.
"""

from __future__ import annotations

import random
import threading
from contextlib import suppress

import grpc

from housecall.errors import Refusal
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.faults import images
from tests.faults.desk import CALL_S, Desk
from tests.faults.offers import Offer, Offers

PACE_S = 0.8
MOST_OPEN = 12
LEAST_OFFERS = 3
ALWAYS = pb.AutoApproval(mode=pb.APPROVAL_MODE_ALWAYS)


class Committee:
    """Carla orders what model owners offer; one thread."""

    def __init__(
        self, carla: Desk, offers: Offers, *, choice: random.Random, stop: threading.Event
    ) -> None:
        self._carla, self.offers = carla, offers
        self._choice, self._stop = choice, stop
        self.datasets: list[str] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._work, name="committee", daemon=True)

    def found(self) -> None:
        """Containers, the reference model and benchmark 1, before any fault."""
        preparation, evaluator = (
            self.offers.container(
                self._carla, pb.ContainerRegistered(role=role, configuration=configuration)
            )
            for role, configuration in (
                (pb.CONTAINER_ROLE_PREPARATION, images.preparation()),
                (pb.CONTAINER_ROLE_EVALUATOR, images.evaluator()),
            )
        )
        self._benchmark = pb.BenchmarkRegistered(
            name="faults",
            description="what survives",
            preparation=preparation,
            evaluator=evaluator,
            reference_model=self.offers.model(self.offers.owners[0], ticks=1),
            committee=[self._carla.identity.name],
            votes_needed=1,
            policy=pb.BenchmarkPolicy(datasets=ALWAYS, models=ALWAYS),
        )
        self._carla.state(self._benchmark)

    def _work(self) -> None:
        """Until it is over; a refusal is an answer like any other."""
        acts = {
            self._order: 10,
            self._order_again: 2,
            self._cancel: 3,
            self._change_policy: 3,
            self._repeat: 5,
            self._withdraw: 2,
            self._another_benchmark: 1,
        }
        while not self.over.is_set() and not self._stop.is_set():
            with suppress(Refusal, grpc.RpcError):
                self._choice.choices([*acts], [*acts.values()])[0]()
                self._carla.look()
            self.over.wait(PACE_S * self._choice.uniform(0.3, 1.5))

    def _order(self) -> None:
        """A model that nobody has seen, on every dataset."""
        if len(self._open()) < MOST_OPEN:
            offer = self.offers.make()
            if offer.waits:
                self._decide(offer)
            self._request(offer)

    def _order_again(self) -> None:
        """One that ran before: its result replaces the earlier one."""
        if self.offers.made and len(self._open()) < MOST_OPEN:
            self._request(self._choice.choice(self.offers.made))

    def _decide(self, offer: Offer) -> None:
        """Yes to most of what no policy says yes to."""
        decision = pb.DECISION_APPROVE if self._choice.random() < 0.8 else pb.DECISION_REJECT
        said = pb.AssociationDecided(association_id=offer.association_id, decision=decision)
        said.reason = "seen"
        self._carla.state(said)

    def _request(self, offer: Offer) -> None:
        count = self._choice.randint(1, len(self.datasets))
        chosen = self._choice.sample(self.datasets, count)
        lines = [pb.RequestedExecution(dataset_id=each, model=offer.model) for each in chosen]
        said = pb.ExecutionRequested(benchmark_id=1, purpose=pb.PURPOSE_BENCHMARK, executions=lines)
        self._carla.state(said)

    def _withdraw(self) -> None:
        """A model owner takes one back, whether it runs somewhere or not."""
        if len(self.offers.made) > LEAST_OFFERS:
            self.offers.withdraw()

    def _another_benchmark(self) -> None:
        """Of the same parts, in which nothing ever runs."""
        another = pb.BenchmarkRegistered()
        another.CopyFrom(self._benchmark)
        another.name = f"faults-{len(self._carla.said)}"
        self._carla.state(another)

    def _cancel(self) -> None:
        if found := self._open():
            number = self._choice.choice(found)
            self._carla.state(pb.ExecutionCancelled(execution_ids=[number], reason="no more"))

    def _change_policy(self) -> None:
        """Models of everybody, of the first owner, or of nobody are in without a decision."""
        always, first = self._choice.choice(((True, True), (False, True), (False, False)))
        mode = pb.APPROVAL_MODE_ALWAYS if always else pb.APPROVAL_MODE_ALLOWLIST
        allowed = [self.offers.owners[0].identity.name] if first else []
        models = pb.AutoApproval(mode=mode, allowlist=allowed)
        policy = pb.BenchmarkPolicy(datasets=ALWAYS, models=models)
        said = self._carla.state(pb.BenchmarkPolicyChanged(benchmark_id=1, policy=policy))
        if said is not None and self._choice.random() < 0.5:
            self._carla.repeat(said)

    def _repeat(self) -> None:
        """At-least-once, made often: an answer that was lost looks just like this."""
        desk = self._choice.choice((self._carla, *self.offers.owners))
        accepted = [each for each in desk.said[-20:] if each.outcome == "accepted"]
        if accepted:
            desk.repeat(self._choice.choice(accepted))

    def _open(self) -> list[int]:
        request = reg.ListExecutionsRequest(benchmark_id=1, page_size=1000)
        found = self._carla.registry.ListExecutions(request, timeout=CALL_S).executions
        return [each.id for each in found if each.state < pb.EXECUTION_STATE_SUCCEEDED]
