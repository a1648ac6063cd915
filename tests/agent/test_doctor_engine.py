"""The doctor at the engine and the GPUs: a real engine, and ones that cannot be used."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pynvml
import pytest

from agent.doctor import engine
from agent.doctor.finding import Level
from agent.engines.docker import diagnosis
from housecall.errors import Kind
from tests.agent import images
from tests.agent.patient import Patient, patient
from tests.agent.test_gpus import Nvml

AS_SOMEBODY = """
import os
from agent.engines.docker.diagnosis import diagnose
from housecall.errors import Refusal
os.setgroups([]); os.setgid(12345); os.setuid(12345)
try:
    diagnose(None)
except Refusal as refusal:
    print(refusal)
"""


@pytest.fixture
def site(tmp_path: Path) -> Patient:
    return patient(tmp_path)


class Driver(Nvml):
    """With the calls that only the doctor makes."""

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return type("Memory", (), {"total": 80 * 2**30, "free": 60 * 2**30})


def test_an_engine_that_can_run_steps(site: Patient) -> None:
    images.busybox()
    found = site.look("cage")
    assert [found[name].level for name in ("engine", "cage")] == [Level.OK, Level.OK]
    assert "unix:///var/run/docker.sock" in found["engine"].found
    assert "runtime runc, cgroup v" in found["engine"].found
    restores = images.client().info()["LiveRestoreEnabled"]
    assert ("begin again when it restarts" in found["engine"].found) is not restores
    assert found["cage"].found.startswith("a container ran in the cage, as user ")
    assert not images.client().containers(all=True, filters={"label": "housecall.doctor"})


def test_an_engine_that_is_not_there(site: Patient) -> None:
    site.settle(engine=f"unix://{site.folder}/docker.sock")
    found = site.look("engine", "cage", "gpu", "disk")
    assert (found["engine"].code, found["engine"].kind) == ("ENGINE_UNREACHABLE", Kind.UNAVAILABLE)
    assert f"no socket at {site.folder}/docker.sock" in found["engine"].found
    assert (found["cage"].level, found["cage"].found) == (Level.SKIPPED, "needs engine")
    assert found["disk"].level is Level.OK


def test_a_socket_that_nobody_serves(site: Patient) -> None:
    path = site.folder / "docker.sock"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    site.settle(engine=f"unix://{path}")
    assert "nothing answers: start the engine" in site.look("engine")["engine"].found


def test_a_socket_that_hangs(site: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "CALL_SECONDS", 1)
    path = site.folder / "docker.sock"
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(path))
        silent.listen()
        site.settle(engine=f"unix://{path}")
        found = site.look("engine")["engine"]
    assert (found.level, found.code) == (Level.FAILED, "ENGINE_UNREACHABLE")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_user_who_may_not_use_the_engine() -> None:
    done = subprocess.run([sys.executable, "-c", AS_SOMEBODY], capture_output=True, text=True)
    assert "user 12345 may not use /var/run/docker.sock: put the agent's user into group" in (
        done.stdout
    ), done.stderr


def test_an_engine_without_limits_is_told() -> None:
    lacks = diagnosis._cage_problem({"MemoryLimit": True, "CpuCfsQuota": True})
    assert "without PidsLimit, a seccomp profile" in lacks


def test_gpus_as_the_driver_says_them() -> None:
    first, second, driver = engine.look(Driver())
    assert first == second == "Example, 60 of 80 GiB free"
    assert driver == "driver 580.1, 3 to give to steps"
    assert engine.look(Driver(Driver.NVMLError_LibraryNotFound)) == []


def test_gpus_that_the_engine_cannot_hand_out(
    site: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "look", lambda: ["Example, 60 of 80 GiB free"])
    found = site.look("gpu")["gpu"]
    assert (found.level, found.kind) == (Level.FAILED, Kind.NOT_READY)
    assert "NVIDIA container toolkit" in found.fix


def test_a_driver_that_does_not_work(site: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    monkeypatch.setattr(engine, "look", broken)
    found = site.look("gpu")["gpu"]
    assert found.level is Level.FAILED
    assert "mismatch" in found.found.lower()


def test_a_gpu_without_a_driver(tmp_path: Path) -> None:
    for name, vendor, kind in (
        ("a", "0x10de", "0x030000"),
        ("b", "0x10de", "0x040300"),
        ("c", "0x8086", "0x030000"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert engine.devices(tmp_path) == 1
    assert engine.devices(tmp_path / "none") == 0
    assert engine._none_seen(1).level is Level.WARNING
    assert engine._none_seen(0).level is Level.OK
