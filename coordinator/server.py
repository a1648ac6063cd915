"""The server, assembled: credentials, interceptor, servicers, health and reflection.

An async context manager that releases what it took: leaving it drains calls, then the notary.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import resource
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import grpc
from cryptography import x509
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.fleet import Fleet
from coordinator.founding import House
from coordinator.interceptors import EdgeInterceptor, Gatekeeper
from coordinator.notary import Notary
from coordinator.servicers.authority import AuthorityServicer
from coordinator.servicers.fleet import FleetServicer
from coordinator.servicers.ledger import LedgerServicer
from coordinator.servicers.registry import RegistryServicer
from coordinator.settings import Settings
from coordinator.store import Store
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

log = logging.getLogger(__name__)

SERVICES = (
    authority_pb2.DESCRIPTOR.services_by_name["Authority"].full_name,
    ledger_pb2.DESCRIPTOR.services_by_name["Ledger"].full_name,
    registry_pb2.DESCRIPTOR.services_by_name["Registry"].full_name,
    fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].full_name,
)


def _options() -> list[tuple[str, int]]:
    """A storm of reconnecting agents must neither be cancelled nor use up the descriptors."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
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
    lock = _lock(settings.state_dir)
    store = Store(settings.store_url)
    pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="unary")
    fleet = Fleet()
    with contextlib.ExitStack() as stack:
        stack.callback(lock.close)
        stack.callback(store.close)
        stack.callback(pool.shutdown)
        notary = stack.enter_context(Notary(store, house.ledger))
        gate = EdgeInterceptor(Gatekeeper(store, house.trust_domain))
        server = grpc.aio.server(
            migration_thread_pool=pool, interceptors=[gate], options=_options()
        )
        healthy = await _add_servicers(server, store, house, notary, fleet)
        port = _listen(server, settings.listen, house)
        await server.start()
        log.info(
            "serving listen=%s port=%d trust_domain=%s", settings.listen, port, house.trust_domain
        )
        try:
            yield port
        finally:
            await healthy.enter_graceful_shutdown()
            fleet.end_all()
            await server.stop(settings.drain_seconds)


def _lock(folder: Path) -> IO[bytes]:
    """One coordinator a state folder, until the file is closed or the process is gone."""
    file = (folder / "serving.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise Refusal(
            Kind.CONFLICT,
            "COORDINATOR_RUNNING",
            f"another housecall-coordinator serves {folder} already: stop that one first",
        ) from None
    return file


async def _add_servicers(
    server: grpc.aio.Server, store: Store, house: House, notary: Notary, fleet: Fleet
) -> health.aio.HealthServicer:
    ledger = house.ledger
    authority_pb2_grpc.add_AuthorityServicer_to_server(
        AuthorityServicer(store, ledger, notary, house.authority), server
    )
    ledger_pb2_grpc.add_LedgerServicer_to_server(LedgerServicer(store, ledger, notary), server)
    registry_pb2_grpc.add_RegistryServicer_to_server(RegistryServicer(store, fleet), server)
    fleet_pb2_grpc.add_FleetServicer_to_server(FleetServicer(store, ledger, notary, fleet), server)
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
