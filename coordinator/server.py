"""The server, assembled: interceptor, servicers, health and reflection, behind the one port.

An async context manager that releases what it took: leaving it drains calls, then the notary. What
waits for the store's database after that, for a moment, is let go: a database that hangs does not
hold up the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import grpc
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
from coordinator.pool import Pool
from coordinator.port import listen, options
from coordinator.pulse import Pulse
from coordinator.replicas import Replica, Replicas
from coordinator.servicers.authority import AuthorityServicer
from coordinator.servicers.fleet import FleetServicer
from coordinator.servicers.ledger import LedgerServicer
from coordinator.servicers.registry import RegistryServicer
from coordinator.settings import Settings
from coordinator.store import Store
from coordinator.store.bus import Bus, bus_of
from coordinator.streams import Streams
from coordinator.telemetry import Telemetry
from coordinator.welcome import Welcomes
from housecall.errors import Refusal
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

LAST_SECONDS = 2.0
"""What still waits for the database may, after calls were drained."""
SERVICES = (
    authority_pb2.DESCRIPTOR.services_by_name["Authority"].full_name,
    ledger_pb2.DESCRIPTOR.services_by_name["Ledger"].full_name,
    registry_pb2.DESCRIPTOR.services_by_name["Registry"].full_name,
    fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].full_name,
)


@contextlib.asynccontextmanager
async def serving(settings: Settings, house: House) -> AsyncIterator[int]:
    """Serve until left; gives the port."""
    store = Store(settings.store_url)
    pool, agents = Pool(settings.threads, "unary"), Pool(settings.threads, "agents")
    replicas, streams = Replicas(_itself(store)), Streams()
    fleet = Fleet(replicas.own.name)
    last = threading.Timer(LAST_SECONDS, store.hang_up)
    with contextlib.ExitStack() as stack:
        stack.callback(store.close)
        stack.callback(last.cancel)
        store.check_writable()
        if store.dialect == "sqlite":
            stack.callback(hold(settings.state_dir).close)
        for each in (pool, agents):
            stack.callback(each.shutdown, cancel_futures=True)
        telemetry = stack.enter_context(Telemetry(settings, store, house, fleet))
        archive = _archive(stack, settings, store, house)
        notary = stack.enter_context(Notary(store, house.ledger, archive=archive))
        telemetry.follow(notary)
        gatekeeper = Gatekeeper(store, house.trust_domain)
        gate = EdgeInterceptor(gatekeeper, telemetry, pool, streams)
        server = grpc.aio.server(interceptors=[gate], options=options(settings))
        bus = bus_of(store)
        gossip = Gossip(bus, fleet, replicas, agents)
        ledger = house.ledger
        healthy = await _add_servicers(
            server,
            AuthorityServicer(store, ledger, notary, house.authority),
            LedgerServicer(store, ledger, notary),
            RegistryServicer(store, fleet, replicas, timedelta(hours=settings.backup_within_hours)),
            FleetServicer(Welcomes(store, ledger), notary, fleet, gossip, agents),
        )
        port = listen(server, settings.listen, house)
        pulse = Pulse(notary, store, pool, agents)
        await _first_round(pulse)
        async with _news(store, notary, fleet, bus, gossip, streams, pulse):
            await server.start()
            log.info("serving", extra={"listen": settings.listen, "port": port})
            try:
                async with fed_by_loop(pulse.check):
                    yield port
            finally:
                await _drain(server, healthy, fleet, settings.drain_seconds)
                last.start()


async def _first_round(pulse: Pulse) -> None:
    """A no is no reason not to serve, as it is none to restart: reads may work."""
    try:
        await pulse.check()
    except Refusal as refusal:
        log.warning("serving, but refused", extra={"code": refusal.code})


def _itself(store: Store) -> Replica:
    return Replica(
        secrets.token_hex(4),
        host=socket.gethostname(),
        version=version("housecall"),
        store=store.place,
        serving_since=datetime.now(UTC),
    )


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
    store: Store,
    notary: Notary,
    fleet: Fleet,
    bus: Bus,
    gossip: Gossip,
    streams: Streams,
    pulse: Pulse,
) -> AsyncIterator[None]:
    """Sites hear of what is appended here and at other replicas, and replicas of each other; the
    streams of who is revoked end."""
    loop = asyncio.get_running_loop()

    def tell(tidings: Tidings) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is connected
            loop.call_soon_threadsafe(fleet.spread, tidings)
            for name in tidings.revoked:
                loop.call_soon_threadsafe(streams.revoke, name)

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
    authority: AuthorityServicer,
    ledger: LedgerServicer,
    registry: RegistryServicer,
    fleet: FleetServicer,
) -> health.aio.HealthServicer:
    authority_pb2_grpc.add_AuthorityServicer_to_server(authority, server)
    ledger_pb2_grpc.add_LedgerServicer_to_server(ledger, server)
    registry_pb2_grpc.add_RegistryServicer_to_server(registry, server)
    fleet_pb2_grpc.add_FleetServicer_to_server(fleet, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    for name in ("", *SERVICES):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([*SERVICES, reflection.SERVICE_NAME], server)
    return healthy
