"""The Fleet service: the only coroutine. One reader and one writer a stream.

The reader handles what the agent says; statements go to the notary and their answers come back
through the session's mailbox. The writer is gRPC's own: it drains the mailbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc

from coordinator.caller import Caller, current_caller
from coordinator.fleet import Fleet
from coordinator.gossip import Gossip
from coordinator.notary import Accepted, Notary
from coordinator.session import Session
from coordinator.standing import MOST_CHARACTERS, Standing
from coordinator.welcome import NEWS_PAGE, Welcomes
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of
from housecall.statement import digest
from housecall.v1 import fleet_pb2 as pb
from housecall.v1 import fleet_pb2_grpc

log = logging.getLogger(__name__)

MOST_IN_FLIGHT = 256
MOST_PREPARING = 1000
HELLO_SECONDS = 10.0
OPENING_SECONDS = 30.0
TO_ANY = ("receipted", "refused", "superseded")
"""What a stream is told that is served no more: answers to its own statements, and its end."""
T = TypeVar("T")


class FleetServicer(fleet_pb2_grpc.FleetServicer):
    """`pool` asks the store for all streams of agents, and for nobody else."""

    def __init__(
        self, welcomes: Welcomes, notary: Notary, fleet: Fleet, gossip: Gossip, pool: Executor
    ) -> None:
        self._welcomes = welcomes
        self._notary = notary
        self._fleet = fleet
        self._gossip = gossip
        self._pool = pool
        self._loop = asyncio.get_running_loop()

    async def Connect(  # type: ignore[override]  # stubs know generators only: they do not learn
        self,  # that they are cancelled while they are held up in a write
        request_iterator: AsyncIterator[pb.AgentMessage],
        context: grpc.aio.ServicerContext[pb.AgentMessage, pb.CoordinatorMessage],
    ) -> None:
        caller = current_caller()
        hello = await self._hello(request_iterator)
        session = await self._attach(caller, hello)
        reader = asyncio.create_task(self._read(request_iterator, session, caller))
        try:
            if self._fleet.is_served(session):
                async for opening in self._opening(session, hello):
                    await self._pass_on(session, opening, context)
            while (message := await session.next()) is not None:
                if isinstance(message, int):  # an order, made when it is sent
                    message = await self._ask(self._welcomes.order, message)
                await self._pass_on(session, message, context)
        except asyncio.CancelledError:
            if session.refusal is None:
                raise
            raise session.refusal from None  # an agent that reads again finds it after its mail
        finally:
            reader.cancel()
            self._fleet.detach(session)
            log.info("disconnected", extra={"site": caller.name})

    async def _ask(self, question: Callable[..., T], *arguments: Any) -> T:
        """In the pool: where the store hangs, the loop does not."""
        return await self._loop.run_in_executor(self._pool, question, *arguments)

    async def _pass_on(
        self, session: Session, message: pb.CoordinatorMessage, context: Any
    ) -> None:
        """Answers at once; the rest is for the agent that is served, and waits until this replica
        has heard whether that is still this one. What an older stream misses a newer one is told.
        """
        if message.WhichOneof("message") not in TO_ANY:
            if self._fleet.is_served(session):
                await self._gossip.current()
            if not self._fleet.is_served(session):
                return
        await context.write(message)

    async def _hello(self, messages: AsyncIterator[pb.AgentMessage]) -> pb.Hello:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                async for message in messages:
                    if message.WhichOneof("message") == "hello":
                        return message.hello
                    break
        except TimeoutError:
            raise Refusal(Kind.INVALID, "HELLO_MISSING", "expected a Hello at once") from None
        raise Refusal(Kind.INVALID, "HELLO_MISSING", "expected a Hello as the first message")

    async def _attach(self, caller: Caller, hello: pb.Hello) -> Session:
        """A session with a number of its own. One that got its number when the agent was gone is
        ended: other replicas have heard of it."""
        now, site, task = datetime.now(UTC), caller.name, asyncio.current_task()
        assert task is not None
        standing = Standing(
            connected=True,
            connected_at=now,
            heard_at=now,
            agent_version=hello.agent_version[:MOST_CHARACTERS],
            gpus=len(hello.environment.gpus),
            clock_skew_seconds=(hello.local_time.ToDatetime(UTC) - now).total_seconds(),
            certificate_expires_at=caller.certificate_expires_at,
            replica=self._fleet.replica,
            session_id=hello.session_id[:MOST_CHARACTERS],
            yields=self._fleet.admit(site, hello),
        )

        async def attach() -> Session:
            claimed = await self._gossip.claim(site, standing)
            return self._fleet.attach(site, claimed, task.cancel)

        def abandon(attached: asyncio.Task[Session]) -> None:
            if not attached.cancelled() and not attached.exception():
                self._fleet.detach(attached.result())

        attaching = asyncio.create_task(attach())
        try:
            session = await _soon(asyncio.shield(attaching))
        except BaseException:
            attaching.add_done_callback(abandon)
            raise
        log.info("connected", extra={"site": site, "agent": standing.agent_version})
        return session

    async def _opening(
        self, session: Session, hello: pb.Hello
    ) -> AsyncIterator[pb.CoordinatorMessage]:
        """Welcome, orders that found no room in it, the news since the cursor, and their end."""
        site = session.site
        own = await _soon(self._ask(self._welcomes.own, hello, site))
        for progress in own:
            self._fleet.progress(session, progress, datetime.now(UTC))
        if said := hello.preparing[:MOST_PREPARING]:
            mine = await _soon(self._ask(self._welcomes.own_preparing, said, site))
            self._fleet.preparing(session, mine, datetime.now(UTC))
        welcome, later = await _soon(self._ask(self._welcomes.welcome, site, hello))
        yield welcome
        for number in later:
            yield await self._ask(self._welcomes.order, number)
        cursor, more = hello.cursor, True
        while more:
            news = await self._ask(self._welcomes.news, site, cursor)
            more = len(news) == NEWS_PAGE
            cursor = news[-1].ledger_index + 1 if news else cursor
            for item in news:
                yield pb.CoordinatorMessage(news=item)
        yield pb.CoordinatorMessage(caught_up=pb.CaughtUp())

    async def _read(
        self, messages: AsyncIterator[pb.AgentMessage], session: Session, caller: Caller
    ) -> None:
        """Until the agent hangs up; then the mailbox is ended and with it the stream."""
        in_flight = asyncio.Semaphore(MOST_IN_FLIGHT)
        try:
            async for message in messages:
                self._fleet.heard(session, datetime.now(UTC))
                match message.WhichOneof("message"):
                    case "submit":
                        await in_flight.acquire()
                        self._submit(message.submit.envelope, session, caller, in_flight)
                    case "progress":
                        await self._progress(message.progress, session)
                    case "preparing":
                        await self._preparing(message.preparing, session)
                    case "heartbeat":
                        self._fleet.heard(session, datetime.now(UTC), message.heartbeat)
                    case "order_accepted":
                        order = message.order_accepted.execution_id
                        log.info("order accepted", extra={"site": session.site, "order": order})
        except grpc.aio.AioRpcError as error:
            said = {"site": session.site, "status": error.code().name}
            log.info("stream broke", extra=said)
        finally:
            session.hung_up()

    async def _progress(self, progress: pb.Progress, session: Session) -> None:
        """Where the store cannot say whose it is, the next one or the next Hello tells it."""
        try:
            own = await self._ask(self._welcomes.is_own, progress, session.site)
        except Refusal as refusal:
            extra = {"site": session.site, "code": refusal.code}
            log.warning("progress not taken", extra=extra)
            return
        if own:
            self._fleet.progress(session, progress, datetime.now(UTC))

    async def _preparing(self, said: pb.Preparing, session: Session) -> None:
        """As with progress."""
        try:
            own = await self._ask(self._welcomes.own_preparing, [said], session.site)
        except Refusal as refusal:
            extra = {"site": session.site, "code": refusal.code}
            log.warning("preparation not taken", extra=extra)
            return
        self._fleet.preparing(session, own, datetime.now(UTC))

    def _submit(
        self, envelope: bytes, session: Session, caller: Caller, in_flight: asyncio.Semaphore
    ) -> None:
        """A session that drains takes no more: what is not answered is sent again elsewhere."""

        def answer(future: Future[Accepted]) -> None:
            self._loop.call_soon_threadsafe(deliver, future)

        def deliver(future: Future[Accepted]) -> None:
            in_flight.release()
            session.send(**_answer(digest(envelope), future))
            session.answered()

        if session.take():
            self._notary.submit(envelope, caller).add_done_callback(answer)


def _answer(envelope_digest: str, future: Future[Accepted]) -> dict[str, object]:
    error = future.exception()
    if error is None:
        accepted = future.result()
        return {
            "receipted": pb.Receipted(
                envelope_digest=envelope_digest, receipt=accepted.receipt, id=accepted.id
            )
        }
    refusal = refusal_of(error)
    return {
        "refused": pb.Refused(
            envelope_digest=envelope_digest,
            kind=refusal.kind.value,
            code=refusal.code,
            text=refusal.message,
        )
    }


async def _soon(opening: Awaitable[T]) -> T:
    """A stream opens within a bound, or not: a store that hangs holds no agent."""
    try:
        async with asyncio.timeout(OPENING_SECONDS):
            return await opening
    except TimeoutError:
        raise Refusal(
            Kind.UNAVAILABLE,
            "STORE_SLOW",
            f"the store did not answer within {OPENING_SECONDS:.0f} s: dial again",
        ) from None
