"""The table of checks, in the order of the hops, and doing them.

A check whose need failed or was skipped is skipped, and says so; the others go on. The first
failure in this order is the one to mend first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from agent.doctor import engine, home, machine, papers, peer, state, wire
from agent.doctor.finding import Level, Skip, Verdict, fail
from agent.doctor.scene import Scene
from housecall.errors import EXIT_CODES, Kind, Refusal
from housecall.rpc import refusal_of


@dataclass(frozen=True)
class Check:
    """`needs` are the checks without whose success this one makes no sense."""

    name: str
    look: Callable[[Scene], Verdict]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    check: str
    verdict: Verdict


CHECKS = (
    Check("settings", home.settings),
    Check("state", state.state, ("settings",)),
    Check("journal", home.journal, ("settings",)),
    Check("datasets", home.datasets, ("settings",)),
    Check("agent", home.agent, ("settings",)),
    Check("engine", engine.engine, ("settings",)),
    Check("cage", engine.cage, ("engine",)),
    Check("gpu", engine.gpu, ("settings",)),
    Check("disk", machine.disk, ("settings",)),
    Check("time", machine.clock_source),
    Check("identity", papers.identity, ("settings",)),
    Check("dns", wire.dns, ("settings",)),
    Check("proxy", wire.proxy, ("dns",)),
    Check("tcp", wire.tcp, ("proxy",)),
    Check("tls", wire.tls, ("tcp",)),
    Check("coordinator", peer.coordinator, ("tls",)),
    Check("clock", peer.clock, ("coordinator",)),
)
NAMES = tuple(check.name for check in CHECKS)


def chosen(names: Iterable[str]) -> tuple[Check, ...]:
    """The checks of these names and what they need, in order; all where none is named."""
    table = {check.name: check for check in CHECKS}
    wanted = set(names) or set(table)
    for check in reversed(CHECKS):
        if check.name in wanted:
            wanted.update(check.needs)
    return tuple(check for check in CHECKS if check.name in wanted)


def examine(scene: Scene, names: Iterable[str] = ()) -> Iterator[Finding]:
    """Each finding as soon as it is there."""
    down: set[str] = set()
    for check in chosen(names):
        missing = [name for name in check.needs if name in down]
        if missing:
            verdict = Verdict(Level.SKIPPED, f"needs {', '.join(missing)}")
        else:
            verdict = _verdict(check, scene)
        if verdict.level in (Level.FAILED, Level.SKIPPED):
            down.add(check.name)
        yield Finding(check.name, verdict)


def first_failure(findings: Iterable[Finding]) -> Finding | None:
    return next((each for each in findings if each.verdict.level is Level.FAILED), None)


def exit_code(findings: Iterable[Finding]) -> int:
    """That of the first failure's kind; 0 where nothing failed."""
    first = first_failure(findings)
    return EXIT_CODES[first.verdict.kind or Kind.INTERNAL] if first else 0


def _verdict(check: Check, scene: Scene) -> Verdict:
    try:
        return check.look(scene)
    except Skip as skip:
        return Verdict(Level.SKIPPED, str(skip))
    except Refusal as refusal:
        return _refused(refusal)
    except OSError as error:
        what = f"{error.filename or check.name}: {error.strerror or error}"
        return fail(Kind.NOT_ALLOWED, what, "is this run as the agent's user?")
    except Exception as error:
        return _refused(refusal_of(error))


def _refused(refusal: Refusal) -> Verdict:
    """The last clause of its message says what to do."""
    found, _, fix = refusal.message.rpartition("; ")
    if not found:
        found, fix = fix, ""
    return Verdict(Level.FAILED, found, fix, refusal.kind, refusal.code)
