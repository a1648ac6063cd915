"""Each rule's noes: the code, the words, and that nothing was changed by them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message

from housecall import statement
from housecall.errors import Refusal
from housecall.times import stamp
from housecall.v1 import ledger_pb2, ledger_pb2_grpc
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.world import (
    EVALUATOR_CONFIG,
    MODEL_CONFIG,
    PREPARATION_CONFIG,
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


def tree_size(party: Party) -> int:
    stub = ledger_pb2_grpc.LedgerStub(party.channel)
    return int(stub.GetCheckpoint(ledger_pb2.GetCheckpointRequest()).checkpoint.split("\n")[1])


def refused(party: Party, said: Message) -> Refusal:
    before = tree_size(party)
    with pytest.raises(Refusal) as caught:
        party.state(said)
    assert tree_size(party) == before
    return caught.value


class Cast:
    """Committee, model owner, two sites; a benchmark with one more model than its reference."""

    def __init__(self, coordinator: World) -> None:
        self.carla = coordinator.join("carla", pb.ROLE_PERSON)
        self.mona = coordinator.join("mona", pb.ROLE_PERSON)
        self.north = coordinator.join("north", pb.ROLE_SITE)
        self.south = coordinator.join("south", pb.ROLE_SITE)
        self.reference = register_model(self.mona, "reference")
        self.other = register_model(self.mona, "other")
        self.benchmark = benchmark_statement(self.carla, self.reference)
        self.carla.state(self.benchmark)

    def dataset(self, site: Party) -> str:
        """An operational dataset of a site, tested with the reference model."""
        dataset_id = register_dataset(site, self.benchmark.preparation)
        site.state(operational_statement(dataset_id))
        site.state(result_statement(site, 1, dataset_id, self.reference, pb.PURPOSE_TEST))
        return dataset_id

    def request(self, site: Party, dataset_id: str) -> pb.AssociationRequested:
        name = f"{site.identity.short_name}/b1m1d1"
        test = site.registry.GetResult(reg.GetResultRequest(name=name)).result
        return pb.AssociationRequested(
            benchmark_id=1,
            dataset_id=dataset_id,
            test_digest=test.origin.envelope_digest,
            releaser=RELEASER,
        )

    def approved(self, site: Party) -> str:
        dataset_id = self.dataset(site)
        number = int(site.state(self.request(site, dataset_id)).id)
        self.carla.state(approval(number))
        return dataset_id


def approval(number: int, reason: str = "good") -> pb.AssociationDecided:
    return pb.AssociationDecided(association_id=number, decision=pb.DECISION_APPROVE, reason=reason)


@pytest.fixture
def cast(coordinator: World) -> Cast:
    return Cast(coordinator)


def container(**fields: object) -> pb.ContainerRegistered:
    said = pb.ContainerRegistered(
        name="c",
        role=pb.CONTAINER_ROLE_MODEL,
        image_digest=sha("image"),
        configuration=MODEL_CONFIG,
    )
    for name, value in fields.items():
        setattr(said, name, value)
    if not said.container_digest:
        said.container_digest = statement.container_digest(
            said.image_digest, said.configuration, said.parameters, ""
        )
    return said


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (container(name=" "), "FIELD_MISSING", "expected a text"),
        (container(image_digest="latest"), "DIGEST_INVALID", "'latest'"),
        (container(role=0), "CONTAINER_ROLE", "expected preparation, model or evaluator"),
        (container(configuration="tasks: {}"), "CONFIG_MISSING_KEY", "container_type"),
        (container(configuration=EVALUATOR_CONFIG), "CONFIG_UNKNOWN_TASK", "evaluate"),
        (container(parameters="- a"), "CONFIG_BAD_TYPE", "mapping"),
        (container(container_digest=sha("x")), "CONTAINER_DIGEST_DIFFERS", "expected digest"),
    ],
)
def test_containers(coordinator: World, said: Message, code: str, words: str) -> None:
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    refusal = refused(mona, said)
    assert refusal.code == code
    assert words in refusal.message


def test_the_same_container_or_model_twice(cast: Cast) -> None:
    image = sha("image of other")
    said = container(image_digest=image, name="copy")
    assert refused(cast.mona, said).code == "CONTAINER_EXISTS"
    again = pb.ModelRegistered(name="copy", container=pb.Pin(id=2, digest=cast.other.digest))
    assert refused(cast.mona, again).code == "MODEL_EXISTS"
    assert refused(cast.carla, again).code == "NOT_ENTITLED"
    again.container.digest = sha("else")
    refusal = refused(cast.mona, again)
    assert refusal.code == "PIN_DIFFERS"
    assert f"expected digest {cast.other.digest}" in refusal.message


SAME_NAME = pb.BenchmarkRegistered(name="bench", description="other words")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda b: b.MergeFrom(SAME_NAME), "BENCHMARK_EXISTS"),
        (lambda b: b.preparation.CopyFrom(b.evaluator), "CONTAINER_ROLE"),
        (lambda b: setattr(b.evaluator, "digest", sha("x")), "PIN_DIFFERS"),
        (lambda b: setattr(b, "metrics_schema", "{"), "SCHEMA_INVALID"),
        (lambda b: setattr(b, "statistics_schema", '{"type": "numbr"}'), "SCHEMA_INVALID"),
        (lambda b: b.ClearField("committee"), "COMMITTEE_INVALID"),
        (lambda b: setattr(b, "votes_needed", 2), "COMMITTEE_INVALID"),
        (lambda b: b.policy.ClearField("models"), "POLICY_INVALID"),
        (lambda b: setattr(b.policy, "reference_dataset_id", "n/1"), "DATASET_NOT_FOUND"),
    ],
)
def test_benchmarks(
    cast: Cast, change: Callable[[pb.BenchmarkRegistered], None], code: str
) -> None:
    said = pb.BenchmarkRegistered()
    said.CopyFrom(cast.benchmark)
    said.name = "another"
    change(said)
    assert refused(cast.carla, said).code == code


def test_datasets(cast: Cast) -> None:
    said = pb.DatasetRegistered(
        dataset_id="south/1",
        name="d",
        preparation=cast.benchmark.preparation,
        raw_fingerprint=sha("raw"),
        releaser=RELEASER,
    )
    assert refused(cast.north, said).code == "DATASET_ID_INVALID"
    assert refused(cast.mona, said).code == "NOT_ENTITLED"
    said.dataset_id = "north/01"
    assert refused(cast.north, said).code == "DATASET_ID_INVALID"
    said.dataset_id = "north/1"
    said.ClearField("releaser")
    assert refused(cast.north, said).code == "RELEASER_MISSING"
    dataset_id = register_dataset(cast.north, cast.benchmark.preparation)
    said.releaser.CopyFrom(RELEASER)
    assert refused(cast.north, said).code == "DATASET_EXISTS"
    ready = operational_statement(dataset_id)
    assert refused(cast.south, ready).code == "NOT_ENTITLED"
    ready.ClearField("statistics")
    assert refused(cast.north, ready).code == "STATISTICS_EMPTY"
    changed = operational_statement(dataset_id)
    changed.raw_fingerprint = sha("changed")
    refusal = refused(cast.north, changed)
    assert refusal.code == "DATASET_CHANGED"
    assert f"expected {sha(f'raw {dataset_id}')}" in refusal.message
    cast.north.state(operational_statement(dataset_id))
    other = register_dataset(cast.south, cast.benchmark.preparation)
    copied = operational_statement(other)
    copied.prepared_fingerprint = sha(f"prepared {dataset_id}")
    assert refused(cast.south, copied).code == "DATASET_DUPLICATE"


def test_associations(cast: Cast) -> None:
    dataset_id = cast.dataset(cast.north)
    request = cast.request(cast.north, dataset_id)
    untested = pb.AssociationRequested()
    untested.CopyFrom(request)
    untested.test_digest = ""
    assert refused(cast.north, untested).code == "TEST_MISSING"
    cast.dataset(cast.south)
    untested.test_digest = cast.request(cast.south, "south/1").test_digest
    assert refused(cast.north, untested).code == "TEST_DIFFERS"
    cast.north.state(request)
    request.releaser.local_user.uid += 1
    assert refused(cast.north, request).code == "ASSOCIATION_EXISTS"
    assert refused(cast.carla, approval(1, reason=" ")).code == "FIELD_MISSING"
    assert refused(cast.mona, approval(1)).code == "NOT_ENTITLED"
    assert refused(cast.carla, approval(9)).code == "ASSOCIATION_NOT_FOUND"
    cast.carla.state(approval(1))
    assert refused(cast.carla, approval(1, "again")).code == "VOTE_EXISTS"
    withdrawal = pb.AssociationWithdrawn(association_id=1, releaser=RELEASER)
    assert refused(cast.south, withdrawal).code == "NOT_ENTITLED"
    cast.north.state(withdrawal)
    refusal = refused(cast.carla, approval(1, "too late"))
    assert refusal.code in {"ASSOCIATION_STATE", "VOTE_EXISTS"}


def test_a_dataset_of_another_preparation(cast: Cast) -> None:
    other = container(
        name="other prep",
        role=pb.CONTAINER_ROLE_PREPARATION,
        configuration=PREPARATION_CONFIG,
        image_digest=sha("other prep"),
    )
    number = int(cast.carla.state(other).id)
    dataset_id = register_dataset(cast.north, pb.Pin(id=number, digest=other.container_digest))
    cast.north.state(operational_statement(dataset_id))
    said = pb.AssociationRequested(
        benchmark_id=1, dataset_id=dataset_id, test_digest=sha("t"), releaser=RELEASER
    )
    refusal = refused(cast.north, said)
    assert refusal.code == "PREPARATION_DIFFERS"
    assert other.container_digest in refusal.message


def test_a_rejection_is_final_and_a_new_request_makes_a_new_association(cast: Cast) -> None:
    dataset_id = cast.dataset(cast.north)
    request = cast.request(cast.north, dataset_id)
    cast.north.state(request)
    rejection = pb.AssociationDecided(
        association_id=1, decision=pb.DECISION_REJECT, reason="blurred"
    )
    cast.carla.state(rejection)
    late = refused(cast.carla, approval(1))
    assert late.code == "ASSOCIATION_STATE"
    assert "association 1 is rejected" in late.message
    request.releaser.local_user.uid += 1
    assert cast.north.state(request).id == "2"


def test_the_requester_cannot_decide(cast: Cast) -> None:
    own = register_model(cast.carla, "carla's")
    cast.carla.state(pb.AssociationRequested(benchmark_id=1, model_id=own.id))
    assert "requester" in refused(cast.carla, approval(1)).message


def test_two_votes_where_two_are_needed(coordinator: World) -> None:
    carla, kim = (coordinator.join(n, pb.ROLE_PERSON) for n in ("carla", "kim"))
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    reference, other = register_model(mona, "reference"), register_model(mona, "other")
    committee = [carla.name, kim.name]
    carla.state(benchmark_statement(carla, reference, committee=committee, votes_needed=2))
    mona.state(pb.AssociationRequested(benchmark_id=1, model_id=other.id))
    for party, state in (
        (carla, reg.ASSOCIATION_STATE_REQUESTED),
        (kim, reg.ASSOCIATION_STATE_APPROVED),
    ):
        party.state(approval(1))
        got = mona.registry.GetAssociation(reg.GetAssociationRequest(id=1)).association
        assert got.state == state


@pytest.mark.parametrize(
    ("mode", "allowlist", "state"),
    [
        (pb.APPROVAL_MODE_ALWAYS, [], reg.ASSOCIATION_STATE_APPROVED),
        (
            pb.APPROVAL_MODE_ALLOWLIST,
            ["spiffe://test/person/mona"],
            reg.ASSOCIATION_STATE_APPROVED,
        ),
        (
            pb.APPROVAL_MODE_ALLOWLIST,
            ["spiffe://test/person/else"],
            reg.ASSOCIATION_STATE_REQUESTED,
        ),
        (pb.APPROVAL_MODE_NEVER, [], reg.ASSOCIATION_STATE_REQUESTED),
    ],
)
def test_approval_by_policy(
    cast: Cast,
    mode: pb.ApprovalMode.ValueType,
    allowlist: list[str],
    state: reg.AssociationState.ValueType,
) -> None:
    policy = cast.benchmark.policy
    policy.models.mode = mode
    policy.models.allowlist.extend(allowlist)
    change = pb.BenchmarkPolicyChanged(benchmark_id=1, policy=policy)
    assert refused(cast.mona, change).code == "NOT_ENTITLED"
    cast.carla.state(change)
    cast.mona.state(pb.AssociationRequested(benchmark_id=1, model_id=cast.other.id))
    got = cast.mona.registry.GetAssociation(reg.GetAssociationRequest(id=1)).association
    assert got.state == state


def order(dataset_id: str, model: pb.Pin, purpose: int = pb.PURPOSE_BENCHMARK) -> Message:
    line = pb.RequestedExecution(dataset_id=dataset_id, model=model)
    return pb.ExecutionRequested(
        benchmark_id=1, purpose=pb.Purpose.ValueType(purpose), executions=[line]
    )


def test_orders(cast: Cast) -> None:
    dataset_id = cast.dataset(cast.north)
    assert refused(cast.carla, order(dataset_id, cast.reference)).code == "NOT_APPROVED"
    cast.north.state(cast.request(cast.north, dataset_id))
    cast.carla.state(approval(1))
    assert refused(cast.carla, order(dataset_id, cast.other)).code == "NOT_APPROVED"
    assert refused(cast.mona, order(dataset_id, cast.reference)).code == "NOT_ENTITLED"
    foreign = pb.Pin(id=cast.reference.id, digest=sha("x"))
    assert refused(cast.carla, order(dataset_id, foreign)).code == "PIN_DIFFERS"
    test = order(dataset_id, cast.reference, pb.PURPOSE_TEST)
    assert refused(cast.mona, test).code == "NOT_REFERENCE_DATASET"
    empty = pb.ExecutionRequested(benchmark_id=1, purpose=pb.PURPOSE_BENCHMARK)
    assert refused(cast.carla, empty).code == "EXECUTIONS_MISSING"
    cast.carla.state(order(dataset_id, cast.reference))
    again = pb.ExecutionRequested()
    again.CopyFrom(order(dataset_id, cast.reference))  # type: ignore[arg-type]
    line = again.executions[0]
    again.executions.append(line)
    assert refused(cast.carla, again).code == "EXECUTION_OPEN"
    cancel = pb.ExecutionCancelled(execution_ids=[1], reason="no")
    assert refused(cast.mona, cancel).code == "NOT_ENTITLED"
    ended = pb.ExecutionEnded(
        execution_id=1,
        state=pb.EXECUTION_STATE_FAILED,
        reason="STEP_FAILED",
        releaser=RELEASER,
    )
    assert refused(cast.south, ended).code == "NOT_ENTITLED"
    ended.state = pb.EXECUTION_STATE_SUCCEEDED
    assert refused(cast.north, ended).code == "EXECUTION_STATE"
    ended.state = pb.EXECUTION_STATE_FAILED
    ended.reason = "a patient's name"
    assert refused(cast.north, ended).code == "REASON_INVALID"
    ended.reason = "STEP_FAILED"
    cast.north.state(ended)
    assert refused(cast.carla, cancel).code == "EXECUTION_ENDED"


def test_results(cast: Cast) -> None:
    dataset_id = cast.approved(cast.north)

    def result(**fields: object) -> pb.ResultSubmitted:
        said = result_statement(cast.north, 1, dataset_id, cast.reference, pb.PURPOSE_BENCHMARK)
        for name, value in fields.items():
            setattr(said, name, value)
        return said

    assert refused(cast.south, result()).code == "NOT_ENTITLED"
    changed = refused(cast.north, result(prepared_fingerprint=sha("x")))
    assert changed.code == "DATASET_CHANGED"
    assert f"got {sha('x')}" in changed.message
    assert refused(cast.north, result(benchmark_digest=sha("x"))).code == "PIN_DIFFERS"
    assert refused(cast.north, result(partial=True)).code == "PARTIAL_NOT_ALLOWED"
    assert refused(cast.north, result(supersedes=sha("x"))).code == "SUPERSEDES_NOTHING"
    assert refused(cast.north, result(execution_id=7)).code == "EXECUTION_NOT_FOUND"
    empty = result()
    empty.ClearField("metrics")
    assert refused(cast.north, empty).code == "METRICS_EMPTY"
    unapproved = result_statement(cast.north, 1, dataset_id, cast.other, pb.PURPOSE_BENCHMARK)
    assert refused(cast.north, unapproved).code == "NOT_APPROVED"
    cast.north.state(result())
    assert refused(cast.north, result(agent_version="2")).code == "RESULT_EXISTS"
    standing = cast.north.registry.ListResults(
        reg.ListResultsRequest(purpose=pb.PURPOSE_BENCHMARK)
    ).results
    better = result(supersedes=standing[0].origin.envelope_digest)
    cast.north.state(better)
    listed = cast.carla.registry.ListResults(
        reg.ListResultsRequest(purpose=pb.PURPOSE_BENCHMARK, include_superseded=True)
    ).results
    assert [bool(row.superseded_by) for row in listed] == [True, False]


def test_a_token_that_lasts_too_long_or_is_for_a_taken_name(cast: Cast, coordinator: World) -> None:
    late = datetime.now(UTC) + timedelta(days=400)
    with pytest.raises(Refusal) as caught:
        coordinator.token("west", pb.ROLE_SITE, expires_at=late)
    assert caught.value.code == "TOKEN_EXPIRY"
    with pytest.raises(Refusal) as caught:
        coordinator.token("north", pb.ROLE_SITE)
    assert caught.value.code == "NAME_TAKEN"
    said = pb.JoinTokenIssued(
        token_id="ab",
        name="spiffe://test/person/x",
        role=pb.ROLE_SITE,
        expires_at=stamp(datetime.now(UTC) + timedelta(hours=1)),
    )
    assert refused(coordinator.operator, said).code == "NAME_INVALID"


def test_what_may_be_seen(cast: Cast, coordinator: World) -> None:
    """Results go to their site, the committee and the model's owner; not to another site."""
    cast.approved(cast.north)
    request = reg.ListResultsRequest()
    seen = {
        name: len(party.registry.ListResults(request).results)
        for name, party in coordinator.parties.items()
    }
    assert seen == {"olga": 1, "carla": 1, "mona": 1, "north": 1, "south": 0}
    datasets = reg.ListDatasetsRequest()
    assert not cast.south.registry.ListDatasets(datasets).datasets
    assert not cast.mona.registry.ListDatasets(datasets).datasets
    assert cast.carla.registry.ListDatasets(datasets).datasets[0].statistics["cases"] == 3
    stub = ledger_pb2_grpc.LedgerStub(cast.south.channel)
    entries = stub.ListEntries(ledger_pb2.ListEntriesRequest()).entries
    opened = [statement.unverified(e.envelope).kind for e in entries if e.envelope]
    assert "ResultSubmitted" not in opened
    assert "BenchmarkRegistered" in opened
    assert all(len(e.leaf_hash) == 32 for e in entries)


def test_pages_follow_each_other(cast: Cast) -> None:
    for number in range(5):
        register_container(cast.mona, f"c{number}", pb.CONTAINER_ROLE_MODEL, MODEL_CONFIG)
    found: list[int] = []
    token = ""
    while True:
        request = reg.ListContainersRequest(page_size=2, page_token=token)
        response = cast.mona.registry.ListContainers(request)
        found += [row.id for row in response.containers]
        token = response.next_page_token
        if not token:
            break
    assert found == sorted(found)
    assert len(found) == 9
