"""Who calls: the kernel's word on the peer of the public socket, handed on so that none can lie.

gRPC does not show the credentials of a Unix socket's peer. So the public socket is accepted here:

 1. the peer's uid is read with SO_PEERCRED;
 2. a connection to gRPC's own socket is made from a socket that is bound to the name
    `peer-<uid>-<number>`; both lie in a folder that only the agent may enter;
 3. bytes are passed on both ways; the servicer reads the name in `context.peer()`.

Threads: one accepts, two a connection pass bytes on.
"""

from __future__ import annotations

import grp
import itertools
import os
import re
import shutil
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

from agent.disk import LOCKED
from housecall.errors import Kind, Refusal
from housecall.users import user_name

MAX_SOCKET_PATH = 100
MOST_CALLERS = 128
OWN_CALLERS = 8
"""Room that others cannot take: the agent itself calls, to see whether it lives."""
_PEER = re.compile(r"^unix:.*/peer-([0-9]+)-[0-9]+$")
_CREDENTIALS = struct.Struct("3i")


def uid_of(peer: str) -> int:
    """The uid behind `context.peer()`; refuses any other peer."""
    match = _PEER.match(peer)
    if match is None:
        raise Refusal(
            Kind.UNAUTHENTICATED,
            "PEER_UNKNOWN",
            f"caller {peer!r}: expected a user of this machine",
        )
    return int(match[1])


class Relay:
    """Accepts on `public` and connects to `inner`, a socket in the private folder `inside`."""

    def __init__(self, public: Path, inside: Path, group: str = "") -> None:
        self._public, self._inside, self._group = public, inside, group
        self._numbers = itertools.count(1)
        self._closing = False
        self._room = threading.Semaphore(MOST_CALLERS)
        self._own_room = threading.Semaphore(OWN_CALLERS)
        self._listener = socket.socket(socket.AF_UNIX)
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir(mode=0o700, parents=True)
        self.inner = inside / "grpc.sock"
        for path in (public, self.inner):
            if len(os.fsencode(path)) > MAX_SOCKET_PATH:
                raise Refusal(
                    Kind.INVALID,
                    "SOCKET_PATH_TOO_LONG",
                    f"socket {path}: expected at most {MAX_SOCKET_PATH} bytes, got "
                    f"{len(os.fsencode(path))}; shorten the settings socket or state_dir",
                )

    def start(self) -> None:
        try:
            self._bind()
        except OSError as error:
            if error.errno not in LOCKED:
                raise
            raise self._no_place(error) from error
        if self._group:
            self._hand_to_group()
        self._listener.listen(128)
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def close(self) -> None:
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._public.unlink(missing_ok=True)

    def _bind(self) -> None:
        self._public.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._refuse_second()
        self._public.unlink(missing_ok=True)
        mask = os.umask(0o117)
        try:
            self._listener.bind(str(self._public))
        finally:
            os.umask(mask)
        self._public.chmod(0o660)

    def _no_place(self, error: OSError) -> Refusal:
        me, folder = user_name(os.geteuid()), self._public.parent
        return Refusal(
            Kind.NOT_ALLOWED,
            "CANNOT_LISTEN",
            f"socket {self._public}: expected a folder that user {me} may write, got: "
            f"{error.strerror}; as root: `install -d -o {me} -m 0750 {folder}`, or set socket to "
            f"where {me} may",
        )

    def _refuse_second(self) -> None:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(self._public))
            raise Refusal(
                Kind.UNAVAILABLE,
                "AGENT_RUNNING",
                f"socket {self._public}: an agent answers there already; stop it first",
            )

    def _hand_to_group(self) -> None:
        try:
            number = grp.getgrnam(self._group).gr_gid
        except KeyError:
            raise Refusal(
                Kind.INVALID,
                "SETTINGS_INVALID",
                f"setting socket_group: expected a group of this machine, got {self._group!r}",
            ) from None
        try:
            for path in (self._public.parent, self._public):
                os.chown(path, -1, number)
        except PermissionError:
            me = user_name(os.geteuid())
            raise Refusal(
                Kind.INVALID,
                "SETTINGS_INVALID",
                f"setting socket_group: expected a group that user {me} is a member of, got "
                f"{self._group!r}; as root: `usermod -aG {self._group} {me}`, then start the agent "
                "again",
            ) from None

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() == -1 or self._closing:
                    return
                time.sleep(0.1)  # out of descriptors: those who have one must end first
                continue
            try:
                self._pass_on(caller)
            except (OSError, RuntimeError):
                caller.close()

    def _pass_on(self, caller: socket.socket) -> None:
        raw = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(raw)  # 1
        room = self._enter(uid)
        if room is None:
            caller.close()
            return

        def serve() -> None:  # 3
            try:
                _join(caller, server)
            finally:
                room.release()

        try:
            server = self._connect(uid)
            threading.Thread(target=serve, daemon=True).start()
        except BaseException:
            room.release()
            raise

    def _enter(self, uid: int) -> threading.Semaphore | None:
        """Where a caller found room."""
        rooms = [self._room, self._own_room] if uid == os.getuid() else [self._room]
        return next((room for room in rooms if room.acquire(blocking=False)), None)

    def _connect(self, uid: int) -> socket.socket:
        name = self._inside / f"peer-{uid}-{next(self._numbers)}"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(name))  # 2
        try:
            server.connect(str(self.inner))
        except OSError:
            server.close()
            raise
        finally:
            name.unlink(missing_ok=True)
        return server


def _join(caller: socket.socket, server: socket.socket) -> None:
    """Pass bytes on both ways until either end closes."""
    with caller, server:
        back = threading.Thread(target=_copy, args=(server, caller), daemon=True)
        back.start()
        _copy(caller, server)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
