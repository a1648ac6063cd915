"""How long until 500 connected agents are back and reconciled after their coordinator was killed.

A round begins with the floor: nobody is connected, and all dial the coordinator that runs at once,
without any wait. Then the coordinator is killed with SIGKILL and started again; the clock runs from
the kill until the last agent had its Welcome. A restart cannot be quicker than the start of the
program, which compares every table with the ledger, and that storm: the ratio is the restart to the
sum of both. What is more is the agents' backoff: full jitter, doubled with each try that failed.

After both the coordinator is asked: all sites are connected, what each does is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bench.bulk import bulk
from bench.cheap_agents import CheapAgent
from bench.coordinators import Founded, founded, serving
from bench.figure import figure, progress
from bench.ordered import order_everyone
from bench.process import cpu_seconds
from housecall import client
from housecall.identity import Identity
from housecall.v1 import registry_pb2, registry_pb2_grpc
from housecall.v1 import statements_pb2 as pb

AGENTS = 500
ROUNDS = 2
BACK_S = 180.0
LOOK_S = 0.02
Times = dict[str, float]


class Program:
    """The coordinator's process."""

    def __init__(self, at: Founded) -> None:
        self._at = at
        self._running = contextlib.ExitStack()
        self._start()

    def _start(self) -> None:
        self.pid = self._running.enter_context(serving(self._at))

    def kill_and_start(self) -> None:
        """Until it listens again."""
        os.kill(self.pid, signal.SIGKILL)
        self._running.close()
        self._start()

    def close(self) -> None:
        self._running.close()


def main() -> None:
    """Measure in a temporary folder and print the figure."""
    with tempfile.TemporaryDirectory(prefix="housecall-bench-") as folder:
        at = founded(Path(folder, "coordinator"))
        with bulk(at) as made:
            (olga,) = made.join(["olga"], pb.ROLE_OPERATOR)
            sites = made.join([f"site-{number}" for number in range(AGENTS)], pb.ROLE_SITE)
            orders = order_everyone(made, sites)
        agents = [CheapAgent(site.identity, orders[site.name]) for site in sites]
        with contextlib.closing(Program(at)) as program:
            rounds = asyncio.run(_rounds(program, agents, olga.identity))
    values = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    values |= {"agents": AGENTS, "rounds": ROUNDS}
    floor_s = values["start_s"] + values["storm_s"]
    figure("reconnect", values["restart_s"] / floor_s, 5.0, False, values)


async def _rounds(program: Program, agents: Sequence[CheapAgent], olga: Identity) -> list[Times]:
    rounds = []
    async with _connected(agents):
        pass
    for _ in range(ROUNDS):
        storm = await _storm(program, agents, olga)
        restart = await _restart(program, agents, olga)
        rounds.append(restart | storm)
        progress(
            f"reconnect: {restart['restart_s']:.1f} s after a kill, of these "
            f"{restart['start_s']:.1f} s until it listens; {storm['storm_s']:.1f} s all at once"
        )
    return rounds


async def _restart(program: Program, agents: Sequence[CheapAgent], olga: Identity) -> Times:
    async with _connected(agents) as everyone:
        dials = _dials(agents)
        began = time.monotonic()
        await asyncio.to_thread(program.kill_and_start)
        start_s = time.monotonic() - began
        await _all_welcome(agents, everyone, since=began)
        back = [agent.welcome_at - began for agent in agents]
        await asyncio.to_thread(_check, olga)
        return {
            "restart_s": max(back),
            "restart_median_agent_s": statistics.median(back),
            "start_s": start_s,
            "restart_server_cpu_s": cpu_seconds(program.pid),
            "restart_dials_each": (_dials(agents) - dials) / AGENTS,
        }


async def _storm(program: Program, agents: Sequence[CheapAgent], olga: Identity) -> Times:
    await asyncio.to_thread(_await_nobody, olga)
    dials, server_cpu, client_cpu = _dials(agents), cpu_seconds(program.pid), time.process_time()
    began = time.monotonic()
    async with _connected(agents):
        values = {
            "storm_s": max(agent.welcome_at for agent in agents) - began,
            "storm_server_cpu_s": cpu_seconds(program.pid) - server_cpu,
            "storm_client_cpu_s": time.process_time() - client_cpu,
            "storm_dials_each": (_dials(agents) - dials) / AGENTS,
        }
        await asyncio.to_thread(_check, olga)
    return values


def _dials(agents: Sequence[CheapAgent]) -> int:
    return sum(agent.dials for agent in agents)


@contextlib.asynccontextmanager
async def _connected(agents: Sequence[CheapAgent]) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
    """Everybody dials at once; entered when all are welcome. They hang up at the end."""
    began = time.monotonic()
    everyone = [asyncio.create_task(agent.run()) for agent in agents]
    try:
        await _all_welcome(agents, everyone, since=began)
        yield everyone
    finally:
        for task in everyone:
            task.cancel()
        await asyncio.gather(*everyone, return_exceptions=True)


async def _all_welcome(
    agents: Sequence[CheapAgent], everyone: Sequence[asyncio.Task[None]], *, since: float
) -> None:
    """Raises what ended one of them for good."""
    while missing := sum(agent.welcome_at < since for agent in agents):
        for task in everyone:
            if task.done():
                task.result()
        if time.monotonic() > since + BACK_S:
            raise TimeoutError(f"{missing} agents are not back after {BACK_S:.0f} s")
        await asyncio.sleep(LOOK_S)


def _overview(olga: Identity) -> registry_pb2.GetOverviewResponse:
    with client.connect(olga) as channel, olga.refusals():
        stub = registry_pb2_grpc.RegistryStub(channel)
        return stub.GetOverview(registry_pb2.GetOverviewRequest())


def _check(olga: Identity) -> None:
    """All are connected, and what each does is known."""
    found = _overview(olga)
    connected = sum(each.site.connected for each in found.sites)
    doing = sum(each.accepted for each in found.executions)
    assert (connected, doing) == (AGENTS, AGENTS), f"{connected} connected, {doing} known"


def _await_nobody(olga: Identity) -> None:
    """Until the coordinator knows that everybody hung up."""
    deadline = time.monotonic() + BACK_S
    while any(each.site.connected for each in _overview(olga).sites):
        if time.monotonic() > deadline:
            raise TimeoutError(f"sites that hung up are connected after {BACK_S:.0f} s")
        time.sleep(LOOK_S)
