"""When is a model's registration acceptable."""

from __future__ import annotations

from coordinator.caller import CallerRole
from coordinator.models import Model
from coordinator.rules.fact import (
    Effect,
    Fact,
    conflict,
    invalid,
    limit_text,
    not_entitled,
    require_role,
    require_text,
)
from coordinator.store import Writer
from housecall.v1 import statements_pb2 as pb


def registered(writer: Writer, said: pb.ModelRegistered, fact: Fact) -> Effect:
    """A model container, offered once, by the one who registered it."""
    require_role(fact, CallerRole.PERSON, CallerRole.OPERATOR)
    require_text(said, ["name"])
    limit_text(said, ["description"])
    container = writer.container(said.container.id)
    if container.role != pb.CONTAINER_ROLE_MODEL:
        raise invalid(
            "CONTAINER_ROLE", f"container {container.id} ({container.name}): expected a model's"
        )
    check_pin(said.container, container.id, container.digest, "container")
    if container.owner != fact.caller.name:
        raise not_entitled(fact, f"container {container.id} is {container.owner}'s")
    if existing := writer.model_of(container.digest):
        raise conflict(
            "MODEL_EXISTS", f"container {container.id} is offered as model {existing.id} already"
        )
    number = writer.next_id(Model)
    writer.add(
        Model(
            id=number,
            ledger_index=fact.index,
            owner=fact.caller.name,
            name=said.name,
            container_id=container.id,
            digest=container.digest,
        )
    )
    return Effect(str(number))


def check_pin(pin: pb.Pin, number: int, digest: str, what: str) -> None:
    """A pin's digest must be the registered one."""
    if pin.digest != digest:
        raise invalid(
            "PIN_DIFFERS",
            f"{what} {number}: expected digest {digest}, got {pin.digest or 'none'}; "
            "it was registered with other content than you pinned",
        )
