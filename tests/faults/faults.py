"""Every kind of fault by its name, and those of links and clocks.

A fault that met nothing to hurt did not happen and is not counted.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.faults import files, kills, wires
from tests.faults.kills import Hurt, Injection
from tests.faults.plan import Fault
from tests.faults.proxy import CALM, Link, Trouble
from tests.faults.world import World

BOTH, DOWN, UP = frozenset({"up", "down"}), frozenset({"down"}), frozenset({"up"})
HOUR = 3600.0


def _link(world: World, choice: random.Random) -> Link:
    return world.relay.links[choice.choice(sorted(world.relay.links))]


def link_cut(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    link = _link(world, choice)
    return Hurt(link.name) if world.relay.set(link, link.trouble, cut=True) else None


def _troubled(trouble: Callable[[random.Random], Trouble]) -> Injection:
    def inject(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
        link = _link(world, choice)
        made = trouble(choice)
        world.relay.set(link, made, cut=made.refused)
        # What was held back comes late, or never: then the far end only finds out when it speaks.
        cut = choice.random() < 0.5
        return Hurt(link.name, lambda: world.relay.set(link, CALM, cut=cut))

    return inject


def agent_clock(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    site = choice.choice(world.sites)
    by = _jump(choice)
    if not site.clock.jump(by):
        return None
    dials = choice.random() < 0.5  # and checks certificates by the wrong clock
    if dials:
        world.relay.set(site.link, site.link.trouble, cut=True)
    text = f"{site.name} {by:+.0f} s{', dials anew' if dials else ''}"
    return Hurt(text, lambda: site.clock.jump(0))


def coordinator_clock(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    replica = choice.choice(world.coordinators.replicas)
    by, name = _jump(choice), replica.program.name
    if not replica.clock.jump(by):
        return None
    return Hurt(f"{name} {by:+.0f} s", lambda: replica.clock.jump(0))


def postgres_clock(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    postgres = world.coordinators.postgres
    by = _jump(choice)
    if postgres is None or not postgres.clock.jump(by):
        return None
    return Hurt(f"postgres {by:+.0f} s", lambda: postgres.clock.jump(0))


def _jump(choice: random.Random) -> float:
    return choice.choice((-1, 1)) * choice.choice((90.0, 600.0, 2 * HOUR, 20 * HOUR))


INJECTIONS: dict[str, Injection] = {
    "agent-kill": kills.agent_kill,
    "agent-boundary": kills.agent_boundary,
    "agent-stop": kills.agent_stop,
    "agent-terminate": kills.agent_terminate,
    "coordinator-kill": kills.coordinator_kill,
    "coordinator-boundary": kills.coordinator_boundary,
    "coordinator-stop": kills.coordinator_stop,
    "coordinator-terminate": kills.coordinator_terminate,
    "postgres-kill": kills.postgres_kill,
    "postgres-backend-kill": kills.postgres_backend_kill,
    "postgres-stop": kills.postgres_stop,
    "engine-kill": kills.engine_kill,
    "engine-containerd-kill": kills.engine_containerd_kill,
    "engine-stop": kills.engine_stop,
    "engine-terminate": kills.engine_terminate,
    "container-kill": kills.container_kill,
    "container-stop": kills.container_stop,
    "link-cut": link_cut,
    "link-refused": _troubled(lambda choice: Trouble(refused=True)),
    "link-half-open": _troubled(lambda choice: Trouble(stalled=BOTH)),
    "link-one-way": _troubled(lambda choice: Trouble(stalled=choice.choice((UP, DOWN)))),
    "link-slow": _troubled(lambda choice: Trouble(delay_s=choice.uniform(0.05, 0.5))),
    "link-throttled": _troubled(lambda choice: Trouble(bytes_per_s=choice.randrange(2000, 20000))),
    "link-dropping": _troubled(lambda choice: Trouble(budget=choice.randrange(500, 20000))),
    "site-disk-full": files.site_disk_full,
    "coordinator-disk-full": files.coordinator_disk_full,
    "output-damaged": files.output_damaged,
    "cache-damaged": files.cache_damaged,
    "data-damaged": files.data_damaged,
    "image-lost": files.image_lost,
    "agent-clock": agent_clock,
    "coordinator-clock": coordinator_clock,
    "postgres-clock": postgres_clock,
    **wires.INJECTIONS,
}
