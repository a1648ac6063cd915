"""The engine as the doctor sees it: how it is reached, what it is, and what it can hold."""

from __future__ import annotations

import grp
import os
import socket
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines.docker.cage import check_cage
from agent.engines.docker.connection import DEFAULT_URL, Connection
from agent.engines.docker.failures import translated
from housecall.errors import Kind, Refusal
from housecall.users import user_name

CONNECT_SECONDS = 5.0
CALL_SECONDS = 20
_CDI_DIRS = ("/etc/cdi", "/var/run/cdi")


@dataclass(frozen=True)
class Diagnosis:
    """What an engine says of itself. `cage_problem` is why it cannot hold the cage; `root_dir` is
    None where the engine's disk is not this machine's; `images` are ids, the smallest first."""

    address: str
    kind: str
    version: str
    api_version: str
    runtime: str
    cgroup_version: str
    live_restore: bool
    nvidia: str
    cage_problem: str
    root_dir: Path | None
    images: tuple[str, ...]


def address(url: str | None) -> str:
    """Where the engine is looked for."""
    return url or os.environ.get("DOCKER_HOST") or DEFAULT_URL


def diagnose(url: str | None) -> Diagnosis:
    """Raises `Refusal` ENGINE_UNREACHABLE with what is in the way."""
    at = address(url)
    if at.startswith("unix://"):
        _knock(Path(at.removeprefix("unix://")))
    with closing(Connection(url, timeout_s=CALL_SECONDS)) as connection:
        with translated("ENGINE_UNREACHABLE", "ask for its facts"):
            client = connection.client
            info, version, images = client.info(), client.version(), client.images()
        root = Path(info.get("DockerRootDir") or "/nowhere")
        return Diagnosis(
            address=at,
            kind="podman" if "podman" in str(version.get("Components")).lower() else "docker",
            version=version["Version"],
            api_version=str(version.get("ApiVersion", "")),
            runtime=info.get("DefaultRuntime", ""),
            cgroup_version=str(info.get("CgroupVersion", "1")),
            live_restore=bool(info.get("LiveRestoreEnabled")),
            nvidia=_nvidia(info),
            cage_problem=_cage_problem(info),
            root_dir=root if connection.socket is not None and root.is_dir() else None,
            images=tuple(each["Id"] for each in sorted(images, key=lambda one: int(one["Size"]))),
        )


def _knock(path: Path) -> None:
    """A socket that cannot be used, in words that say what to do."""
    try:
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.settimeout(CONNECT_SECONDS)
            probe.connect(str(path))
    except FileNotFoundError:
        raise _unreachable(f"no socket at {path}: install and start the engine, or name its socket "
                           "by the setting engine") from None  # fmt: skip
    except PermissionError:
        raise _unreachable(
            f"user {user_name(os.geteuid())} may not use {path}: {_who_may(path)}"
        ) from None
    except ConnectionRefusedError:
        raise _unreachable(
            f"{path} is there, and nothing answers: start the engine, as `systemctl start docker`"
        ) from None
    except OSError as error:
        raise _unreachable(f"{path}: {error.strerror or error}; look at the engine") from None


def _unreachable(message: str) -> Refusal:
    return Refusal(Kind.UNAVAILABLE, "ENGINE_UNREACHABLE", f"engine: {message}")


def _who_may(path: Path) -> str:
    try:
        group = grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        return "put the agent's user into the socket's group"
    return f"put the agent's user into group {group}, and start the agent again"


def _nvidia(info: dict[str, Any]) -> str:
    """By what way the engine hands out NVIDIA GPUs; "" where none is seen."""
    if "nvidia" in (info.get("Runtimes") or {}):
        return "NVIDIA runtime"
    folders = [Path(each) for each in info.get("CDISpecDirs") or _CDI_DIRS]
    if any(folder.is_dir() and any(folder.glob("*nvidia*")) for folder in folders):
        return "CDI"
    return ""


def _cage_problem(info: dict[str, Any]) -> str:
    try:
        check_cage(info)
    except Refusal as refusal:
        return refusal.message
    return ""
