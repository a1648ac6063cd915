"""A coordinator that says what a test wants, over real mutual TLS: for what an honest one never
does. The ledger behind it is the real one's, so that proofs are real until the test bends them."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc

from agent.settings import Settings
from housecall.errors import Refusal
from housecall.identity import Identity
from housecall.rpc import status_of
from housecall.v1 import fleet_pb2, fleet_pb2_grpc
from tests.agent.site import wait_for
from tests.coordinator.world import World, free_port

Said = fleet_pb2.AgentMessage


@dataclass
class Double(fleet_pb2_grpc.FleetServicer):
    """`heard` keeps what agents said, but for heartbeats, which are counted. What is put in
    `mailbox` is sent, a Refusal or None ends the stream."""

    address: str = ""
    heartbeats: int = 0
    heard: list[Said] = field(default_factory=list)
    mailbox: queue.Queue[fleet_pb2.CoordinatorMessage | Refusal | None] = field(
        default_factory=queue.Queue
    )
    _turns: threading.Lock = field(default_factory=threading.Lock)
    _newest: grpc.ServicerContext | None = None

    def Connect(
        self, request_iterator: Iterator[Said], context: grpc.ServicerContext
    ) -> Iterator[fleet_pb2.CoordinatorMessage]:
        reader = ThreadPoolExecutor(1)
        reader.submit(self._read, request_iterator)
        with self._turns:
            self._newest = context
        while context.is_active():
            try:
                message = self._next(context)
            except queue.Empty:
                time.sleep(0.01)
                continue
            if message is None:
                return
            if isinstance(message, Refusal):
                context.abort_with_status(status_of(message))
            else:
                yield message

    def _next(self, context: grpc.ServicerContext) -> fleet_pb2.CoordinatorMessage | Refusal | None:
        """For the newest stream alone: one that is gone takes nothing away with it."""
        with self._turns:
            return self.mailbox.get_nowait() if self._newest is context else None

    def _read(self, messages: Iterator[Said]) -> None:
        with contextlib.suppress(grpc.RpcError):
            for message in messages:
                if message.HasField("heartbeat"):
                    self.heartbeats += 1
                else:
                    self.heard.append(message)

    def send(self, **message: object) -> None:
        self.mailbox.put(fleet_pb2.CoordinatorMessage(**message))  # type: ignore[arg-type]

    def said(self, kind: str) -> list[Said]:
        return [message for message in self.heard if message.WhichOneof("message") == kind]

    def wait_said(self, kind: str, count: int = 1) -> list[Said]:
        wait_for(lambda: len(self.said(kind)) >= count)
        return self.said(kind)


@contextlib.contextmanager
def double(world: World, address: str = "") -> Iterator[Double]:
    """At an address of its own, or where another one was."""
    key, chain = world.house.authority.server_pair(world.house.trust_domain)
    credentials = grpc.ssl_server_credentials(
        [(key, chain)], world.house.authority.root_pem, require_client_auth=True
    )
    made = Double(address=address or f"127.0.0.1:{free_port()}")
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool)
    fleet_pb2_grpc.add_FleetServicer_to_server(made, server)
    server.add_secure_port(made.address, credentials)
    server.start()
    yield made
    made.mailbox.put(None)
    server.stop(0).wait()
    pool.shutdown()


def point_at(settings: Settings, address: str) -> None:
    """Let the identity of these settings dial somewhere else."""
    identity = Identity.load(settings.identity_dir)
    dataclasses.replace(identity, address=address).save(settings.identity_dir)
