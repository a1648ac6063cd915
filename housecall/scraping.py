"""Where Prometheus scrapes a daemon: its registry over HTTP, read-only, in threads of its own.

There is nothing to authenticate with: listen on loopback, or where only the scraper reaches.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from housecall import addresses
from housecall.errors import Kind, Refusal

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import CollectorRegistry

Server: TypeAlias = "tuple[WSGIServer, threading.Thread]"


@contextmanager
def scraped(registry: CollectorRegistry, listen: str) -> Iterator[None]:
    """Serve `/metrics` at `listen`, as `127.0.0.1:9464`; "" serves nothing. Raises Refusal."""
    if not listen:
        yield
        return
    server, thread = _serve(registry, *address(listen))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def checked(listen: str) -> str:
    """The setting as it is, where it can be used."""
    if listen:
        address(listen)
    return listen


def address(listen: str) -> tuple[str, int]:
    """(host, port) of `host:port` or `[v6]:port`."""
    try:
        return addresses.split(listen, least_port=0)
    except ValueError as error:
        raise Refusal(
            Kind.INVALID, "SETTINGS_INVALID", f"metrics_listen: {error}; correct it"
        ) from None


def _serve(registry: CollectorRegistry, host: str, port: int) -> Server:
    from prometheus_client import start_http_server

    try:
        return start_http_server(port, host, registry)
    except OSError as error:
        raise Refusal(
            Kind.UNAVAILABLE,
            "CANNOT_LISTEN",
            f"cannot listen on {host}:{port} for metrics: is another program using that port? "
            f"({error.strerror})",
        ) from error
