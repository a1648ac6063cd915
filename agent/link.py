"""The link to the coordinator: one stream that the agent dials, and its duties on it.

 1. Open with Hello: cursor, newest checkpoint, environment, what this site is doing.
 2. Welcome: the ledger must continue the one seen before, else the link ends for good.
 3. An order is written down before OrderAccepted.
 4. Everything in the outbox is sent after Welcome, and what is new at once; one statement of a
    lane at a time. It leaves the outbox only on a receipt that holds, or a refusal for good.
 5. News moves the cursor. Heartbeats say that it is alive. The newest session of a site wins.

Threads: `run` is the link's own and reads; gRPC's thread writes what the mailbox holds.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from agent.backoff import FINAL, Backoff
from agent.identity import Uplink
from agent.journal import Journal
from agent.linkstate import LinkState
from agent.orders import Orders
from agent.outbox import Outbox
from agent.records import ENDED, Execution
from housecall import client
from housecall.errors import Kind, Refusal
from housecall.rpc import from_rpc_error, refusal_of
from housecall.v1 import fleet_pb2, fleet_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from housecall.verify import check_checkpoint, check_consistency

log = logging.getLogger(__name__)
_RENEWED = "renewed"
Mailbox = queue.Queue[fleet_pb2.AgentMessage | None]


class Link:
    """Keeps a stream to the coordinator. `counts` gives running and waiting work."""

    def __init__(
        self,
        uplink: Uplink,
        journal: Journal,
        orders: Orders,
        outbox: Outbox,
        *,
        environment: Callable[[], pb.EnvironmentFacts],
        counts: Callable[[], tuple[int, int]],
        heartbeat_s: float,
        max_skew_s: float,
        backoff: Backoff | None = None,
    ) -> None:
        self._uplink, self._journal, self._orders, self._outbox = uplink, journal, orders, outbox
        self._environment, self._counts = environment, counts
        self._heartbeat_s, self._max_skew_s = heartbeat_s, max_skew_s
        self._backoff = backoff or Backoff()
        self._stop = threading.Event()
        self._mailbox: Mailbox = queue.Queue()
        self._call: grpc.Call | None = None
        self.state = LinkState()
        outbox.send = self._submit

    def run(self) -> None:
        """Until `close`: connect, serve the stream, wait, again."""
        while not self._stop.is_set():
            began = time.monotonic()
            code = self._session()
            self.state.disconnected()
            if code == "LEDGER_REWRITTEN":
                log.critical("link ended for good", extra={"code": code, "reason": FINAL[code]})
                return
            wait = 0.0 if code == _RENEWED else self._backoff.after(code, time.monotonic() - began)
            if code != _RENEWED and not self._stop.is_set():
                log.warning(
                    "link down",
                    extra={"code": code, "reason": FINAL.get(code, ""), "retry_s": round(wait, 1)},
                )
            self._stop.wait(wait)

    def close(self) -> None:
        self._stop.set()
        self.reconnect()

    def reconnect(self) -> None:
        """End this stream; `run` opens another one, with the newest certificate."""
        self._mailbox.put(None)
        call = self._call
        if call is not None:
            call.cancel()

    def wake(self) -> None:
        """There may be something new in the outbox."""
        if self.state.connected:
            self._outbox.pump()

    def progress(self, execution: Execution) -> None:
        """An ordered execution changed; while the link is down, the next Hello says it. Ends are
        said by the signed outcome alone."""
        if self.state.connected and execution.state not in ENDED:
            self._mailbox.put(fleet_pb2.AgentMessage(progress=_progress(execution)))

    def _session(self) -> str:
        """Serve one stream to its end. Returns the code of the refusal that ended it."""
        mailbox: Mailbox = queue.Queue()
        self._mailbox = mailbox
        self._outbox.forget()
        identity = self._uplink.identity
        certificate = identity.chain_pem
        try:
            with client.connect(identity) as channel:
                stub = fleet_pb2_grpc.FleetStub(channel)
                self._call = call = stub.Connect(self._said(mailbox))
                for message in call:
                    self._handle(message)
            return ""
        except Refusal as refusal:
            return self._ended(refusal)
        except grpc.RpcError as error:
            if self._uplink.identity.chain_pem != certificate:
                return _RENEWED
            return self._ended(from_rpc_error(error, f"coordinator {identity.address}"))
        except Exception as error:
            return self._ended(refusal_of(error))
        finally:
            self._call = None
            mailbox.put(None)

    def _ended(self, refusal: Refusal) -> str:
        code = refusal.code
        if code not in FINAL and refusal.kind in (Kind.UNAUTHENTICATED, Kind.NOT_ALLOWED):
            code = "UNAUTHENTICATED" if refusal.kind is Kind.UNAUTHENTICATED else "NOT_ALLOWED"
        if not self._stop.is_set():
            self.state.problem = str(refusal)
        return code

    def _said(self, mailbox: Mailbox) -> Iterator[fleet_pb2.AgentMessage]:
        yield fleet_pb2.AgentMessage(hello=self._hello())  # 1
        while True:
            try:
                message = mailbox.get(timeout=self._heartbeat_s)
            except queue.Empty:
                running, waiting = self._counts()
                beat = fleet_pb2.Heartbeat(running=running, waiting=waiting)
                message = fleet_pb2.AgentMessage(heartbeat=beat)
            if message is None:
                return
            yield message

    def _hello(self) -> fleet_pb2.Hello:
        now = Timestamp()
        now.GetCurrentTime()
        return fleet_pb2.Hello(
            agent_version=version("housecall"),
            local_time=now,
            cursor=int(self._journal.fact("cursor") or 0),
            checkpoint=self._journal.fact("checkpoint"),
            environment=self._environment(),
            doing=[_progress(execution) for execution in self._orders.doing()],
        )

    def _handle(self, message: fleet_pb2.CoordinatorMessage) -> None:
        match message.WhichOneof("message"):
            case "welcome":
                self._welcome(message.welcome)
            case "order":
                self._order(message.order)
            case "cancel":
                self._orders.cancelled_there(message.cancel.execution_id)
            case "receipted":
                self._outbox.receipted(message.receipted)
            case "refused":
                self._outbox.refused(message.refused)
            case "news":
                seen = int(self._journal.fact("cursor") or 0)
                newest = min(message.news.ledger_index + 1, 2**63)
                self._journal.set_fact("cursor", str(max(seen, newest)))
            case "superseded":
                raise Refusal(
                    Kind.CONFLICT,
                    "SUPERSEDED",
                    "another agent of this site connected and took over: run one agent a site",
                )

    def _welcome(self, welcome: fleet_pb2.Welcome) -> None:
        self._witness(welcome)  # 2
        skew = (datetime.now(UTC) - welcome.coordinator_time.ToDatetime(UTC)).total_seconds()
        self.state.welcomed(
            ""
            if abs(skew) <= self._max_skew_s
            else (
                f"clock: expected at most {self._max_skew_s:g} s of difference to the "
                f"coordinator's, got {skew:.0f} s; set this machine's clock [CLOCK_SKEW]"
            )
        )
        log.info("link up", extra={"skew_s": round(skew, 1), "orders": len(welcome.orders)})
        for execution_id in welcome.cancelled_execution_ids:
            self._orders.cancelled_there(execution_id)
        for order in welcome.orders:
            self._order(order)
        self._outbox.pump()  # 4

    def _witness(self, welcome: fleet_pb2.Welcome) -> None:
        """The site remembers the newest checkpoint, and demands that the next continues it."""
        seen, key = self._journal.fact("checkpoint"), self._uplink.identity.verifier_key
        if not seen:
            check_checkpoint(welcome.checkpoint, key)
        else:
            proof = list(welcome.consistency_proof)
            check_consistency(seen, welcome.checkpoint, proof, key)
        self._journal.set_fact("checkpoint", welcome.checkpoint)

    def _order(self, order: fleet_pb2.Order) -> None:
        """3."""
        try:
            self._orders.receive(order.execution_id, order.bundle, order.line)
        except Refusal as refusal:
            log.error(
                "order not taken",
                extra={
                    "order": order.execution_id,
                    "code": refusal.code,
                    "problem": refusal.message,
                },
            )
            self.state.problem = str(refusal)
            return
        accepted = fleet_pb2.OrderAccepted(execution_id=order.execution_id)
        self._mailbox.put(fleet_pb2.AgentMessage(order_accepted=accepted))
        self._orders.consider(order.execution_id)

    def _submit(self, envelope: bytes) -> None:
        submit = fleet_pb2.Submit(envelope=envelope)
        self._mailbox.put(fleet_pb2.AgentMessage(submit=submit))


def _progress(execution: Execution) -> fleet_pb2.Progress:
    return fleet_pb2.Progress(
        execution_id=execution.execution_id,
        state=pb.ExecutionState.Value(f"EXECUTION_STATE_{execution.state}"),
        step=execution.step,
    )
