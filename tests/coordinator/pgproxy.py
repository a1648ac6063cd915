"""A TCP proxy in front of PostgreSQL's Unix socket that cuts a connection at its COMMIT."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Literal

COMMIT = b"\x0bCOMMIT\0"
"""As a simple query spells it, after the message's length."""


class Proxy:
    """`cut` is for the next COMMIT: "before" it reaches the server, or "after" it was answered.
    `refuse` turns everyone away."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut: Literal["before", "after"] | None = None
        self.cuts = 0
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            self._close(end)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._target))
            self._open += [client, server]
            for pump in (self._up, self._down):
                thread = threading.Thread(target=pump, args=(client, server))
                self._threads.append(thread)
                thread.start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.cut and COMMIT in data:
                    how, self.cut = self.cut, None
                    self.cuts += 1
                    if how == "before":
                        break
                    client.shutdown(socket.SHUT_WR)
                    server.sendall(data)
                    continue
                server.sendall(data)
        self._close(server)
        self._close(client)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        self._close(client)

    @staticmethod
    def _close(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
