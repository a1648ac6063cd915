"""The world that is hurt: a coordinator, three people, some sites, and links between all of them.

Everything is founded and enrolled through the programs themselves, before any fault.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from housecall import tokens
from housecall.identity import spiffe_id
from housecall.rpc import refusals
from housecall.v1 import authority_pb2, authority_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from tests.faults import clocks, desk
from tests.faults.committee import Committee
from tests.faults.coordinators import TRUST_DOMAIN, Coordinators
from tests.faults.desk import Desk
from tests.faults.disks import unmount_below
from tests.faults.engine import EngineProgram
from tests.faults.foreign import Foreign
from tests.faults.journals import JournalWatch
from tests.faults.people import SitePeople
from tests.faults.plan import Options
from tests.faults.programs import Keeper, end_all, wait_for
from tests.faults.proxy import Relay
from tests.faults.sites import Site
from tests.faults.variants import VARIANTS
from tests.faults.watch import Watch

NAMES = ("north", "south", "east", "west")


@dataclass
class World:
    """Everything that runs, and what is known of it. `damaged` are executions whose files were."""

    options: Options
    keeper: Keeper
    relay: Relay
    engine: EngineProgram
    coordinators: Coordinators
    watch: Watch
    foreign: Foreign
    desks: dict[str, Desk]
    sites: list[Site]
    committee: Committee
    people: list[SitePeople]
    journals: JournalWatch
    damaged: set[tuple[str, int]] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    def break_on_purpose(self, variant: str) -> None:
        """From now on some programs are broken in the way of `variants.py`."""
        agents = [site.program for site in self.sites]
        replicas = [replica.program for replica in self.coordinators.replicas]
        for program in agents if VARIANTS[variant].program == "agent" else replicas:
            program.end()
            program.environment["FAULTS_VARIANT"] = variant
            program.start()


@contextlib.contextmanager
def built(options: Options) -> Iterator[World]:
    """The world, ready and unhurt; everything that it started ends with it."""
    unmount_below(options.folder)
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    sockets = Path(tempfile.mkdtemp(prefix="hcf-"))
    sockets.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        world = _build(options, sockets, stack)
        stack.callback(_end_programs, world.keeper)
        yield world


def _build(options: Options, sockets: Path, stack: contextlib.ExitStack) -> World:
    choice = random.Random(options.seed + 1)
    stop = threading.Event()
    keeper, relay = Keeper(), Relay()
    stack.callback(relay.close)
    stack.callback(_end_programs, keeper)
    engine = EngineProgram(
        options.folder / "engine", sockets, keeper, live_restore=options.live_restore
    )
    stack.callback(engine.close)
    pool = stack.enter_context(ThreadPoolExecutor(1))
    image = pool.submit(engine.ready)
    preload = clocks.library()
    coordinators = Coordinators(
        options.folder / "coordinator",
        sockets / "store",
        keeper,
        relay,
        replicas=options.replicas,
        preload=preload,
    )
    stack.callback(coordinators.close)
    desks = _desks(options.folder, coordinators, stop)
    for each in desks.values():
        stack.callback(each.close)
    committee = Committee(
        desks["carla"],
        desks["mona"],
        image.result(),
        options.folder / "files",
        choice=random.Random(choice.random()),
        stop=stop,
    )
    committee.found()
    sites = []
    for name in NAMES[: options.sites]:
        link = relay.add(name, coordinators.ports)
        site = Site(name, options.folder / name, sockets, link)
        stack.callback(site.close)
        site.enrol(_token(desks["olga"], name, pb.ROLE_SITE))
        clock = clocks.WallClock(site.folder / "clock", preload)
        site.make_agent(keeper, engine.url, clock)
        site.program.start()
        sites.append(site)
    people = [SitePeople(site, committee, random.Random(choice.random()), stop) for site in sites]
    watch = Watch(engine.cgroup, engine.data)
    stack.callback(watch.close)
    world = World(
        options=options,
        keeper=keeper,
        relay=relay,
        engine=engine,
        coordinators=coordinators,
        watch=watch,
        foreign=Foreign(engine, image.result()),
        desks=desks,
        sites=sites,
        committee=committee,
        people=people,
        journals=JournalWatch(sites),
        stop=stop,
    )
    stack.callback(world.journals.close)
    stack.callback(stop.set)
    _bring_first(people)
    return world


def _bring_first(people: list[SitePeople]) -> None:
    """Each site's first dataset takes part before the first fault."""
    threads = [threading.Thread(target=each.bring) for each in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _desks(folder: Path, coordinators: Coordinators, stop: threading.Event) -> dict[str, Desk]:
    wait_for(lambda: all(each.answers() for each in coordinators.replicas), "coordinators answer")
    olga = desk.enrol(coordinators.token.read_text().strip(), folder / "olga", stop)
    made = {"olga": olga}
    for name in ("carla", "mona"):
        made[name] = desk.enrol(_token(olga, name, pb.ROLE_PERSON), folder / name, stop)
    return made


def _token(olga: Desk, name: str, role: pb.Role.ValueType) -> str:
    """A join token's text, made the way the CLI makes it."""
    kind = "site" if role == pb.ROLE_SITE else "person"
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    new = tokens.new_token(spiffe_id(TRUST_DOMAIN, kind, name), role, expires_at)
    request = authority_pb2.IssueTokenRequest(
        envelope=new.envelope(olga.identity.signing_key), csr=new.csr
    )
    with refusals("coordinator"):
        stub = authority_pb2_grpc.AuthorityStub(olga.channel)
        response = stub.IssueToken(request, timeout=30)
    chain = list(response.certificate_chain)
    address = olga.identity.address
    return tokens.write(new.certified(address, response.root_certificate, chain))


def _end_programs(keeper: Keeper) -> None:
    """Agents first, then coordinators and their store; the engine ends itself."""
    keeper.close()
    agents = [program for program in keeper.programs if program.name in NAMES]
    others = [program for program in keeper.programs[::-1] if program.name != "dockerd"]
    for stage in (agents, others):
        end_all([program for program in stage if program.alive])
