"""The herald: tells connected sites what the ledger gained, whichever replica appended it.

A thread that remembers the last index it told. It is woken when the ledger grew, and looks by
itself now and then: a wake that got lost delays news, and loses none. What concerns whom is read
off the store:
 - an entry that concerns a site is news to it;
 - an ExecutionRequested is an order for each of its executions' sites;
 - an ExecutionCancelled is a cancellation for each of them;
 - a ParticipantRevoked ends that participant's streams;
 - what ended an execution makes its progress worth nothing. What was said of it at that very
   moment, or is heard of another replica later, goes at the next look by itself.
A database that lost its last commits, as a standby may that took over, has other entries, or none,
where some were told: the herald goes back a page, so that what took their place is told.
A site may hear the same twice, as after a reconnect; it does not mind. What a site is told in its
Welcome is not the herald's: a stream is known to the fleet before its Welcome is read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import exc

from coordinator.fleet import Fleet, Tidings
from coordinator.ledger import predicate_of
from coordinator.store import Reader, Store
from coordinator.store.growth import (
    PAGE,
    Head,
    concerned,
    digest_before,
    heads,
    not_open,
    ordered,
    sites_of,
)
from housecall.errors import Refusal
from housecall.v1 import fleet_pb2 as pb
from housecall.watchdog import Stuck

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
RETRY_SECONDS = 1.0
STUCK_SECONDS = 3 * LOOK_SECONDS


class Herald:
    """Start it with `with`, before the first stream. `tell` is called from its thread."""

    def __init__(self, store: Store, fleet: Fleet, tell: Callable[[Tidings], None]) -> None:
        self._store, self._fleet, self._tell = store, fleet, tell
        self._grew = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="herald", daemon=True)
        self._looked_at = time.monotonic()
        self._swept_at = time.monotonic()
        with store.read() as reader:
            self._next = reader.tree_size()
            self._last = digest_before(reader, self._next)

    def __enter__(self) -> Herald:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._grew.set()
        self._thread.join(timeout=2 * RETRY_SECONDS)

    def wake(self) -> None:
        """The ledger grew, or may have grown. For any thread."""
        self._grew.set()

    def check(self) -> None:
        """Raises Stuck where no look has come to an end for long."""
        if time.monotonic() - self._looked_at > STUCK_SECONDS:
            raise Stuck("the herald: sites hear of nothing new")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                while self._look():
                    pass
                self._sweep()
                wait = LOOK_SECONDS
                self._looked_at = time.monotonic()
            except (exc.SQLAlchemyError, Refusal) as error:
                log.warning("cannot follow the ledger yet", extra={"problem": type(error).__name__})
                wait = RETRY_SECONDS
                if not self._store_answers():
                    self._looked_at = time.monotonic()  # no is an answer
            except Exception:  # a defect must not leave every site without news
                log.exception("cannot follow the ledger")
                wait = RETRY_SECONDS
            self._grew.wait(wait)
            self._grew.clear()

    def _store_answers(self) -> bool:
        """Whoever is told no by a store that answers others has a defect of its own."""
        try:
            with self._store.read() as reader:
                reader.tree_size()
        except (exc.SQLAlchemyError, Refusal):
            return False
        return True

    def _look(self) -> bool:
        """Tell of the next entries; False where there are none."""
        with self._store.read() as reader:
            self._go_back(reader)
            found = heads(reader, self._next, PAGE)
            if not found:
                return False
            tidings = self._tidings(reader, found)
        self._tell(tidings)
        self._next, self._last = found[-1].ledger_index + 1, found[-1].envelope_digest
        return True

    def _sweep(self) -> None:
        """Now and then: progress of orders that are not open any more."""
        if time.monotonic() - self._swept_at < LOOK_SECONDS:
            return
        self._swept_at = time.monotonic()
        if numbers := [number for number, _ in self._fleet.all_progress()]:
            with self._store.read() as reader:
                ended = not_open(reader, numbers)
            if ended:
                self._tell(Tidings(ended=ended))

    def _go_back(self, reader: Reader) -> None:
        """Where the last entry that was told is there no more. Up to a page of entries that took
        the place of others is told from its beginning."""
        if digest_before(reader, self._next) == self._last:
            return
        size = reader.tree_size()
        log.error("the database lost entries", extra={"told": self._next, "entries": size})
        self._next = max(0, min(size, self._next) - PAGE)
        self._last = digest_before(reader, self._next)

    def _tidings(self, reader: Reader, found: Sequence[Head]) -> Tidings:
        concerns: dict[int, list[str]] = {}
        for index, site in concerned(reader, found[0].ledger_index, found[-1].ledger_index):
            if self._fleet.is_here(site):
                concerns.setdefault(index, []).append(site)
        tidings = Tidings()
        for head in found:
            if sites := concerns.get(head.ledger_index):
                envelope = reader.entry(head.ledger_index).envelope
                news = pb.News(ledger_index=head.ledger_index, envelope=envelope)
                message = pb.CoordinatorMessage(news=news)
                tidings.mail += [(site, message) for site in sites]
            _add(tidings, reader, head)
        return tidings


def _add(tidings: Tidings, reader: Reader, head: Head) -> None:
    match head.kind:
        case "ExecutionRequested":
            tidings.mail += [(site, number) for number, site in ordered(reader, head)]
        case "ExecutionCancelled":
            said = predicate_of(reader.entry(head.ledger_index))
            for number, site in sites_of(reader, said.execution_ids):
                cancel = pb.Cancel(execution_id=number)
                tidings.mail.append((site, pb.CoordinatorMessage(cancel=cancel)))
            tidings.ended += set(said.execution_ids)
        case "ExecutionEnded":
            tidings.ended.append(int(head.thing_id))
        case "ResultSubmitted":
            said = predicate_of(reader.entry(head.ledger_index))
            tidings.ended += [said.execution_id] if said.execution_id else []
        case "ParticipantRevoked":
            tidings.revoked.append(head.thing_id)
