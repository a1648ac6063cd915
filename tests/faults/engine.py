"""A Docker engine of the harness's own, which may be killed: data, sockets and shims apart.

The machine's own engine is never touched.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from examples import apt
from examples.images import debian, packing
from examples.images.plan import DOWNLOADS
from tests.faults.disks import unmount_below
from tests.faults.programs import (
    Keeper,
    Program,
    command_of,
    descendants,
    processes,
    wait_for,
)
from tests.faults.watch import remove_groups

REPOSITORY, TAG = "housecall-faults/busybox", "1"


class EngineProgram:
    """dockerd below `folder`. With `live_restore` containers go on while it is away; without, which
    is Docker's default, they end with it."""

    def __init__(self, folder: Path, sockets: Path, keeper: Keeper, *, live_restore: bool) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        self._exec = sockets / "exec"
        self.url = f"unix://{sockets / 'docker.sock'}"
        self.cgroup = f"hcfaults-{sockets.name.rpartition('-')[2]}"
        command = self._command(live_restore=live_restore)
        self.program = keeper.add(
            Program("dockerd", command, folder / "dockerd.log", before=self._forget)
        )

    @property
    def data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        if shutil.which("dockerd") is None:
            apt.install("docker.io")
        self.program.start()
        wait_for(self.answers, f"dockerd answers (log: {self.program.log})")

    def ready(self) -> str:
        """Started, with its one image, whose id this is."""
        self.start()
        return self.image()

    def answers(self) -> bool:
        with suppress(DockerException, OSError):
            return bool(self.ask(lambda api: api.ping()))
        return False

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """One question over a connection of its own."""
        api = docker.APIClient(self.url, version="1.41", timeout=20)
        try:
            return question(api)
        finally:
            api.close()

    def kill(self, pause_s: float) -> bool:
        """dockerd and its containerd, as in a crash; the shims and the containers live on."""
        below = self._containerd()
        killed = self.program.kill(pause_s)
        _kill(below)
        return killed

    def kill_containerd(self) -> bool:
        """Alone: dockerd starts it again, and does not learn what ended meanwhile."""
        return _kill(self._containerd())

    def _containerd(self) -> list[int]:
        below = descendants(self.program.pid)
        return [pid for pid in below if command_of(pid).split("\0")[0].endswith("containerd")]

    def terminate(self, *, live_restore: bool) -> bool:
        """As an upgrade does; it comes back with or without live-restore."""
        ended = self.program.send(signal.SIGTERM)
        if ended:
            self.program.command = self._command(live_restore=live_restore)
        return ended

    def image(self) -> str:
        """The id of the one image, imported when it is not there."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            root, packed = Path(folder) / "root", Path(folder) / "root.tar"
            root.mkdir()
            debian.busybox_root(root, DOWNLOADS)
            packing.write_tar(root, packed)
            self.ask(
                lambda api: api.import_image_from_file(str(packed), repository=REPOSITORY, tag=TAG)
            )
        return str(self.ask(lambda api: api.inspect_image(f"{REPOSITORY}:{TAG}"))["Id"])

    def image_file(self, image_id: str) -> Path | None:
        """The engine's own file about an image: while it is away, there is no such image."""
        name = image_id.replace(":", "/")
        return next(self.data.glob(f"image/*/imagedb/content/{name}"), None)

    def containers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(lambda api: api.containers(all=True))
        return found

    def remove(self, container_id: str) -> None:
        self.ask(lambda api: api.remove_container(container_id, force=True, v=True))

    def close(self) -> None:
        """Every container removed, the engine stopped, what is left killed, its data deleted."""
        with suppress(DockerException, OSError):
            for each in self.containers():
                self.remove(each["Id"])
        self.program.end()
        _kill(self._leftovers())
        remove_groups(self.cgroup)
        for folder in (self._folder, self._exec):
            unmount_below(folder)
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self._exec, ignore_errors=True)

    def _command(self, *, live_restore: bool) -> list[str]:
        command = ["dockerd", "--bridge=none", "--iptables=false", "--ip-forward=false"]
        command += ["--host", self.url, "--data-root", str(self.data)]
        command += ["--exec-root", str(self._exec), "--pidfile", str(self._folder / "dockerd.pid")]
        command += ["--cgroup-parent", f"/{self.cgroup}"]
        return [*command, "--live-restore"] if live_restore else command

    def _leftovers(self) -> list[int]:
        """Shims of this engine, and what runs below them: they outlive a daemon that was killed."""
        shims = [pid for pid in processes() if str(self._exec) in command_of(pid)]
        return [*(pid for shim in shims for pid in descendants(shim)), *shims]

    def _forget(self) -> None:
        """A killed daemon's pid file names a number that may be another program's by now."""
        (self._folder / "dockerd.pid").unlink(missing_ok=True)
        (self._exec / "containerd" / "containerd.pid").unlink(missing_ok=True)


def _kill(pids: list[int]) -> bool:
    """False where there is none."""
    for pid in pids:
        subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)
    return bool(pids)
