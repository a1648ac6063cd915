"""A machine for tests: systemd as the first process of a container, and commands run on it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import docker

BIN = "/opt/housecall/bin"
LIMIT_S = 60.0
# systemd leaves the propagation of mounts to whoever made the container; credentials need it shared
BOOT = "mount --make-rshared / && exec /usr/sbin/init"
CGROUPS = "/sys/fs/cgroup:/sys/fs/cgroup:ro"
# with cgroups v2 the container has a tree of its own, which the engine mounts read-only
BOOT_V2 = f"mount -o remount,rw /sys/fs/cgroup && {BOOT}"
BOOTED = ("running", "degraded")


class Machine:
    """What runs in one container."""

    def __init__(self, container: Any) -> None:
        self.container = container

    def try_run(self, command: str, **variables: str) -> tuple[int, str]:
        """(exit code, both outputs) of a shell command, as root."""
        done = self.container.exec_run(["sh", "-c", command], environment=variables)
        return done.exit_code, done.output.decode()

    def run(self, command: str, **variables: str) -> str:
        code, said = self.try_run(command, **variables)
        assert code == 0, f"{command}: {code}\n{said}"
        return said

    def write(self, path: str, text: str) -> None:
        self.run(f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(text)} > {path}")

    def housecall(self, words: str, who: str = "olga") -> Any:
        """The JSON answer of the CLI; a site's command finds the agent's socket by itself."""
        done = self.container.exec_run(
            ["sh", "-c", f"{BIN}/housecall {words} --output json"],
            environment={"HOUSECALL_HOME": f"/srv/{who}"},
            demux=True,
        )
        out, errors = ((part or b"").decode() for part in done.output)
        assert done.exit_code == 0, f"housecall {words}: {done.exit_code}\n{out}{errors}"
        return json.loads(out)

    def unit(self, name: str) -> dict[str, str]:
        """The properties of a unit. While systemd reloads, its answer may lack most of them."""
        found: dict[str, str] = {}

        def whole() -> bool:
            shown = (
                line.partition("=") for line in self.run(f"systemctl show {name}").splitlines()
            )
            found.update((key, value) for key, _, value in shown)
            return {"ActiveState", "NRestarts", "MainPID"} <= found.keys()

        self.wait(whole, f"the properties of {name}")
        return found

    def is_active(self, name: str) -> bool:
        return self.unit(name)["ActiveState"] == "active"

    def restarts(self, name: str) -> int:
        return int(self.unit(name)["NRestarts"])

    def pid(self, name: str) -> int:
        return int(self.unit(name)["MainPID"])

    def log(self, name: str) -> str:
        """What a unit said since the machine was booted."""
        return self.run(f"journalctl --boot --no-pager --output=cat --unit {name}")

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain: {what}\n{self.state()}"
            time.sleep(0.1)

    def state(self) -> str:
        return self.try_run("systemctl --failed; journalctl --no-pager --lines 60")[1]

    def await_boot(self) -> None:
        self.wait(
            lambda: self.try_run("systemctl is-system-running")[1].strip() in BOOTED, "the boot"
        )

    def reboot(self) -> None:
        """As by the power button: systemd stops everything, then comes up anew."""
        self.container.restart(timeout=int(LIMIT_S))
        self.await_boot()


@contextmanager
def machine(client: docker.DockerClient, image: str, *, volumes: list[str]) -> Iterator[Machine]:
    """Booted; removed at the end. `volumes` are as for `docker run -v`."""
    is_v2 = client.info().get("CgroupVersion") == "2"
    container = client.containers.run(
        image,
        ["sh", "-c", BOOT_V2 if is_v2 else BOOT],
        detach=True,
        cap_add=["SYS_ADMIN"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        environment={"container": "docker"},
        network_mode="none",
        tmpfs={"/run": "", "/tmp": ""},
        volumes=volumes if is_v2 else [CGROUPS, *volumes],
        stop_signal="SIGRTMIN+3",
    )
    try:
        made = Machine(container)
        made.await_boot()
        yield made
    finally:
        container.remove(force=True)
