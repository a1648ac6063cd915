"""The one port: mutual TLS with a certificate that renews itself, and what connections may do."""

from __future__ import annotations

import resource
import socket
import threading
from datetime import UTC, datetime
from typing import Any

import grpc
from cryptography import x509

from coordinator.founding import House
from coordinator.settings import Settings
from housecall import addresses
from housecall.errors import Kind, Refusal
from housecall.identity import renew_after
from housecall.rpc import MAX_MESSAGE_BYTES


def options(settings: Settings) -> list[tuple[str, int]]:
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
    """The coordinator's own certificate, made anew when two thirds of its life are over, or when
    the clock that made it was so far ahead that it is not valid yet."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._lock = threading.Lock()
        self._valid_from = self._renew_after = datetime.min.replace(tzinfo=UTC)

    def configuration(self) -> Any:
        """A `grpc.ServerCertificateConfiguration`, or None: the one in use is still good."""
        with self._lock:
            if self._valid_from <= datetime.now(UTC) < self._renew_after:
                return None
            key, chain = self._house.authority.server_pair(self._house.trust_domain)
            leaf = x509.load_pem_x509_certificates(chain)[0]
            self._valid_from, self._renew_after = leaf.not_valid_before_utc, renew_after(leaf)
        return grpc.ssl_server_certificate_configuration(
            [(key, chain)], root_certificates=self._house.authority.root_pem
        )


def _credentials(house: House) -> grpc.ServerCredentials:
    certificate = _ServerCertificate(house)
    return grpc.dynamic_ssl_server_credentials(
        certificate.configuration(), certificate.configuration, require_client_authentication=True
    )


def listen(server: grpc.aio.Server, address: str, house: House) -> int:
    try:
        return server.add_secure_port(address, _credentials(house))
    except RuntimeError as error:
        raise Refusal(
            Kind.UNAVAILABLE,
            "CANNOT_LISTEN",
            f"cannot listen on {address}: {_reason(address) or error}; is another program using "
            "that port, or the address not of this machine? Correct the setting listen",
        ) from error


def _reason(address: str) -> str:
    """What the system says to it: gRPC does not tell. Nothing where it says yes."""
    host, port = addresses.split(address, least_port=0)
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                probe.listen()
    except OSError as error:
        return error.strerror or str(error)
    return ""
