"""Several coordinators on one PostgreSQL: real processes, behind one address."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version

import grpc
import pytest

from coordinator.store.databases import parse_url, place
from housecall.rpc import from_rpc_error
from housecall.v1 import fleet_pb2
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests import postgres
from tests.coordinator.replicas import Group, Replica, replicas
from tests.coordinator.test_fleet import Agent, order_line, prepared, until
from tests.coordinator.world import Party, register_dataset

RACES = 10


@pytest.fixture(scope="module")
def group(postgresql: postgres.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Of tests that leave the replicas as they were."""
    with (
        postgresql.database() as name,
        replicas(tmp_path_factory.mktemp("group"), postgresql.url(name)) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def story(group: Group) -> tuple[Party, Party, pb.Pin]:
    """(north, carla, a model that may be ordered at north)."""
    north = group.world.join("north", pb.ROLE_SITE)
    carla, _, other = prepared(group.world, north)
    return north, carla, other


@contextlib.contextmanager
def agent(at: Replica, party: Party, **hello: object) -> Iterator[Agent]:
    made = Agent(at.party(party), **hello)
    try:
        yield made
    finally:
        made.close()


def refused(at: Replica, party: Party, **hello: object) -> str:
    """The code that a Hello is refused with."""
    with pytest.raises(grpc.RpcError) as caught:
        Agent(at.party(party), **hello)
    return from_rpc_error(caught.value, "coordinator").code


def site(at: Replica, party: Party, name: str) -> reg.Site:
    sites = at.party(party).registry.ListSites(reg.ListSitesRequest()).sites
    return next(each for each in sites if each.name == name)


def end_order(carla: Party, number: int) -> None:
    carla.state(pb.ExecutionCancelled(execution_ids=[number], reason="enough"))


def test_what_one_replica_accepts_reaches_the_agent_at_the_other(
    group: Group, story: tuple[Party, Party, pb.Pin]
) -> None:
    north, carla, model = story
    for here, there in (group.replicas, group.replicas[::-1]):
        orderer = here.party(carla)
        with agent(there, north, cursor=10**6) as served:
            orderer.state(order_line("north/1", model))
            order = served.next("order").order
            end_order(orderer, order.execution_id)
            assert served.next("cancel").cancel.execution_id == order.execution_id


def test_every_replica_says_the_same_of_a_site_and_its_work(
    group: Group, story: tuple[Party, Party, pb.Pin]
) -> None:
    north, carla, model = story
    here, there = group
    operator = group.world.operator
    with agent(here, north, session_id="x") as served:
        until(lambda: site(there, operator, north.name).connected, "the other one knows")
        assert site(there, operator, north.name).agent_version == "test"
        served.send(heartbeat=fleet_pb2.Heartbeat(running=3, waiting=4))
        until(lambda: site(there, operator, north.name).running == 3, "and hears the heartbeat")
        carla.state(order_line("north/1", model))
        number = served.next("order").order.execution_id
        running = pb.EXECUTION_STATE_RUNNING
        served.send(progress=fleet_pb2.Progress(execution_id=number, state=running, step="infer"))
        request = reg.GetExecutionRequest(id=number)
        elsewhere = there.party(carla).registry
        until(lambda: elsewhere.GetExecution(request).execution.step == "infer", "and the progress")
        end_order(carla, number)
    until(lambda: not site(there, operator, north.name).connected, "and that it left")
    one, other = (site(each, operator, north.name) for each in group)
    assert one == other


def test_every_replica_lists_all_that_are_up(
    group: Group, story: tuple[Party, Party, pb.Pin]
) -> None:
    """Those that serve no site, too."""
    here, there = group
    operator = group.world.operator

    def listed(at: Replica) -> list[reg.GetOverviewResponse.Replica]:
        return list(at.party(operator).registry.GetOverview(reg.GetOverviewRequest()).replicas)

    with agent(here, story[0]):
        until(lambda: sorted(each.sites for each in listed(there)) == [0, 1], "both are there")
        until(lambda: listed(here) == listed(there), "and say the same")
        for each in listed(here):
            assert each.host == socket.gethostname()
            assert each.version == version("housecall")
            assert each.store == place(parse_url(group.world.settings.database_url))
            assert each.HasField("serving_since")


def test_every_replica_tells_how_far_a_preparation_is(
    group: Group, story: tuple[Party, Party, pb.Pin]
) -> None:
    north, carla, _ = story
    here, there = group
    benchmark = carla.registry.GetBenchmark(reg.GetBenchmarkRequest(id=1)).benchmark
    request = reg.GetDatasetRequest(id=register_dataset(north, benchmark.pins.preparation, 2))
    said = fleet_pb2.Preparing(
        dataset_id="north/2", state=fleet_pb2.PREPARATION_STATE_BROKEN, benchmark_id=1
    )

    def told() -> bool:
        elsewhere = there.party(carla).registry.ListDatasets(reg.ListDatasetsRequest()).datasets
        return any(each.preparing == said for each in elsewhere)

    with agent(here, north, preparing=[said]):
        until(told, "the other one tells it")
        both = [each.party(carla).registry.GetDataset(request).dataset for each in group]
        assert both[0] == both[1]
    with agent(here, north):
        until(lambda: not told(), "and that it was taken back")


def test_a_second_agent_wins_wherever_it_connects_and_the_first_yields(
    group: Group, story: tuple[Party, Party, pb.Pin]
) -> None:
    north, _, _ = story
    here, there = group
    with agent(here, north, session_id="first") as first, contextlib.ExitStack() as seconds:
        second = seconds.enter_context(agent(there, north, session_id="second"))
        assert first.next("superseded")
        assert first.ended()
        for at in group:
            assert refused(at, north, session_id="first", yields=True) == "SITE_ELSEWHERE"
        again = seconds.enter_context(agent(here, north, session_id="second", yields=True))
        assert second.ended()
        assert refused(there, north, session_id="first", yields=True) == "SITE_ELSEWHERE"
        again.close()
        until(lambda: not site(there, group.world.operator, north.name).connected, "it left")
        with agent(there, north, session_id="first", yields=True) as back:
            assert back.welcome


@pytest.mark.parametrize("yields", [(False, False), (True, False), (True, True)])
def test_two_agents_that_connect_at_the_same_moment_are_never_both_served(
    group: Group, story: tuple[Party, Party, pb.Pin], yields: tuple[bool, bool]
) -> None:
    """Exactly one stream stays, whatever each replica knew when it began; an agent that yields is
    not the one where the other does not."""
    north, carla, model = story
    parties = [each.party(north) for each in group]
    for number in range(RACES):
        start = threading.Barrier(2)

        def connect(which: int, number: int = number, start: threading.Barrier = start) -> Agent:
            start.wait()
            said = {"session_id": f"{which} of {number}", "yields": yields[which]}
            return Agent(parties[which], cursor=10**6, **said)

        with ThreadPoolExecutor(2) as pool:
            racing = [pool.submit(connect, which) for which in (0, 1)]
        agents = {which: won(each) for which, each in enumerate(racing)}
        ordered = int(carla.state(order_line("north/1", model)).id)
        (served,) = [which for which, each in agents.items() if each and gets(each, ordered)]
        assert served == 1 or yields[0] == yields[1]
        end_order(carla, ordered)
        for each in agents.values():
            if each is not None:
                each.close()
        until(lambda: not any(is_served(at, group, north) for at in group), "both have left")


def is_served(at: Replica, group: Group, party: Party) -> bool:
    return site(at, group.world.operator, party.name).connected


def won(racing: Future[Agent]) -> Agent | None:
    """The agent that was welcomed, if it was."""
    try:
        return racing.result()
    except grpc.RpcError as error:
        if from_rpc_error(error, "coordinator").code in ("SITE_ELSEWHERE", "SUPERSEDED"):
            return None
        raise


def gets(one: Agent, ordered: int) -> bool:
    """Whether that order reaches the agent, after older ones; False where its stream ends."""
    try:
        while one.next("order").order.execution_id != ordered:
            pass
    except (AssertionError, grpc.RpcError):
        return False
    return True
