"""Watching one container to its end: its log, its clocks, the disk.

Its log is followed by a thread of its own, from the container's first line: a container that was
taken over has its whole log again, and so has one whose log broke off while it runs. Nothing is
started, stopped or written down here; that is left
to `pipeline.py`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.disk import LEAST_FREE, require_room
from agent.engines.port import Engine, Exit
from agent.events import Feed, LogLine
from agent.records import KeptStep
from agent.step import Cage, Step, too_long
from agent.steplog import StepLog
from agent.uptime import elapsed
from agent.worker import SHUTDOWN, Stop
from housecall.rpc import refusal_of

POLL_S = 0.5
DISK_POLL_S = 3.0
SIGHT_POLL_S = 10.0
LOG_END_S = 10.0
LIVE_GAP_S, REPLAY_S = 1.0, 30.0
"""A line that was waited for so long was not in the log before, nor is what comes so much later
than the first."""
LOST = Exit(-1, False, "the engine takes it for running, and nothing of it runs", own=False)
log = logging.getLogger(__name__)


@dataclass
class Told:
    """How many lines of a container's log were passed on, when the last came (monotonic), and by
    whom: the last watch that began. An engine that went away may leave the one before listening."""

    lines: int = 0
    at: float = 0.0
    by: Watch | None = None


class Watch:
    """Of one step's container, by its id."""

    def __init__(
        self, engine: Engine, cage: Cage, step: Step, kept: KeptStep, *, feed: Feed, told: Told
    ) -> None:
        self._engine, self._cage, self._step, self._kept = engine, cage, step, kept
        self._feed, self._told = feed, told
        self._heard = (0, "")  # lines, and the last one, by the last hearing
        self._ended: Exit | None = None
        self._looked = self._sought = time.monotonic()
        self._unseen = False
        told.at, told.by = time.monotonic(), self

    def until_end(self, container_id: str, stop: Stop) -> Exit:
        """How it ended. Raises `Refusal` when it must end (STEP_TIMEOUT, STEP_SILENT, DISK_FULL,
        STEP_STOPPED), or when the engine or the container is gone."""
        over = threading.Event()
        given = (container_id, over)
        follower = threading.Thread(target=self._follow, args=given, name="log", daemon=True)
        follower.start()
        try:
            self._ended = self._wait(container_id, stop)
        finally:
            over.set()
            cut_short_s = 0 if stop.reason == SHUTDOWN else POLL_S
            follower.join(cut_short_s if self._ended in (None, LOST) else LOG_END_S)
        if self._ended.own and self._ended.code and not self._ended.oom_killed:
            self._require_room()  # a program that finds none ends as any other that fails
        return self._ended

    def _wait(self, container_id: str, stop: Stop) -> Exit:
        while (ended := self._engine.wait(container_id, POLL_S)) is None:
            stop.check()
            now = time.monotonic()
            if now - self._looked > DISK_POLL_S:
                self._looked = now
                self._require_room()
            if self._is_lost(container_id, now):
                return LOST
            self._check_clocks(now)
        return ended

    def _require_room(self) -> None:
        require_room(self._cage.state_dir, max(self._cage.disk_reserve // 2, LEAST_FREE))

    def _is_lost(self, container_id: str, now: float) -> bool:
        """Nothing of it runs, at two looks: the engine has had the time between to learn its end,
        and never will."""
        if now - self._sought <= SIGHT_POLL_S:
            return False
        before = self._unseen
        self._sought, self._unseen = now, not self._engine.may_run(container_id)
        return before and self._unseen

    def _check_clocks(self, now: float) -> None:
        clocks = self._step.clocks
        if elapsed(self._kept.boot_id, self._kept.boot_s) > clocks.wall_s:
            raise too_long("STEP_TIMEOUT", self._step, "an end", clocks.wall_s)
        if now - self._told.at > clocks.silence_s:
            raise too_long("STEP_SILENT", self._step, "a line of output", clocks.silence_s)

    def _follow(self, container_id: str, over: threading.Event) -> None:
        """Again and again until it is over: a log may break off alone, also just before the end."""
        while not over.is_set():
            self._hear(container_id)
            over.wait(2 * POLL_S)
        if self._ended not in (None, LOST):  # the log of one that is lost has no end
            self._hear(container_id)

    def _hear(self, container_id: str) -> None:
        try:
            lines = self._engine.logs(container_id)
            self._keep(lines if self._ended is None else self._unless_heard(lines))
        except Exception as error:
            extra = {"owner": self._step.owner, "code": refusal_of(error).code}
            log.warning("log broke off", extra=extra)

    def _unless_heard(self, lines: Iterator[str]) -> list[str]:
        """The whole log of a container that ended, if the last hearing missed some of it. What is
        kept is written anew only then."""
        whole = list(lines)
        last = whole[-1] if whole else ""
        return [] if (len(whole), last) == self._heard else whole

    def _keep(self, lines: Iterable[str]) -> None:
        """Those lines that were passed on before are no sign of life. An engine keeps the newest
        part of a long log, so that they may be fewer by now."""
        began = before = math.inf  # the first line's time says nothing
        with StepLog(self._step.log) as kept:
            for number, line in enumerate(lines, start=1):
                if self._told.by is not self:
                    return  # another watch writes this log by now
                kept.write(line)
                self._heard = (number, line)
                now = time.monotonic()
                if now - before > LIVE_GAP_S or now - began > REPLAY_S:
                    self._told.lines = min(self._told.lines, number - 1)
                began, before = min(began, now), now
                if number > self._told.lines:
                    self._told.lines, self._told.at = number, now
                    self._feed.emit(LogLine(self._step.task, line))
