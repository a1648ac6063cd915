"""Both services under a real systemd: installed from the bundle, started, hung, killed, upgraded,
stopped, rebooted. The tests share one machine; each begins with both services up."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from deploy import bundle
from tests.deploy import house
from tests.deploy.house import AGENT, COORDINATOR, GO, SERVICES
from tests.deploy.image import image
from tests.deploy.machine import BIN, Machine, machine

SOCKET = Path("/var/run/docker.sock")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may let systemd mount"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    made = docker.from_env(timeout=120)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A folder that has the same path here and on the machine, for the engine mounts from here.
    Not in /tmp, which services have one of their own of."""
    folder = Path(tempfile.mkdtemp(prefix="housecall-test-", dir="/srv"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def booted(
    client: docker.DockerClient, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    bundle.fill(folder)
    volumes = [f"{folder}:/bundle:ro", f"{shared}:{shared}", f"{SOCKET}:/run/docker.sock"]
    with machine(client, image(client, folder), volumes=volumes) as made:
        house.install(made, shared, SOCKET.stat().st_gid)
        house.found(made)
        yield made


@pytest.fixture
def up(booted: Machine) -> Machine:
    for service in SERVICES:
        booted.run(f"systemctl reset-failed {service}; systemctl start {service}")
    booted.wait(lambda: house.is_connected(booted), "the site is connected")
    return booted


def steps(client: docker.DockerClient, shared: Path) -> list[str]:
    """Ids of the containers of this site's agent."""
    return [
        str(each["Id"])
        for each in client.api.containers(all=True)
        if any(str(mount.get("Source", "")).startswith(f"{shared}/") for mount in each["Mounts"])
    ]


def test_it_is_ready_when_start_returns(up: Machine) -> None:
    for service in SERVICES:
        up.run(f"systemctl restart {service}")
        port_or_socket = up.housecall("whoami" if service == COORDINATOR else "site status")
        assert port_or_socket
    assert "north" in up.log(AGENT)


def test_the_join_token_came_as_a_credential(up: Machine) -> None:
    assert "enrolled" in up.log(AGENT)
    assert up.run("stat -c %a:%U /etc/credstore/housecall-agent.join_token").strip() == "600:root"
    assert up.unit(AGENT)["User"] == AGENT


def test_the_database_url_comes_as_a_credential(up: Machine) -> None:
    state, secret = f"/var/lib/{COORDINATOR}", f"/etc/credstore/{COORDINATOR}.database_url"
    up.run(f"systemctl stop {COORDINATOR} && mv {state}/coordinator.db {state}/elsewhere.db")
    up.write(secret, f"sqlite:///{state}/elsewhere.db")
    up.run(f"systemctl start {COORDINATOR}")
    assert up.housecall("site ls")
    up.run(f"systemctl stop {COORDINATOR} && rm {secret}")
    up.run(f"mv {state}/elsewhere.db {state}/coordinator.db && systemctl start {COORDINATOR}")


@pytest.mark.parametrize("service", SERVICES)
def test_what_hangs_is_restarted_by_the_watchdog(up: Machine, service: str) -> None:
    before, pid = up.restarts(service), up.pid(service)
    up.run(f"kill -STOP {pid}")
    up.wait(lambda: up.restarts(service) > before, "the watchdog")
    up.wait(lambda: up.is_active(service), "the restart")
    assert up.pid(service) != pid
    assert "Watchdog timeout" in up.log(service)


def test_a_journal_that_cannot_be_written_is_a_hang(up: Machine, shared: Path) -> None:
    before = up.log(AGENT).count("Watchdog timeout")
    code = (
        "import sqlite3,time; db=sqlite3.connect("
        f"'{shared}/state/journal.sqlite', isolation_level=None); db.execute('BEGIN IMMEDIATE'); "
        "time.sleep(600)"
    )
    up.container.exec_run(["python3", "-c", code], detach=True)
    up.wait(lambda: up.log(AGENT).count("Watchdog timeout") > before, "the watchdog")
    up.run("pkill --full 'BEGIN [I]MMEDIATE'")
    up.wait(lambda: house.is_connected(up), "the agent is back")


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_killed_comes_back_after_a_wait(up: Machine, service: str) -> None:
    before, pid = up.restarts(service), up.pid(service)
    up.run(f"kill -KILL {pid}")
    up.wait(lambda: up.restarts(service) > before and up.is_active(service), "the restart")
    unit = up.unit(service)
    left, back = (int(unit[f"Active{what}TimestampMonotonic"]) for what in ("Exit", "Enter"))
    assert back - left >= 1_000_000, "expected RestartSec to pass first"
    up.wait(lambda: house.is_connected(up), "the site is connected again")


def test_settings_that_are_wrong_wait_for_a_person(up: Machine) -> None:
    up.run(f"systemctl stop {AGENT} && echo 'slots = \"many\"' >> /etc/housecall/agent.toml")
    try:
        code, _ = up.try_run(f"systemctl start {AGENT}")
        unit = up.unit(AGENT)
        assert code != 0
        assert (unit["ActiveState"], unit["ExecMainStatus"]) == ("failed", "2")
        assert "SETTINGS_INVALID" in up.log(AGENT)
    finally:
        up.run("sed -i '$d' /etc/housecall/agent.toml")


def test_a_token_that_was_used_is_not_tried_again(up: Machine, shared: Path) -> None:
    up.run(f"systemctl stop {AGENT} && mv {shared}/state/identity {shared}/identity")
    try:
        assert up.try_run(f"systemctl start {AGENT}")[0] != 0
        unit = up.unit(AGENT)
        assert (unit["ActiveState"], unit["ExecMainStatus"]) == ("failed", "4")
    finally:
        up.run(f"rm -rf {shared}/state/identity && mv {shared}/identity {shared}/state/identity")


def test_an_upgrade_leaves_work_alone(
    up: Machine, client: docker.DockerClient, shared: Path
) -> None:
    house.dataset(up, shared)
    up.container.exec_run([f"{BIN}/housecall", "dataset", "prepare", "north/1"], detach=True)
    up.wait(lambda: steps(client, shared), "the preparation's container")
    (step,), pid = steps(client, shared), up.pid(AGENT)
    said = up.run("sh /bundle/install.sh agent")
    assert "unchanged /etc/systemd/system/housecall-agent.service" in said
    assert up.pid(AGENT) != pid
    assert steps(client, shared) == [step]
    assert client.containers.get(step).status == "running"
    (shared / "state/datasets/1/prepared/data" / GO).touch()

    def is_prepared() -> Any:
        (row,) = up.housecall("dataset ls --mine")
        return row["state"] == "prepared"

    up.wait(is_prepared, "the preparation's end")
    up.wait(lambda: not steps(client, shared), "the container is gone")


def test_stop_is_clean(up: Machine) -> None:
    for service in reversed(SERVICES):
        up.run(f"systemctl stop {service}")
        unit = up.unit(service)
        assert (unit["ActiveState"], unit["Result"], unit["ExecMainStatus"]) == (
            "inactive",
            "success",
            "0",
        )


def test_a_reboot_brings_both_back(up: Machine) -> None:
    before = up.housecall("ledger verify")
    up.reboot()
    up.wait(lambda: all(up.is_active(service) for service in SERVICES), "both services")
    up.wait(lambda: house.is_connected(up), "the site is connected")
    after = up.housecall("ledger verify")
    assert (after["root"], after["continues_tree_of"]) == (before["root"], before["tree_size"])


@pytest.mark.parametrize("service", SERVICES)
def test_the_sandbox_is_tight(up: Machine, service: str) -> None:
    up.run(f"systemd-analyze security --no-pager --threshold=20 {service}.service")
    code, said = up.try_run(f"systemd-analyze verify /etc/systemd/system/{service}.service")
    assert (code, said) == (0, "")


def test_uninstall_keeps_what_counts(up: Machine) -> None:
    said = up.run(f"{BIN}/{AGENT} uninstall")
    assert "remove /etc/systemd/system/housecall-agent.service" in said
    assert not up.is_active(AGENT)
    assert up.unit(AGENT)["LoadState"] == "not-found"
    assert "run systemctl enable" in up.run(f"{BIN}/{AGENT} install")
    up.run(f"systemctl start {AGENT}")
    up.wait(lambda: house.is_connected(up), "the same identity")
