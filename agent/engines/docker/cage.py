"""How a container is shut in: what every step gets, and what engines must be able to hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from agent.engines import port
from agent.engines.port import StepSpec
from housecall.errors import Kind, Refusal


def check_cage(info: Mapping[str, Any]) -> None:
    """Refuse an engine that would quietly run without the cage: rootless engines ignore
    limits on cgroup v1, and seccomp can be switched off for a whole daemon."""
    options = [option for option in info.get("SecurityOptions") or () if "seccomp" in option]
    lacks = [name for name in ("MemoryLimit", "CpuCfsQuota", "PidsLimit") if not info.get(name)]
    if not options or "unconfined" in options[0]:
        lacks.append("a seccomp profile")
    if lacks:
        message = f"engine: expected limits and seccomp, got one without {', '.join(lacks)}"
        message += "; run a rootful engine with cgroups and the default seccomp profile"
        raise Refusal(Kind.NOT_READY, "STEP_REFUSED", message)


def host_config(spec: StepSpec, volumes: Iterable[str]) -> dict[str, Any]:
    """The cage, as the engine wants it said; `volumes` are the paths the image declares."""
    limits = spec.limits
    tmp = f"rw,exec,nosuid,nodev,mode=1777,size={limits.tmp_bytes}"
    log = {"max-size": str(max(limits.log_bytes // 2, 16384)), "max-file": "2"}
    gpus = DeviceRequest(device_ids=list(spec.gpus), capabilities=[["gpu"]])
    return {
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "read_only": True,
        "tmpfs": {port.TMP: tmp},
        "mounts": _mounts(spec, volumes),
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "nano_cpus": int(limits.cpus * 1e9),
        "pids_limit": limits.pids,
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        "ipc_mode": "private",
        "shm_size": limits.shm_bytes,
        "group_add": [str(group) for group in spec.groups] or None,
        "init": True,  # without it a main process that kills itself exits 0
        "log_config": LogConfig(type="local", config=log),
        "device_requests": [gpus] if spec.gpus else None,
    }


def _mounts(spec: StepSpec, volumes: Iterable[str]) -> list[Mount]:
    """The step's binds, and a bounded tmpfs over each VOLUME of the image, which would
    else be writable without bound in spite of the read-only root."""
    mounts = [
        Mount(m.target, str(m.source), type="bind", read_only=m.read_only) for m in spec.mounts
    ]
    taken = {mount.target for mount in spec.mounts} | {port.TMP}
    size = spec.limits.tmp_bytes
    return mounts + [
        Mount(path, None, type="tmpfs", tmpfs_size=size, tmpfs_mode=0o1777)
        for path in volumes
        if (path.rstrip("/") or "/") not in taken
    ]


def check_gpus(host: Mapping[str, Any], spec: StepSpec) -> None:
    """Podman's Docker-compatible socket drops GPU requests without a word."""
    asked = [gpu for each in host.get("DeviceRequests") or () for gpu in each["DeviceIDs"]]
    if asked != list(spec.gpus):
        message = f"{spec.name}: expected {len(spec.gpus)} GPUs, got {len(asked)}"
        message += "; the engine ignores GPU requests: use Docker with the NVIDIA toolkit"
        raise Refusal(Kind.NOT_READY, "GPU_UNAVAILABLE", message)
