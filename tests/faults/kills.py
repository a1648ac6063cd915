"""Kills and stops: of agents, coordinators, PostgreSQL, the engine and containers.

What a fault met and what ends it is a `Hurt`; None means that there was nothing to hurt.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress

from tests.faults import boundaries
from tests.faults.boundaries import Armed
from tests.faults.plan import Fault
from tests.faults.programs import Program, descendants
from tests.faults.world import World


class Hurt:
    """A fault that happened: what it hit, and what ends it."""

    def __init__(self, text: str, heal: Callable[[], object] = lambda: None) -> None:
        self.text, self.heal = text, heal


Injection = Callable[[World, Fault, random.Random], Hurt | Armed | None]


def _kill(program: Program, fault: Fault) -> Hurt | None:
    return Hurt(program.name) if program.kill(fault.seconds) else None


def _stop(program: Program) -> Hurt | None:
    if not program.send(signal.SIGSTOP):
        return None
    pid = program.pid

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    return Hurt(program.name, go_on)


def agent_kill(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    return _kill(choice.choice(world.sites).program, fault)


def agent_stop(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    return _stop(choice.choice(world.sites).program)


def agent_terminate(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    program = choice.choice(world.sites).program
    return Hurt(program.name) if program.send(signal.SIGTERM) else None


def agent_boundary(world: World, fault: Fault, choice: random.Random) -> Armed | None:
    site = choice.choice(world.sites)
    traps = world.traps["agent-boundary"]
    return boundaries.arm(site.program, site.trap, traps, choice, world.options.sides)


def coordinator_kill(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    return _kill(choice.choice(world.coordinators.replicas).program, fault)


def coordinator_stop(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    return _stop(choice.choice(world.coordinators.replicas).program)


def coordinator_terminate(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    program = choice.choice(world.coordinators.replicas).program
    return Hurt(program.name) if program.send(signal.SIGTERM) else None


def coordinator_boundary(world: World, fault: Fault, choice: random.Random) -> Armed | None:
    replica = choice.choice(world.coordinators.replicas)
    traps = world.traps["coordinator-boundary"]
    return boundaries.arm(replica.program, replica.trap, traps, choice, world.options.sides)


def postgres_kill(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    postgres = world.coordinators.postgres
    return _kill(postgres.program, fault) if postgres else None


def postgres_backend_kill(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    """The server takes all of its connections down and recovers."""
    postgres = world.coordinators.postgres
    below = descendants(postgres.program.pid) if postgres and postgres.program.pid else []
    return _signal(choice.choice(below), signal.SIGKILL) if below else None


def postgres_stop(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    postgres = world.coordinators.postgres
    if postgres is None or not postgres.program.pid:
        return None
    return _freeze([postgres.program.pid, *descendants(postgres.program.pid)], "postgres")


def engine_kill(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    return Hurt("dockerd and containerd") if world.engine.kill(fault.seconds) else None


def engine_containerd_kill(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    return Hurt("containerd") if world.engine.kill_containerd() else None


def engine_terminate(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    """By chance it comes back as Docker is by default: without live-restore."""
    live = choice.random() < 0.5 and world.options.live_restore
    back = "with" if live else "without"
    done = world.engine.terminate(live_restore=live)
    return Hurt(f"dockerd, back {back} live-restore") if done else None


def engine_stop(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    return _stop(world.engine.program)


def container_kill(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    run = world.watch.any_of_ours(choice)
    if run is None or not (pids := world.watch.processes(run.container_id)):
        return None
    done = [_signal(pid, signal.SIGKILL) for pid in pids]
    return Hurt(f"{run.owner} {run.step}") if any(done) else None


def container_stop(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    run = world.watch.any_of_ours(choice)
    pids = world.watch.processes(run.container_id) if run else []
    return _freeze(pids, f"{run.owner} {run.step}") if run and pids else None


def _freeze(pids: list[int], what: str) -> Hurt:
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    return Hurt(what, lambda: [_signal(pid, signal.SIGCONT) for pid in pids])


def _signal(pid: int, number: signal.Signals) -> Hurt | None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return None
    return Hurt(f"process {pid}")
