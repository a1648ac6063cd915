"""One stream to the coordinator, from Hello to its end: the duties of the agent on it.

 1. Open with Hello: cursor, newest checkpoint, environment, what this site is doing, and what it
    tells of its preparations.
 2. Welcome comes in time, and the ledger continues the one seen before, else the stream ends.
 3. An order is written down before OrderAccepted. One that cannot be written now ends the stream:
    the coordinator tells it again after the next Hello.
 4. Everything in the outbox is sent after Welcome, and what is new at once.
 5. News is told to `recall.py`, then moves the cursor, never back; it is written at every BATCH of
    them, at rest, and at the end: what was seen and not written comes once more. Heartbeats say
    that the agent is alive.

When to open one is left to `link.py`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import grpc

from agent.journal import Journal
from agent.linkstate import LinkState
from agent.orders import Orders
from agent.outbox import Outbox
from agent.progress import progress_of
from agent.recall import Recall
from housecall.errors import Kind, Refusal
from housecall.times import stamp
from housecall.v1 import fleet_pb2, fleet_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from housecall.verify import check_checkpoint, check_consistency

WELCOME_S = 120.0
"""A coordinator that takes a stream and says nothing is dialled again; 500 agents that come back
at once are all welcome before."""
BATCH = 256
PASSING = frozenset({Kind.EXHAUSTED, Kind.INTERNAL, Kind.UNAVAILABLE})
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Duties:
    """What every stream of a process has in common. `counts` gives running and waiting work,
    `welcomed` is told the difference to the coordinator's clock in seconds."""

    journal: Journal
    orders: Orders
    outbox: Outbox
    recall: Recall
    state: LinkState
    environment: Callable[[], pb.EnvironmentFacts]
    counts: Callable[[], tuple[int, int]]
    preparing: Callable[[], Sequence[fleet_pb2.Preparing]]
    welcomed: Callable[[float], None]
    heartbeat_s: float
    max_skew_s: float
    process: str
    """Hello's session_id."""


class Session:
    """`serve` is called once, by the link's thread, which reads; gRPC's own thread writes: what
    breaks that off, as a full disk, ends the stream in the same way."""

    def __init__(self, duties: Duties, verifier_key: str, *, yields: bool) -> None:
        self._duties, self._verifier_key, self._yields = duties, verifier_key, yields
        self._mailbox: queue.Queue[fleet_pb2.AgentMessage | None] = queue.Queue()
        self._ended = threading.Event()
        self._call: grpc.Call | None = None
        self._broken: Exception | None = None
        self._welcome_by = time.monotonic() + WELCOME_S
        self._cursor = self._written = int(duties.journal.fact("cursor") or 0)
        self.welcomed = False

    def serve(self, channel: grpc.Channel) -> None:
        """Until either side ends it. Raises Refusal or grpc.RpcError."""
        state = self._duties.state
        call = fleet_pb2_grpc.FleetStub(channel).Connect(self._said())
        self._call = call
        if self._ended.is_set() or self._broken is not None:
            call.cancel()
        state.rests()
        try:
            for message in call:
                state.works()
                self._handle(message)
                state.rests()
        except grpc.RpcError:
            if self._broken is not None:
                raise self._broken from None
            if self._is_late():
                raise _late() from None
            raise
        finally:
            self._mailbox.put(None)
            self._write_cursor()

    @property
    def ended(self) -> bool:
        """It was ended here, by `end`."""
        return self._ended.is_set()

    def end(self) -> None:
        self._ended.set()
        self._mailbox.put(None)
        if self._call is not None:
            self._call.cancel()

    def say(self, **message: object) -> None:
        self._mailbox.put(fleet_pb2.AgentMessage(**message))  # type: ignore[arg-type]

    def submit(self, envelope: bytes) -> None:
        self.say(submit=fleet_pb2.Submit(envelope=envelope))

    def _is_late(self) -> bool:
        return not self.welcomed and time.monotonic() >= self._welcome_by

    def _said(self) -> Iterator[fleet_pb2.AgentMessage]:
        try:
            yield from self._messages()
        except Exception as error:
            self._broken = error
            if self._call is not None:
                self._call.cancel()

    def _messages(self) -> Iterator[fleet_pb2.AgentMessage]:
        yield fleet_pb2.AgentMessage(hello=self._hello())  # 1
        beat_at = time.monotonic() + self._duties.heartbeat_s
        while (message := self._next(beat_at)) is not None:
            if message.HasField("heartbeat"):
                beat_at = time.monotonic() + self._duties.heartbeat_s
            yield message

    def _next(self, beat_at: float) -> fleet_pb2.AgentMessage | None:
        """What is said next, None at the end; a heartbeat when it is due, however much waits."""
        if (left := beat_at - time.monotonic()) > 0:
            with suppress(queue.Empty):
                return self._mailbox.get(timeout=left)
        return self._beat()

    def _beat(self) -> fleet_pb2.AgentMessage:
        if self._is_late() and self._call is not None:
            self._call.cancel()
        if self.welcomed:
            self._write_cursor()
            self._duties.outbox.pump()
        running, waiting = self._duties.counts()
        return fleet_pb2.AgentMessage(
            heartbeat=fleet_pb2.Heartbeat(running=running, waiting=waiting)
        )

    def _hello(self) -> fleet_pb2.Hello:
        duties = self._duties
        return fleet_pb2.Hello(
            agent_version=version("housecall"),
            local_time=stamp(datetime.now(UTC)),
            cursor=self._cursor,
            checkpoint=duties.journal.fact("checkpoint"),
            environment=duties.environment(),
            doing=[progress_of(execution) for execution in duties.orders.doing()],
            session_id=duties.process,
            yields=self._yields,
            preparing=duties.preparing(),
        )

    def _handle(self, message: fleet_pb2.CoordinatorMessage) -> None:
        match message.WhichOneof("message"):
            case "welcome":
                self._welcome(message.welcome)
            case "order":
                self._order(message.order)
            case "cancel":
                self._duties.orders.cancelled_there(message.cancel.execution_id)
            case "receipted":
                self._duties.outbox.receipted(message.receipted)
            case "refused":
                self._duties.outbox.refused(message.refused)
            case "news":
                self._news(message.news)
            case "caught_up":
                self._duties.recall.caught_up()
                self._duties.outbox.pump()
            case "superseded":
                raise Refusal(
                    Kind.CONFLICT,
                    "SUPERSEDED",
                    "another agent of this site connected and took over; this one comes back when "
                    "that one is gone: run one agent a site",
                )

    def _welcome(self, welcome: fleet_pb2.Welcome) -> None:
        self._witness(welcome)  # 2
        self.welcomed = True
        duties, there = self._duties, welcome.coordinator_time.ToDatetime(UTC)
        skew = (datetime.now(UTC) - there).total_seconds()
        duties.state.welcomed(_skew_problem(skew, duties.max_skew_s))
        duties.welcomed(skew)
        log.info("link up", extra={"skew_s": round(skew, 1), "orders": len(welcome.orders)})
        for execution_id in welcome.cancelled_execution_ids:
            duties.orders.cancelled_there(execution_id)
        duties.orders.untaken.keep({order.execution_id for order in welcome.orders})
        for order in welcome.orders:
            self._order(order)
        duties.outbox.pump()  # 4

    def _witness(self, welcome: fleet_pb2.Welcome) -> None:
        """The site remembers the newest checkpoint, and demands that the next continues it."""
        journal, key = self._duties.journal, self._verifier_key
        seen = journal.fact("checkpoint")
        if not seen:
            check_checkpoint(welcome.checkpoint, key)
        else:
            proof = list(welcome.consistency_proof)
            check_consistency(seen, welcome.checkpoint, proof, key)
        journal.set_fact("checkpoint", welcome.checkpoint)

    def _order(self, order: fleet_pb2.Order) -> None:
        """3."""
        duties, execution_id = self._duties, order.execution_id
        try:
            duties.orders.receive(execution_id, order.bundle, order.line)
        except Refusal as refusal:
            extra = {"order": execution_id, "code": refusal.code, "problem": refusal.message}
            log.error("order not taken", extra=extra)
            if refusal.kind in PASSING:
                raise
            duties.state.problem = str(refusal)
            return
        self.say(order_accepted=fleet_pb2.OrderAccepted(execution_id=execution_id))
        duties.orders.consider(execution_id)

    def _news(self, news: fleet_pb2.News) -> None:
        self._duties.recall.told(news.envelope)
        self._cursor = max(self._cursor, min(news.ledger_index + 1, 2**63))
        if self._cursor - self._written >= BATCH:
            self._write_cursor()

    def _write_cursor(self) -> None:
        if (cursor := self._cursor) != self._written:
            self._duties.journal.set_fact("cursor", str(cursor))
            self._written = cursor


def _skew_problem(skew: float, most: float) -> str:
    if abs(skew) <= most:
        return ""
    return (
        f"clock: expected at most {most:g} s of difference to the coordinator's, got {skew:.0f} s; "
        "set this machine's clock [CLOCK_SKEW]"
    )


def _late() -> Refusal:
    text = f"coordinator: expected a Welcome within {WELCOME_S:g} s of Hello, got none"
    return Refusal(Kind.UNAVAILABLE, "DEADLINE", f"{text}; its log says why")
