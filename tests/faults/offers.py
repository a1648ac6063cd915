"""What model owners do meanwhile: models that nobody has seen, offered and taken back."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from housecall import statement
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.faults import images
from tests.faults.desk import CALL_S, Desk, Said


@dataclass(frozen=True)
class Offer:
    """A model's association with benchmark 1; `waits` for a decision of the committee."""

    owner: Desk
    model: pb.Pin
    association_id: int
    waits: bool


class Offers:
    """Of all `owners`. `stamps` tells which model has which."""

    def __init__(
        self,
        mona: Desk,
        image_id: str,
        folder: Path,
        *,
        ticks: tuple[int, ...],
        choice: random.Random,
    ) -> None:
        self.image_id, self._folder = image_id, folder
        self._ticks, self._choice = ticks, choice
        self.owners = [mona]
        self.made: list[Offer] = []
        self.stamps: dict[int, int] = {}

    def make(self) -> Offer:
        owner = self._choice.choice(self.owners)
        model = self.model(owner, self._choice.choice(self._ticks))
        number = _id(owner.state(pb.AssociationRequested(benchmark_id=1, model_id=model.id)))
        request = reg.GetAssociationRequest(id=number)
        standing = owner.registry.GetAssociation(request, timeout=CALL_S).association.state
        waits = standing == reg.ASSOCIATION_STATE_REQUESTED
        offer = Offer(owner, model, number, waits)
        self.made.append(offer)
        return offer

    def withdraw(self) -> None:
        offer = self.made.pop(self._choice.randrange(len(self.made)))
        said = pb.AssociationWithdrawn(association_id=offer.association_id, reason="no more")
        offer.owner.state(said)

    def model(self, owner: Desk, ticks: int) -> pb.Pin:
        """It has its stamp from its parameters, or from additional files."""
        stamp = len(self.stamps) + 1
        said = pb.ContainerRegistered(
            role=pb.CONTAINER_ROLE_MODEL,
            configuration=images.model(),
            parameters=images.parameters(stamp, ticks),
        )
        if self._choice.random() < 0.5:
            said.additional_files.CopyFrom(images.additional_files(stamp, self._folder))
        self.stamps.setdefault(stamp, 0)
        container = self.container(owner, said)
        made = owner.state(pb.ModelRegistered(name=f"model-{stamp}", container=container))
        self.stamps[stamp] = _id(made)
        return pb.Pin(id=_id(made), digest=container.digest)

    def container(self, owner: Desk, said: pb.ContainerRegistered) -> pb.Pin:
        """Registered on the one image."""
        said.name, said.image_digest = "faults", self.image_id
        said.container_digest = statement.container_digest(
            self.image_id, said.configuration, said.parameters, said.additional_files.digest
        )
        return pb.Pin(id=_id(owner.state(said)), digest=said.container_digest)


def _id(said: Said | None) -> int:
    """Of what was made. Raises SystemExit when the harness ends first."""
    if said is None:
        raise SystemExit
    return int(said.id)
