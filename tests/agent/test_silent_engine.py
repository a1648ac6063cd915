"""An engine that answers, and falls silent when it is asked how a container ended; and one that is
frozen, whose queue of callers is full."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from agent.engines.docker import DockerEngine
from agent.engines.docker.processes import may_run
from housecall.errors import Refusal

STATE = {"Running": False, "Status": "exited", "ExitCode": 0, "OOMKilled": False, "Error": ""}
ANSWERS = {
    "version": {"ApiVersion": "1.44"},
    "info": {"SystemTime": "2025-01-01T00:00:00+00:00"},
    "wait": {"StatusCode": 0},
    "json": {"State": STATE},
}


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            last = self.path.split("?")[0].rsplit("/", 1)[-1]
            if last == "events":
                self.end_headers()
                self.wfile.write(b'{"Action": "die"}\n')
                over.wait(30)
                return
            content = json.dumps(ANSWERS[last]).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with Server(str(tmp_path / "sock"), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"unix://{tmp_path}/sock"
        over.set()
        server.shutdown()


def test_it_is_not_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.engines.docker.connection.ANSWER_S", 0.5)
    with closing(DockerEngine(url, allow_pull=False)) as engine:
        with pytest.raises(Refusal) as refused:
            engine.wait("x", 1)
        assert refused.value.code == "ENGINE_UNREACHABLE"


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """The socket of an engine that takes no caller any more, with no room for another."""
    path = tmp_path / "frozen"
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        yield path


@pytest.mark.timeout(30)
def test_a_frozen_one_is_not_waited_for(frozen: Path) -> None:
    with closing(DockerEngine(f"unix://{frozen}", allow_pull=False)) as engine:
        with pytest.raises(Refusal) as refused:
            engine.facts()
        assert refused.value.code == "ENGINE_UNREACHABLE"
    assert may_run("x", frozen), "nobody can say that it does not"
