"""Faults of disks and files: full, damaged, gone for a while."""

from __future__ import annotations

import os
import random

from tests.faults import journals
from tests.faults.disks import damage
from tests.faults.kills import Hurt
from tests.faults.plan import Fault
from tests.faults.world import World

LEAVE_BYTES = 16 * 1024


def site_disk_full(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    site = choice.choice(world.sites)
    leave = choice.choice((0, LEAVE_BYTES, 16 * LEAVE_BYTES))
    return Hurt(site.name, site.disk.free) if site.disk.fill(leave) else None


def coordinator_disk_full(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    disk = world.coordinators.disk
    return Hurt("store", disk.free) if disk.fill(choice.choice((0, LEAVE_BYTES))) else None


def output_damaged(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    """Predictions, metrics or a log of some execution, whatever its state."""
    site = choice.choice(world.sites)
    files = sorted(path for path in (site.state / "executions").rglob("*") if path.is_file())
    if not files:
        return None
    file = choice.choice(files[-40:])
    number = file.relative_to(site.state / "executions").parts[0]
    world.damaged.add((site.name, int(number)))
    done = damage(file, choice)
    return Hurt(f"{site.name} {number}/{file.name} {done}") if done else None


def cache_damaged(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    """Fetched files of a model, or known fingerprints: what can be made again."""
    site = choice.choice(world.sites)
    files = [site.state / "fingerprints.sqlite", *sorted((site.state / "files").glob("*/files/*"))]
    file = choice.choice(files)
    # A container that has the file open sees what no check before its start can see.
    world.damaged |= {(site.name, number) for number in journals.open_executions(site)}
    done = damage(file, choice)
    return Hurt(f"{site.name} {file.name} {done}") if done else None


def data_damaged(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    """Prepared data is not what was registered for a while: no result may be made from it."""
    site = choice.choice(world.sites)
    files = sorted((site.state / "datasets").glob("*/prepared/data/*"))
    if not files:
        return None
    file = choice.choice(files)
    content, status = file.read_bytes(), file.stat()
    done = damage(file, choice)

    def restore() -> None:
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    return Hurt(f"{site.name} {file.name} {done}", restore) if done else None


def image_lost(world: World, fault: Fault, choice: random.Random) -> Hurt | None:
    """The engine has no such image any more, until it is loaded again; containers run on."""
    image_id = world.committee.offers.image_id
    file = world.engine.image_file(image_id)
    if file is None:
        return None
    away = file.with_suffix(".lost")
    file.rename(away)
    return Hurt(image_id[:19], lambda: away.rename(file))
