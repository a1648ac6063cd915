"""The program itself: readiness, health, reflection, a graceful stop, and a full disk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator.server import SERVICES
from coordinator.settings import Settings
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.world import Party, World, free_port, register_model, world

PROGRAM = Path(sys.executable).parent / "housecall-coordinator"


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def init(state: Path, port: int) -> subprocess.CompletedProcess[str]:
    address = f"127.0.0.1:{port}"
    words = ["init", "--trust-domain", "test", "--address", address, "--operator", "olga"]
    return run(*words, "--state-dir", str(state))


def test_init_serve_notify_stop(tmp_path: Path) -> None:
    port, state = free_port(), tmp_path / "state"
    made = init(state, port)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("hc1.")
    assert "Next: housecall-coordinator serve" in made.stderr
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind(str(tmp_path / "notify"))
    notices.settimeout(30)
    serve = [str(PROGRAM), "serve", "--state-dir", str(state), "--listen", f"127.0.0.1:{port}"]
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
    with notices, subprocess.Popen(serve, env=environment, stderr=subprocess.PIPE) as process:
        assert notices.recv(100) == b"READY=1"
        second = run(*serve[1:])
        init(tmp_path / "other", port)
        third = run(*serve[1:3], str(tmp_path / "other"), *serve[4:])
        process.send_signal(signal.SIGTERM)
        assert notices.recv(100) == b"STOPPING=1"
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert second.returncode == 8
    assert "COORDINATOR_RUNNING" in second.stderr
    assert third.returncode == 8
    assert "CANNOT_LISTEN" in third.stderr


def test_a_stop_before_it_serves_is_clean(tmp_path: Path) -> None:
    """While it waits for a database that takes connections and says nothing."""
    assert init(tmp_path / "state", 1).returncode == 0
    serve = [str(PROGRAM), "serve", "--state-dir", str(tmp_path / "state")]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        url = f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=60"
        environment = {**os.environ, "HOUSECALL_COORDINATOR_DATABASE_URL": url}
        with (
            subprocess.Popen(serve, env=environment, stderr=subprocess.PIPE) as process,
            silent.accept()[0],
        ):
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
    assert (process.returncode, b"Traceback" in said) == (0, False)


def test_what_init_and_serve_refuse(tmp_path: Path) -> None:
    nothing = run("serve", "--state-dir", str(tmp_path / "none"))
    assert nothing.returncode == 6
    assert "NOT_FOUNDED" in nothing.stderr
    assert init(tmp_path / "state", 1).returncode == 0
    again = init(tmp_path / "state", 1)
    assert again.returncode == 5
    assert "ALREADY_FOUNDED" in again.stderr
    wrong = run("serve", "--state-dir", str(tmp_path), HOUSECALL_COORDINATOR_THREADS="many")
    assert wrong.returncode == 2
    assert "SETTINGS_INVALID" in wrong.stderr
    assert "threads" in wrong.stderr
    (tmp_path / "coordinator.toml").write_text('thread = 4\npassword = "hunter2"\n')
    unknown = run("serve", "--config", str(tmp_path / "coordinator.toml"))
    assert unknown.returncode == 2
    assert "setting thread: there is no setting of that name, the nearest is threads; " in (
        unknown.stderr
    )
    assert "setting password: there is no setting of that name" in unknown.stderr
    assert "hunter2" not in unknown.stderr
    variable = run("serve", "--state-dir", str(tmp_path), HOUSECALL_COORDINATOR_THREAD="4")
    assert variable.returncode == 2
    assert "variable HOUSECALL_COORDINATOR_THREAD: there is no setting" in variable.stderr
    for result in (nothing, again, wrong, unknown, variable):
        assert "Traceback" not in result.stderr


def test_help_names_every_setting_and_its_default() -> None:
    text = " ".join(run("serve", "--help").stdout.split())
    for name, field in Settings.model_fields.items():
        assert f"HOUSECALL_COORDINATOR_{name.upper()}" in text
        if field.default not in (None, ""):
            assert f"[default: {field.default}]" in text


def test_each_program_says_its_version() -> None:
    for program in ("housecall", "housecall-coordinator", "housecall-agent"):
        done = subprocess.run(
            [str(PROGRAM.with_name(program)), "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert version("housecall") in done.stdout


def test_health_and_reflection_answer_to_everyone_enrolled(coordinator: World) -> None:
    channel = coordinator.operator.channel
    health: Any = health_pb2_grpc.HealthStub(channel)
    for service in ("", *SERVICES):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
    assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    (answer,) = stub.ServerReflectionInfo(iter([request]))
    listed = {service.name for service in answer.list_services_response.service}
    assert set(SERVICES) <= listed


def test_without_a_certificate_nothing_answers(coordinator: World) -> None:
    credentials = grpc.ssl_channel_credentials(coordinator.house.authority.root_pem)
    options = [("grpc.ssl_target_name_override", "coordinator.housecall")]
    address = coordinator.house.address
    with grpc.secure_channel(address, credentials, options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def register_many(party: Party) -> None:
    """More than what is left of a page takes."""
    for number in range(50):
        register_model(party, f"model {number}")


def test_a_full_disk_refuses_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    with world(tmp_path, database_url=f"sqlite:///{small_disk}/c.db") as made:
        mona = made.join("mona", pb.ROLE_PERSON)
        filler = small_disk / "filler"
        register_model(mona, "before")
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(1 << 20))
        with pytest.raises(Refusal) as caught:
            register_many(mona)
        assert caught.value.code == "STORE_FULL"
        filler.unlink()
        assert register_model(mona, "after").id
