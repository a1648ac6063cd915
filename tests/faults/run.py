"""One run: build the world, hurt it on schedule, heal it, let it come to rest, reckon."""

from __future__ import annotations

import heapq
import itertools
import json
import signal
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from tests.faults import boundaries, evidence, ledger, rest
from tests.faults.boundaries import Armed
from tests.faults.evidence import Say
from tests.faults.faults import INJECTIONS
from tests.faults.founding import built
from tests.faults.kills import Hurt
from tests.faults.plan import Fault, Options, schedule
from tests.faults.programs import end_all
from tests.faults.proxy import CALM
from tests.faults.verdict import Verdict, reckon
from tests.faults.world import World


class Conductor:
    """Injects and heals in time; counts what really happened."""

    def __init__(self, world: World, say: Say) -> None:
        self._world, self._say = world, say
        self._heals: list[tuple[float, int, Hurt | Armed]] = []
        self._numbers = itertools.count()
        self._began = time.monotonic()
        self.happened: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self._record = (world.options.folder / "faults.jsonl").open("a")

    def perform(self, faults: list[Fault]) -> None:
        for fault in faults:
            self._heal_until(fault.at)
            for kind in (fault.kind, *fault.instead):
                if self._inflict(replace(fault, kind=kind)):
                    break
        self._heal_until(self._world.options.seconds)

    def _inflict(self, fault: Fault) -> bool:
        """False when it met nothing."""
        hurt = INJECTIONS[fault.kind](self._world, fault, fault.choice())
        if hurt is None:
            self.missed[fault.kind] += 1
            return False
        self._note(fault, hurt.text)
        if isinstance(hurt, Hurt):
            self.happened[fault.kind] += 1
        over = self._now() + fault.seconds
        heapq.heappush(self._heals, (over, next(self._numbers), hurt))
        return True

    def heal_all(self) -> None:
        """Whatever is still hurt; and once more everything, whoever hurt it."""
        while self._heals:
            self._heal_one()
        world = self._world
        for kind, traps in world.traps.items():
            boundaries.disarm(traps)
            self.happened[kind] = len(boundaries.deaths(traps[0].parent))
        for link in world.relay.links.values():
            world.relay.set(link, CALM)
        for site in world.sites:
            site.disk.free()
            site.clock.jump(0)
            if site.network:
                site.network.calm()
        world.coordinators.disk.free()
        for program in world.keeper.programs:
            program.send(signal.SIGCONT)
        self._record.close()

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _heal_until(self, at: float) -> None:
        while self._heals and self._heals[0][0] <= at:
            self._sleep(self._heals[0][0])
            self._heal_one()
        self._sleep(at)

    def _heal_one(self) -> None:
        _, _, hurt = heapq.heappop(self._heals)
        hurt.heal()

    def _sleep(self, until: float) -> None:
        time.sleep(max(0.0, until - self._now()))

    def _note(self, fault: Fault, text: str) -> None:
        line = {"at": round(self._now(), 2), "hit": text, **asdict(fault)}
        self._record.write(json.dumps(line) + "\n")
        self._record.flush()
        self._say(f"  {fault.kind} {text} for {fault.seconds:.1f} s")


def run(options: Options, say: Say) -> Verdict:
    """The verdict; evidence and logs stay in the folder."""
    faults = schedule(options)
    say(f"seed {options.seed}: {len(faults)} faults in {options.seconds:g} s")
    with built(options) as world:
        say("the world is ready")
        for lack in world.lacks:
            say(lack)
        if options.variant:
            world.break_on_purpose(options.variant)
        world.start()
        conductor = Conductor(world, say)
        conductor.perform(faults)
        say("healing")
        world.committee.over.set()
        conductor.heal_all()
        verdict = Verdict(conductor.happened.total())
        began = time.monotonic()
        verdict.found["stuck"] += rest.await_rest(world, options.rest_s)
        say(f"at rest after {time.monotonic() - began:.0f} s")
        _reckon(world, verdict)
        evidence.show(world, conductor.happened, conductor.missed, say)
        evidence.keep(world, verdict, say)
    return verdict


def _reckon(world: World, verdict: Verdict) -> None:
    verdict.found["differs"] += world.foreign.touched()
    checked = world.coordinators.replicas[0].run("check")
    if checked.returncode:
        verdict.found["differs"].append(checked.stderr.strip() or checked.stdout.strip())
    world.stop.set()
    end_all([site.program for site in world.sites])
    history = ledger.read(world.coordinators.url)
    if history is None:
        verdict.found["lost"].append("the store does not answer")
    else:
        reckon(world, history, verdict)


def default_folder(root: Path, seed: int, variant: str) -> Path:
    return root / ".demo" / "faults" / "-".join(filter(None, (str(seed), variant)))
