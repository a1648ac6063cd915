"""Runs a task of a container by its configuration, in a cage, with nothing of Housecall between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import yaml

WAIT_S = 60


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    log: str


def run_task(
    client: docker.DockerClient,
    config_file: Path,
    task: str,
    mounts: Mapping[str, Path],
    *,
    parameters: Path | None = None,
) -> Outcome:
    """Run `task` with `mounts` by label; outputs are created, `parameters.yaml` is found."""
    config = yaml.safe_load(config_file.read_text())
    wanted = config["tasks"][task]
    run_args = wanted.get("run_args", {})
    own = config_file.with_name("parameters.yaml")
    sources = {"parameters_file": parameters or own, **mounts}
    volumes = _volumes(wanted.get("input_volumes", {}), sources, "ro")
    outputs = wanted.get("output_volumes", {})
    for label, volume in outputs.items():
        _create(sources[label], volume["type"])
    volumes |= _volumes(outputs, sources, "rw")
    container = client.containers.create(
        config["image"],
        command=run_args.get("command"),
        entrypoint=run_args.get("entrypoint"),
        environment={"HOME": "/tmp", "OMP_NUM_THREADS": "1", **run_args.get("environment", {})},
        shm_size=run_args.get("shm_size"),
        volumes=volumes,
        user="10001:10001",
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": "size=64m,exec"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit="1g",
        pids_limit=64,
        init=True,
    )
    try:
        container.start()
        exit_code = int(container.wait(timeout=WAIT_S)["StatusCode"])
        return Outcome(exit_code, container.logs().decode())
    finally:
        container.remove(force=True)


def _volumes(
    declared: Mapping[str, Any], sources: Mapping[str, Path], mode: str
) -> dict[str, dict[str, str]]:
    return {
        str(sources[label]): {"bind": volume["mount_path"], "mode": mode}
        for label, volume in declared.items()
    }


def _create(path: Path, kind: str) -> None:
    """Writable to the container's user, whoever runs the tests."""
    if kind == "directory":
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(0o666)
