"""One execution through the agent against the same two containers by bare `docker run`.

The demo's world is built; its reference site runs the benchmark's reference model again and again.
Through the agent: `RunBenchmark` with `rerun` over the site's socket, from the call to the end of
its stream: data verified, both steps caged, logs followed, metrics checked, result kept. Bare:
`docker run --rm --network none` for each of the two, with the agent's own mounts and user and no
further flags. Alternating, medians.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import grpc

from bench.figure import figure, progress
from examples.breast_cancer.train import Weights
from examples.demo.benchmark import FOLDER, MODELS, set_up
from examples.demo.world import REFERENCE, build, tear_down
from housecall.container_config import Role, parse
from housecall.v1 import site_pb2
from housecall.v1.site_pb2_grpc import SiteApiStub

MODEL = 1
ROUNDS = 15
RUN_S = 300.0
ROOTS_CONTAINER_USER = 10001


def main() -> None:
    """Build the world in a temporary folder, measure, and print the figure."""
    with tempfile.TemporaryDirectory(prefix="housecall-bench-") as folder:
        world_folder = Path(folder, "world")
        try:
            world = build(world_folder, progress)
            set_up(world)
            state = world_folder / "sites" / REFERENCE / "state"
            bare = Bare(state, world.weights[MODELS[MODEL - 1]], Path(folder, "bare"))
            with grpc.insecure_channel(f"unix:{world.sockets / REFERENCE}.sock") as channel:
                _measure(SiteApiStub(channel), bare)
        finally:
            tear_down(world_folder, progress)


def _measure(site: SiteApiStub, bare: Bare) -> None:
    actions: dict[str, Callable[[], None]] = {"agent": partial(_run, site), "docker run": bare.run}
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS + 1):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - began)
            progress(f"execution: {name}, {times[name][-1]:.2f} s")
    agent_s, bare_s = (statistics.median(spent[1:]) for spent in times.values())
    values = {"agent_s": agent_s, "docker_run_s": bare_s, "rounds": ROUNDS}
    figure("execution", agent_s / bare_s, 1.25, False, values)


def _run(site: SiteApiStub) -> None:
    selection = site_pb2.RunSelection(
        benchmark_id=1, dataset_id=f"{REFERENCE}/1", model_ids=[MODEL], rerun=True
    )
    request = site_pb2.RunBenchmarkRequest(selection=selection)
    rows = [event.row for event in site.RunBenchmark(request, timeout=RUN_S) if event.row.model_id]
    assert rows, "expected a row for the model"
    assert not any(row.error_code or row.from_cache for row in rows), rows


class Bare:
    """What the agent runs, by the command line: its inputs from `state`, outputs in `folder`."""

    def __init__(self, state: Path, weights: Weights, folder: Path) -> None:
        self._folder = folder
        prepared = state / "datasets" / "1" / "prepared"
        model = FOLDER / "models" / MODELS[MODEL - 1]
        self._predictions, results = folder / "predictions", folder / "results.yaml"
        self._infer = _command(
            model / "container_config.yaml",
            Role.MODEL,
            {
                "data_path": prepared / "data",
                "parameters_file": model / "parameters.yaml",
                "additional_files": state / "files" / weights.sha256 / "files",
                "output_path": self._predictions,
            },
        )
        self._evaluate = _command(
            FOLDER / "evaluator" / "container_config.yaml",
            Role.EVALUATOR,
            {
                "predictions": self._predictions,
                "labels": prepared / "labels",
                "parameters_file": FOLDER / "evaluator" / "parameters.yaml",
                "output_path": results,
            },
        )
        self._results = results

    def run(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._predictions.mkdir(parents=True)
        self._results.touch()
        for path in (self._predictions, self._results):
            os.chown(path, *_user())
        for command in (self._infer, self._evaluate):
            nowhere = subprocess.DEVNULL
            subprocess.run(command, check=True, stdin=nowhere, stdout=nowhere, timeout=RUN_S)
        assert self._results.stat().st_size, "the evaluator wrote nothing"


def _command(config_file: Path, role: Role, sources: Mapping[str, Path]) -> list[str]:
    """`docker run` of the container's one task, with `sources` where its labels are mounted."""
    config = parse(config_file.read_text(), role)
    (task,) = config.tasks.values()
    words = ["docker", "run", "--rm", "--network", "none", "--user", "{}:{}".format(*_user())]
    for label, volume in task.inputs.items():
        words += ["--volume", f"{sources[label]}:{volume.mount_path}:ro"]
    for label, volume in task.outputs.items():
        words += ["--volume", f"{sources[label]}:{volume.mount_path}"]
    return [*words, config.image, *(task.command or ())]


def _user() -> tuple[int, int]:
    """Whom the agent lets containers run as, where its settings do not say."""
    own = (os.getuid(), os.getgid())
    return own if own[0] else (ROOTS_CONTAINER_USER, ROOTS_CONTAINER_USER)
