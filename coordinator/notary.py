"""The notary: the one writer. It can refuse; it cannot invent, alter or drop.

A thread drains a queue of envelopes in which everybody has a turn. It opens some, as many as a
batch may have, and only then waits for its turn to append. For each it
 1. has seen the signature verified with the key that the caller enrolled (a joiner's: the key
    introduced);
 2. finds an envelope that is in the ledger already, and gives its receipt again;
 3. applies the rule for its kind, which refuses or adds the rows that follow;
 4. appends it to the ledger.
Then one commit makes the whole batch durable, the archive takes it, and only then everyone is
answered: a no may rest on what its neighbours in the batch state, and would be wrong if that were
not kept.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import exc

from coordinator.archive import Archive
from coordinator.caller import Caller, CallerRole
from coordinator.ledger import Batch, Ledger
from coordinator.opening import Opened, open_envelope
from coordinator.rules import RULES, Effect, Fact
from coordinator.store import Store, Writer
from coordinator.turns import Turns
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of
from housecall.statement import check_size, digest
from housecall.tracing import of_envelope
from housecall.v1 import ledger_pb2

log = logging.getLogger(__name__)

LARGEST_BATCH = 256
BATCH_BYTES = 4 * 1024 * 1024
BATCH_SECONDS = 1.0
"""What goes into a batch, besides: to be opened, and again to be considered, within this time."""
ACCEPTED_WITHIN_SECONDS = 30.0


@dataclass(frozen=True)
class Accepted:
    """A durable statement. `effect` is None when the envelope had been accepted before."""

    envelope: bytes
    receipt: ledger_pb2.Receipt
    kind: str
    index: int
    effect: Effect | None
    id: str


@dataclass
class _Job:
    envelope: bytes
    caller: Caller
    future: Future[Any]
    is_probe: bool = False
    opened: Opened | None = None


@dataclass
class _Outcome:
    job: _Job
    kind: str
    index: int
    id: str
    effect: Effect | None


class Notary:
    """Start it with `with`: leaving drains the queue and ends the thread."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        archive: Archive | None = None,
    ) -> None:
        self._store = store
        self._archive = archive
        self._ledger = ledger
        self._now = now
        self._jobs: Turns[_Job] = Turns()
        self._thread = threading.Thread(target=self._run, name="notary", daemon=True)
        self.listeners: list[Callable[[list[Accepted]], None]] = []
        self.observers: list[Callable[[bytes, Future[Accepted]], None]] = []

    def __enter__(self) -> Notary:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.end()
        self._thread.join()

    def submit(self, envelope: bytes, caller: Caller) -> Future[Accepted]:
        """The future of a receipt; fails with Refusal. Returns at once; what is too large does not
        even wait."""
        future: Future[Accepted] = Future()
        for observe in self.observers:
            observe(envelope, future)
        try:
            check_size(envelope)
        except Refusal as refusal:
            future.set_exception(refusal)
        else:
            self._enqueue(_Job(envelope, caller, future))
        return future

    def _enqueue(self, job: _Job) -> None:
        """What is taken is decided: nobody can cancel it any more. Who comes after the end is
        turned away: they send it again to whoever serves next."""
        job.future.set_running_or_notify_cancel()
        if not self._jobs.put(job.caller.name, job):
            job.future.set_exception(
                Refusal(Kind.UNAVAILABLE, "STOPPING", "the coordinator stops: try again")
            )

    def probe(self) -> Future[None]:
        """Answered by the notary's thread when its turn comes, out of a transaction; fails as a
        statement would where the store fails. Leaves nothing."""
        future: Future[None] = Future()
        nobody = Caller("", CallerRole.JOINER, "", self._now())
        self._enqueue(_Job(b"", nobody, future, is_probe=True))
        return future

    def append(self, envelope: bytes, caller: Caller) -> Accepted:
        """Submit and wait until it is durable. Raises Refusal."""
        try:
            return self.submit(envelope, caller).result(timeout=ACCEPTED_WITHIN_SECONDS)
        except TimeoutError:
            raise _not_yet() from None

    async def appended(self, envelope: bytes, caller: Caller) -> Accepted:
        """The same on the event loop: no thread is taken while it waits."""
        try:
            async with asyncio.timeout(ACCEPTED_WITHIN_SECONDS):
                return await asyncio.wrap_future(self.submit(envelope, caller))
        except TimeoutError:
            raise _not_yet() from None

    def _run(self) -> None:
        writer = self._store.writer()
        while first := self._jobs.take():
            if jobs := self._gather(first):
                writer = self._settle(writer, jobs)
        writer.close()

    def _gather(self, first: _Job) -> list[_Job]:
        """A batch: `first` and what else is there, opened. No transaction has begun."""
        job: _Job | None = first
        jobs, size, until = [], 0, time.monotonic() + BATCH_SECONDS
        while job is not None:
            if self._open(job):
                jobs.append(job)
                size += len(job.envelope)
            if len(jobs) == LARGEST_BATCH or size >= BATCH_BYTES or time.monotonic() >= until:
                break
            job = self._jobs.take_at_once()
        return jobs

    def _open(self, job: _Job) -> bool:
        """Whether it goes on; what cannot rest on a neighbour is answered at once."""
        if job.is_probe:
            return True
        try:
            job.opened = open_envelope(job.envelope, job.caller)
        except Exception as error:
            job.future.set_exception(_refused(job, error))
            return False
        return True

    def _settle(self, writer: Writer, jobs: list[_Job], *, again: bool = True) -> Writer:
        """One transaction, then everyone is answered; what it had no time for is in the next."""
        try:
            writer.begin()
            digests = [job.opened.statement.envelope_digest for job in jobs if job.opened]
            batch = Batch(writer, digests)
            self._keep(writer, batch)
            noes: list[Callable[[], None]] = []
            outcomes, late = self._consider_all(writer, batch, jobs, noes)
            batch.flush()
            writer.commit()
            answers = self._receipts(batch, outcomes)
            self._keep(writer, batch)
            writer.end()
        except Exception as error:
            writer.abandon()
            open_jobs = [job for job in jobs if not job.future.done()]
            return self._settle_after(error, open_jobs, again=again)
        for say in noes:
            say()
        self._answer(answers)
        return self._settle(writer, late) if late else writer

    def _settle_after(self, error: Exception, jobs: list[_Job], *, again: bool) -> Writer:
        """A batch failed. Where the connection was lost nobody knows whether it was committed: all
        are tried once more, and those that were are found. What the archive refuses is refused to
        all, and so it is where the store was too slow: each by itself would wait as long again.
        Otherwise each is tried by itself, so that one that cannot be taken does not hold up
        its neighbours. The last word of a store that fails is a no."""
        writer = self._store.writer()
        refusal = self._store.refusal(error)
        lost = refusal is not None and refusal.code == "STORE_UNREACHABLE"
        if lost and again and jobs:
            return self._settle(writer, jobs, again=False)
        slow = refusal is not None and refusal.code == "STORE_SLOW"
        if len(jobs) > 1 and not (lost or slow) and not isinstance(error, Refusal):
            for job in jobs:
                writer = self._settle(writer, [job])
            return writer
        for job in jobs:
            job.future.set_exception(refusal or refusal_of(error))
        return writer

    def _keep(self, writer: Writer, batch: Batch) -> None:
        """In the archive, too: before a batch, so that nothing is appended that could not go there,
        and after it."""
        if self._archive:
            self._archive.follow(writer, batch.size)

    def _consider_all(
        self, writer: Writer, batch: Batch, jobs: list[_Job], noes: list[Callable[[], None]]
    ) -> tuple[list[_Outcome], list[_Job]]:
        """What was appended or known, and the jobs that there was no time for."""
        outcomes: list[_Outcome] = []
        until = time.monotonic() + BATCH_SECONDS
        for number, job in enumerate(jobs):
            if number and time.monotonic() >= until:
                return outcomes, jobs[number:]
            if done := self._consider(writer, batch, job, noes):
                outcomes.append(done)
        return outcomes, []

    def _consider(
        self, writer: Writer, batch: Batch, job: _Job, noes: list[Callable[[], None]]
    ) -> _Outcome | None:
        """Steps 1 to 4. A refusal leaves nothing behind but its answer, in `noes`."""
        if job.opened is None:  # a probe
            noes.append(partial(job.future.set_result, None))
            return None
        opened = job.opened.statement
        try:
            if job.caller.role is not CallerRole.JOINER:
                job.opened.check_caller(writer.participant(job.caller.name), job.caller)  # 1
            if known := batch.find(opened.envelope_digest):  # 2
                return _Outcome(job, opened.kind, *known, None)
            if job.opened.refusal:
                raise job.opened.refusal
            fact = Fact(opened, job.caller, batch.size, self._now(), is_new=True)
            effect = RULES[opened.kind](writer, opened.predicate, fact)  # 3
        except (exc.SQLAlchemyError, OverflowError):
            raise  # the transaction is spoilt: `_settle` begins again, one by one
        except Exception as error:
            noes.append(partial(job.future.set_exception, _refused(job, error)))
            return None
        signer = effect.id if opened.kind == "ParticipantEnrolled" else job.caller.name
        index = batch.append(  # 4
            job.envelope,
            opened,
            signer=signer,
            enrolment_index=writer.participant(signer).enrolled_index,
            thing_id=effect.id,
            accepted_at=fact.at,
            concerns=effect.concerns,
        )
        return _Outcome(job, opened.kind, index, effect.id, effect)

    def _receipts(
        self, batch: Batch, outcomes: list[_Outcome]
    ) -> list[tuple[Future[Accepted], Accepted]]:
        """After the commit. Where this fails the envelopes are found again: a yes stays a yes."""
        if not outcomes:
            return []
        size = batch.size
        checkpoint = self._ledger.checkpoint(size, batch.node)
        answers = []
        for done in outcomes:
            receipt = self._ledger.receipt(done.index, size, batch.node, checkpoint)
            accepted = Accepted(
                done.job.envelope, receipt, done.kind, done.index, done.effect, done.id
            )
            answers.append((done.job.future, accepted))
            facts = {"kind": done.kind, "index": done.index, "id": done.id}
            trace = of_envelope(digest(accepted.envelope)).trace
            log.info("accepted", extra={**facts, "caller": done.job.caller.name, "trace_id": trace})
        return answers

    def _answer(self, answers: list[tuple[Future[Accepted], Accepted]]) -> None:
        for future, accepted in answers:
            future.set_result(accepted)
        if not answers:
            return
        for listener in self.listeners:
            try:
                listener([accepted for _, accepted in answers])
            except Exception:
                log.exception(
                    "a listener failed; what it would have told comes with the next Hello"
                )


def _not_yet() -> Refusal:
    return Refusal(
        Kind.UNAVAILABLE,
        "STORE_SLOW",
        f"not durable within {ACCEPTED_WITHIN_SECONDS:.0f} s: send the same statement again, it "
        "counts once",
    )


def _refused(job: _Job, error: Exception) -> Refusal:
    refusal = refusal_of(error)
    log.info("refused", extra={"caller": job.caller.name, "code": refusal.code})
    return refusal
