"""`container create`: every role's folder is registrable, and works as it stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from housecall import container_config
from housecall.container_config import Role
from tests.cli.conftest import World


def make(world: World, role: str, folder: Path, *words: str) -> Path:
    world.done("container", "create", "--role", role, str(folder), *words)
    return folder


def work(script: Path, volumes: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The script as its container would run it, on volumes in a folder."""
    place = volumes / "parameters"
    place.mkdir(exist_ok=True)
    settings = script.parents[1] / "parameters.yaml"
    (place / "parameters_file.yaml").write_text(settings.read_text())
    command = [sys.executable, "-S", str(script), *words]
    environment = {**os.environ, "VOLUMES": str(volumes)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("role", [role.value for role in Role])
def test_every_role_can_be_registered(world: World, tmp_path: Path, role: str) -> None:
    folder = make(world, role, tmp_path / "tissue-tool")
    checked = container_config.parse((folder / "container_config.yaml").read_text(), Role(role))
    assert checked.image == "tissue-tool:1"
    assert container_config.check_parameters((folder / "parameters.yaml").read_text())
    assert "COPY project /project" in (folder / "Dockerfile").read_text()
    for task in checked.tasks.values():
        assert task.command is not None
        assert (folder / task.command[1].lstrip("/")).is_file()
        mounts = [volume.mount_path for volume in (*task.inputs.values(), *task.outputs.values())]
        assert all(path.startswith("/mlcommons/volumes/") for path in mounts)
    if role == "preparation":
        assert "report_file" in checked.tasks["prepare"].outputs


def test_the_three_work_together_on_a_sample(world: World, tmp_path: Path) -> None:
    volumes = tmp_path / "volumes"
    (volumes / "raw_data").mkdir(parents=True)
    (volumes / "raw_data" / "cases.csv").write_text("case,value\na,0.9\nb,0.2\nc,0.7\n")
    (volumes / "raw_labels").mkdir()
    (volumes / "raw_labels" / "labels.csv").write_text("case,label\na,1\nb,0\n")
    prepare = make(world, "preparation", tmp_path / "p") / "project" / "main.py"
    infer = make(world, "model", tmp_path / "m") / "project" / "infer.py"
    evaluate = make(world, "evaluator", tmp_path / "e") / "project" / "evaluate.py"

    assert work(prepare, volumes, "prepare").returncode == 0
    report = json.loads((volumes / "report" / "report.yaml").read_text())
    assert report["status_name"] == {"a": "DONE", "b": "DONE", "c": "UNLABELLED"}
    assert "1 cases: expected a label" in work(prepare, volumes, "sanity_check").stderr
    labels = volumes / "labels" / "labels.csv"
    labels.write_text(labels.read_text().replace("c,", "c,0"))
    for task in ("prepare", "sanity_check", "statistics"):
        done = work(prepare, volumes, task)
        assert done.returncode == 0, done.stderr
    statistics = json.loads((volumes / "statistics" / "statistics.yaml").read_text())
    assert statistics == {"cases": 3, "positive": 1}

    for script in (infer, evaluate):
        done = work(script, volumes)
        assert done.returncode == 0, done.stderr
    metrics = json.loads((volumes / "results" / "results.yaml").read_text())
    assert metrics == {"cases": 3, "accuracy": pytest.approx(2 / 3)}


def test_a_folder_with_files_is_left_alone(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    result = world.run("container", "create", "--role", "model", str(tmp_path), "--name", "x")
    assert result.exit_code == 5
    assert f"{tmp_path}: expected a new or empty folder, got one with files" in result.stderr
    assert "[FOLDER_NOT_EMPTY]" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_its_name_is_that_of_an_image(world: World, tmp_path: Path) -> None:
    words = ("container", "create", "--role", "model", str(tmp_path / "m"), "--name")
    result = world.run(*words, "My Model")
    assert result.exit_code == 2
    assert "--name: expected an image's name in lower case" in result.stderr
    answer = world.json(*words, "demo/net")
    assert "project/infer.py" in answer["files"]
    assert "image: demo/net:1" in (tmp_path / "m" / "container_config.yaml").read_text()
    result = world.run(*words[:4], str(tmp_path / "n"))
    assert f"Next: docker build -t n:1 {tmp_path / 'n'}" in result.stderr
    assert "Next: housecall container register --role model --config" in result.stderr
