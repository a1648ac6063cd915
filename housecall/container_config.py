"""The container configuration that MedPerf containers carry: read and checked at registration.

Every violation is a `Refusal` that names the key path, what was expected and what was found.
Which volumes a task may have is in `container_tasks.py`; how they are mounted is left to the agent.
Source: MedPerf's `container_config.yaml`, whose containers must run unmodified.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from housecall.container_tasks import TASKS, LabelRule, Role
from housecall.container_values import (
    as_gpus,
    as_mapping,
    as_mount_path,
    as_size,
    as_variables,
    as_words,
    inside,
    only,
    refuse,
)
from housecall.safe_yaml import load_yaml

__all__ = [
    "TASKS",
    "ContainerConfig",
    "LabelRule",
    "Role",
    "Task",
    "Volume",
    "check_parameters",
    "parse",
]

SUPPORTED_TYPES = ("DockerImage", "DockerArchive")


@dataclass(frozen=True)
class Volume:
    """Where the container wants one label mounted; `type` is "file" or "directory"."""

    mount_path: str
    type: str


@dataclass(frozen=True)
class Task:
    """One entry of the container. `None` for command or entrypoint means the image's own;
    an empty entrypoint clears the image's. `gpus` is a count, "all" or "device=<id>,<id>"."""

    name: str
    command: tuple[str, ...] | None
    entrypoint: tuple[str, ...] | None
    environment: Mapping[str, str]
    shm_size: int | None
    gpus: str | int | None
    inputs: Mapping[str, Volume]
    outputs: Mapping[str, Volume]


@dataclass(frozen=True)
class ContainerConfig:
    """A configuration that passed every check."""

    container_type: str
    image: str
    tasks: Mapping[str, Task]


def parse(text: str, role: Role) -> ContainerConfig:
    """Check a whole `container_config.yaml`; raises `Refusal` for the first violation."""
    document = as_mapping(load_yaml(text, "container configuration"), "the document")
    only(document, "", {"container_type": True, "image": True, "tasks": True})
    container_type, image = document["container_type"], document["image"]
    if container_type not in SUPPORTED_TYPES:
        supported = " or ".join(SUPPORTED_TYPES)
        refuse("CONFIG_UNSUPPORTED_TYPE", "container_type", supported, container_type)
    if not isinstance(image, str) or not image or re.search(r"\s", image):
        refuse("CONFIG_BAD_VALUE", "image", "an image reference or archive", image)
    tasks, rules = as_mapping(document["tasks"], "tasks"), TASKS[role]
    only(tasks, "tasks", dict.fromkeys(rules, True), what="TASK")
    checked = {name: _task(name, tasks[name], rules[name]) for name in rules}
    return ContainerConfig(str(container_type), image, MappingProxyType(checked))


def check_parameters(text: str) -> Mapping[str, object]:
    """The parameters of a container: a YAML mapping; an empty document is an empty mapping."""
    document = load_yaml(text, "parameters")
    return as_mapping({} if document is None else document, "parameters")


def _task(name: str, value: object, rule: Mapping[str, Mapping[str, LabelRule]]) -> Task:
    path = f"tasks.{name}"
    task = as_mapping(value, path)
    only(task, path, {"run_args": False, "input_volumes": False, "output_volumes": False})
    arguments = as_mapping(task.get("run_args") or {}, f"{path}.run_args")
    keys = ("command", "entrypoint", "environment", "shm_size", "gpus")
    path = f"{path}.run_args"
    only(arguments, path, dict.fromkeys(keys, False))
    inputs, outputs = (_volumes(name, kind, task, rule[kind]) for kind in rule)
    _check_overlap(name, inputs, outputs)
    return Task(
        name=name,
        command=as_words(arguments.get("command"), f"{path}.command") or None,
        entrypoint=as_words(arguments.get("entrypoint"), f"{path}.entrypoint"),
        environment=as_variables(arguments.get("environment"), f"{path}.environment"),
        shm_size=as_size(arguments.get("shm_size"), f"{path}.shm_size"),
        gpus=as_gpus(arguments.get("gpus"), f"{path}.gpus"),
        inputs=MappingProxyType(inputs),
        outputs=MappingProxyType(outputs),
    )


def _volumes(
    task: str, kind: str, values: Mapping[str, object], rules: Mapping[str, LabelRule]
) -> dict[str, Volume]:
    path = f"tasks.{task}.{kind}"
    volumes = as_mapping(values.get(kind) or {}, path)
    wanted = {label: rule.required for label, rule in rules.items()}
    only(volumes, path, wanted, what="LABEL")
    checked = {}
    for label, value in volumes.items():
        volume, at = as_mapping(value, f"{path}.{label}"), f"{path}.{label}"
        only(volume, at, {"mount_path": True, "type": True})
        if volume["type"] != rules[label].type:
            refuse("CONFIG_BAD_TYPE", f"{at}.type", rules[label].type, volume["type"])
        mount_path = as_mount_path(volume["mount_path"], f"{at}.mount_path")
        checked[label] = Volume(mount_path, rules[label].type)
    return checked


def _check_overlap(task: str, inputs: dict[str, Volume], outputs: dict[str, Volume]) -> None:
    seen: dict[str, str] = {}
    for label, volume in [*inputs.items(), *outputs.items()]:
        other = seen.setdefault(volume.mount_path, label)
        if other != label:
            expected = f"a mount path of its own, not that of {other}"
            refuse("CONFIG_DUPLICATE_PATH", f"tasks.{task}.{label}", expected, volume.mount_path)
    for outer in inputs.values():
        for path, label in seen.items():
            if path != outer.mount_path and inside(path, outer.mount_path):
                expected = f"a path outside the read-only {outer.mount_path}"
                refuse("CONFIG_BAD_PATH", f"tasks.{task}.{label}", expected, path)
