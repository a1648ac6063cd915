"""Finding and forgetting engines; what a killed daemon leaves behind is not trusted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from examples import engine


def test_an_engine_that_answers_is_used_and_not_stopped(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    handle = engine.ensure_engine(tmp_path, print)
    assert not handle.started
    assert handle.version == client.version()["Version"]
    assert engine.stop_engine(tmp_path) is False
    assert client.ping()


def test_a_pid_file_that_names_another_program_is_stale(tmp_path: Path) -> None:
    (tmp_path / "dockerd.pid").write_text(f"{os.getpid()}\n")
    assert engine.stop_engine(tmp_path) is False
    assert not (tmp_path / "dockerd.pid").exists()


@pytest.fixture
def private_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for a daemon of our own, beside the one that the other tests use."""
    if os.geteuid() != 0 or not shutil.which("dockerd", path="/usr/sbin:/usr/bin"):
        pytest.skip("only root can start dockerd")
    run = Path(tempfile.mkdtemp(prefix="hc-"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "SOCKET", f"unix://{run}/docker.sock")
    monkeypatch.setattr(engine, "SYSTEM_PID_FILE", run / "none")
    monkeypatch.setattr(engine, "CONTAINERD_PID_FILE", run / "exec/containerd/containerd.pid")
    own = ("--host", engine.SOCKET, "--data-root", f"{run}/data", "--exec-root", f"{run}/exec")
    monkeypatch.setattr(engine, "FLAGS", (*engine.FLAGS[:3], *own))
    yield tmp_path / "state"
    engine.stop_engine(tmp_path / "state")
    # dockerd mounts its data folder over itself, and a killed one leaves that behind
    while (
        subprocess.run(["umount", "-l", run / "data"], capture_output=True, check=False).returncode
        == 0
    ):
        pass
    shutil.rmtree(run)


def test_a_killed_daemon_is_started_again_over_what_it_left(private_engine: Path) -> None:
    assert engine.ensure_engine(private_engine, print).started
    assert not engine.ensure_engine(private_engine, print).started
    pid_file = private_engine / "dockerd.pid"
    killed = int(pid_file.read_text())
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    engine.CONTAINERD_PID_FILE.write_text(str(os.getpid()))
    assert pid_file.exists()
    assert engine.version_of_answering() is None
    assert engine.ensure_engine(private_engine, print).started
    assert int(pid_file.read_text()) != killed
    assert engine.stop_engine(private_engine) is True
    assert engine.version_of_answering() is None
    assert engine.stop_engine(private_engine) is False


def test_a_daemon_that_cannot_start_shows_its_log(
    private_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "FLAGS", (*engine.FLAGS, "--storage-driver=nonsense"))
    with pytest.raises(engine.EngineError, match="nonsense"):
        engine.ensure_engine(private_engine, print)


def test_an_address_where_nothing_answers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    with pytest.raises(engine.EngineError, match="nothing answers there; unset it"):
        engine.ensure_engine(tmp_path, print)


def test_without_root_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "version_of_answering", lambda: None)
    monkeypatch.setattr(engine, "SYSTEM_PID_FILE", tmp_path / "none")
    monkeypatch.setattr(engine, "CONTAINERD_PID_FILE", tmp_path / "none")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(engine.EngineError, match=r"apt-get install docker\.io"):
        engine.ensure_engine(tmp_path, print)
