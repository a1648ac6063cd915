"""Work and who does it: a few slots for container work, threads of their own for light work.

A piece of work has a key; asking for a key that is under way joins it. Work goes on when whoever
asked goes away. Slot work that has to wait is put off: others have the slot meanwhile.
What the work is, and what its end means, is left to whoever asks for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from agent.disk import explained
from agent.events import Amount, Feed, LogLine, StepChange
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of

CANCELLED, SHUTDOWN = "CANCELLED", "SHUTDOWN"


class Stop:
    """A request to stop, and why: CANCELLED by somebody, or SHUTDOWN of the agent."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def ask(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._event.set()

    def asked(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)

    def check(self) -> None:
        if self.asked():
            raise stopped()


class Job:
    """One piece of work: follow its feed, wait for it, read how it ended."""

    def __init__(self, key: str, work: Callable[[Job], object]) -> None:
        self.key = key
        self.asked_at = time.time()  # for display
        self.feed = Feed()
        self.stop = Stop()
        self.result: object = None
        self.error: Refusal | None = None
        self.due: float | None = None
        self._work = work
        self._done = threading.Event()

    def wait(self, seconds: float | None = None) -> bool:
        return self._done.wait(seconds)

    def outcome(self) -> object:
        """Its result once it is done; raises the refusal that it ended with."""
        self._done.wait()
        if self.error is not None:
            raise self.error
        return self.result

    def pass_on(self, other: Job) -> None:
        """What this one says until it ends, to those who follow `other`."""
        for event in self.feed.follow(lambda: not other.stop.asked()):
            if isinstance(event, Amount | StepChange | LogLine):
                other.feed.emit(event)

    def put_off(self, seconds: float) -> None:
        """Called by slot work before it returns: it is done again then, at once when it is asked to
        stop."""
        self.due = time.monotonic() + seconds

    def run(self) -> None:
        self.due = None
        try:
            self.result = self._work(self)
        except BaseException as error:
            self.error = refusal_of(explained(error))

    def end(self) -> None:
        self._done.set()
        self.feed.close()


class Worker:
    """Runs jobs; `slots` of those that were queued at a time."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._running = 0
        self._closing = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._serve, name=f"slot-{n}", daemon=True)
            for n in range(slots)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def queue(self, key: str, work: Callable[[Job], object]) -> Job:
        """Container work: waits for a slot."""
        with self._changed:
            job, new = self._join(key, work)
            if new:
                self._queue.append(job)
                self._changed.notify_all()
            return job

    def spawn(self, key: str, work: Callable[[Job], object]) -> Job:
        """Light work: starts at once."""
        with self._changed:
            job, new = self._join(key, work)
        if new:
            thread = threading.Thread(target=self._finish, args=(job,), name=key[:40], daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise self._not_begun(job) from error
        return job

    def find(self, key: str) -> Job | None:
        with self._changed:
            return self._jobs.get(key)

    def counts(self) -> tuple[int, int]:
        """Slot work that is running, and that waits, for a slot or for what it was put off for."""
        with self._changed:
            return self._running, len(self._queue)

    def queued(self) -> dict[str, float]:
        """Keys of the work that waits, the first in line first, and since when."""
        with self._changed:
            return {job.key: job.asked_at for job in self._queue}

    def lost_slots(self) -> list[str]:
        """Names of slot threads that have ended though nobody closed them: there should be none."""
        with self._changed:
            return [
                thread.name for thread in self._threads if not (thread.is_alive() or self._closing)
            ]

    def cancel(self, job: Job, reason: str = CANCELLED) -> bool:
        """Ask it to stop; one that waits for a slot ends at once. False when it has ended."""
        with self._changed:
            if self._jobs.get(job.key) is not job:
                return False
            job.stop.ask(reason)
            waits = job in self._queue
            if waits:
                self._queue.remove(job)
        if waits:
            self._finish(job)
        return True

    def close(self, seconds: float) -> None:
        """Take no more work and stop what runs; waits at most so long."""
        with self._changed:
            self._closing = True
            jobs = list(self._jobs.values())
            self._changed.notify_all()
        for job in jobs:
            self.cancel(job, SHUTDOWN)
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs, seconds)

    def _join(self, key: str, work: Callable[[Job], object]) -> tuple[Job, bool]:
        known = self._jobs.get(key)
        if known is not None:
            return known, False
        if self._closing:
            raise Refusal(Kind.UNAVAILABLE, "AGENT_STOPPING", "the agent stops: try again later")
        job = self._jobs[key] = Job(key, work)
        return job, True

    def _not_begun(self, job: Job) -> Refusal:
        """Whoever joined it meanwhile is told the same."""
        job.error = Refusal(
            Kind.EXHAUSTED,
            "THREADS_EXHAUSTED",
            "the agent: expected a thread for this work, got none of the system; see the limit on "
            "its tasks (TasksMax of its unit) and the machine's memory, then try again",
        )
        with self._changed:
            del self._jobs[job.key]
            self._changed.notify_all()
        job.end()
        return job.error

    def _serve(self) -> None:
        while True:
            with self._changed:
                while (job := self._next()) is None:
                    if self._closing:
                        return
                    self._changed.wait(self._until_due())
                self._queue.remove(job)
                self._running += 1
            try:
                self._finish(job)
            finally:
                with self._changed:
                    self._running -= 1

    def _next(self) -> Job | None:
        now = time.monotonic()
        ready = (job for job in self._queue if (job.due or 0) <= now or job.stop.asked())
        return next(ready, None)

    def _until_due(self) -> float | None:
        """Seconds until the first that was put off; None where none was."""
        due = [job.due for job in self._queue if job.due is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _finish(self, job: Job) -> None:
        job.run()
        with self._changed:
            if job.due is not None:
                self._queue.append(job)
                self._changed.notify_all()
                return
            del self._jobs[job.key]
            self._changed.notify_all()
        job.end()


def stopped() -> Refusal:
    return Refusal(Kind.CONFLICT, "STEP_STOPPED", "it was stopped; start it again to go on")
