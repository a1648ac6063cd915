"""Executions from their start to their end: cache, joining, cancelling, going on after a restart.

What is run is one job a content (`Recipe.key`); every execution of the same content, ordered or
started here, shares it and ends with it. What has been run before comes from the cache, which is
nothing but the journal's finished executions. What was ordered waits for what may be there again
(`lacks.py`), and leaves its slot to others meanwhile; who runs something by hand is told instead.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.disk import explained
from agent.execution import Executor, Recipe, require_partial_allowed
from agent.journal import Journal
from agent.lacks import MOST_RETRY_S, PASSING, Patience
from agent.pipeline import MOST_TRIES
from agent.records import ENDED, Execution, State
from agent.results import FINISHED
from agent.worker import CANCELLED, SHUTDOWN, Job, Worker
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of

RETRY_S = 5.0
CONSIDERED = frozenset({State.ORDERED, State.WAITING_CONSENT})
"""An order that nobody has said yes or no to."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Started:
    """An execution and the job to follow; no job when it came from the cache."""

    execution: Execution
    job: Job | None


class Runs:
    """`ended` is told of every ordered execution that ended here, `changed` of its progress."""

    def __init__(self, journal: Journal, executor: Executor, worker: Worker) -> None:
        self._journal, self._executor, self._worker = journal, executor, worker
        self._lock = threading.RLock()
        self._sources: dict[str, int] = {}
        self.ended: Callable[[Execution], None] = lambda _: None
        self.changed: Callable[[Execution], None] = lambda _: None

    def cached(self, recipe: Recipe, *, partial: bool) -> Execution | None:
        """The newest finished execution of this content; a partial one only with leave."""
        for execution in reversed(self._journal.executions(key=recipe.key)):
            done = execution.state in FINISHED and execution.result
            if done and (partial or not execution.partial):
                return execution
        return None

    def start(
        self, recipe: Recipe, purpose: str, *, rerun: bool = False, ignore_errors: bool = False
    ) -> Started:
        """Run it for somebody at the site, unless it was run before or is under way."""
        require_partial_allowed(recipe.benchmark, ignore_errors)
        self._let_stop(_job_key(recipe.key, ignore_errors))
        with self._lock:
            found = None if rerun else self.cached(recipe, partial=ignore_errors)
            if found is not None:
                return Started(found, None)
            key = _job_key(recipe.key, ignore_errors)
            job = self._worker.find(key)
            if job is not None and (shared := self._sharing(self._sources[key])):
                return Started(shared[0], job)
            if job is None:
                execution = self._add(recipe, purpose, ignore_errors=ignore_errors)
                return Started(execution, self._queue(execution, recipe))
        job.wait()  # it has ended, but for its thread
        return self.start(recipe, purpose, rerun=rerun, ignore_errors=ignore_errors)

    def _add(self, recipe: Recipe, purpose: str, *, ignore_errors: bool) -> Execution:
        return self._journal.add_execution(
            Execution(
                benchmark_id=recipe.benchmark.id,
                model_id=recipe.model.id,
                model_digest=recipe.model_container.digest,
                dataset_id=recipe.dataset.id,
                purpose=purpose,
                key=recipe.key,
                ignore_errors=ignore_errors,
            )
        )

    def start_ordered(self, local_id: int, recipe: Recipe) -> bool:
        """Run what was ordered and consented to; shares a run of the same content. False when it
        was begun, refused or cancelled meanwhile."""
        key = _job_key(recipe.key, False)
        self._let_stop(key)
        with self._lock:
            job = self._worker.find(key)
            with self._journal.transaction():  # a no may come at any moment
                if self._journal.execution(local_id).state not in CONSIDERED:
                    return False
                execution = self._from_cache(local_id, recipe) or self._join(local_id, recipe, job)
            if execution is not None and job is None and execution.state is State.QUEUED:
                self._queue(execution, recipe)
        if execution is None:
            assert job is not None
            job.wait()  # it has ended, but for its thread
            return self.start_ordered(local_id, recipe)
        if execution.state is State.WAITING_RELEASE:
            self.ended(execution)
        return True

    def _join(self, local_id: int, recipe: Recipe, job: Job | None) -> Execution | None:
        """Queued where there is no job; else it shares the job's run, None when that has ended."""
        if job is None:
            return self._take_on(local_id, key=recipe.key, state=State.QUEUED)
        shared = self._sharing(self._sources[job.key])
        if not shared:
            return None
        state, source_id = shared[0].state, shared[0].source_id
        return self._take_on(local_id, key=recipe.key, state=state, source_id=source_id)

    def _take_on(self, local_id: int, **changes: Any) -> Execution:
        """A yes and what follows from it are written down together."""
        with self._journal.transaction():
            self._journal.close_reviews(local_id, "approved")
            return self._change(local_id, **changes)

    def _from_cache(self, local_id: int, recipe: Recipe) -> Execution | None:
        found = self.cached(recipe, partial=False)
        if found is None or found.id == local_id:
            return None
        return self._take_on(
            local_id,
            key=recipe.key,
            state=State.WAITING_RELEASE,
            partial=found.partial,
            finished_at=self._journal.now(),
            result=found.result,
            source_id=found.source_id,
        )

    def cancel(
        self, local_id: int, problem: str, *, by: bytes = b"", outcome: str = ""
    ) -> Execution:
        """End it; its containers are stopped unless another execution shares them. `by` is the
        person who did, `outcome` that of its order where it has one already."""
        with self._lock:
            execution = self._cancelled(local_id, problem, by, outcome)
            job = None if self._sharing(execution.source_id) else self._job_of(execution)
        if job is not None:
            self._worker.cancel(job)
        if execution.execution_id:
            self.ended(execution)
        return execution

    def _job_of(self, execution: Execution) -> Job | None:
        """The one that runs its source; one of the same content may run another's."""
        key = _job_key(execution.key, execution.ignore_errors)
        job = self._worker.find(key)
        return job if job is not None and self._sources[key] == execution.source_id else None

    def _cancelled(self, local_id: int, problem: str, by: bytes, outcome: str) -> Execution:
        with self._journal.transaction():
            execution = self._journal.execution(local_id)
            if execution.state in ENDED:
                raise Refusal(
                    Kind.CONFLICT,
                    "EXECUTION_ENDED",
                    f"execution {local_id}: expected one that goes on, got one that is "
                    f"{execution.state.lower()}",
                )
            said = {"reason": CANCELLED, "problem": problem, "cancelled_by": by}
            self._journal.close_reviews(local_id, CANCELLED)
            if outcome:
                self._journal.set_outcome(execution.execution_id, outcome)
            return self._change(local_id, state=State.CANCELLED, step="", **said)

    def reconcile(self) -> None:
        """What should be under way and is not goes on: at the start, and whenever a full disk kept
        an end from being written down. First those whose containers run."""
        begun = {kept.owner for kept in self._journal.begun_steps()}
        for execution in self._adrift():
            if f"execution:{execution.id}" in begun:
                self._resume(execution)
        for execution in self._adrift():
            self._worker.spawn(f"resume:{execution.id}", partial(self._keep_resuming, execution))
        self._executor.remove_unfinished(self._wanted)

    def live(self) -> set[str]:
        """Owners whose containers are wanted: one that was cancelled may be shared by others."""
        return {f"execution:{number}" for number in self._wanted()}

    def _wanted(self) -> set[int]:
        return {each.source_id for each in self._under_way()}

    def on_step(self, owner: str, step: str, state: str) -> None:
        """A step of some execution changed."""
        kind, _, number = owner.partition(":")
        if kind == "execution" and state == "RUNNING":
            for execution in self._sharing(int(number)):
                self._change(execution.id, step=step)

    def _adrift(self) -> list[Execution]:
        """Sources of what is queued or running by the journal, and no job has them."""
        with self._lock:
            sources = dict.fromkeys(
                each.source_id
                for each in self._under_way()
                if self._worker.find(_job_key(each.key, each.ignore_errors)) is None
            )
            return [self._journal.execution(number) for number in sources]

    def _under_way(self) -> list[Execution]:
        states = (State.RUNNING, State.QUEUED)
        return [each for s in states for each in self._journal.executions(state=s)]

    def _resume(self, execution: Execution) -> bool:
        """False when it has to wait: the coordinator has to be asked and is away, or a run of the
        same content is just ending."""
        try:
            recipe = self._executor.recipe(
                execution.benchmark_id, execution.model_id, execution.dataset_id
            )
        except Refusal as refusal:
            if refusal.kind in PASSING:
                return False
            self._settle_failed(execution.id, refusal)
            return True
        with self._lock:
            adrift = self._sharing(execution.id)
            if not adrift:
                return True
            job = self._worker.find(_job_key(recipe.key, execution.ignore_errors))
            if job is None:
                self._queue(execution, recipe)
            elif shared := self._sharing(self._sources[job.key]):
                for each in adrift:
                    self._change(each.id, state=shared[0].state, source_id=shared[0].source_id)
            return job is None or bool(shared)

    def _keep_resuming(self, execution: Execution, job: Job) -> None:
        while not job.stop.asked() and not self._resume(execution):
            job.stop.wait(RETRY_S)

    def _let_stop(self, key: str) -> None:
        """A job that was asked to stop is not joined: wait for its end."""
        job = self._worker.find(key)
        if job is not None and job.stop.asked():
            job.wait()

    def _queue(self, execution: Execution, recipe: Recipe) -> Job:
        key = _job_key(recipe.key, execution.ignore_errors)
        self._sources[key] = execution.id
        kept = self._journal.execution(execution.id)
        since = {kept.reason: kept.updated_at} if kept.state is State.QUEUED else {}
        patience = Patience(RETRY_S, since)
        return self._worker.queue(key, lambda job: self._work(job, execution, recipe, patience))

    def _work(self, job: Job, execution: Execution, recipe: Recipe, patience: Patience) -> None:
        if not self._attempt(job, execution, recipe, patience):
            job.put_off(patience.next_wait())

    def _attempt(self, job: Job, execution: Execution, recipe: Recipe, patience: Patience) -> bool:
        """False when it has to wait for what is missing."""
        began = time.monotonic()
        try:
            job.stop.check()
            for each in self._sharing(execution.id):
                if each.state is not State.RUNNING:
                    self._change(each.id, state=State.RUNNING, reason="", problem="")
            result = self._executor.perform(execution, recipe, job.feed, job.stop)
            self._settle(execution.id, result=result.SerializeToString(), partial=result.partial)
        except (Refusal, OSError) as error:
            refusal = refusal_of(explained(error))
            if job.stop.reason == SHUTDOWN:
                raise refusal from error
            if time.monotonic() - began > MOST_RETRY_S:
                patience.since.clear()  # it had it, for a while
            with self._lock:  # an order that joins now waits, or ends, as the others
                if not job.stop.asked() and self._waits(execution, refusal, patience):
                    return False
                ended = self._failed(execution.id, refusal, cancelled=job.stop.asked())
            self._tell(ended)
            raise refusal from error
        except BaseException:
            self._settle_failed(execution.id, Refusal(Kind.INTERNAL, "INTERNAL", "internal error"))
            raise
        finally:
            self._executor.remove_unfinished(self._wanted)
        return True

    def _waits(self, execution: Execution, refusal: Refusal, patience: Patience) -> bool:
        """Whether it goes on when what is missing is there again; the journal says what that is,
        where there is room for it."""
        steps = self._journal.steps(f"execution:{execution.id}")
        hopeless = any(kept.state == "FAILED" and kept.tries >= MOST_TRIES for kept in steps)
        shared = self._sharing(execution.id)
        ordered = any(each.execution_id for each in shared)
        if not ordered or hopeless or not patience.bears(refusal):
            return False
        said = {"reason": refusal.code, "problem": refusal.message}
        at = patience.since.setdefault(refusal.code, self._journal.now())
        with suppress(Refusal):
            for each in shared:
                self._change(each.id, state=State.QUEUED, updated_at=at, **said)
        return True

    def _settle(self, source_id: int, **changes: Any) -> None:
        ended = []
        with self._lock:
            for each in self._sharing(source_id):
                state = State.WAITING_RELEASE if each.execution_id else State.SUCCEEDED
                now = self._journal.now()
                ended.append(
                    self._change(each.id, state=state, step="", finished_at=now, **changes)
                )
        self._tell(ended)

    def _settle_failed(self, source_id: int, refusal: Refusal) -> None:
        with self._lock:
            ended = self._failed(source_id, refusal)
        self._tell(ended)

    def _failed(
        self, source_id: int, refusal: Refusal, *, cancelled: bool = False
    ) -> list[Execution]:
        state, ended = State.CANCELLED if cancelled else State.FAILED, []
        problem = {"reason": refusal.code, "problem": refusal.message}
        for each in self._sharing(source_id):
            ended.append(self._change(each.id, state=state, step="", **problem))
            log.info("execution ended", extra={"execution": each.id, "code": refusal.code})
        return ended

    def _tell(self, ended: list[Execution]) -> None:
        """Out of the lock: the policy's answer may need the coordinator's."""
        for execution in ended:
            if execution.execution_id:
                self.ended(execution)

    def _sharing(self, source_id: int) -> list[Execution]:
        found = self._journal.executions(source_id=source_id)
        return [each for each in found if each.state in (State.QUEUED, State.RUNNING)]

    def _change(self, local_id: int, **changes: Any) -> Execution:
        execution = self._journal.update_execution(local_id, **changes)
        if execution.execution_id:
            self.changed(execution)
        return execution


def _job_key(content: str, ignore_errors: bool) -> str:
    return f"execution:{content}{'+partial' if ignore_errors else ''}"
