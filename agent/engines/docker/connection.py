"""The connection to an engine: made when first used, and again after it was closed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
from docker.utils import kwargs_from_env

from agent.engines.docker.failures import translated

CALL_TIMEOUT_S = 120
ANSWER_S = 10
DEFAULT_URL = "unix:///var/run/docker.sock"


class Connection:
    """`socket` is the engine's own, None when it is reached over a network."""

    def __init__(self, url: str | None, *, timeout_s: int = CALL_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._url = url or os.environ.get("DOCKER_HOST") or DEFAULT_URL
        self._given = url is not None
        path = self._url.removeprefix("unix://")
        self.socket = Path(path) if path != self._url else None

    @cached_property
    def client(self) -> Any:  # the stubs lack types for half of what is called
        return self._connected(timeout=self._timeout_s, max_pool_size=64)

    @contextmanager
    def anew(self) -> Iterator[Any]:
        """A client over a connection of its own: an engine that goes down takes none any more,
        though it goes on serving those that it has."""
        opened = self._connected(version=self.client.api_version, timeout=ANSWER_S)
        try:
            yield opened
        finally:
            opened.close()

    def _connected(self, **settings: Any) -> Any:
        with translated("ENGINE_UNREACHABLE", f"connect to {self._url}"):
            if self.socket is not None:
                with dialled(self.socket):  # the SDK leaks its own on failure
                    pass
            tls = {} if self._given else kwargs_from_env()
            given: dict[str, Any] = {**tls, **settings, "base_url": self._url}
            return docker.APIClient(**given)

    def close(self) -> None:
        if "client" in vars(self):
            self.client.close()
            del self.client


@contextmanager
def dialled(path: Path) -> Iterator[socket.socket]:
    """A connection to the engine's own socket. Raises OSError, also at once where a frozen engine's
    queue is full: without a timeout the kernel would wait for room in it."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_S)
        probe.connect(str(path))
        yield probe
