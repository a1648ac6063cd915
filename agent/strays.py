"""Containers and steps that nobody wants any more: ended; those of others are left alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from agent import kept_steps
from agent.engines.port import Engine, Running
from agent.gpus import GpuPool
from agent.journal import Journal
from agent.records import KeptStep
from agent.step import Cage
from agent.worker import stopped
from housecall.errors import Refusal

log = logging.getLogger(__name__)


class Strays:
    def __init__(self, engine: Engine, gpus: GpuPool, journal: Journal, cage: Cage) -> None:
        self._engine, self._gpus, self._journal, self._cage = engine, gpus, journal, cage

    def discard(self, owner: str) -> None:
        """End whatever containers this owner has; its GPUs are free once they are gone. What the
        engine keeps now is found by `sweep`."""
        with suppress(Refusal):
            found = self._engine.adopt(self._cage.labels(owner))
            left = [container for container in found if not self._end(container)]
            if not left:
                self._gpus.release(owner)

    def sweep(self, owners: Callable[[], set[str]]) -> int:
        """Remove containers of this very agent that belong to no step under way of `owners`; those
        of others are left alone. What is there is looked at before who is wanted: a step is written
        down before it has a container. Steps that nobody wants are ended after their containers:
        who should have done it was killed. Raises `Refusal` when the engine is away."""
        held, known = self._gpus.holders(), self._journal.begun_steps()
        found = self._engine.adopt({"housecall.agent": self._cage.instance})
        wanted = owners()
        begun = {kept.container for kept in self._journal.begun_steps() if kept.owner in wanted}
        strays = [each for each in found if each.name not in begun]
        unseen = {each.labels["housecall.owner"] for each in strays if not self._end(each)}
        for kept in known:
            if kept.owner not in wanted:
                self._close(kept)
        for owner in held.keys() - owners() - unseen:
            self._gpus.release(owner)
        return len(strays)

    def _close(self, kept: KeptStep) -> None:
        with self._journal.transaction():
            if self._journal.step(kept.owner, kept.name) == kept:  # nobody else has ended it
                self._journal.set_step(kept_steps.ended(kept, "STOPPED", stopped()))

    def _end(self, container: Running) -> bool:
        """Whether it is gone. One that the engine takes for created may have processes: they end
        with it only once the engine sees them."""
        if container.state == "created":
            try:
                self._engine.start_created(container.container_id)
            except Refusal as refusal:
                if refusal.code == "STEP_EXISTS":
                    log.warning("container runs unseen", extra={"container": container.name})
                    return False  # the next sweep tries again
        if container.state in ("created", "running"):
            self._engine.stop(container.container_id, self._cage.grace_s)
        self._engine.remove(container.container_id)
        return True
