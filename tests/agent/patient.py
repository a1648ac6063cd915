"""Who the doctor looks at: a site enrolled with a real coordinator, and hops that fail for real."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.doctor.examination import Finding, examine
from agent.doctor.finding import Level, Verdict
from agent.doctor.scene import Scene
from housecall import client
from housecall.identity import Identity
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.world import World

PASSWORD = "hunter2-of-the-proxy"
WAY = ("dns", "proxy", "tcp", "tls", "coordinator", "clock")


@dataclass
class Patient:
    """A site that has its settings in a file."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def identity_dir(self) -> Path:
        return self.state / "identity"

    @property
    def config(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def identity(self) -> Identity:
        return Identity.load(self.identity_dir)

    def settle(self, **settings: object) -> None:
        values = {
            "state_dir": str(self.state),
            "socket": str(self.folder / "agent.sock"),
            "allowed_paths": [str(self.folder)],
            "disk_reserve_bytes": 0,
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in (values | settings).items()]
        self.config.write_text("\n".join(lines))
        self.config.chmod(0o600)

    def dial(self, address: str) -> None:
        """From now on the coordinator is thought to be there."""
        dataclasses.replace(self.identity, address=address).save(self.identity_dir)

    def look(self, *names: str) -> dict[str, Verdict]:
        return {each.check: each.verdict for each in self.findings(*names)}

    def findings(self, *names: str) -> list[Finding]:
        return list(examine(Scene(self.config), names))


def patient(folder: Path) -> Patient:
    """Not enrolled; its state folder is there."""
    made = Patient(folder)
    made.state.mkdir(mode=0o700, parents=True)
    made.settle()
    return made


def enrolled(world: World, folder: Path, name: str) -> Patient:
    made = patient(folder)
    client.enrol(world.token(name, pb.ROLE_SITE), made.identity_dir)
    return made


def levels(found: dict[str, Verdict], *names: str) -> list[Level]:
    return [found[name].level for name in names or found]


@contextlib.contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose callers are each served in a thread, until they are done or hang up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(caller,), daemon=True).start()

        def one(caller: socket.socket) -> None:
            with caller, contextlib.suppress(OSError):
                serve(caller)

        threading.Thread(target=accept, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def tls_server(
    key: bytes, chain: bytes, folder: Path, *, takes: bytes = b""
) -> Callable[[socket.socket], None]:
    """What breaks TLS open: shows this certificate to whoever comes, or to those with a
    certificate of the CA `takes`."""
    (folder / "server.pem").write_bytes(key + chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    if takes:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=takes.decode())

    def serve(caller: socket.socket) -> None:
        with context.wrap_socket(caller, server_side=True) as shaken:
            shaken.recv(1)

    return serve


def http_proxy(status: str, target: int, *, wants: str = "") -> Callable[[socket.socket], None]:
    """Answers CONNECT with `status`; one of 200 leads to the port `target`, whatever was asked.
    Without the header `wants` it answers 407."""

    def serve(caller: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += caller.recv(4096)
        answer = status if wants.encode() in head else "407 Proxy Authentication Required"
        caller.sendall(f"HTTP/1.1 {answer}\r\nVia: here\r\n\r\n".encode())
        if not answer.startswith("200"):
            return
        with socket.create_connection(("127.0.0.1", target)) as there:
            back = threading.Thread(target=pour, args=(there, caller), daemon=True)
            back.start()
            pour(caller, there)
            back.join()

    return serve


def pour(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
