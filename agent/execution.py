"""One execution: verify the data, infer, evaluate, check the metrics.

The model is given the prepared data and never the labels; the evaluator is given predictions and
labels and never the data. What was run is named by `Recipe.key`, which goes by content alone:
whatever has the same key has the same result. Queues and outcomes are left to `runs.py`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from google.protobuf import json_format

from agent import catalog as states
from agent import contract
from agent.catalog import Dataset
from agent.containers import Ready
from agent.events import Feed
from agent.folders import empty_folder, input_file, private_folder
from agent.means import Means
from agent.records import Execution
from agent.registry import Benchmark, Container, Model
from agent.staging import Output, remove
from agent.step import OWN_ENDS, Step
from agent.worker import Stop
from housecall.container_config import Role
from housecall.errors import Kind, Refusal
from housecall.statement import digest
from housecall.v1 import statements_pb2 as pb

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What an execution is made of; all of it verified and pinned."""

    benchmark: Benchmark
    model: Model
    model_container: Container
    evaluator: Container
    dataset: Dataset

    @property
    def key(self) -> str:
        """What the cache goes by: the content of data and containers, and the benchmark, whose
        schema and minimum counts the metrics were checked against."""
        parts = [
            self.benchmark.digest,
            self.dataset.prepared_fingerprint,
            self.model_container.digest,
            self.evaluator.digest,
        ]
        return digest(json.dumps(parts).encode())

    @property
    def name(self) -> str:
        """Of its result at the site: "b1m4d1"."""
        return f"b{self.benchmark.id}m{self.model.id}d{self.dataset.number}"


class Executor:
    """Makes recipes and performs them."""

    def __init__(
        self, root: Path, means: Means, environment: Callable[[], pb.EnvironmentFacts]
    ) -> None:
        self._root = root
        self._catalog, self._registry = means.catalog, means.registry
        self._containers, self._runner = means.containers, means.runner
        self._fingerprints, self._journal = means.fingerprints, means.journal
        self._bounds = means.bounds
        self._environment = environment

    def recipe(self, benchmark_id: int, model_id: int, dataset_id: str) -> Recipe:
        """Raises `Refusal` when the dataset is not ready for this benchmark."""
        dataset = self._catalog.get(dataset_id)
        if dataset.state != states.OPERATIONAL:
            raise Refusal(
                Kind.NOT_READY,
                "DATASET_NOT_OPERATIONAL",
                f"dataset {dataset.id}: expected it operational, got {dataset.state.lower()}; "
                + _to_operational(dataset),
            )
        benchmark = self._registry.benchmark(benchmark_id)
        expected = benchmark.statement.preparation.digest
        if dataset.preparation_digest != expected:
            raise Refusal(
                Kind.INVALID,
                "PREPARATION_DIFFERS",
                f"dataset {dataset.id}: expected data prepared by container {expected}, as "
                f"benchmark {benchmark_id} wants, got {dataset.preparation_digest}; register the "
                "data for this benchmark and prepare it",
            )
        model = self._registry.model(model_id)
        evaluator = benchmark.statement.evaluator
        return Recipe(
            benchmark,
            model,
            self._registry.container(model.container.id, model.container.digest),
            self._registry.container(evaluator.id, evaluator.digest),
            dataset,
        )

    def folder(self, local_id: int) -> Path:
        return self._root / str(local_id)

    def remove_unfinished(self, wanted: Callable[[], set[int]]) -> None:
        """What steps left half done, of executions that are not `wanted` any more: nobody goes on
        with it, and it takes the room of others. What is there is looked at before who is
        wanted."""
        found = [path for path in self._root.glob("*/*.part") if path.parent.name.isdigit()]
        if not found:
            return
        kept = wanted()
        for path in found:
            if int(path.parent.name) not in kept:
                try:
                    remove(path)
                except OSError as error:
                    log.warning("output not removed", extra={"problem": str(error)})

    def perform(
        self, execution: Execution, recipe: Recipe, feed: Feed, stop: Stop
    ) -> pb.ResultSubmitted:
        """Run it now, or go on where an earlier agent was. The result lacks purpose, order and
        releaser: they are set when drafted."""
        require_partial_allowed(recipe.benchmark, execution.ignore_errors)
        parts = self._catalog.parts(recipe.dataset, prepared=True)
        expected = recipe.dataset.prepared_fingerprint
        if recipe.dataset.already_prepared:
            for what in ("data", "labels", "metadata"):
                kept = getattr(recipe.dataset, f"{what}_path")
                self._catalog.require_in_place(kept, f"{what} path")
        of = recipe.dataset.id
        self._fingerprints.require("prepared data", parts, expected, feed, stop, of=of)
        result = pb.ResultSubmitted(prepared_fingerprint=expected)
        result.fingerprint_verified_at.GetCurrentTime()
        model = self._containers.ready(recipe.model_container, Role.MODEL, stop.asked)
        evaluator = self._containers.ready(recipe.evaluator, Role.EVALUATOR, stop.asked)
        folder = private_folder(self.folder(execution.id))
        result.partial = self._infer(execution, recipe, model, parts["data"], feed, stop)
        self._evaluate(execution, recipe, evaluator, parts["labels"], feed, stop)
        self._describe(result, recipe, model, evaluator)
        said = recipe.benchmark.statement
        metrics = contract.checked(
            folder / "results.yaml",
            said.metrics_schema,
            max_bytes=self._bounds.max_output_bytes,
            minimum_count=max(self._bounds.minimum_count, said.minimum_count),
        )
        json_format.ParseDict(metrics, result.metrics)
        steps = self._journal.steps(f"execution:{execution.id}")
        result.steps.extend(pb.StepRecord.FromString(kept.record) for kept in steps)
        return result

    def _infer(
        self,
        execution: Execution,
        recipe: Recipe,
        model: Ready,
        data: Path,
        feed: Feed,
        stop: Stop,
    ) -> bool:
        """Whether the predictions are partial: the model failed, and leave was given."""
        predictions = Output(self.folder(execution.id) / "predictions")
        inputs = self._settings(execution, model, "model") | {"data_path": data}
        outputs = {"output_path": predictions}
        step = self._step(execution, recipe, model, "infer", inputs, outputs)
        try:
            self._runner.run(step, feed, stop)
        except Refusal as refusal:
            if stop.asked() or refusal.code not in OWN_ENDS or not execution.ignore_errors:
                raise
            predictions.deliver()
            if not any(predictions.path.iterdir()):
                raise
            return True
        return False

    def _evaluate(
        self,
        execution: Execution,
        recipe: Recipe,
        evaluator: Ready,
        labels: Path,
        feed: Feed,
        stop: Stop,
    ) -> None:
        folder = self.folder(execution.id)
        inputs = self._settings(execution, evaluator, "evaluator") | {
            "predictions": folder / "predictions",
            "labels": labels,
        }
        outputs = {
            "output_path": Output(folder / "results.yaml", file=True),
            "local_outputs_path": Output(folder / "local_outputs"),
        }
        step = self._step(execution, recipe, evaluator, "evaluate", inputs, outputs)
        self._runner.run(step, feed, stop)

    def _settings(self, execution: Execution, container: Ready, what: str) -> dict[str, Path]:
        folder = self.folder(execution.id)
        parameters = input_file(folder / f"{what}.yaml", container.parameters or "{}\n")
        files = container.files or empty_folder(folder / "no-additional-files")
        return {"parameters_file": parameters, "additional_files": files}

    def _step(
        self,
        execution: Execution,
        recipe: Recipe,
        container: Ready,
        task: str,
        inputs: dict[str, Path],
        outputs: dict[str, Output],
    ) -> Step:
        limits = recipe.benchmark.statement.limits
        return Step(
            owner=f"execution:{execution.id}",
            container=container,
            task=task,
            inputs=inputs,
            outputs=outputs,
            logs=self.folder(execution.id) / "logs",
            clocks=self._bounds.clocks.within(limits),
        )

    def _describe(
        self, result: pb.ResultSubmitted, recipe: Recipe, model: Ready, evaluator: Ready
    ) -> None:
        result.benchmark_id = recipe.benchmark.id
        result.benchmark_digest = recipe.benchmark.digest
        result.dataset_id = recipe.dataset.id
        result.model.CopyFrom(pb.Pin(id=recipe.model.id, digest=model.digest))
        result.evaluator.CopyFrom(pb.Pin(id=recipe.evaluator.id, digest=evaluator.digest))
        result.model_parameters_digest = model.parameters_digest
        result.model_additional_files_digest = model.files_digest
        result.evaluator_parameters_digest = evaluator.parameters_digest
        result.evaluator_additional_files_digest = evaluator.files_digest
        result.environment.CopyFrom(self._environment())
        result.agent_version = version("housecall")


def _to_operational(dataset: Dataset) -> str:
    """The next step from its state."""
    number = dataset.number
    if dataset.state == states.PREPARED:
        return f"run `housecall dataset set-operational {number}`"
    if dataset.state == states.PREPARING:
        return f"wait for its preparation: `housecall dataset show {number}`"
    first = f"`housecall dataset prepare {number}`"
    if dataset.state in (states.BROKEN, states.OUTSTANDING):
        first = f"`housecall dataset show {number}` says what to put right, then {first}"
    return f"{first}, then `housecall dataset set-operational {number}`"


def require_partial_allowed(benchmark: Benchmark, ignore_errors: bool) -> None:
    if ignore_errors and not benchmark.statement.allow_partial_results:
        raise Refusal(
            Kind.NOT_ALLOWED,
            "PARTIAL_NOT_ALLOWED",
            f"benchmark {benchmark.id}: expected whole results, got leave to ignore model errors; "
            "run without --ignore-model-errors",
        )
