"""Steps, each run once: one container in the cage, from its start to its classified end.

 1. A step that ended is not run again: its record, or its failure, is given as it was.
 2. It is written down, with the name of its container, before the container starts.
 3. A step that began has a container of that name, whoever started it: one that runs is watched,
    one that ended is collected. Only when there is none is it started, under the same name, which
    the engine gives to one container at a time.
 4. A container that did not end by itself went down with the engine or the machine, and one that
    vanished was taken away: it is started again, in all at most MOST_TRIES times.
 5. When it ended well, its outputs are delivered, then its end is written down, then the container
    is removed.
 6. The agent's own stop leaves containers alone: the next agent takes them over. Whatever else
    ends a step early ends its container.

Which steps there are is left to `preparation.py` and `execution.py`, watching to `watch.py`, what
nobody wants any more to `strays.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from agent import kept_steps
from agent.disk import explained, require_room
from agent.engines.port import Engine, Exit
from agent.events import Feed, StepChange
from agent.gpus import GpuPool
from agent.journal import Journal
from agent.records import KeptStep
from agent.step import OWN_ENDS, Cage, Step, StepFailed, failed, spec, too_long
from agent.steplog import set_aside
from agent.strays import Strays
from agent.traces import of_step
from agent.uptime import boot_id, elapsed, since_boot
from agent.watch import POLL_S, Told, Watch
from agent.worker import SHUTDOWN, Stop
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of
from housecall.v1 import statements_pb2 as pb

MOST_TRIES = 5
GPU_WAIT_S = 30.0
PASSING = frozenset({"ENGINE_UNREACHABLE", "STEP_NOT_FOUND", "STEP_EXISTS"})
"""Looking again tells what became of the container."""
log = logging.getLogger(__name__)


class StepRunner:
    """Runs steps on an engine. `listener` is told owner, step and state of every change."""

    def __init__(self, engine: Engine, gpus: GpuPool, journal: Journal, cage: Cage) -> None:
        self._engine, self._gpus, self._journal, self.cage = engine, gpus, journal, cage
        self.strays = Strays(engine, gpus, journal, cage)
        self.listener: Callable[[str, str, str], None] = lambda _owner, _step, _state: None

    def run(self, step: Step, feed: Feed, stop: Stop) -> pb.StepRecord:
        """Its record when it succeeded; raises `Refusal` with the code of its end."""
        known = self._journal.step(step.owner, step.task)
        if known is not None and (known.state == "SUCCEEDED" or known.code in OWN_ENDS):
            return self._as_before(step, known, feed)  # 1
        kept = (
            known
            if known is not None and known.state == "RUNNING"
            else kept_steps.new(step, self.cage.instance, known)
        )
        try:
            stop.check()
            gpus = self._gpus_for(step, stop)
            kept, ended = self._to_end(step, replace(kept, gpus=" ".join(gpus)), feed, stop)
            if ended.code or ended.error:
                for output in step.written:  # what there is may be used, as partial predictions
                    output.sync()
                raise failed(step, ended)
            size = sum(output.deliver() for output in step.written)  # 5
        except (Refusal, OSError) as error:
            refusal = refusal_of(explained(error))
            if stop.reason != SHUTDOWN:  # 6
                self._give_up(step, kept, refusal, feed, stop)
            raise refusal from error
        kept = replace(kept_steps.ended(kept, "SUCCEEDED", None), bytes=size)
        self._note(kept, feed)
        self.strays.discard(step.owner)
        return pb.StepRecord.FromString(kept.record)

    def reserve(self) -> None:
        """At the start: GPUs of containers that run on are not given to others. What began before
        a boot runs no more, and its GPUs may be gone or have other names."""
        for kept in self._journal.begun_steps():
            if kept.gpus and kept.boot_id == boot_id():
                self._gpus.hold(kept.owner, tuple(kept.gpus.split()))

    def await_engine(self, stop: Stop) -> None:
        """Until it answers: after a boot it may come up later than the agent."""
        while True:
            stop.check()
            try:
                self._engine.facts()
                return
            except Refusal as refusal:
                if refusal.code != "ENGINE_UNREACHABLE":
                    raise
            stop.wait(POLL_S)

    def _to_end(self, step: Step, kept: KeptStep, feed: Feed, stop: Stop) -> tuple[KeptStep, Exit]:
        """3, 4. Looks, starts what is not there, watches; and again where the engine went away."""
        told = Told()
        while True:
            try:
                container_id = self._find(kept)
                if container_id is None:
                    kept, told = self._begin(step, kept, feed), Told()
                    container_id = self._start(step, kept)
                else:
                    self._tell(kept, feed)
                watch = Watch(self._engine, self.cage, step, kept, feed=feed, told=told)
                ended = watch.until_end(container_id, stop)
                if ended.own and kept.boot_id == boot_id():
                    return kept, ended
                log.warning("step went down", extra={"owner": step.owner, "tries": kept.tries})
                self._engine.remove(container_id)
            except Refusal as refusal:
                gone = refusal.code == "STEP_NOT_FOUND" and kept.tries >= MOST_TRIES
                if gone or refusal.code not in PASSING:
                    raise
                unseen = refusal.code == "STEP_EXISTS"  # it may run, and is not watched
                if unseen and elapsed(kept.boot_id, kept.boot_s) > step.clocks.wall_s:
                    raise too_long("STEP_TIMEOUT", step, "an end", step.clocks.wall_s) from refusal
                log.warning("step unwatched", extra={"owner": step.owner, "code": refusal.code})
                stop.wait(POLL_S)
                stop.check()

    def _find(self, kept: KeptStep) -> str | None:
        """The id of the container that this step began; it is started if it was only created."""
        if kept.state != "RUNNING":
            return None
        for found in self._engine.adopt(self.cage.labels(kept.owner)):
            if found.name == kept.container:
                if found.state == "created":
                    self._engine.start_created(found.container_id)
                return found.container_id
        return None

    def _begin(self, step: Step, kept: KeptStep, feed: Feed) -> KeptStep:
        """2."""
        if kept.tries >= MOST_TRIES:
            raise _taken_down(step, kept)
        self._make_outputs(step, kept)
        set_aside(step.log)
        record = pb.StepRecord.FromString(kept.record)
        record.state = pb.STEP_STATE_RUNNING
        record.started_at.GetCurrentTime()
        begun = replace(
            kept,
            state="RUNNING",
            record=record.SerializeToString(),
            tries=kept.tries + 1,
            boot_id=boot_id(),
            boot_s=since_boot(),
        )
        self._note(begun, feed)
        return begun

    def _make_outputs(self, step: Step, kept: KeptStep) -> None:
        """What the last try left must not take the room of the next."""
        resume = step.resumes and kept.tries > 0
        for output in step.written:
            output.clear(resume=resume)
        need = self._journal.largest_output(kept.digest, kept.name)
        require_room(self.cage.state_dir, self.cage.disk_reserve, need)
        for output in step.written:
            output.make(self.cage.user, resume=resume)

    def _start(self, step: Step, kept: KeptStep) -> str:
        gpus = tuple(kept.gpus.split())
        trace = of_step(self._journal, self.cage.instance, kept.owner, kept.container)
        return self._engine.start(
            spec(step, self.cage, kept.container, gpus=gpus, traceparent=trace.traceparent)
        )

    def _give_up(
        self, step: Step, kept: KeptStep, refusal: Refusal, feed: Feed, stop: Stop
    ) -> None:
        state = "STOPPED" if stop.asked() else "FAILED"
        kept = self._journal.step(step.owner, step.task) or kept
        try:
            self._note(kept_steps.ended(kept, state, refusal), feed)
        finally:
            self.strays.discard(step.owner)

    def _as_before(self, step: Step, known: KeptStep, feed: Feed) -> pb.StepRecord:
        """1."""
        record = pb.StepRecord.FromString(known.record)
        self._tell(known, feed)
        if known.state == "SUCCEEDED":
            return record
        raise StepFailed(known.code, known.problem, record.exit_code)

    def _gpus_for(self, step: Step, stop: Stop) -> tuple[str, ...]:
        """Those that the step holds already, or new ones; free again once its containers are gone
        (`Strays.discard`)."""
        wanted = step.container.config.tasks[step.task].gpus
        while True:
            stop.check()
            try:
                return self._gpus.take(step.owner, wanted, GPU_WAIT_S)
            except Refusal as refusal:
                if refusal.code != "GPU_BUSY":
                    raise

    def _note(self, kept: KeptStep, feed: Feed) -> None:
        self._journal.set_step(kept)
        self._tell(kept, feed)
        log.info(
            "step",
            extra={
                "owner": kept.owner,
                "step": kept.name,
                "state": kept.state,
                "code": kept.code,
                "tries": kept.tries,
            },
        )

    def _tell(self, kept: KeptStep, feed: Feed) -> None:
        record = pb.StepRecord.FromString(kept.record)
        change = StepChange(
            kept.name, kept.state, record.seconds, record.exit_code, kept.code, kept.problem
        )
        feed.emit(change)
        self.listener(kept.owner, kept.name, kept.state)


def _taken_down(step: Step, kept: KeptStep) -> Refusal:
    return Refusal(
        Kind.NOT_FOUND,
        "STEP_NOT_FOUND",
        f"{step.task}: expected its container to end by itself, got it taken down or away at each "
        f"of {kept.tries} starts; see the engine's log, then run it again",
    )
