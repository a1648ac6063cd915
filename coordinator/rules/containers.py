"""When is a container's registration acceptable."""

from __future__ import annotations

from coordinator.caller import CallerRole
from coordinator.models import Container
from coordinator.rules.fact import (
    Effect,
    Fact,
    conflict,
    invalid,
    require_digest,
    require_role,
    require_text,
)
from coordinator.store import Writer
from housecall.container_config import Role, check_parameters, parse
from housecall.statement import container_digest
from housecall.v1 import statements_pb2 as pb

ROLES = {
    pb.CONTAINER_ROLE_PREPARATION: Role.PREPARATION,
    pb.CONTAINER_ROLE_MODEL: Role.MODEL,
    pb.CONTAINER_ROLE_EVALUATOR: Role.EVALUATOR,
}


def check(said: pb.ContainerRegistered) -> None:
    """Its configuration and parameters are lawful."""
    if said.role not in ROLES:
        raise invalid("CONTAINER_ROLE", "expected preparation, model or evaluator")
    parse(said.configuration, ROLES[said.role])
    if said.parameters:
        check_parameters(said.parameters)


def registered(writer: Writer, said: pb.ContainerRegistered, fact: Fact) -> Effect:
    """Its digest is that of its parts, and it is not there yet."""
    require_role(fact, CallerRole.PERSON, CallerRole.OPERATOR)
    require_text(said, ["name"])
    require_digest(said, "image_digest", "container_digest")
    if said.HasField("additional_files"):
        require_digest(said.additional_files, "digest")
    expected = container_digest(
        said.image_digest, said.configuration, said.parameters, said.additional_files.digest
    )
    if said.container_digest != expected:
        raise invalid(
            "CONTAINER_DIGEST_DIFFERS",
            f"container {said.name}: expected digest {expected}, got {said.container_digest}",
        )
    if existing := writer.container_of(expected):
        raise conflict(
            "CONTAINER_EXISTS",
            f"the same container is registered as {existing.id} ({existing.name}): use that one",
        )
    number = writer.next_id(Container)
    writer.add(
        Container(
            id=number,
            ledger_index=fact.index,
            owner=fact.caller.name,
            name=said.name,
            role=said.role,
            digest=expected,
        )
    )
    return Effect(str(number))
