"""A registry of one tiny image on loopback, enough for pulls by digest: it can tamper, and hang."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Registry:
    """`image_id` is the digest of the configuration, `manifest` that of the manifest. What is
    `silent` is asked for in vain, what is `slow` comes a byte at a time."""

    def __init__(self) -> None:
        layer = _layer()
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            }
        ).encode()
        packed = gzip.compress(layer)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _descriptor(CONFIG, config),
                "layers": [_descriptor(LAYER, packed)],
            }
        ).encode()
        self.image_id, self.manifest, self.layer = digest(config), digest(manifest), digest(packed)
        self.content = {digest(each): each for each in (config, packed, manifest)}
        self.reference = ""
        self.silent = self.slow = "nothing"
        self.asked, self.hung_up, self.over = (threading.Event() for _ in range(3))

    def tamper(self) -> None:
        """From now on the layer is another one of the same length."""
        self.content[self.layer] = bytes(reversed(self.content[self.layer]))


def _layer() -> bytes:
    buffer, content = io.BytesIO(), uuid.uuid4().bytes
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("content")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(content), "digest": digest(content)}


@contextmanager
def serving() -> Iterator[Registry]:
    """A new registry with a new image, at `reference`, until the end of the block."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            if name == registry.silent:
                self._trickle(b"")
                return
            content = b"{}" if self.path == "/v2/" else registry.content.get(name)
            self.send_response(404 if content is None else 200)
            content = UNKNOWN if content is None else content
            self.send_header("Content-Type", MANIFEST if "/manifests/" in self.path else "x/y")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if name == registry.slow and self.command == "GET":
                self._trickle(content)
            elif self.command == "GET":
                self.wfile.write(content)

        def _trickle(self, content: bytes) -> None:
            """A byte at a time, until the engine hangs up or the registry ends."""
            registry.asked.set()
            self.connection.settimeout(0.1)
            left, self.close_connection = iter(content), True
            while not registry.over.is_set():
                try:
                    self.connection.recv(1)
                except TimeoutError:
                    self.wfile.write(bytes(islice(left, 1)))
                else:
                    registry.hung_up.set()
                    return

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        registry.reference = f"127.0.0.1:{server.server_port}/tiny:1"
        yield registry
        registry.over.set()
        server.shutdown()
