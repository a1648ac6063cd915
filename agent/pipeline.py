"""One step: one container run in the cage, watched from its start to its classified end.


A step is written down before it starts and when it ends. Threads: the caller's watches the clocks
and the end, one more follows the log. Which steps there are is left to `preparation.py` and
`execution.py`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from agent.disk import require_room
from agent.engines.port import Engine, Exit
from agent.events import Feed, LogLine, StepChange
from agent.gpus import GpuPool
from agent.journal import Journal
from agent.step import Cage, Step, failed, spec, too_long
from agent.steplog import StepLog
from agent.worker import Stop
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb

POLL_S = 0.5
DISK_POLL_S = 3.0
GPU_WAIT_S = 30.0
LOST_ENGINE_S = 120.0
log = logging.getLogger(__name__)


class StepRunner:
    """Runs steps on an engine."""

    def __init__(
        self,
        engine: Engine,
        gpus: GpuPool,
        journal: Journal,
        cage: Cage,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._gpus, self._journal, self.cage = engine, gpus, journal, cage
        self._clock = clock
        self.listener: Callable[[str, str, str], None] = lambda _owner, _step, _state: None

    def run(self, step: Step, feed: Feed, stop: Stop) -> pb.StepRecord:
        """Its record when it succeeded; raises `Refusal` with the code of its end."""
        record = pb.StepRecord(
            name=step.task,
            container_digest=step.container.digest,
            image_digest=step.container.image_digest,
        )
        started = self._clock()
        record.started_at.FromMicroseconds(int(started * 1e6))
        try:
            stop.check()
            require_room(self.cage.state_dir, self.cage.disk_reserve)
            self._note(step, record, pb.STEP_STATE_RUNNING, feed)
            code = self._contained(step, feed, stop)
        except Refusal as refusal:
            record.exit_code = getattr(refusal, "exit_code", 0)
            record.seconds = round(self._clock() - started, 3)
            ended = pb.STEP_STATE_STOPPED if stop.asked() else pb.STEP_STATE_FAILED
            self._note(step, record, ended, feed, refusal)
            raise
        record.exit_code = code
        record.seconds = round(self._clock() - started, 3)
        self._note(step, record, pb.STEP_STATE_SUCCEEDED, feed)
        return record

    def remove_orphans(self) -> int:
        """Containers of an earlier run of this very agent: stopped and removed."""
        ours = self._engine.adopt({"housecall.agent": self.cage.instance})
        for container in ours:
            self._engine.stop(container.container_id, self.cage.grace_s)
            self._engine.remove(container.container_id)
        return len(ours)

    def _contained(self, step: Step, feed: Feed, stop: Stop) -> int:
        with self._gpus_for(step, stop) as gpus:
            container_id = self._engine.start(spec(step, self.cage, gpus))
            try:
                return self._watch(step, container_id, feed, stop)
            finally:
                with suppress(Refusal):
                    self._engine.remove(container_id)

    def _watch(self, step: Step, container_id: str, feed: Feed, stop: Stop) -> int:
        said = _LastWord()
        target = (step, container_id, feed, said)
        follower = threading.Thread(target=self._follow_log, args=target, daemon=True)
        follower.start()
        try:
            ended = self._until_end(step, container_id, said, stop)
        except Refusal:
            with suppress(Refusal):
                self._engine.stop(container_id, self.cage.grace_s)
            raise
        finally:
            follower.join(timeout=10)
        if ended.code or ended.error:
            raise failed(step, ended)
        return ended.code

    def _until_end(self, step: Step, container_id: str, said: _LastWord, stop: Stop) -> Exit:
        started = lost_since = looked = time.monotonic()
        while True:
            try:
                ended = self._engine.wait(container_id, POLL_S)
                lost_since = time.monotonic()
            except Refusal as refusal:
                away = time.monotonic() - lost_since
                if refusal.kind is not Kind.UNAVAILABLE or away > LOST_ENGINE_S:
                    raise
                ended = None
                stop.wait(POLL_S)
            if ended is not None:
                return ended
            stop.check()
            now = time.monotonic()
            if now - looked > DISK_POLL_S:
                looked = now
                require_room(self.cage.state_dir, self.cage.disk_reserve // 2)
            if now - started > step.clocks.wall_s:
                raise too_long("STEP_TIMEOUT", step, "an end", step.clocks.wall_s)
            if now - said.at > step.clocks.silence_s:
                raise too_long("STEP_SILENT", step, "a line of output", step.clocks.silence_s)

    def _follow_log(self, step: Step, container_id: str, feed: Feed, said: _LastWord) -> None:
        with StepLog(step.logs / f"{step.task}.log") as kept:
            try:
                for line in self._engine.logs(container_id):
                    said.at = time.monotonic()
                    kept.write(line)
                    feed.emit(LogLine(step.task, line))
            except Refusal as refusal:
                log.warning("log lost", extra={"owner": step.owner, "code": refusal.code})

    @contextmanager
    def _gpus_for(self, step: Step, stop: Stop) -> Iterator[tuple[str, ...]]:
        wanted = step.container.config.tasks[step.task].gpus
        while True:
            stop.check()
            taking = self._gpus.take(wanted, GPU_WAIT_S)
            try:
                taken = taking.__enter__()
            except Refusal as refusal:
                if refusal.code != "GPU_BUSY":
                    raise
                continue
            try:
                yield taken
            finally:
                taking.__exit__(None, None, None)
            return

    def _note(
        self,
        step: Step,
        record: pb.StepRecord,
        state: pb.StepState.ValueType,
        feed: Feed,
        refusal: Refusal | None = None,
    ) -> None:
        record.state = state
        self._journal.set_step(step.owner, step.task, record.SerializeToString())
        word = pb.StepState.Name(state).removeprefix("STEP_STATE_")
        code, text = (refusal.code, refusal.message) if refusal else ("", "")
        feed.emit(StepChange(step.task, word, record.seconds, record.exit_code, code, text))
        self.listener(step.owner, step.task, word)
        log.info(
            "step", extra={"owner": step.owner, "step": step.task, "state": word, "code": code}
        )


class _LastWord:
    """When the container last said something, by the monotonic clock."""

    def __init__(self) -> None:
        self.at = time.monotonic()
