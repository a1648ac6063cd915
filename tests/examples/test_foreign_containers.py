"""Containers that know nothing of Housecall run by their configuration alone."""

from __future__ import annotations

from pathlib import Path

import docker
import yaml

from examples.foreign.slides import DIM_SPOT, FALSE_SPOT, SLIDES, write_slides

from .conftest import DEMO
from .running import run_task

FOREIGN = DEMO.parent / "foreign"


def test_spots_are_prepared_found_and_judged(client: docker.DockerClient, tmp_path: Path) -> None:
    write_slides(tmp_path)
    prepared = {
        "data_path": tmp_path / "table",
        "labels_path": tmp_path / "answers",
        "metadata_path": tmp_path / "metadata",
    }
    steps = [
        (
            "spots_preparation",
            "prepare",
            {
                "data_path": tmp_path / "images",
                "labels_path": tmp_path / "truth",
                "output_path": prepared["data_path"],
                "output_labels_path": prepared["labels_path"],
                "metadata_path": prepared["metadata_path"],
            },
        ),
        ("spots_preparation", "sanity_check", prepared),
        ("spots_preparation", "statistics", {**prepared, "output_path": tmp_path / "stats.yaml"}),
        (
            "spots_model",
            "infer",
            {"data_path": prepared["data_path"], "output_path": tmp_path / "scores"},
        ),
        (
            "spots_evaluator",
            "evaluate",
            {
                "predictions": tmp_path / "scores",
                "labels": prepared["labels_path"],
                "output_path": tmp_path / "metrics.yaml",
                "local_outputs_path": tmp_path / "local",
            },
        ),
    ]
    for folder, task, mounts in steps:
        config = FOREIGN / folder / "container_config.yaml"
        outcome = run_task(client, config, task, mounts)
        assert outcome.exit_code == 0, f"{folder} {task}: {outcome.log}"
    statistics = yaml.safe_load((tmp_path / "stats.yaml").read_text())
    assert (statistics["slides"], statistics["spots"]) == (SLIDES, SLIDES // 2)
    metrics = yaml.safe_load((tmp_path / "metrics.yaml").read_text())
    assert metrics == {
        "slides": SLIDES,
        "accuracy": 0.8333,
        "sensitivity": 0.8333,
        "specificity": 0.8333,
    }
    mistakes = [
        line.split()[0] for line in (tmp_path / "local/mistakes.tsv").read_text().splitlines()
    ]
    assert mistakes == [f"slide_{DIM_SPOT:02d}", f"slide_{FALSE_SPOT:02d}"]
