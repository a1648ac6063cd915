"""Is anything still under way? Asked of everybody, until nothing is or time is over."""

from __future__ import annotations

import time
from contextlib import suppress

import grpc
from docker.errors import DockerException

from housecall.errors import Refusal
from tests.faults import journals, ledger
from tests.faults.sites import Site
from tests.faults.world import World

POLL_S = 1.0
QUIET_LOOKS = 2
"""So many looks in a row find nothing, since work may be on its way from one to another."""


def await_rest(world: World, seconds: float) -> list[str]:
    """What is still under way when time is over; nothing = it came to rest."""
    deadline, quiet = time.monotonic() + seconds, 0
    while True:
        found = under_way(world)
        quiet = 0 if found else quiet + 1
        if quiet >= QUIET_LOOKS or time.monotonic() > deadline:
            return found
        time.sleep(POLL_S)


def under_way(world: World) -> list[str]:
    found = [
        f"{said.who}: {said.kind} has no answer"
        for each in list(world.desks.values())
        for said in each.pending()
    ]
    found += ["a site's people are busy" for each in world.people if not each.idle]
    history = ledger.read(world.coordinators.url)
    if history is None:
        return [*found, "the store does not answer"]
    found += [f"order {number} has no outcome" for number in history.open_orders()]
    for site in world.sites:
        found += journals.open_work(site)
        found += _live(site)
    return found + _containers(world)


def _live(site: Site) -> list[str]:
    """What the agent itself says that it is doing."""
    with suppress(Refusal, grpc.RpcError):
        status = site.status()
        said = {
            "steps running": status.running,
            "steps waiting": status.waiting,
            "in the outbox": status.outbox,
            "GPUs taken": sum(
                bool(gpu.local_execution_id or gpu.dataset_id) for gpu in status.gpus
            ),
        }
        found = [f"{site.name}: {count} {what}" for what, count in said.items() if count]
        if found and not status.connected:
            found.append(f"{site.name}: no link: {status.link_problem}")
        return found
    return [f"{site.name}: the agent does not answer"]


def _containers(world: World) -> list[str]:
    try:
        known = world.engine.containers()
    except (DockerException, OSError):
        return ["the engine does not answer"]
    ours = [each for each in known if (each["Labels"] or {}).get("housecall.agent")]
    return [
        f"container {each['Id'][:12]} of {each['Labels'].get('housecall.owner')} is {each['State']}"
        for each in ours
        if each["Id"] not in world.foreign.ids.values()
    ]
