"""The server, assembled: credentials, interceptor, servicers, health and reflection.

An async context manager that releases what it took: leaving it drains calls, then the notary.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import secrets
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc
from cryptography import x509
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.archive import Archive
from coordinator.fleet import Fleet, Tidings
from coordinator.founding import House
from coordinator.gossip import Gossip
from coordinator.herald import Herald
from coordinator.interceptors import EdgeInterceptor, Gatekeeper
from coordinator.lock import hold
from coordinator.notary import Notary
from coordinator.pulse import Pulse
from coordinator.servicers.authority import AuthorityServicer
from coordinator.servicers.fleet import FleetServicer
from coordinator.servicers.ledger import LedgerServicer
from coordinator.servicers.registry import RegistryServicer
from coordinator.settings import Settings
from coordinator.store import Store
from coordinator.store.bus import Bus, bus_of
from coordinator.telemetry import Telemetry
from coordinator.welcome import Welcomes
from housecall.errors import Kind, Refusal
from housecall.identity import renew_after
from housecall.rpc import MAX_MESSAGE_BYTES
from housecall.v1 import (
    authority_pb2,
    authority_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from housecall.watchdog import fed_by_loop

log = logging.getLogger(__name__)

SERVICES = (
    authority_pb2.DESCRIPTOR.services_by_name["Authority"].full_name,
    ledger_pb2.DESCRIPTOR.services_by_name["Ledger"].full_name,
    registry_pb2.DESCRIPTOR.services_by_name["Registry"].full_name,
    fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].full_name,
)


def _options(settings: Settings) -> list[tuple[str, int]]:
    """A storm of reconnecting agents must neither be cancelled nor use up the descriptors. A peer
    that is gone without a word is noticed by pings, idle or not."""
    keepalive = int(settings.keepalive_seconds * 1000)
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", keepalive),
        ("grpc.keepalive_timeout_ms", keepalive // 2),
        ("grpc.http2.ping_timeout_ms", keepalive // 2),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.server.max_pending_requests", 50_000),
        ("grpc.server.max_pending_requests_hard_limit", 50_000),
        ("grpc.server_max_unrequested_time_in_server", 300),
        ("grpc.max_allowed_incoming_connections", max(64, descriptors - 256)),
        ("grpc.so_reuseport", 0),
    ]


class _ServerCertificate:
    """The coordinator's own certificate, made anew when two thirds of its life are over."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._lock = threading.Lock()
        self._renew_after = datetime.min.replace(tzinfo=UTC)

    def configuration(self) -> Any:
        """A `grpc.ServerCertificateConfiguration`, or None: the one in use is still good."""
        with self._lock:
            if datetime.now(UTC) < self._renew_after:
                return None
            key, chain = self._house.authority.server_pair(self._house.trust_domain)
            self._renew_after = renew_after(x509.load_pem_x509_certificates(chain)[0])
        return grpc.ssl_server_certificate_configuration(
            [(key, chain)], root_certificates=self._house.authority.root_pem
        )


def _credentials(house: House) -> grpc.ServerCredentials:
    certificate = _ServerCertificate(house)
    return grpc.dynamic_ssl_server_credentials(
        certificate.configuration(), certificate.configuration, require_client_authentication=True
    )


@contextlib.asynccontextmanager
async def serving(settings: Settings, house: House) -> AsyncIterator[int]:
    """Serve until left; gives the port."""
    store = Store(settings.store_url)
    pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="unary")
    fleet = Fleet(secrets.token_hex(4))
    with contextlib.ExitStack() as stack:
        stack.callback(store.close)
        if store.dialect == "sqlite":
            stack.callback(hold(settings.state_dir).close)
        stack.callback(pool.shutdown)
        telemetry = stack.enter_context(Telemetry(settings, store, house, fleet))
        archive = _archive(stack, settings, store, house)
        notary = stack.enter_context(Notary(store, house.ledger, archive=archive))
        telemetry.follow(notary)
        gate = EdgeInterceptor(Gatekeeper(store, house.trust_domain), telemetry, pool)
        server = grpc.aio.server(interceptors=[gate], options=_options(settings))
        bus = bus_of(store)
        gossip = Gossip(bus, fleet)
        fleet_servicer = FleetServicer(Welcomes(store, house.ledger), notary, fleet, gossip)
        healthy = await _add_servicers(server, store, house, notary, fleet, fleet_servicer)
        port = _listen(server, settings.listen, house)
        pulse = Pulse(notary, store, pool)
        await pulse.check()
        async with _news(store, notary, fleet, bus, gossip, pulse):
            await server.start()
            log.info("serving", extra={"listen": settings.listen, "port": port})
            try:
                async with fed_by_loop(pulse.check):
                    yield port
            finally:
                await _drain(server, healthy, fleet, settings.drain_seconds)


def _archive(
    stack: contextlib.ExitStack, settings: Settings, store: Store, house: House
) -> Archive | None:
    """Where every entry goes as well: whole before anyone is served."""
    if settings.archive_dir is None:
        return None
    archive = stack.enter_context(Archive(settings.archive_dir, house.ledger))
    with store.read() as reader:
        archive.check(reader)
        archive.follow(reader, reader.tree_size())
    return archive


@contextlib.asynccontextmanager
async def _news(
    store: Store, notary: Notary, fleet: Fleet, bus: Bus, gossip: Gossip, pulse: Pulse
) -> AsyncIterator[None]:
    """Sites hear of what is appended here and at other replicas, and replicas of each other."""
    loop = asyncio.get_running_loop()

    def tell(tidings: Tidings) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is connected
            loop.call_soon_threadsafe(fleet.spread, tidings)

    with Herald(store, fleet, tell) as herald:
        notary.listeners.append(lambda _: herald.wake())
        bus.open(gossip.ears(herald.wake))
        talking = asyncio.create_task(gossip.run(), name="gossip")
        pulse.follow(herald.check, gossip.check)
        try:
            yield
        finally:
            talking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await talking
            gossip.bye()
            await asyncio.to_thread(bus.close)


async def _drain(
    server: grpc.aio.Server, healthy: health.aio.HealthServicer, fleet: Fleet, seconds: float
) -> None:
    """The port is closed first, so that nobody who is sent away comes back here. Streams end when
    their statements are answered; calls that run may end."""
    await healthy.enter_graceful_shutdown()
    stopping = asyncio.create_task(server.stop(seconds))
    await asyncio.sleep(0)
    await fleet.drain(seconds * 0.8)
    await stopping


async def _add_servicers(
    server: grpc.aio.Server,
    store: Store,
    house: House,
    notary: Notary,
    fleet: Fleet,
    fleet_servicer: FleetServicer,
) -> health.aio.HealthServicer:
    ledger = house.ledger
    authority_pb2_grpc.add_AuthorityServicer_to_server(
        AuthorityServicer(store, ledger, notary, house.authority), server
    )
    ledger_pb2_grpc.add_LedgerServicer_to_server(LedgerServicer(store, ledger, notary), server)
    registry_pb2_grpc.add_RegistryServicer_to_server(RegistryServicer(store, fleet), server)
    fleet_pb2_grpc.add_FleetServicer_to_server(fleet_servicer, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    for name in ("", *SERVICES):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([*SERVICES, reflection.SERVICE_NAME], server)
    return healthy


def _listen(server: grpc.aio.Server, address: str, house: House) -> int:
    try:
        return server.add_secure_port(address, _credentials(house))
    except RuntimeError as error:
        raise Refusal(
            Kind.UNAVAILABLE,
            "CANNOT_LISTEN",
            f"cannot listen on {address}: is another program using that port? ({error})",
        ) from error
