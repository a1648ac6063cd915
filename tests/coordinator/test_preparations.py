"""Who is told how far a dataset's preparation is, and what a site may say of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from housecall.errors import Refusal
from housecall.rpc import refusals
from housecall.v1 import fleet_pb2
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.test_fleet import Agent, until
from tests.coordinator.world import (
    PREPARATION_CONFIG,
    Party,
    World,
    benchmark_statement,
    operational_statement,
    register_container,
    register_dataset,
    register_model,
)

PREPARING = fleet_pb2.PREPARATION_STATE_PREPARING


@dataclass
class Cast:
    """Pia owns the preparation of benchmark 1, whose committee is Carla. Benchmark 2 has the same
    preparation and benchmark 3 another one; their committee is Mallory."""

    pia: Party
    carla: Party
    mallory: Party
    north: Party
    south: Party


@pytest.fixture
def database_url() -> str:
    """No store keeps what these tests are about."""
    return ""


@pytest.fixture
def cast(coordinator: World) -> Cast:
    pia, carla, mallory = (coordinator.join(n, pb.ROLE_PERSON) for n in ("pia", "carla", "mallory"))
    north, south = (coordinator.join(n, pb.ROLE_SITE) for n in ("north", "south"))
    preparation = register_container(pia, "p", pb.CONTAINER_ROLE_PREPARATION, PREPARATION_CONFIG)
    said = benchmark_statement(carla, register_model(pia, "m"))
    other = pb.Pin()
    other.CopyFrom(said.preparation)
    for owner, pin, name in (
        (carla, preparation, "a"),
        (mallory, preparation, "b"),
        (mallory, other, "c"),
    ):
        said.preparation.CopyFrom(pin)
        said.name = name
        del said.committee[:]
        said.committee.append(owner.name)
        owner.state(said)
    register_dataset(north, preparation)
    return Cast(pia, carla, mallory, north, south)


def preparing(**fields: object) -> fleet_pb2.Preparing:
    values: dict[str, object] = {
        "dataset_id": "north/1",
        "state": PREPARING,
        "step": "prepare",
        "benchmark_id": 1,
        "shares": {"done": 40, "needs review": 60},
    }
    return fleet_pb2.Preparing(**values | fields)  # type: ignore[arg-type]


def seen(by: Party) -> reg.Dataset | None:
    """The one dataset that there is, if it is there for this party."""
    found = by.registry.ListDatasets(reg.ListDatasetsRequest()).datasets
    return found[0] if found else None


def step(by: Party) -> str:
    found = seen(by)
    return found.preparing.step if found else ""


def test_those_whom_it_concerns_see_it_and_nothing_else(coordinator: World, cast: Cast) -> None:
    agent = Agent(cast.north)
    assert seen(cast.carla) is None
    agent.send(preparing=preparing())
    until(lambda: seen(cast.carla), "the committee of benchmark 1 sees it")
    for outsider in (cast.carla, cast.pia):
        found = seen(outsider)
        assert found
        assert found.preparing == preparing()
        rest = reg.Dataset()
        rest.CopyFrom(found)
        assert rest.preparing_at.seconds
        for field in ("preparing", "preparing_at"):
            rest.ClearField(field)
        assert rest == reg.Dataset(id="north/1", state=reg.DATASET_STATE_REGISTERED)
    for insider in (cast.north, coordinator.operator):
        found = seen(insider)
        assert found
        assert found.statement.name == "data"
        assert found.preparing == preparing()
    request = reg.GetDatasetRequest(id="north/1")
    assert cast.carla.registry.GetDataset(request).dataset == seen(cast.carla)
    for stranger in (cast.mallory, cast.south):
        assert seen(stranger) is None
        with pytest.raises(Refusal) as caught, refusals("coordinator"):
            stranger.registry.GetDataset(request)
        assert caught.value.code == "DATASET_NOT_FOUND"


def test_a_site_names_a_benchmark_with_that_preparation_only(cast: Cast) -> None:
    agent = Agent(cast.north)
    for number, sees in ((3, False), (99, False), (2, True)):
        agent.send(preparing=preparing(benchmark_id=number))
        until(lambda: _benchmark(cast.pia) == number, "it was taken")  # noqa: B023
        assert bool(seen(cast.mallory)) is sees
        assert seen(cast.carla) is None


def _benchmark(by: Party) -> int:
    found = seen(by)
    return found.preparing.benchmark_id if found else 0


def test_a_hello_says_it_again_or_takes_it_back(cast: Cast) -> None:
    first = Agent(cast.north, preparing=[preparing()])
    assert step(cast.carla) == "prepare"
    first.close()
    assert first.ended()
    assert step(cast.carla) == "prepare", "it stands while the site is away"
    second = Agent(cast.north, preparing=[preparing(step="sanity_check")])
    assert step(cast.carla) == "sanity_check"
    second.send(preparing=fleet_pb2.Preparing(dataset_id="north/1"))
    until(lambda: seen(cast.carla) is None, "there is nothing to tell any more")
    second.send(preparing=preparing())
    until(lambda: step(cast.carla) == "prepare", "and there is again")
    Agent(cast.north)
    assert seen(cast.carla) is None, "a site that says nothing in its Hello consents no more"


def test_an_operational_dataset_has_none(cast: Cast) -> None:
    Agent(cast.north, preparing=[preparing()])
    cast.north.state(operational_statement("north/1"))
    found = seen(cast.north)
    assert found
    assert not found.HasField("preparing")
    assert seen(cast.carla) is None


def test_nobody_says_anything_of_anothers_dataset(cast: Cast) -> None:
    Agent(cast.north, preparing=[preparing()])
    evil = Agent(cast.south, preparing=[preparing(step="statistics")])
    evil.send(preparing=preparing(step="statistics"))
    evil.send(preparing=preparing(dataset_id="north/2"))
    evil.send(submit=fleet_pb2.Submit(envelope=b"x"))
    assert evil.next("refused"), "what came before was handled"
    assert step(cast.carla) == "prepare"


def test_what_no_site_may_say_is_left_out(cast: Cast) -> None:
    shares = {f"s{number:02}": 1 for number in range(30)}
    shares |= {"/data/jane": 1, "a" * 41: 1, "one\nline": 1, "": 1, "many": 101}
    hostile = preparing(step="/data/jane doe", shares=shares)
    hostile.state = 77  # type: ignore[assignment]
    Agent(cast.north, preparing=[hostile])
    assert seen(cast.carla) is None, "a state that there is not"
    Agent(cast.north, preparing=[preparing(step="/data/jane doe", shares=shares)])
    found = seen(cast.carla)
    assert found
    assert found.preparing.step == ""
    assert sorted(found.preparing.shares) == [f"s{number:02}" for number in range(21)]
