"""What committee and model owner do while everything breaks: order, cancel, change policies.

Everything is said until it is accepted or refused; what was said and what came back is kept at
their desks.
"""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from pathlib import Path

import grpc

from housecall import statement
from housecall.errors import Refusal
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.faults import images
from tests.faults.desk import CALL_S, Desk, Said

PACE_S = 0.8
MOST_OPEN = 12
TICKS = (1, 2, 3, 4, 6, 9, 12, 24, 36)
"""Quarters of a second that a model takes: the longest outlive a restart of their agent."""
DATASET_EVERY_S = 25.0


class Committee:
    """Carla orders, mona offers models; one thread."""

    def __init__(
        self,
        carla: Desk,
        mona: Desk,
        image_id: str,
        folder: Path,
        *,
        choice: random.Random,
        stop: threading.Event,
    ) -> None:
        self._folder = folder
        self._carla, self._mona, self._image = carla, mona, image_id
        self._choice, self._stop = choice, stop
        self._models: list[pb.Pin] = []
        self.stamps: dict[int, int] = {}
        self.datasets: list[str] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._work, name="committee", daemon=True)

    def found(self) -> None:
        """Containers, the reference model and benchmark 1, before any fault."""
        preparation, evaluator = (
            self._container(
                self._carla, pb.ContainerRegistered(role=role, configuration=configuration)
            )
            for role, configuration in (
                (pb.CONTAINER_ROLE_PREPARATION, images.preparation()),
                (pb.CONTAINER_ROLE_EVALUATOR, images.evaluator()),
            )
        )
        reference = self._model(1)
        always = pb.AutoApproval(mode=pb.APPROVAL_MODE_ALWAYS)
        self._carla.state(
            pb.BenchmarkRegistered(
                name="faults",
                description="what survives",
                preparation=preparation,
                evaluator=evaluator,
                reference_model=reference,
                committee=[self._carla.identity.name],
                votes_needed=1,
                policy=pb.BenchmarkPolicy(datasets=always, models=always),
            )
        )

    def _work(self) -> None:
        """Until it is over; a refusal is an answer like any other."""
        acts = [self._order, self._order_again, self._cancel, self._change_policy, self._repeat]
        weights = [10, 2, 3, 3, 5]
        while not self.over.is_set() and not self._stop.is_set():
            with suppress(Refusal, grpc.RpcError):
                self._choice.choices(acts, weights)[0]()
                self._carla.look()
            self.over.wait(PACE_S * self._choice.uniform(0.3, 1.5))

    def _order(self) -> None:
        """A model that nobody has seen, on every dataset."""
        if len(self._open()) >= MOST_OPEN:
            return
        model = self._model(len(self.stamps) + 1)
        if self._mona.state(pb.AssociationRequested(benchmark_id=1, model_id=model.id)):
            self._models.append(model)
            self._request(model)

    def _order_again(self) -> None:
        """One that ran before: its result replaces the earlier one."""
        if self._models and len(self._open()) < MOST_OPEN:
            self._request(self._choice.choice(self._models))

    def _request(self, model: pb.Pin) -> None:
        count = self._choice.randint(1, len(self.datasets))
        chosen = self._choice.sample(self.datasets, count)
        lines = [pb.RequestedExecution(dataset_id=each, model=model) for each in chosen]
        said = pb.ExecutionRequested(benchmark_id=1, purpose=pb.PURPOSE_BENCHMARK, executions=lines)
        self._carla.state(said)

    def _cancel(self) -> None:
        if found := self._open():
            number = self._choice.choice(found)
            self._carla.state(pb.ExecutionCancelled(execution_ids=[number], reason="no more"))

    def _change_policy(self) -> None:
        mode = self._choice.choice((pb.APPROVAL_MODE_ALWAYS, pb.APPROVAL_MODE_ALLOWLIST))
        always = pb.AutoApproval(mode=pb.APPROVAL_MODE_ALWAYS)
        models = pb.AutoApproval(mode=mode, allowlist=[self._mona.identity.name])
        policy = pb.BenchmarkPolicy(datasets=always, models=models)
        said = self._carla.state(pb.BenchmarkPolicyChanged(benchmark_id=1, policy=policy))
        if said is not None and self._choice.random() < 0.5:
            self._carla.repeat(said)

    def _repeat(self) -> None:
        """At-least-once, made often: an answer that was lost looks just like this."""
        desk = self._choice.choice((self._carla, self._mona))
        accepted = [each for each in desk.said[-20:] if each.outcome == "accepted"]
        if accepted:
            desk.repeat(self._choice.choice(accepted))

    def _open(self) -> list[int]:
        request = reg.ListExecutionsRequest(benchmark_id=1, page_size=1000)
        found = self._carla.registry.ListExecutions(request, timeout=CALL_S).executions
        return [each.id for each in found if each.state < pb.EXECUTION_STATE_SUCCEEDED]

    def _model(self, stamp: int) -> pb.Pin:
        """Registered by mona; it has its stamp from its parameters, or from additional files."""
        said = pb.ContainerRegistered(
            role=pb.CONTAINER_ROLE_MODEL,
            configuration=images.model(),
            parameters=images.parameters(stamp, self._choice.choice(TICKS)),
        )
        if self._choice.random() < 0.5:
            said.additional_files.CopyFrom(images.additional_files(stamp, self._folder))
        self.stamps.setdefault(stamp, 0)
        container = self._container(self._mona, said)
        made = self._mona.state(pb.ModelRegistered(name=f"model-{stamp}", container=container))
        self.stamps[stamp] = _id(made)
        return pb.Pin(id=_id(made), digest=container.digest)

    def _container(self, desk: Desk, said: pb.ContainerRegistered) -> pb.Pin:
        """Registered on the one image."""
        said.name, said.image_digest = "faults", self._image
        said.container_digest = statement.container_digest(
            self._image, said.configuration, said.parameters, said.additional_files.digest
        )
        return pb.Pin(id=_id(desk.state(said)), digest=said.container_digest)


def _id(said: Said | None) -> int:
    """Of what was made. Raises `Refusal`-like end when the harness ends first."""
    if said is None:
        raise SystemExit
    return int(said.id)
