"""When are a dataset's registration and its becoming operational acceptable."""

from __future__ import annotations

from google.protobuf.message import Message

from coordinator.caller import CallerRole
from coordinator.models import Dataset
from coordinator.rules.fact import (
    Effect,
    Fact,
    conflict,
    invalid,
    limit_text,
    not_entitled,
    require_digest,
    require_role,
    require_text,
)
from coordinator.rules.models import check_pin
from coordinator.store import Writer
from housecall.identity import short_name
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb


def registered(writer: Writer, said: pb.DatasetRegistered, fact: Fact) -> Effect:
    require_role(fact, CallerRole.SITE)
    require_text(said, ["name"])
    limit_text(said, ["description", "location"])
    require_digest(said, "raw_fingerprint")
    require_releaser(said)
    site, _, number = said.dataset_id.partition("/")
    if (
        site != short_name(fact.caller.name)
        or not (number.isascii() and number.isdecimal())
        or number.startswith("0")
    ):
        raise invalid(
            "DATASET_ID_INVALID",
            f"dataset id {said.dataset_id!r}: expected {short_name(fact.caller.name)}/<number>",
        )
    container = writer.container(said.preparation.id)
    if container.role != pb.CONTAINER_ROLE_PREPARATION:
        raise invalid("CONTAINER_ROLE", f"container {container.id}: expected a preparation")
    check_pin(said.preparation, container.id, container.digest, "preparation")
    if writer.find(Dataset, said.dataset_id):
        raise conflict("DATASET_EXISTS", f"dataset {said.dataset_id} is registered already")
    writer.add(
        Dataset(
            id=said.dataset_id,
            ledger_index=fact.index,
            site=fact.caller.name,
            preparation_digest=container.digest,
            raw_fingerprint=said.raw_fingerprint,
        )
    )
    return Effect(said.dataset_id, frozenset({fact.caller.name}))


def operational(writer: Writer, said: pb.DatasetOperational, fact: Fact) -> Effect:
    """Once, by its site, with the raw data that was registered and data nobody else has."""
    dataset = own_dataset(writer, said.dataset_id, fact)
    require_digest(said, "raw_fingerprint", "prepared_fingerprint")
    require_releaser(said)
    if dataset.state == reg.DATASET_STATE_OPERATIONAL:
        raise conflict("DATASET_OPERATIONAL", f"dataset {dataset.id} is operational already")
    if said.raw_fingerprint != dataset.raw_fingerprint:
        raise invalid(
            "DATASET_CHANGED",
            f"raw data of dataset {dataset.id}: expected {dataset.raw_fingerprint} as registered, "
            f"got {said.raw_fingerprint}",
        )
    if not said.statistics.fields:
        raise invalid("STATISTICS_EMPTY", f"dataset {dataset.id}: expected statistics, got none")
    if other := writer.dataset_of(said.prepared_fingerprint):
        which = other.id if other.site == dataset.site else "another dataset"
        raise conflict("DATASET_DUPLICATE", f"{which} has the same prepared data as {dataset.id}")
    dataset.state = reg.DATASET_STATE_OPERATIONAL
    dataset.prepared_fingerprint = said.prepared_fingerprint
    dataset.operational_index = fact.index
    writer.add(dataset)
    return Effect(dataset.id, frozenset({dataset.site}))


def own_dataset(writer: Writer, dataset_id: str, fact: Fact) -> Dataset:
    require_role(fact, CallerRole.SITE)
    dataset = writer.dataset(dataset_id)
    if dataset.site != fact.caller.name:
        raise not_entitled(fact, f"dataset {dataset.id} is {dataset.site}'s")
    return dataset


def require_releaser(said: Message) -> None:
    """What leaves a site names the person or the policy that let it."""
    releaser: pb.Releaser = said.releaser  # type: ignore[attr-defined]
    if releaser.WhichOneof("releaser") is None:
        raise invalid(
            "RELEASER_MISSING",
            f"{said.DESCRIPTOR.name}: expected who released it (a local user or a policy)",
        )
