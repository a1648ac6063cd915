"""The local API: gRPC on a Unix socket for the site's own people.

Who calls is settled by `local/relay.py`; refusals become statuses in `local/interceptor.py`; the
methods are in `local/`; what they do is in the rules. Threads: a pool; a stream holds one, and
streams together never hold all.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import grpc

from agent.local.datasets import DatasetCalls
from agent.local.forward import Forward
from agent.local.interceptor import Refusals
from agent.local.relay import Relay
from agent.local.reviews import ReviewCalls
from agent.local.room import Rooms
from agent.local.runs import RunCalls
from agent.local.status import StatusCalls
from housecall.rpc import MAX_MESSAGE_BYTES
from housecall.v1 import site_pb2_grpc

THREADS, MOST_STREAMS = 64, 48
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    # Callers ping while they wait for long work; without this they would be thrown out.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


class SiteServicer(StatusCalls, DatasetCalls, RunCalls, ReviewCalls):
    """All of SiteApi."""


class LocalApi:
    """Serves while it is entered."""

    def __init__(self, rooms: Rooms) -> None:
        settings = rooms.settings
        self._relay = Relay(settings.socket, settings.state_dir / "run", settings.socket_group)
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="local")
        self._server = grpc.server(pool, interceptors=[Refusals(MOST_STREAMS)], options=OPTIONS)
        site_pb2_grpc.add_SiteApiServicer_to_server(SiteServicer(rooms), self._server)
        self._server.add_generic_rpc_handlers((Forward(rooms.uplink),))
        self._server.add_insecure_port(f"unix:{self._relay.inner}")

    @property
    def inner(self) -> Path:
        return self._relay.inner

    def __enter__(self) -> LocalApi:
        self._server.start()
        self._relay.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._relay.close()
        self._server.stop(grace=1).wait()
