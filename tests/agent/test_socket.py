"""Who calls is what the kernel says, and the program as people start and stop it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from agent.local import relay
from agent.local.relay import uid_of
from agent.local_api import MOST_STREAMS, THREADS
from agent.pulse import Pulse
from housecall.errors import Refusal
from housecall.v1 import site_pb2, site_pb2_grpc
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.site import Bench, Site, wait_for
from tests.coordinator.world import sha

CALL = """
import os, sys, grpc
from housecall.v1 import site_pb2, site_pb2_grpc
os.setgid({gid}); os.setuid({uid})
with grpc.insecure_channel("unix:{socket}") as channel:
    request = site_pb2.DraftDatasetRequest(**{fields})
    for event in site_pb2_grpc.SiteApiStub(channel).DraftDataset(request):
        if event.HasField("draft"):
            sys.stdout.buffer.write(event.draft.statements[0])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can call as somebody else")
def test_the_uid_in_a_statement_is_the_callers(north: Site) -> None:
    for path in (north.settings.socket.parent.parent, north.settings.socket.parent):
        path.chmod(0o755)
    north.settings.socket.chmod(0o666)
    fields = {field.name: value for field, value in north.registration().ListFields()}
    code = CALL.format(uid=12345, gid=12345, socket=north.settings.socket, fields=fields)
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert b'"uid": 12345' in shown
    assert b'"uid": 0' not in shown


def test_a_peer_that_did_not_come_through_the_relay_is_refused() -> None:
    assert uid_of("unix:/state/run/peer-1000-7") == 1000
    for peer in ("unix:", "unix:/tmp/peer-0-1x", "ipv4:127.0.0.1:1", "peer-0-1"):
        with pytest.raises(Refusal):
            uid_of(peer)


def test_nobody_else_may_enter(north: Site) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    socket, state = north.settings.socket, north.settings.state_dir
    assert (mode(socket), mode(socket.parent)) == (0o660, 0o750)
    assert (mode(state), mode(state / "run"), mode(state / "identity")) == (0o700,) * 3


def test_a_draft_is_released_by_who_was_shown_it(north: Site) -> None:
    draft = north.draft("DraftDataset", north.registration())
    with pytest.raises(Refusal) as caught:
        north.agent.releases.release(draft.digest, os.getuid() + 1)
    assert caught.value.code == "DRAFT_NOT_FOUND"
    assert north.release(draft)[0].id == "north/1"


def test_sigterm_ends_the_program_with_0(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    environment = os.environ | {
        "HOUSECALL_AGENT_STATE_DIR": str(settings.state_dir),
        "HOUSECALL_AGENT_SOCKET": str(settings.socket),
        "HOUSECALL_AGENT_ENGINE": "unix:///nowhere.sock",
    }
    command = [sys.executable, "-m", "agent", "serve"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        wait_for(lambda: settings.socket.exists() or process.poll() is not None)
        with grpc.insecure_channel(f"unix:{settings.socket}") as channel:
            stub = site_pb2_grpc.SiteApiStub(channel)
            request = site_pb2.GetStatusRequest()
            wait_for(lambda: stub.GetStatus(request, wait_for_ready=True).connected)
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=20)
    assert process.returncode == 0, logged.decode()
    assert b'"message": "stopped"' in logged
    assert not settings.socket.exists()


CONNECT = """
import os, socket, sys
os.setgid(12345); os.setuid(12345)
callers = [socket.socket(socket.AF_UNIX) for _ in range({count})]
for caller in callers:
    caller.connect("{path}")
    caller.settimeout(20)
assert callers[-1].recv(1) == b"", "there was room"
print("full", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can call as somebody else")
def test_others_do_not_shut_out_the_agents_own_look(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "MOST_CALLERS", 2)
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north, closing(Pulse(north.agent)) as pulse:
        for path in (settings.socket.parent.parent, settings.socket.parent):
            path.chmod(0o755)
        settings.socket.chmod(0o666)
        code = CONNECT.format(count=3, path=settings.socket)
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as others:
            assert others.stdout is not None
            assert others.stdout.readline() == b"full\n"
            pulse.check()


def test_open_streams_leave_room_for_a_call(north: Site) -> None:
    go_on = threading.Event()

    def held(step: FakeStep) -> int:
        return site.prepare(step) if go_on.wait(site.SECONDS) else 1

    north.bench.engine.add_image(sha("image of preparation"), held)
    north.register()
    request = site_pb2.PrepareDatasetRequest(dataset_id="north/1")
    with closing(Pulse(north.agent)) as pulse, north.api() as api:
        calls = [api.PrepareDataset(request) for _ in range(THREADS)]
        wait_for(lambda: sum(call.done() for call in calls) == THREADS - MOST_STREAMS)  # type: ignore[attr-defined]
        refused = next(call for call in calls if call.done())  # type: ignore[attr-defined]
        assert "at most 48 commands" in refused.details()
        pulse.check()
        for call in calls:
            call.cancel()
        go_on.set()
        wait_for(lambda: north.dataset().state == site_pb2.LOCAL_DATASET_STATE_PREPARED)
        assert north.prepare(), "whoever went away leaves room"
