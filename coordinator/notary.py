"""The notary: the one writer. It can refuse; it cannot invent, alter or drop.

A thread drains a queue of envelopes. For each it
 1. verifies the signature with the key that the caller enrolled (a joiner's: the key introduced);
 2. finds an envelope that is in the ledger already, and gives its receipt again;
 3. applies the rule for its kind, which refuses or adds the rows that follow;
 4. appends it to the ledger.
Then one commit makes the whole batch durable, and only then everyone is answered.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import exc

from coordinator.caller import Caller, CallerRole
from coordinator.ledger import Batch, Ledger
from coordinator.rules import RULES, Effect, Fact
from coordinator.store import Reader, Store, Writer
from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of
from housecall.statement import digest
from housecall.v1 import ledger_pb2
from housecall.v1 import statements_pb2 as pb

log = logging.getLogger(__name__)

LARGEST_BATCH = 256
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
    future: Future[Accepted]


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
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._now = now
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="notary", daemon=True)
        self.listeners: list[Callable[[list[Accepted]], None]] = []

    def __enter__(self) -> Notary:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.put(None)
        self._thread.join()

    def submit(self, envelope: bytes, caller: Caller) -> Future[Accepted]:
        """The future of a receipt; fails with Refusal. Returns at once."""
        future: Future[Accepted] = Future()
        self._jobs.put(_Job(envelope, caller, future))
        return future

    def append(self, envelope: bytes, caller: Caller) -> Accepted:
        """Submit and wait until it is durable. Raises Refusal."""
        try:
            return self.submit(envelope, caller).result(timeout=ACCEPTED_WITHIN_SECONDS)
        except TimeoutError:
            raise Refusal(
                Kind.UNAVAILABLE,
                "STORE_SLOW",
                f"not durable within {ACCEPTED_WITHIN_SECONDS:.0f} s: send the same statement "
                "again, it counts once",
            ) from None

    def _run(self) -> None:
        writer = self._store.writer()
        while jobs := self._next_jobs():
            writer = self._settle(writer, jobs)
        writer.close()
        self._turn_away()

    def _turn_away(self) -> None:
        """Who came after the end: they send it again to whoever serves next."""
        with contextlib.suppress(queue.Empty):
            while True:
                if job := self._jobs.get_nowait():
                    job.future.set_exception(
                        Refusal(Kind.UNAVAILABLE, "STOPPING", "the coordinator stops: try again")
                    )

    def _next_jobs(self) -> list[_Job]:
        """Wait for one job, then take what else is there. Empty = stop."""
        first = self._jobs.get()
        jobs = [first] if first else []
        while first and len(jobs) < LARGEST_BATCH:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            jobs.append(job)
        return jobs

    def _settle(self, writer: Writer, jobs: list[_Job]) -> Writer:
        """One transaction, then everyone is answered. Where it fails, each job is tried by itself,
        so that one that cannot be taken does not hold up its neighbours; the last word of a store
        that fails is a no."""
        try:
            batch = Batch(writer, [digest(job.envelope) for job in jobs])
            outcomes = [done for job in jobs if (done := self._consider(writer, batch, job))]
            batch.flush()
            writer.commit()
        except Exception as error:
            writer.close()
            writer = self._store.writer()
            open_jobs = [job for job in jobs if not job.future.done()]
            if len(open_jobs) > 1:
                for job in open_jobs:
                    writer = self._settle(writer, [job])
            elif open_jobs:
                open_jobs[0].future.set_exception(_store_refusal(error))
            return writer
        self._answer(batch, outcomes)
        writer.end()
        return writer

    def _consider(self, writer: Writer, batch: Batch, job: _Job) -> _Outcome | None:
        """Steps 1 to 4. A refusal is answered at once and leaves nothing behind."""
        try:
            opened = self._verify(writer, job)  # 1
            if known := batch.find(opened.envelope_digest):  # 2
                return _Outcome(job, opened.kind, *known, None)
            fact = Fact(opened, job.caller, batch.size, self._now())
            effect = RULES[opened.kind](writer, opened.predicate, fact)  # 3
        except exc.SQLAlchemyError:
            raise  # the transaction is spoilt: `_settle` begins again, one by one
        except Exception as error:
            refusal = refusal_of(error)
            log.info("refused caller=%s code=%s", job.caller.name, refusal.code)
            job.future.set_exception(refusal)
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

    def _verify(self, reader: Reader, job: _Job) -> statement.Statement:
        caller = job.caller
        if caller.role is CallerRole.JOINER:
            said = statement.unverified(job.envelope)
            if not isinstance(said.predicate, pb.ParticipantEnrolled):
                raise Refusal(
                    Kind.NOT_ALLOWED, "NOT_ENTITLED", "a join token is good for enrolment only"
                )
            return statement.verify(job.envelope, said.predicate.signing_key)
        participant = reader.participant(caller.name)
        if participant.revoked_index is not None:
            raise Refusal(Kind.NOT_ALLOWED, "REVOKED", f"{caller.name} is revoked")
        return statement.verify(job.envelope, participant.signing_key)

    def _answer(self, batch: Batch, outcomes: list[_Outcome]) -> None:
        """After the commit: nothing that fails here makes a no of a yes. Who gets no receipt sends
        the same envelope again."""
        if not outcomes:
            return
        size = batch.size
        checkpoint = self._ledger.checkpoint(size, batch.node)
        answers: list[tuple[_Job, Accepted]] = []
        for done in outcomes:
            receipt = self._ledger.receipt(done.index, size, batch.node, checkpoint)
            accepted = Accepted(
                done.job.envelope, receipt, done.kind, done.index, done.effect, done.id
            )
            answers.append((done.job, accepted))
            log.info(
                "accepted kind=%s index=%d caller=%s id=%s",
                done.kind,
                done.index,
                done.job.caller.name,
                done.id,
            )
        for job, accepted in answers:
            job.future.set_result(accepted)
        for listener in self.listeners:
            try:
                listener([accepted for _, accepted in answers])
            except Exception:
                log.exception(
                    "a listener failed; what it would have told comes with the next Hello"
                )


def _store_refusal(error: Exception) -> Refusal:
    if isinstance(error, exc.OperationalError) and "full" in str(error.orig):
        log.error("the store's disk is full")
        return Refusal(
            Kind.EXHAUSTED,
            "STORE_FULL",
            "the coordinator's disk is full: nothing was accepted. Keep the statement and send it "
            "again when the operator has made room",
        )
    return refusal_of(error)
