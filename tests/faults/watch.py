"""Which containers ran when, read past the engine: from the kernel's control groups.

The engine may be dead or stopped while its containers live on. Every container of the harness's
engine has a group below one parent; a group with processes is a container that runs, unless all of
them wait for runc to start it, as a killed engine leaves them. Whose it is stands in the engine's
own file about it, on its disk.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.1
SOON_S = 2.0
GROUPS = Path("/sys/fs/cgroup")
LABEL = "housecall."
WAITING = "runc:[2:INIT]"


def remove_groups(cgroup: str) -> None:
    """The empty groups that containers leave, under every controller."""
    for parent in (GROUPS / cgroup, *GROUPS.glob(f"*/{cgroup}")):
        for group in (*parent.glob("*"), parent):
            with suppress(OSError):
                group.rmdir()


def _began(pid: int) -> bool:
    """False of one that is gone, too."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().rstrip() != WAITING
    return False


@dataclass
class Run:
    """One container's life; times by the monotonic clock."""

    container_id: str
    agent: str
    owner: str
    step: str
    first: float
    last: float

    @property
    def ours(self) -> bool:
        return bool(self.owner) and " " not in self.agent

    @property
    def what(self) -> tuple[str, str, str]:
        return self.agent, self.owner, self.step


class Watch:
    """Looks ten times a second until it is closed."""

    def __init__(self, cgroup: str, data_root: Path) -> None:
        self._parents = [GROUPS / "pids" / cgroup, GROUPS / cgroup]
        self._data_root = data_root
        self.runs: dict[str, Run] = {}
        self.overlaps: dict[tuple[str, str], str] = {}
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def ran(self, step: str, *, since: float) -> bool:
        """Whether a container of this step began since then."""
        return any(run.step == step and run.first > since for run in list(self.runs.values()))

    def any_of_ours(self, choice: random.Random) -> Run | None:
        """Some agent's container that runs now, or soon."""
        deadline = time.monotonic() + SOON_S
        while not (found := self._one_of_ours(choice)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return found

    def _one_of_ours(self, choice: random.Random) -> Run | None:
        alive = [self.runs[each] for each in self._living() if each in self.runs]
        ours = sorted((run for run in alive if run.ours), key=lambda run: run.first)
        return choice.choice(ours) if ours else None

    def processes(self, container_id: str) -> list[int]:
        for parent in self._parents:
            with suppress(OSError):
                words = (parent / container_id / "cgroup.procs").read_text().split()
                return [int(word) for word in words]
        return []

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        alive: dict[tuple[str, str, str], list[Run]] = {}
        for container_id in self._living():
            run = self.runs.get(container_id) or self._meet(container_id, now)
            if run is not None and run.owner:
                run.last = now
                alive.setdefault(run.what, []).append(run)
        for what, runs in alive.items():
            if len(runs) > 1 and all(self._lives(run.container_id) for run in runs):
                one, other = sorted(run.container_id[:12] for run in runs[:2])
                self.overlaps.setdefault((one, other), " ".join(what))
        self.looks += 1

    def _living(self) -> Iterator[str]:
        for parent in self._parents:
            with suppress(OSError):
                names = [entry.name for entry in parent.iterdir() if len(entry.name) == 64]
                yield from (name for name in names if self._lives(name))

    def _lives(self, container_id: str) -> bool:
        return any(_began(pid) for pid in self.processes(container_id))

    def _meet(self, container_id: str, now: float) -> Run | None:
        """None while the engine has not written down what it is."""
        file = self._data_root / "containers" / container_id / "config.v2.json"
        try:
            labels = json.loads(file.read_text())["Config"]["Labels"] or {}
        except (OSError, ValueError, KeyError):
            return None
        agent, owner, step = (labels.get(LABEL + name, "") for name in ("agent", "owner", "step"))
        run = self.runs[container_id] = Run(container_id, agent, owner, step, now, now)
        return run
