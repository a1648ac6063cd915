"""What a run prints and leaves behind: the faults, the deaths, the findings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from tests.faults import boundaries, ledger
from tests.faults.verdict import Verdict
from tests.faults.world import World

Say = Callable[[str], None]
MOST_LINES = 20


def show(world: World, happened: Counter[str], missed: Counter[str], say: Say) -> None:
    say("\nkind                     happened  met nothing")
    for kind in sorted(happened | missed):
        say(f"{kind:<24} {happened[kind]:>8} {missed[kind]:>12}")
    say(f"\ncontainers: {len(world.watch.runs)}, looks: {world.watch.looks}")
    history = ledger.read(world.coordinators.url)
    if history is not None:
        ends = Counter(each for number in history.outcomes for each in history.outcomes[number])
        say(f"ledger: {len(history.envelopes)} entries, {len(history.orders)} orders: {dict(ends)}")


def keep(world: World, verdict: Verdict, say: Say) -> None:
    """`commits.json` and `verdict.json`, and the most telling of both."""
    _commits(world, say)
    file = world.options.folder / "verdict.json"
    file.write_text(json.dumps(verdict.found, indent=1))
    for word, lines in verdict.found.items():
        for line in lines[:MOST_LINES]:
            say(f"{word}: {line}")


def _commits(world: World, say: Say) -> None:
    """How often somebody died at each side of a commit; those where nobody did are named."""
    deaths: dict[str, int] = {}
    for kind, traps in world.traps.items():
        folder = traps[0].parent
        died = Counter(boundaries.deaths(folder))
        program = kind.removesuffix("-boundary")
        deaths |= {f"{program}: {side}": died[side] for side in boundaries.sides(folder)}
    (world.options.folder / "commits.json").write_text(json.dumps(deaths, indent=1))
    never = sorted(side for side, count in deaths.items() if not count)
    say(f"boundaries: {len(deaths) - len(never)} of {len(deaths)} sides")
    for side in never:
        say(f"  nobody died at {side}")
