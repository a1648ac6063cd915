"""The coordinator's whole story by statements alone, and the noes along the way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import pytest
from sqlalchemy import text

from coordinator.caller import Caller, CallerRole
from coordinator.notary import Notary
from coordinator.rebuild import check_store
from coordinator.rules import RULES
from coordinator.store import Store
from housecall import statement, verify
from housecall.errors import Refusal
from housecall.v1 import ledger_pb2, ledger_pb2_grpc
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.world import (
    MODEL_CONFIG,
    RELEASER,
    Party,
    World,
    benchmark_statement,
    operational_statement,
    register_container,
    register_dataset,
    register_model,
    result_statement,
    sha,
)


def refused(party: Party, said: object) -> str:
    with pytest.raises(Refusal) as caught:
        party.state(said)  # type: ignore[arg-type]
    return caught.value.code


def test_from_registration_to_a_verified_result(coordinator: World) -> None:
    carla, mona, north = (
        coordinator.join("carla", pb.ROLE_PERSON),
        coordinator.join("mona", pb.ROLE_PERSON),
        coordinator.join("north", pb.ROLE_SITE),
    )
    reference = register_model(mona, "reference")
    said = benchmark_statement(carla, reference)
    assert carla.state(said).id == "1"
    dataset_id = register_dataset(north, said.preparation)
    assert dataset_id == "north/1"

    test = result_statement(north, 1, dataset_id, reference, pb.PURPOSE_TEST)
    request = pb.AssociationRequested(
        benchmark_id=1, dataset_id=dataset_id, test_digest=sha("nothing"), releaser=RELEASER
    )
    assert refused(north, test) == "DATASET_NOT_OPERATIONAL"
    assert refused(north, request) == "DATASET_NOT_OPERATIONAL"
    north.state(operational_statement(dataset_id))
    twice = operational_statement(dataset_id)
    twice.statistics.update({"cases": 4})
    assert refused(north, twice) == "DATASET_OPERATIONAL"
    assert refused(north, request) == "TEST_MISSING"

    north.state(test)
    result = north.registry.GetResult(reg.GetResultRequest(name="north/b1m1d1")).result
    request.test_digest = result.origin.envelope_digest
    assert north.state(request).id == "1"
    assert north.state(request).id == "1", "stated_at is set: the same envelope, the same request"
    request.releaser.local_user.uid = 1001
    assert refused(north, request) == "ASSOCIATION_EXISTS"
    run = result_statement(north, 1, dataset_id, reference, pb.PURPOSE_BENCHMARK)
    assert refused(north, run) == "NOT_APPROVED"
    vote = pb.AssociationDecided(association_id=1, decision=pb.DECISION_APPROVE, reason="good")
    assert refused(mona, vote) == "NOT_ENTITLED"
    assert refused(north, vote) == "NOT_ENTITLED"
    carla.state(vote)
    association = carla.registry.GetAssociation(reg.GetAssociationRequest(id=1)).association
    assert association.state == reg.ASSOCIATION_STATE_APPROVED
    assert [e.what for e in association.history] == ["requested", "approve"]
    assert association.test_metrics["cases"] == 3

    receipt = north.state(run).receipt
    again = result_statement(north, 1, dataset_id, reference, pb.PURPOSE_BENCHMARK)
    again.agent_version = "other bytes"
    assert refused(north, again) == "RESULT_EXISTS"
    bundle = (
        ledger_pb2_grpc.LedgerStub(carla.channel)
        .GetBundle(ledger_pb2.GetBundleRequest(ledger_index=receipt.ledger_index))
        .bundle
    )
    verified = verify.verify_bundle(bundle, carla.identity.verifier_key)
    assert verified.signer == north.name
    assert isinstance(verified.statement.predicate, pb.ResultSubmitted)


def test_the_ledger_makes_the_tables_again(coordinator: World) -> None:
    test_from_registration_to_a_verified_result(coordinator)
    store = Store(coordinator.settings.store_url)
    checked = check_store(store, signatures=True)
    assert checked.size > 15
    assert checked.differences == []
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE association SET state = 3"))
    assert check_store(store).differences == ["association: 1 rows differ"]
    store.close()


def test_the_same_envelope_gets_the_same_entry(coordinator: World) -> None:
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    container = register_container(mona, "m", pb.CONTAINER_ROLE_MODEL, MODEL_CONFIG)
    said = pb.ModelRegistered(name="m", container=container)
    first, second = mona.state(said), mona.state(said)
    assert (first.id, first.receipt.ledger_index) == (second.id, second.receipt.ledger_index)


def test_a_revoked_participant_is_out_at_once(coordinator: World) -> None:
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    mona.state(pb.ParticipantRevoked(name=mona.name, reason="leaving"))
    assert refused(mona, pb.ModelRegistered(name="m")) == "REVOKED"


def test_a_statement_that_breaks_the_store_does_not_hold_up_its_neighbours(
    coordinator: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch: a rule that stumbles takes nobody else's statement down with it."""
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    store, house = Store(coordinator.settings.store_url), coordinator.house
    notary = Notary(store, house.ledger)
    caller = Caller(mona.name, CallerRole.PERSON, "", datetime.now(UTC))

    def stumble(_writer: object, said: pb.JoinTokenRevoked, _fact: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(cast("dict[str, object]", RULES), "JoinTokenRevoked", stumble)
    container = pb.ContainerRegistered(
        name="c",
        role=pb.CONTAINER_ROLE_MODEL,
        image_digest=sha("c"),
        configuration=MODEL_CONFIG,
        container_digest=statement.container_digest(sha("c"), MODEL_CONFIG, "", ""),
    )
    futures = [
        notary.submit(
            statement.sign(statement.build(said, {"x": sha("x")}), mona.identity.signing_key),
            caller,
        )
        for said in (pb.JoinTokenRevoked(token_id="t"), container)
    ]
    with notary:
        assert futures[1].result(10).id == "1"
        with pytest.raises(Refusal) as caught:
            futures[0].result(10)
    assert caught.value.code == "INTERNAL"
    store.close()


def test_a_listener_that_fails_makes_no_no_of_a_yes(coordinator: World) -> None:
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    store, house = Store(coordinator.settings.store_url), coordinator.house

    def stumble(_batch: object) -> None:
        raise ZeroDivisionError

    with Notary(store, house.ledger) as notary:
        notary.listeners.append(stumble)
        caller = Caller(mona.name, CallerRole.PERSON, "", datetime.now(UTC))
        said = pb.ParticipantRevoked(name=mona.name, reason="x")
        envelope = statement.sign(statement.build(said, {"x": sha("x")}), mona.identity.signing_key)
        assert notary.append(envelope, caller).kind == "ParticipantRevoked"
    store.close()
