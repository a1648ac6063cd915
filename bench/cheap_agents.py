"""Agents by the hundred in one process, as far as the coordinator can tell.

Each is an enrolled site that holds one open order, as running. Its stream has a channel of its own
with mutual TLS and the options that every channel of ours has, a Hello with all that the real one
says, and after an end the waits of `agent/backoff.py`. Of a Welcome it checks that the checkpoint
continues the one it saw, and that its order is told. What a real agent has in its journal, this one
has in memory.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import UTC, datetime
from importlib.metadata import version

import grpc

from agent.backoff import GOOD_S, Backoff
from housecall.credentials import SERVER_NAME
from housecall.errors import Kind, Refusal
from housecall.identity import Identity
from housecall.rpc import CHANNEL_OPTIONS
from housecall.times import stamp
from housecall.v1 import fleet_pb2 as pb
from housecall.v1 import fleet_pb2_grpc, statements_pb2
from housecall.verify import check_checkpoint, check_consistency

OPTIONS = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME)]
ENVIRONMENT = statements_pb2.EnvironmentFacts(
    operating_system="Debian GNU/Linux 12 (bookworm)",
    architecture="x86_64",
    engine="docker",
    engine_version="27.0.3",
    cpus=32,
    memory_bytes=256 << 30,
)
Call = grpc.aio.StreamStreamCall[pb.AgentMessage, pb.CoordinatorMessage]


class CheapAgent:
    """`welcome_at` is when it was last welcomed (monotonic), `dials` counts its tries."""

    def __init__(self, identity: Identity, execution_id: int) -> None:
        self._identity, self._execution_id = identity, execution_id
        self._session_id = secrets.token_hex(8)
        self._checkpoint = ""
        self.welcome_at = 0.0
        self.dials = 0

    async def run(self) -> None:
        """Until it is cancelled. A stream that was welcome counts as one that held for long."""
        backoff = Backoff()
        while True:
            began = time.monotonic()
            code = await self._serve()
            lasted_s = GOOD_S if self.welcome_at >= began else time.monotonic() - began
            await asyncio.sleep(backoff.after(code, lasted_s))

    async def _serve(self) -> str:
        """One stream to its end; the code of what ended it. Raises a refusal that would keep a real
        agent away for minutes."""
        self.dials += 1
        identity = self._identity
        credentials = grpc.ssl_channel_credentials(
            identity.root_pem, identity.tls_key_pem, identity.chain_pem
        )
        try:
            with identity.refusals():
                async with grpc.aio.secure_channel(
                    identity.address, credentials, options=OPTIONS
                ) as channel:
                    await self._talk(fleet_pb2_grpc.FleetStub(channel).Connect())
        except Refusal as refusal:
            if refusal.kind in (Kind.UNAUTHENTICATED, Kind.NOT_ALLOWED):
                raise
            return refusal.code
        return ""

    async def _talk(self, call: Call) -> None:
        await call.write(pb.AgentMessage(hello=self._hello()))
        async for message in call:
            if message.HasField("welcome"):
                await self._welcome(call, message.welcome)

    def _hello(self) -> pb.Hello:
        running = statements_pb2.EXECUTION_STATE_RUNNING
        doing = pb.Progress(execution_id=self._execution_id, state=running, step="infer")
        return pb.Hello(
            agent_version=version("housecall"),
            local_time=stamp(datetime.now(UTC)),
            cursor=1 << 40,
            checkpoint=self._checkpoint,
            environment=ENVIRONMENT,
            doing=[doing],
            session_id=self._session_id,
        )

    async def _welcome(self, call: Call, welcome: pb.Welcome) -> None:
        key, seen = self._identity.verifier_key, self._checkpoint
        if seen:
            check_consistency(seen, welcome.checkpoint, list(welcome.consistency_proof), key)
        else:
            check_checkpoint(welcome.checkpoint, key)
        self._checkpoint = welcome.checkpoint
        told = [order.execution_id for order in welcome.orders]
        assert told == [self._execution_id], f"expected order {self._execution_id}, got {told}"
        accepted = pb.OrderAccepted(execution_id=self._execution_id)
        await call.write(pb.AgentMessage(order_accepted=accepted))
        self.welcome_at = time.monotonic()
