"""Each rule of the container configuration, with the text of its refusal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from housecall.container_config import Role, Volume, check_parameters, parse
from housecall.errors import Kind, Refusal

Change = Callable[[dict[str, Any]], object]
AGAIN = "; correct it and register again"


def volume(path: str, type: str = "directory") -> dict[str, str]:
    return {"mount_path": path, "type": type}


MODEL: dict[str, Any] = {
    "container_type": "DockerImage",
    "image": "example/model:1",
    "tasks": {
        "infer": {
            "run_args": {
                "command": "python3 '/project/my infer.py' --fast",
                "entrypoint": ["tini", "--"],
                "environment": {"LEVEL": 3, "FLAG": True},
                "shm_size": "2g",
                "gpus": ["0", 1],
            },
            "input_volumes": {
                "data_path": volume("/mlcommons/volumes/data/"),
                "parameters_file": volume("/mlcommons/parameters.yaml", "file"),
            },
            "output_volumes": {"output_path": volume("/mlcommons/volumes/predictions")},
        }
    },
}

EVALUATOR: dict[str, Any] = {
    "container_type": "DockerArchive",
    "image": "https://example.org/evaluator.tar",
    "tasks": {
        "evaluate": {
            "input_volumes": {"predictions": volume("/p"), "labels": volume("/l")},
            "output_volumes": {
                "output_path": volume("/results/results.yaml", "file"),
                "local_outputs_path": volume("/results"),
            },
        }
    },
}

PREPARATION: dict[str, Any] = {
    "container_type": "DockerImage",
    "image": "example/preparation@sha256:" + "0" * 64,
    "tasks": {
        "prepare": {
            "run_args": None,
            "input_volumes": {"data_path": volume("/raw"), "labels_path": volume("/raw_labels")},
            "output_volumes": {
                "output_path": volume("/data"),
                "output_labels_path": volume("/labels"),
                "metadata_path": volume("/metadata"),
                "report_file": volume("/report.yaml", "file"),
            },
        },
        "sanity_check": {
            "input_volumes": {"data_path": volume("/data"), "metadata_path": volume("/metadata")}
        },
        "statistics": {
            "input_volumes": {"data_path": volume("/data"), "labels_path": volume("/labels")},
            "output_volumes": {"output_path": volume("/statistics.yaml", "file")},
        },
    },
}


def test_a_model_is_read_in_full() -> None:
    config = parse(yaml.safe_dump(MODEL), Role.MODEL)
    task = config.tasks["infer"]
    assert (config.container_type, config.image) == ("DockerImage", "example/model:1")
    assert task.command == ("python3", "/project/my infer.py", "--fast")
    assert task.entrypoint == ("tini", "--")
    assert dict(task.environment) == {"LEVEL": "3", "FLAG": "True"}
    assert (task.shm_size, task.gpus) == (2 * 2**30, "device=0,1")
    assert task.inputs["data_path"] == Volume("/mlcommons/volumes/data", "directory")
    assert task.outputs["output_path"] == Volume("/mlcommons/volumes/predictions", "directory")


@pytest.mark.parametrize(
    ("document", "role", "tasks"),
    [
        (EVALUATOR, Role.EVALUATOR, {"evaluate"}),
        (PREPARATION, Role.PREPARATION, {"prepare", "sanity_check", "statistics"}),
    ],
)
def test_other_roles_have_their_tasks(
    document: dict[str, Any], role: Role, tasks: set[str]
) -> None:
    config = parse(yaml.safe_dump(document), role)
    assert set(config.tasks) == tasks
    assert all(task.command is None for task in config.tasks.values())


def infer(document: dict[str, Any]) -> dict[str, Any]:
    task: dict[str, Any] = document["tasks"]["infer"]
    return task


def data(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = infer(document)["input_volumes"]["data_path"]
    return found


def run_args(key: str, value: object) -> Change:
    return lambda document: infer(document)["run_args"].update({key: value})


def mount(value: object) -> Change:
    return lambda document: data(document).update(mount_path=value)


AT = "tasks.infer"
MOUNT = "tasks.infer.input_volumes.data_path.mount_path"
OUTSIDE = "a path outside /, /tmp, /proc, /sys and /dev"
GPUS = "a count, 'all', 'device=0,1' or a list of devices"
LABELS = "one of: data_path, parameters_file, additional_files"
VIOLATIONS: dict[str, tuple[Change, str, str]] = {
    "unknown key": (
        lambda d: d.update(hash="x"),
        "CONFIG_UNKNOWN_KEY",
        "hash: expected one of: container_type, image, tasks, got 'hash'",
    ),
    "missing image": (
        lambda d: d.pop("image"),
        "CONFIG_MISSING_KEY",
        "image: expected the key image, got nothing",
    ),
    "empty image": (
        lambda d: d.update(image=""),
        "CONFIG_BAD_VALUE",
        "image: expected an image reference or archive, got ''",
    ),
    "unsupported type": (
        lambda d: d.update(container_type="SingularityFile"),
        "CONFIG_UNSUPPORTED_TYPE",
        "container_type: expected DockerImage or DockerArchive, got 'SingularityFile'",
    ),
    "type that is a list": (
        lambda d: d.update(container_type=["DockerImage"]),
        "CONFIG_UNSUPPORTED_TYPE",
        "container_type: expected DockerImage or DockerArchive, got ['DockerImage']",
    ),
    "tasks that are a list": (
        lambda d: d.update(tasks=["infer"]),
        "CONFIG_BAD_TYPE",
        "tasks: expected a mapping, got ['infer']",
    ),
    "unknown task": (
        lambda d: d["tasks"].update(train={}),
        "CONFIG_UNKNOWN_TASK",
        "tasks.train: expected one of: infer, got 'train'",
    ),
    "missing task": (
        lambda d: d["tasks"].pop("infer"),
        "CONFIG_MISSING_TASK",
        "tasks.infer: expected the task infer, got nothing",
    ),
    "key of a task": (
        lambda d: infer(d).update(network="host"),
        "CONFIG_UNKNOWN_KEY",
        f"{AT}.network: expected one of: run_args, input_volumes, output_volumes, got 'network'",
    ),
    "key of run_args": (
        run_args("privileged", True),
        "CONFIG_UNKNOWN_KEY",
        f"{AT}.run_args.privileged: expected one of: command, entrypoint, environment, "
        "shm_size, gpus, got 'privileged'",
    ),
    "key that is a number": (
        lambda d: infer(d).update(yaml.safe_load("1: 2")),
        "CONFIG_BAD_TYPE",
        f"{AT}: expected keys that are strings, got 1",
    ),
    "labels for a model": (
        lambda d: infer(d)["input_volumes"].update(labels_path=volume("/labels")),
        "CONFIG_UNKNOWN_LABEL",
        f"{AT}.input_volumes.labels_path: expected {LABELS}, got 'labels_path'",
    ),
    "missing label": (
        lambda d: infer(d)["input_volumes"].pop("data_path"),
        "CONFIG_MISSING_LABEL",
        f"{AT}.input_volumes.data_path: expected the label data_path, got nothing",
    ),
    "no outputs": (
        lambda d: infer(d).pop("output_volumes"),
        "CONFIG_MISSING_LABEL",
        f"{AT}.output_volumes.output_path: expected the label output_path, got nothing",
    ),
    "key of a volume": (
        lambda d: data(d).update(read_only=False),
        "CONFIG_UNKNOWN_KEY",
        f"{AT}.input_volumes.data_path.read_only: expected one of: mount_path, type, "
        "got 'read_only'",
    ),
    "volume without type": (
        lambda d: data(d).pop("type"),
        "CONFIG_MISSING_KEY",
        f"{AT}.input_volumes.data_path.type: expected the key type, got nothing",
    ),
    "type of a volume": (
        lambda d: data(d).update(type="socket"),
        "CONFIG_BAD_TYPE",
        f"{AT}.input_volumes.data_path.type: expected directory, got 'socket'",
    ),
    "relative": (
        mount("data"),
        "CONFIG_BAD_PATH",
        f"{MOUNT}: expected an absolute path, got 'data'",
    ),
    "number": (mount(7), "CONFIG_BAD_PATH", f"{MOUNT}: expected an absolute path, got 7"),
    "climbing": (
        mount("/a/../../etc"),
        "CONFIG_BAD_PATH",
        f"{MOUNT}: expected a path without '..', got '/a/../../etc'",
    ),
    "colon": (
        mount("/a:rw"),
        "CONFIG_BAD_PATH",
        f"{MOUNT}: expected a path without ':', '\\' or control characters, got '/a:rw'",
    ),
    "root": (mount("//"), "CONFIG_BAD_PATH", f"{MOUNT}: expected {OUTSIDE}, got '//'"),
    "tmp": (mount("/tmp/"), "CONFIG_BAD_PATH", f"{MOUNT}: expected {OUTSIDE}, got '/tmp/'"),
    "proc": (mount("/proc"), "CONFIG_BAD_PATH", f"{MOUNT}: expected {OUTSIDE}, got '/proc'"),
    "sys": (mount("/sys/fs"), "CONFIG_BAD_PATH", f"{MOUNT}: expected {OUTSIDE}, got '/sys/fs'"),
    "dev": (mount("/./dev"), "CONFIG_BAD_PATH", f"{MOUNT}: expected {OUTSIDE}, got '/./dev'"),
    "duplicate path": (
        mount("/mlcommons/volumes/predictions/."),
        "CONFIG_DUPLICATE_PATH",
        f"{AT}.output_path: expected a mount path of its own, not that of data_path, "
        "got '/mlcommons/volumes/predictions'",
    ),
    "path in an input": (
        mount("/mlcommons"),
        "CONFIG_BAD_PATH",
        f"{AT}.parameters_file: expected a path outside the read-only /mlcommons, "
        "got '/mlcommons/parameters.yaml'",
    ),
    "open quote": (
        run_args("command", "sh -c 'x"),
        "CONFIG_BAD_VALUE",
        f'{AT}.run_args.command: expected a command with closed quotes, got "sh -c \'x"',
    ),
    "command of mappings": (
        run_args("command", [{}]),
        "CONFIG_BAD_VALUE",
        f"{AT}.run_args.command: expected a string or a list of strings, got [{{}}]",
    ),
    "environment": (
        run_args("environment", ["A=1"]),
        "CONFIG_BAD_TYPE",
        f"{AT}.run_args.environment: expected a mapping, got ['A=1']",
    ),
    "variable": (
        run_args("environment", {"A=B": "1"}),
        "CONFIG_BAD_VALUE",
        f"{AT}.run_args.environment: expected names of letters, digits and _, got 'A=B'",
    ),
    "variable without value": (
        run_args("environment", {"A": None}),
        "CONFIG_BAD_VALUE",
        f"{AT}.run_args.environment.A: expected a string or a number, got None",
    ),
    "shm_size": (
        run_args("shm_size", "2 towels"),
        "CONFIG_BAD_VALUE",
        f"{AT}.run_args.shm_size: expected a size such as 2g, 512m or a number of bytes, "
        "got '2 towels'",
    ),
    "gpus": (
        run_args("gpus", True),
        "CONFIG_BAD_VALUE",
        f"{AT}.run_args.gpus: expected {GPUS}, got True",
    ),
    "negative gpus": (
        run_args("gpus", -1),
        "CONFIG_BAD_VALUE",
        f"{AT}.run_args.gpus: expected {GPUS}, got -1",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_violation_is_named(name: str) -> None:
    change, code, message = VIOLATIONS[name]
    document = copy.deepcopy(MODEL)
    change(document)
    with pytest.raises(Refusal) as refused:
        parse(yaml.safe_dump(document), Role.MODEL)
    assert refused.value.message == message + AGAIN
    assert (refused.value.code, refused.value.kind) == (code, Kind.INVALID)


@pytest.mark.parametrize(
    ("value", "expected"), [("64m", 64 * 2**20), ("1GB", 2**30), (4096, 4096), ("10b", 10)]
)
def test_sizes(value: object, expected: int) -> None:
    document = copy.deepcopy(MODEL)
    run_args("shm_size", value)(document)
    assert parse(yaml.safe_dump(document), Role.MODEL).tasks["infer"].shm_size == expected


def test_an_empty_entrypoint_clears_the_images_and_an_empty_command_is_none() -> None:
    document = copy.deepcopy(MODEL)
    infer(document)["run_args"] = {"entrypoint": "", "command": []}
    task = parse(yaml.safe_dump(document), Role.MODEL).tasks["infer"]
    assert (task.entrypoint, task.command) == ((), None)


def test_parameters_are_a_mapping_or_nothing() -> None:
    assert check_parameters("") == {}
    assert check_parameters("threshold: 0.5\n") == {"threshold": 0.5}
    with pytest.raises(Refusal, match="parameters: expected a mapping, got \\[1\\]"):
        check_parameters("[1]")
    with pytest.raises(Refusal, match="parameters: expected one YAML document, got a repeated key"):
        check_parameters("a: 1\na: 2\n")
