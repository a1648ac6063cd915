"""The Fleet service: the only coroutine. One reader and one writer a stream.

The reader handles what the agent says; statements go to the notary and their answers come back
through the session's mailbox. The writer is gRPC's own: it drains the mailbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Future
from datetime import UTC, datetime

import grpc

from coordinator.caller import Caller, current_caller
from coordinator.fleet import Fleet, Mail, Session
from coordinator.ledger import Ledger
from coordinator.models import Execution
from coordinator.notary import Accepted, Notary
from coordinator.store import Reader, Store
from housecall import merkle
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of
from housecall.statement import digest
from housecall.times import stamp
from housecall.v1 import fleet_pb2 as pb
from housecall.v1 import fleet_pb2_grpc
from housecall.verify import check_checkpoint

log = logging.getLogger(__name__)

MOST_IN_FLIGHT = 256
MOST_WELCOME_BYTES = 2 * 2**20  # one more order fits in a message: an envelope has at most 1 MiB
HELLO_SECONDS = 10.0


class FleetServicer(fleet_pb2_grpc.FleetServicer):
    def __init__(self, store: Store, ledger: Ledger, notary: Notary, fleet: Fleet) -> None:
        self._store = store
        self._ledger = ledger
        self._notary = notary
        self._fleet = fleet
        self._loop = asyncio.get_running_loop()
        notary.listeners.append(self._accepted)

    async def Connect(
        self,
        request_iterator: AsyncIterator[pb.AgentMessage],
        context: grpc.aio.ServicerContext[pb.AgentMessage, pb.CoordinatorMessage],
    ) -> AsyncIterator[pb.CoordinatorMessage]:
        caller = current_caller()
        try:
            hello = await asyncio.wait_for(self._hello(request_iterator), HELLO_SECONDS)
        except TimeoutError:
            raise Refusal(Kind.INVALID, "HELLO_MISSING", "expected a Hello at once") from None
        own = await asyncio.to_thread(self._own, hello, caller.name)
        now = datetime.now(UTC)
        skew = (hello.local_time.ToDatetime(UTC) - now).total_seconds()
        session = self._fleet.attach(caller.name, own, now, skew)
        if task := asyncio.current_task():
            session.cancel = task.cancel
        log.info("connected site=%s agent=%s", caller.name, hello.agent_version)
        reader = asyncio.create_task(self._read(request_iterator, session, caller))
        try:
            welcome, later = await asyncio.to_thread(self._welcome, caller.name, hello)
            yield welcome
            for number in later:
                yield await asyncio.to_thread(self._order_message, number)
            for item in await asyncio.to_thread(self._news, caller.name, hello.cursor):
                yield item
            while (message := await session.outgoing.get()) is not None:
                if isinstance(message, int):  # an order, made when it is sent
                    message = await asyncio.to_thread(self._order_message, message)
                yield message
        finally:
            reader.cancel()
            self._fleet.detach(session)
            log.info("disconnected site=%s", caller.name)

    async def _hello(self, messages: AsyncIterator[pb.AgentMessage]) -> pb.Hello:
        async for message in messages:
            if message.WhichOneof("message") == "hello":
                return message.hello
            break
        raise Refusal(Kind.INVALID, "HELLO_MISSING", "expected a Hello as the first message")

    async def _read(
        self, messages: AsyncIterator[pb.AgentMessage], session: Session, caller: Caller
    ) -> None:
        """Until the agent hangs up; then the mailbox is ended and with it the stream."""
        in_flight = asyncio.Semaphore(MOST_IN_FLIGHT)
        try:
            async for message in messages:
                now = datetime.now(UTC)
                self._fleet.heard(session.site, now)
                match message.WhichOneof("message"):
                    case "submit":
                        await in_flight.acquire()
                        self._submit(message.submit.envelope, session, caller, in_flight)
                    case "progress":
                        if await asyncio.to_thread(self._is_own, message.progress, caller.name):
                            self._fleet.progress(message.progress, now)
                    case "heartbeat":
                        self._fleet.heard(session.site, now, message.heartbeat)
                    case "order_accepted":
                        log.info(
                            "order accepted site=%s execution=%d",
                            session.site,
                            message.order_accepted.execution_id,
                        )
        except grpc.aio.AioRpcError as error:
            log.info("stream broke site=%s %s", session.site, error.code())
        finally:
            session.end()

    def _submit(
        self, envelope: bytes, session: Session, caller: Caller, in_flight: asyncio.Semaphore
    ) -> None:
        def answer(future: Future[Accepted]) -> None:
            self._loop.call_soon_threadsafe(deliver, future)

        def deliver(future: Future[Accepted]) -> None:
            in_flight.release()
            error = future.exception()
            if error is None:
                accepted = future.result()
                session.send(
                    receipted=pb.Receipted(
                        envelope_digest=digest(envelope), receipt=accepted.receipt, id=accepted.id
                    )
                )
                return
            refusal = refusal_of(error)
            session.send(
                refused=pb.Refused(
                    envelope_digest=digest(envelope),
                    kind=refusal.kind.value,
                    code=refusal.code,
                    text=refusal.message,
                )
            )

        self._notary.submit(envelope, caller).add_done_callback(answer)

    def _welcome(self, site: str, hello: pb.Hello) -> tuple[pb.CoordinatorMessage, list[int]]:
        """What the site should be doing, and proof that the ledger continues what it saw."""
        with self._store.read() as reader:
            if reader.participant(site).revoked_index is not None:  # since the stream was opened
                raise Refusal(Kind.UNAUTHENTICATED, "REVOKED", f"{site} is revoked")
            size = reader.tree_size()
            seen = 0
            if hello.checkpoint:
                seen = check_checkpoint(hello.checkpoint, self._ledger.verifier_key).size
            proof = merkle.consistency_proof(seen, size, reader.node) if 0 < seen <= size else []
            rows = reader.open_executions(site)
            open_ids = {row.id for row in rows}
            welcome = pb.Welcome(
                coordinator_time=stamp(datetime.now(UTC)),
                checkpoint=self._ledger.checkpoint(size, reader.node),
                consistency_proof=proof,
                cancelled_execution_ids=[
                    doing.execution_id
                    for doing in hello.doing
                    if doing.execution_id not in open_ids
                ],
            )
            later = []
            for row in rows:
                if welcome.ByteSize() < MOST_WELCOME_BYTES:
                    welcome.orders.append(self._order(reader, row, size))
                else:
                    later.append(row.id)
        return pb.CoordinatorMessage(welcome=welcome), later

    def _order_message(self, number: int) -> pb.CoordinatorMessage:
        with self._store.read() as reader:
            order = self._order(reader, reader.execution(number), reader.tree_size())
        return pb.CoordinatorMessage(order=order)

    def _order(self, reader: Reader, row: Execution, size: int) -> pb.Order:
        bundle = self._ledger.bundle(reader, reader.entry(row.ledger_index), size)
        return pb.Order(execution_id=row.id, bundle=bundle, line=row.line)

    def _news(self, site: str, cursor: int) -> list[pb.CoordinatorMessage]:
        with self._store.read() as reader:
            return [
                pb.CoordinatorMessage(
                    news=pb.News(ledger_index=entry.ledger_index, envelope=entry.envelope)
                )
                for entry in reader.news(site, cursor)
            ]

    def _own(self, hello: pb.Hello, site: str) -> pb.Hello:
        """The same without the progress of others' executions."""
        own = pb.Hello()
        own.CopyFrom(hello)
        del own.doing[:]
        own.doing.extend(each for each in hello.doing if self._is_own(each, site))
        return own

    def _is_own(self, progress: pb.Progress, site: str) -> bool:
        with self._store.read() as reader:
            row = reader.find(Execution, progress.execution_id)
            return row is not None and row.site == site

    # from the notary's thread: what was accepted concerns whom?

    def _accepted(self, batch: list[Accepted]) -> None:
        messages: list[tuple[str, Mail]] = []
        revoked = [a.effect.revoked for a in batch if a.effect and a.effect.revoked]
        with self._store.read() as reader:
            for accepted in batch:
                if accepted.effect and accepted.effect.concerns:
                    messages += self._messages(reader, accepted)
        if any(a.effect for a in batch):
            self._loop.call_soon_threadsafe(self._spread, messages, revoked)

    def _messages(self, reader: Reader, accepted: Accepted) -> list[tuple[str, Mail]]:
        effect = accepted.effect
        assert effect is not None
        found: list[tuple[str, Mail]] = []
        for site in effect.concerns:
            if self._fleet.session_of(site) is not None:
                news = pb.News(ledger_index=accepted.index, envelope=accepted.envelope)
                found.append((site, pb.CoordinatorMessage(news=news)))
        for number in effect.ordered:
            found.append((reader.execution(number).site, number))
        for number in effect.cancelled:
            cancel = pb.Cancel(execution_id=number)
            found.append((reader.execution(number).site, pb.CoordinatorMessage(cancel=cancel)))
        return found

    def _spread(self, messages: list[tuple[str, Mail]], revoked: list[str]) -> None:
        for site, message in messages:
            if session := self._fleet.session_of(site):
                session.post(message)
        for name in revoked:
            self._fleet.end(name)
        self._fleet.touch()
