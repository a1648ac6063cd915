"""What is new is bounded, by the statement alone; what was accepted before still replays."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from coordinator import opening
from coordinator.backup import back_up, restore
from coordinator.settings import Settings
from housecall import statement
from housecall.errors import Refusal
from housecall.rpc import refusals
from housecall.times import stamp
from housecall.v1 import ledger_pb2, ledger_pb2_grpc
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.process import PROGRAMS
from tests.coordinator.test_fleet import order_line, prepared
from tests.coordinator.world import (
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
    world,
)


def container(name: str, parameters: str) -> pb.ContainerRegistered:
    image = sha(f"image of {name}")
    return pb.ContainerRegistered(
        name=name,
        role=pb.CONTAINER_ROLE_MODEL,
        image_digest=image,
        configuration=MODEL_CONFIG,
        parameters=parameters,
        container_digest=statement.container_digest(image, MODEL_CONFIG, parameters, ""),
    )


def send(party: Party, payload: bytes) -> str:
    """The id of what comes of it."""
    envelope = statement.sign(payload, party.identity.signing_key)
    with refusals("coordinator"):
        stub = ledger_pb2_grpc.LedgerStub(party.channel)
        return stub.Append(ledger_pb2.AppendRequest(envelope=envelope)).id


def written(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def body_of(said: Any) -> Any:
    return json.loads(statement.build(said, {"test": sha("subject")}))


def refused(party: Party, said: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        send(party, said) if isinstance(said, bytes) else party.state(said)
    return caught.value


@pytest.fixture
def alone(tmp_path: Path) -> Any:
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was before there were bounds."""
    monkeypatch.setattr(opening, "check_bounds", lambda opened: None)


def replays(settings: Settings) -> None:
    """From the command line, where the stack is deeper than the notary's."""
    done = subprocess.run(
        [str(PROGRAMS / "housecall-coordinator"), "check", "--state-dir", str(settings.state_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-400:]


def nested(levels: int) -> str:
    return "a: " + "[" * (levels - 1) + "]" * (levels - 1)


def schema(levels: int) -> str:
    return '{"not":' * (levels - 1) + "{}" + "}" * (levels - 1)


def deepest(party: Party) -> None:
    """A container that nests as deeply as the notary's stack takes."""
    for levels in range(500, 400, -1):
        with contextlib.suppress(Refusal):
            party.state(container("deepest", nested(levels)))
            return
    raise AssertionError("not one was taken")


def test_yaml_may_nest_so_far_and_no_further(alone: World) -> None:
    mona = alone.join("mona", pb.ROLE_PERSON)
    mona.state(container("flow", nested(50)))
    mona.state(container("block", "a:\n  " + "- " * 49 + "1"))
    for name, parameters in (("flow", nested(51)), ("block", "a:\n  " + "- " * 50 + "1")):
        refusal = refused(mona, container(f"{name} too deep", parameters))
        assert refusal.code == "YAML_INVALID"
        assert "more than 50 levels deep" in refusal.message
    replays(alone.settings)


def test_a_schema_may_nest_so_far_and_no_further(alone: World) -> None:
    mona = alone.join("mona", pb.ROLE_PERSON)
    said = benchmark_statement(mona, register_model(mona, "reference"))
    groups = json.dumps({"properties": {"a": {"pattern": "(" * 51 + ")" * 51}}})
    for text in (schema(41), groups):
        said.metrics_schema = text
        assert refused(mona, said).code == "SCHEMA_INVALID"
    said.metrics_schema = schema(40)
    said.statistics_schema = json.dumps({"pattern": "(" * 50 + ")" * 50})
    mona.state(said)
    replays(alone.settings)


def test_nothing_else_of_a_statement_nests_deeply(alone: World) -> None:
    """A subject may say more than a digest, and nobody reads it."""
    mona = alone.join("mona", pb.ROLE_PERSON)
    body = body_of(container("m", ""))
    deep: Any = 1
    for _ in range(40):
        deep = {"a": deep}
    body["subject"][0]["digest"]["more"] = deep
    assert refused(mona, written(body)).code == "NESTED_TOO_DEEPLY"


def test_a_statement_is_written_in_utf_8(alone: World) -> None:
    """A NUL would not be seen in anything else, and PostgreSQL cannot hold it."""
    mona = alone.join("mona", pb.ROLE_PERSON)
    text = json.dumps(body_of(container("m", "")))
    hidden = text.replace('"m"', '"m\\u0000"')
    for payload in (hidden.encode("utf-16-le"), text.encode("utf-8-sig")):
        assert refused(mona, payload).code == "STATEMENT_MALFORMED"


def test_a_statement_lists_so_much_and_no_more(alone: World) -> None:
    north = alone.join("north", pb.ROLE_SITE)
    carla, _, other = prepared(alone, north)
    carla.state(order_line("north/1", other))
    for numbers, code in (
        ([1] * 501, "EXECUTIONS_TOO_MANY"),
        ([1, 1], "EXECUTIONS_REPEATED"),
    ):
        assert refused(carla, pb.ExecutionCancelled(execution_ids=numbers)).code == code
    policy = pb.BenchmarkPolicy(
        datasets=pb.AutoApproval(mode=pb.APPROVAL_MODE_ALLOWLIST, allowlist=["x"] * 501),
        models=pb.AutoApproval(mode=pb.APPROVAL_MODE_NEVER),
    )
    refusal = refused(carla, pb.BenchmarkPolicyChanged(benchmark_id=1, policy=policy))
    assert refusal.code == "ITEMS_TOO_MANY"
    assert "policy.datasets.allowlist: expected at most 500, got 501" in refusal.message
    carla.state(pb.ExecutionCancelled(execution_ids=[1]))


def dataset(number: str, preparation: pb.Pin) -> pb.DatasetRegistered:
    return pb.DatasetRegistered(
        dataset_id=f"north/{number}",
        name="d",
        preparation=preparation,
        raw_fingerprint=sha("x"),
        releaser=RELEASER,
    )


def test_what_is_in_an_index_is_short(alone: World) -> None:
    north = alone.join("north", pb.ROLE_SITE)
    pin = preparation(alone)
    refusal = refused(north, dataset("1" * 10, pin))
    assert refusal.code == "DATASET_ID_INVALID"
    assert "at most 9 digits, got 10" in refusal.message
    north.state(dataset("1" * 9, pin))
    expires = stamp(datetime.now(UTC) + timedelta(hours=1))
    said = pb.JoinTokenIssued(
        token_id="ab" * 8, name="spiffe://test/site/x", role=pb.ROLE_SITE, expires_at=expires
    )
    long = pb.JoinTokenIssued()
    long.CopyFrom(said)
    long.token_id += "c"
    assert refused(alone.operator, long).code == "FIELD_TOO_LONG"
    long.CopyFrom(said)
    long.name += "x" * 63
    assert refused(alone.operator, long).code == "NAME_INVALID"
    alone.operator.state(said)


def test_a_text_is_some_pages_at_most(alone: World) -> None:
    north = alone.join("north", pb.ROLE_SITE)
    said = dataset("1", preparation(alone))
    said.releaser.local_user.name = "d" * 10_001
    refusal = refused(north, said)
    assert refusal.code == "FIELD_TOO_LONG"
    assert "DatasetRegistered.releaser.local_user.name" in refusal.message


def test_an_id_that_was_too_long_is_said_where_it_cannot_be_restored(
    alone: World, unbounded: None, postgresql_url: str, tmp_path: Path
) -> None:
    north = alone.join("north", pb.ROLE_SITE)
    digits = "1" + "".join(random.Random(1).choices("0123456789", k=9_000))
    north.state(dataset(digits, preparation(alone)))
    back_up(alone.settings, tmp_path / "backup")
    there = Settings(state_dir=tmp_path / "there", database_url=postgresql_url)
    with pytest.raises(Refusal) as caught:
        restore(there, tmp_path / "backup")
    assert caught.value.code == "VALUE_UNSTORABLE"
    restore(Settings(state_dir=tmp_path / "again"), tmp_path / "backup")


def preparation(world: World, name: str = "preparation") -> pb.Pin:
    role = pb.CONTAINER_ROLE_PREPARATION
    return register_container(world.operator, name, role, PREPARATION_CONFIG)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def with_values(said: Any, field: str, content: Any) -> bytes:
    body = body_of(said)
    body["predicate"][field] = content
    return written(body)


def test_metrics_and_statistics_nest_so_far_and_no_further(alone: World) -> None:
    north = alone.join("north", pb.ROLE_SITE)
    carla, reference, _ = prepared(alone, north)
    register_dataset(north, preparation(alone, "another"), 2)
    digest = north.registry.GetResult(reg.GetResultRequest(name="north/b1m1d1")).result
    result = result_statement(north, 1, "north/1", reference, pb.PURPOSE_TEST)
    result.supersedes = digest.origin.envelope_digest
    for said, field in (
        (operational_statement("north/2"), "statistics"),
        (result, "metrics"),
    ):
        lists: Any = {"a": [[[1]] * 3]}
        for content in (deep(17), {"a": deep(16)}, {"a": {}, "b": deep(15) | {"c": deep(16)}}):
            assert refused(north, with_values(said, field, content)).code == "NESTED_TOO_DEEPLY"
        infinite = with_values(said, field, {"a": 12345}).replace(b"12345", b"1e999")
        assert refused(north, infinite).code == "VALUE_UNSTORABLE"
        send(north, with_values(said, field, deep(16) | {"b": lists}))
    asked = reg.ListResultsRequest(benchmark_id=1)
    (listed,) = carla.registry.ListResults(asked).results
    assert MessageToDict(listed.statement.metrics)["a"] == deep(15)


@pytest.mark.parametrize("levels", [30, 32])
def test_what_nests_too_deeply_for_a_message_hides_nothing_else(
    alone: World, unbounded: None, levels: int
) -> None:
    """As it was accepted before."""
    north = alone.join("north", pb.ROLE_SITE)
    carla, reference, _ = prepared(alone, north)
    register_dataset(north, preparation(alone, "another"), 2)
    send(north, with_values(operational_statement("north/2"), "statistics", deep(levels)))
    before = north.registry.GetResult(reg.GetResultRequest(name="north/b1m1d1")).result
    result = result_statement(north, 1, "north/1", reference, pb.PURPOSE_TEST)
    result.supersedes = before.origin.envelope_digest
    send(north, with_values(result, "metrics", deep(levels)))
    everything = reg.ListResultsRequest(benchmark_id=1, include_superseded=True)
    results = carla.registry.ListResults(everything).results
    datasets = north.registry.ListDatasets(reg.ListDatasetsRequest()).datasets
    empty = levels > 30
    assert [not r.statement.metrics.fields for r in results] == [False, empty]
    assert [not d.statistics.fields for d in datasets] == [False, empty]
    replays(alone.settings)


def test_what_was_accepted_before_still_replays(alone: World, unbounded: None) -> None:
    mona = alone.join("mona", pb.ROLE_PERSON)
    deepest(mona)
    said = benchmark_statement(mona, register_model(mona, "reference"))
    said.metrics_schema = schema(120)
    said.statistics_schema = json.dumps({"pattern": "(" * 450 + ")" * 450})
    mona.state(said)
    text = written(body_of(container("n", "")))
    more = b'"digest":{"more":' + b"[" * 900 + b"]" * 900 + b","
    send(mona, text.replace(b'"digest":{', more, 1))
    replays(alone.settings)
