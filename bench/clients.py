"""Agents in processes of their own, for loads that one process could not make.

A client process holds some of the sites. For each round it signs everything and connects, says that
it is ready, sends when it is told to, and gives back the ledger index of each statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.statements import Agent, linked, registrations, stream
from housecall.identity import Identity
from housecall.statement import digest
from housecall.v1 import statements_pb2 as pb
from housecall.verify import check_receipt

ROUND_S = 120.0
STOP_S = 20.0
Indices = dict[str, int]


@dataclass(frozen=True)
class Round:
    """Who sends what: identity folders, each with the address that it dials; datasets `first` and
    on, `each` a site."""

    sites: Sequence[tuple[Path, str]]
    preparation: pb.Pin
    first: int
    each: int


class Clients:
    """As many processes as there are connections."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    def ready(self, work: Round) -> None:
        """Everything is signed and everyone connected."""
        shares = len(self._connections)
        for number, connection in enumerate(self._connections):
            connection.send(dataclasses.replace(work, sites=work.sites[number::shares]))
        for connection in self._connections:
            assert _next(connection) == "ready"

    def go(self) -> Indices:
        """Until the last receipt: where each statement is in the ledger, by its digest."""
        for connection in self._connections:
            connection.send("go")
        indices: Indices = {}
        for connection in self._connections:
            indices |= _next(connection)
        return indices


def _next(connection: Connection) -> Any:
    if not connection.poll(ROUND_S):
        raise TimeoutError(f"a client process said nothing for {ROUND_S:.0f} s")
    said = connection.recv()
    if isinstance(said, BaseException):
        raise said
    return said


@contextlib.contextmanager
def clients(count: int) -> Iterator[Clients]:
    """`count` processes, ended with the block."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        ours = []
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
            there.close()
            stack.callback(process.join, STOP_S)
            stack.callback(process.terminate)
            stack.callback(here.close)
            ours.append(here)
        yield Clients(ours)


def _serve(connection: Connection) -> None:
    """In the client process: round after round, until the other end is closed. Ctrl-C is for the
    process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError):
        while True:
            work = connection.recv()
            try:
                connection.send(asyncio.run(_round(work, connection)))
            except Exception as error:
                connection.send(RuntimeError(f"client: {error!r}"))


async def _round(work: Round, connection: Connection) -> Indices:
    begin = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        tasks, agents = [], []
        for folder, address in work.sites:
            site = dataclasses.replace(Identity.load(folder), address=address)
            batch = registrations(site, work.preparation, work.first, work.each)
            agent = await stack.enter_async_context(linked(site, begin))
            agents.append(agent)
            tasks.append(asyncio.create_task(_send(agent, batch)))
        for agent, task in zip(agents, tasks, strict=True):
            connected = asyncio.create_task(agent.connected.wait())
            await asyncio.wait((connected, task), return_when=asyncio.FIRST_COMPLETED)
        connection.send("ready")
        await asyncio.to_thread(connection.recv)
        begin.set()
        answers = await asyncio.wait_for(asyncio.gather(*tasks), ROUND_S)
    return {each: index for answer in answers for each, index in answer.items()}


async def _send(agent: Agent, batch: list[bytes]) -> Indices:
    """The last receipt is checked."""
    receipts = await stream(agent, batch)
    check_receipt(batch[-1], receipts[batch[-1]], agent.identity.verifier_key)
    return {digest(envelope): receipt.ledger_index for envelope, receipt in receipts.items()}
