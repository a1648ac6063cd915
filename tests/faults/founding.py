"""The world founded and enrolled, through the programs themselves, before any fault."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from housecall.v1 import statements_pb2 as pb
from tests.faults import boundaries, clocks, joining, namespaces
from tests.faults.committee import Committee
from tests.faults.coordinators import Coordinators
from tests.faults.desk import Desk
from tests.faults.disks import unmount_below
from tests.faults.engine import EngineProgram
from tests.faults.foreign import Foreign
from tests.faults.journals import JournalWatch
from tests.faults.newcomers import Newcomers
from tests.faults.offers import Offers
from tests.faults.people import SitePeople
from tests.faults.plan import Options
from tests.faults.programs import Keeper, end_all, wait_for
from tests.faults.proxy import LOOPBACK, Relay
from tests.faults.sites import Site
from tests.faults.watch import Watch
from tests.faults.world import World

NAMES = ("north", "south", "east", "west")


@dataclass
class Ground:
    """What every part of the world stands on; `stack` ends what was begun."""

    options: Options
    sockets: Path
    stack: contextlib.ExitStack
    preload: Path | None
    keeper: Keeper = field(default_factory=Keeper)
    relay: Relay = field(default_factory=Relay)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._choice = random.Random(self.options.seed + 1)
        self.stack.callback(self.relay.close)
        self.stack.callback(_end_programs, self.keeper)

    def choice(self) -> random.Random:
        """Somebody's own, so that who acts first does not matter to the others."""
        return random.Random(self._choice.random())


@contextlib.contextmanager
def built(options: Options) -> Iterator[World]:
    """The world, ready and unhurt; everything that it started ends with it."""
    unmount_below(options.folder)
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    namespaces.sweep()
    clocks.sweep()
    sockets = Path(tempfile.mkdtemp(prefix="hcf-"))
    sockets.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        stack.callback(clocks.sweep)
        world = _build(Ground(options, sockets, stack, clocks.library()))
        stack.callback(_end_programs, world.keeper)
        yield world


def _build(ground: Ground) -> World:
    options, stack, stop = ground.options, ground.stack, ground.stop
    engine = EngineProgram(
        options.folder / "engine",
        ground.sockets,
        ground.keeper,
        live_restore=options.live_restore,
    )
    stack.callback(engine.close)
    image = stack.enter_context(ThreadPoolExecutor(1)).submit(engine.ready)
    coordinators = _coordinators(ground)
    desks = _desks(options.folder, coordinators, stop)
    stack.callback(_close, desks)
    offers = Offers(
        desks["mona"],
        image.result(),
        options.folder / "files",
        ticks=options.ticks,
        choice=ground.choice(),
    )
    committee = Committee(desks["carla"], offers, choice=ground.choice(), stop=stop)
    committee.found()
    newcomers = Newcomers(desks, committee, options.folder, choice=ground.choice(), stop=stop)
    sites = [_site(ground, name, coordinators, desks["olga"]) for name in NAMES[: options.sites]]
    for site in sites:
        site.make_agent(ground.keeper, engine.url)
    _set_first_traps(options, sites)
    for site in sites:
        site.program.start()
    people = [SitePeople(site, committee, ground.choice(), stop) for site in sites]
    watch = Watch(engine.cgroup, engine.data)
    stack.callback(watch.close)
    world = World(
        options=options,
        lacks=_lacks(ground.preload, sites),
        keeper=ground.keeper,
        relay=ground.relay,
        engine=engine,
        coordinators=coordinators,
        watch=watch,
        foreign=Foreign(engine, image.result()),
        desks=desks,
        sites=sites,
        committee=committee,
        newcomers=newcomers,
        people=people,
        journals=JournalWatch(sites, [each.program.log for each in coordinators.replicas]),
        stop=stop,
    )
    stack.callback(world.journals.close)
    stack.callback(stop.set)
    _bring_first(people)
    return world


def _coordinators(ground: Ground) -> Coordinators:
    coordinators = Coordinators(
        ground.options.folder / "coordinator",
        ground.sockets / "store",
        ground.keeper,
        ground.relay,
        replicas=ground.options.replicas,
        preload=ground.preload,
    )
    ground.stack.callback(coordinators.close)
    return coordinators


def _site(ground: Ground, name: str, coordinators: Coordinators, olga: Desk) -> Site:
    """Enrolled, on a network of its own where that can be."""
    if network := namespaces.make():
        ground.stack.callback(network.close)
    host = network.near if network else LOOPBACK
    link = ground.relay.add(name, coordinators.ports, host)
    folder = ground.options.folder / name
    clock = clocks.WallClock(folder.with_suffix(".clock"), ground.preload)
    site = Site(name, folder, ground.sockets, link=link, network=network, clock=clock)
    ground.stack.callback(site.close)
    site.enrol(joining.token(olga, name, pb.ROLE_SITE))
    return site


def _set_first_traps(options: Options, sites: list[Site]) -> None:
    """A journal is made once: one agent dies before that commit, another after it."""
    if "agent-boundary".startswith(options.only):
        for site, side in zip(sites, boundaries.SIDES, strict=False):
            boundaries.set_trap(site.trap, side)


def _lacks(preload: Path | None, sites: list[Site]) -> list[str]:
    found = []
    if preload is None:
        found.append("no libfaketime here: no clock jumps")
    if not all(site.network for site in sites):
        found.append("no network namespaces here: agents stay on loopback, no wire is hurt")
    return found


def _bring_first(people: list[SitePeople]) -> None:
    """Each site's first dataset takes part before the first fault."""
    threads = [threading.Thread(target=each.bring) for each in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _desks(folder: Path, coordinators: Coordinators, stop: threading.Event) -> dict[str, Desk]:
    wait_for(lambda: all(each.answers() for each in coordinators.replicas), "coordinators answer")
    olga = joining.desk(coordinators.token.read_text().strip(), folder / "olga", stop)
    made = {"olga": olga}
    for name in ("carla", "mona"):
        made[name] = joining.desk(joining.token(olga, name), folder / name, stop)
    return made


def _close(desks: dict[str, Desk]) -> None:
    """Those of newcomers too."""
    for each in list(desks.values()):
        each.close()


def _end_programs(keeper: Keeper) -> None:
    """Agents first, then coordinators and their store; the engine ends itself."""
    keeper.close()
    agents = [program for program in keeper.programs if program.name in NAMES]
    others = [program for program in keeper.programs[::-1] if program.name != "dockerd"]
    for stage in (agents, others):
        end_all([program for program in stage if program.alive])
