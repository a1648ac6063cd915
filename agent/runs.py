"""Executions from their start to their end: cache, joining, cancelling, going on after a restart.

What is run is one job a content (`Recipe.key`); every execution of the same content, ordered or
started here, shares it and ends with it. What has been run before comes from the cache, which is
nothing but the journal's finished executions.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.execution import Executor, Recipe, require_partial_allowed
from agent.journal import Journal
from agent.records import ENDED, Execution, State
from agent.results import FINISHED
from agent.worker import CANCELLED, SHUTDOWN, Job, Worker
from housecall.errors import Kind, Refusal

RETRY_S = 5.0
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
            if job is not None:
                return Started(self._journal.execution(self._sources[key]), job)
            execution = self._journal.add_execution(
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
            return Started(execution, self._queue(execution, recipe))

    def start_ordered(self, local_id: int, recipe: Recipe) -> None:
        """Run what was ordered and consented to; shares a run of the same content."""
        self._let_stop(_job_key(recipe.key, False))
        with self._lock:
            if self._journal.execution(local_id).state in ENDED:
                return  # cancelled while it was considered
            found = self.cached(recipe, partial=False)
            if found is not None and found.id != local_id:
                changes = {"result": found.result, "source_id": found.source_id}
                execution = self._change(
                    local_id,
                    key=recipe.key,
                    state=State.WAITING_RELEASE,
                    partial=found.partial,
                    finished_at=self._journal.now(),
                    **changes,
                )
                self.ended(execution)
                return
            key = _job_key(recipe.key, False)
            if self._worker.find(key) is not None:
                source = self._journal.execution(self._sources[key])
                self._change(local_id, key=recipe.key, state=source.state, source_id=source.id)
                return
            execution = self._change(local_id, key=recipe.key, state=State.QUEUED)
            self._queue(execution, recipe)

    def cancel(self, local_id: int, problem: str) -> Execution:
        """End it; its containers are stopped unless another execution shares them."""
        with self._lock:
            execution = self._journal.execution(local_id)
            if execution.state in ENDED:
                raise Refusal(
                    Kind.CONFLICT,
                    "EXECUTION_ENDED",
                    f"execution {local_id}: expected one that goes on, got one that is "
                    f"{execution.state.lower()}",
                )
            runs = execution.state in (State.QUEUED, State.RUNNING)
            execution = self._change(
                local_id, state=State.CANCELLED, reason=CANCELLED, problem=problem, step=""
            )
            self._journal.close_reviews(local_id, CANCELLED)
            shared = [each for each in self._sharing(execution.source_id) if each.id != local_id]
        if runs and not shared:
            self._worker.cancel(_job_key(execution.key, execution.ignore_errors))
        if execution.execution_id:
            self.ended(execution)
        return execution

    def resume(self) -> None:
        """At the start: what was queued or running runs again."""
        for state in (State.QUEUED, State.RUNNING):
            for execution in self._journal.executions(state=state):
                if execution.source_id == execution.id:
                    self._worker.spawn(f"resume:{execution.id}", self._resumption(execution))

    def on_step(self, owner: str, step: str, state: str) -> None:
        """A step of some execution changed."""
        kind, _, number = owner.partition(":")
        if kind == "execution" and state == "RUNNING":
            for execution in self._sharing(int(number)):
                self._change(execution.id, step=step)

    def _resumption(self, execution: Execution) -> Callable[[Job], object]:
        def work(job: Job) -> None:
            while not job.stop.asked():
                try:
                    recipe = self._executor.recipe(
                        execution.benchmark_id, execution.model_id, execution.dataset_id
                    )
                except Refusal as refusal:
                    if refusal.kind is not Kind.UNAVAILABLE:
                        self._settle_failed(execution.id, refusal)
                        return
                    job.stop.wait(RETRY_S)
                    continue
                with self._lock:
                    self._change(execution.id, state=State.QUEUED, step="")
                    self._queue(execution, recipe)
                return

        return work

    def _let_stop(self, key: str) -> None:
        """A job that was asked to stop is not joined: wait for its end."""
        job = self._worker.find(key)
        if job is not None and job.stop.asked():
            job.wait()

    def _queue(self, execution: Execution, recipe: Recipe) -> Job:
        key = _job_key(recipe.key, execution.ignore_errors)
        self._sources[key] = execution.id
        return self._worker.queue(key, lambda job: self._work(job, execution, recipe))

    def _work(self, job: Job, execution: Execution, recipe: Recipe) -> None:
        try:
            job.stop.check()
            for each in self._sharing(execution.id):
                self._change(each.id, state=State.RUNNING)
            result = self._executor.perform(execution, recipe, job.feed, job.stop)
        except Refusal as refusal:
            with self._lock:
                if job.stop.reason == SHUTDOWN:
                    for each in self._sharing(execution.id):
                        self._change(each.id, state=State.QUEUED, step="")
                else:
                    self._settle_failed(execution.id, refusal, cancelled=job.stop.asked())
            raise
        except BaseException:
            self._settle_failed(execution.id, Refusal(Kind.INTERNAL, "INTERNAL", "internal error"))
            raise
        with self._lock:
            self._settle(execution.id, result=result.SerializeToString(), partial=result.partial)

    def _settle(self, source_id: int, **changes: Any) -> None:
        for each in self._sharing(source_id):
            state = State.WAITING_RELEASE if each.execution_id else State.SUCCEEDED
            now = self._change(
                each.id, state=state, step="", finished_at=self._journal.now(), **changes
            )
            if each.execution_id:
                self.ended(now)

    def _settle_failed(self, source_id: int, refusal: Refusal, *, cancelled: bool = False) -> None:
        state = State.CANCELLED if cancelled else State.FAILED
        for each in self._sharing(source_id):
            now = self._change(
                each.id, state=state, step="", reason=refusal.code, problem=refusal.message
            )
            log.info("execution ended", extra={"execution": each.id, "code": refusal.code})
            if each.execution_id:
                self.ended(now)

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
