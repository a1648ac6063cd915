"""Preparing a dataset: prepare, sanity_check, statistics, in folders that outlive each run.

`prepare` is given the same output folders every time, so that a container goes on where it
stopped and what people edited by hand stays. A sanity check that fails while the container keeps
a report means tasks for a person (OUTSTANDING); any other failure is BROKEN.
"""

from __future__ import annotations

import logging
from pathlib import Path

from agent import catalog as states
from agent import contract, report
from agent.catalog import Dataset
from agent.containers import Ready
from agent.disk import explained
from agent.events import Done, Feed
from agent.fingerprints import ANEW
from agent.folders import empty_folder, input_file, output_folder, private_folder
from agent.means import Means
from agent.registry import Benchmark
from agent.staging import Output
from agent.step import Step
from agent.worker import SHUTDOWN, Stop
from housecall.container_config import Role
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of
from housecall.v1 import statements_pb2 as pb

AWAY = (Kind.UNAVAILABLE, Kind.EXHAUSTED)
Inputs = dict[str, dict[str, Path]]
Outputs = dict[str, dict[str, Output]]
log = logging.getLogger(__name__)


class Preparation:
    """Prepares the datasets of a catalog."""

    def __init__(self, means: Means) -> None:
        self._catalog, self._registry = means.catalog, means.registry
        self._containers, self._runner = means.containers, means.runner
        self._fingerprints, self._journal = means.fingerprints, means.journal
        self._bounds = means.bounds

    def begin(self, number: int) -> bool:
        """It is to be prepared, after a cut as well: PREPARING, whatever its turn. False when it
        was that already. What it was is kept until its data is worked on. Refuses an operational
        one, and none becomes it meanwhile."""
        with self._journal.transaction():
            dataset = self._catalog.get(str(number))
            require_not_operational(dataset)
            new = dataset.state != states.PREPARING
            if new:
                self._journal.set_fact(_before(number), dataset.state)
                self._catalog.update(number, state=states.PREPARING, problem="")
            return new

    def run(self, number: int, feed: Feed, stop: Stop, *, resumed: bool) -> Dataset:
        """Prepare or go on. Returns the dataset PREPARED or OUTSTANDING; raises `Refusal` when it
        is BROKEN or was stopped. One that is `resumed` waits for the engine first: after a boot it
        may come up later than the agent."""
        dataset = self._catalog.get(str(number))
        if dataset.state != states.PREPARING:
            feed.emit(Done(f"dataset {dataset.id} is {dataset.state.lower()}", number))
            return dataset  # its preparation ended before this one had its turn
        before, keeps_report = self._journal.fact(_before(number)) or states.REGISTERED, False
        touched = False
        try:
            stop.check()
            if resumed:
                self._runner.await_engine(stop)
            self._require_as_registered(dataset, feed, stop)
            container = self._containers.ready(
                self._registry.container(dataset.preparation_id, dataset.preparation_digest),
                Role.PREPARATION,
                stop.asked,
            )
            self._work_on(number)
            touched = True
            keeps_report = "report_file" in container.config.tasks["prepare"].outputs
            self._steps(dataset, container, feed, stop)
            dataset = self._finish(dataset, feed, stop)
        except (Refusal, OSError) as error:
            refusal = refusal_of(explained(error))
            if touched and (stop.asked() or before == states.PREPARED):
                before = states.REGISTERED
            return self._failed(dataset, refusal, before, keeps_report, feed, stop)
        except BaseException:
            self._catalog.update(number, state=states.BROKEN, problem="internal error")
            raise
        feed.emit(Done(f"dataset {dataset.id} is prepared", number))
        return dataset

    @property
    def user(self) -> str:
        """uid:gid that the containers run as."""
        return self._runner.cage.user

    def folder(self, number: int) -> Path:
        return self._catalog.folder(number)

    def _steps(self, dataset: Dataset, container: Ready, feed: Feed, stop: Stop) -> None:
        inputs, outputs = self._volumes(dataset, container)
        benchmark = self._benchmark(dataset)
        limits = benchmark.statement.limits if benchmark else pb.TaskLimits()
        tasks = ["sanity_check", "statistics"]
        for task in tasks if dataset.already_prepared else ["prepare", *tasks]:
            step = Step(
                owner=f"dataset:{dataset.number}",
                container=container,
                task=task,
                inputs=inputs[task],
                outputs=outputs.get(task, {}),
                logs=self.folder(dataset.number) / "logs",
                clocks=self._bounds.clocks.within(limits),
            )
            self._runner.run(step, feed, stop)

    def _volumes(self, dataset: Dataset, container: Ready) -> tuple[Inputs, Outputs]:
        """For each task, the site's folder or file behind each label."""
        folder = private_folder(self.folder(dataset.number))
        for what in ("data", "labels", "metadata"):
            self._catalog.require_in_place(getattr(dataset, f"{what}_path"), f"{what} path")
        common = {
            "parameters_file": input_file(
                folder / "parameters.yaml", container.parameters or "{}\n"
            ),
            "additional_files": container.files or empty_folder(folder / "no-additional-files"),
        }
        inputs: Inputs = {}
        outputs: Outputs = {
            "statistics": {"output_path": Output(folder / "statistics.yaml", file=True)}
        }
        if dataset.already_prepared:
            data, labels = Path(dataset.data_path), Path(dataset.labels_path)
            metadata = Path(dataset.metadata_path or empty_folder(folder / "no-metadata"))
        else:
            prepared = private_folder(folder / "prepared")
            data, labels, metadata = (prepared / name for name in ("data", "labels", "metadata"))
            inputs["prepare"] = common | {
                "data_path": Path(dataset.data_path),
                "labels_path": Path(dataset.labels_path),
            }
            outputs["prepare"] = {
                "output_path": Output(data, kept=True),
                "output_labels_path": Output(labels, kept=True),
                "metadata_path": Output(metadata, kept=True),
                "report_file": Output(folder / "report.yaml", file=True, kept=True),
            }
            output_folder(metadata, self.user)  # some containers read it though none wrote it
        read = {"data_path": data, "labels_path": labels, "metadata_path": metadata}
        inputs["sanity_check"] = inputs["statistics"] = common | read
        return inputs, outputs

    def _work_on(self, number: int) -> None:
        """From here on what was prepared is not what it was. Steps of an earlier agent that began
        the same are gone on with."""
        with self._journal.transaction():
            if self._journal.fact(_before(number)):
                self._journal.forget_steps(f"dataset:{number}")
                self._journal.set_fact(_before(number), "")

    def _require_as_registered(self, dataset: Dataset, feed: Feed, stop: Stop) -> None:
        parts, expected = self._catalog.parts(dataset, prepared=False), dataset.raw_fingerprint
        self._fingerprints.require("raw data", parts, expected, feed, stop, of=dataset.id)

    def _finish(self, dataset: Dataset, feed: Feed, stop: Stop) -> Dataset:
        self._require_as_registered(dataset, feed, stop)
        benchmark = self._benchmark(dataset)
        folder = self.folder(dataset.number)
        said = benchmark.statement if benchmark else pb.BenchmarkRegistered()
        statistics = contract.checked(
            folder / "statistics.yaml",
            said.statistics_schema,
            max_bytes=self._bounds.max_output_bytes,
            minimum_count=max(self._bounds.minimum_count, said.minimum_count),
        )
        parts = self._catalog.parts(dataset, prepared=True)
        taken = self._fingerprints.take("prepared data", parts, feed, stop)
        return self._catalog.update(
            dataset.number,
            state=states.PREPARED,
            problem="",
            prepared_fingerprint=taken,
            statistics=statistics,
            cases=report.cases(folder / "report.yaml"),
        )

    def _failed(
        self,
        dataset: Dataset,
        refusal: Refusal,
        before: str,
        keeps_report: bool,
        feed: Feed,
        stop: Stop,
    ) -> Dataset:
        if stop.asked() and stop.reason == SHUTDOWN:
            raise refusal  # stays PREPARING: goes on when the agent starts again
        counted = report.cases(self.folder(dataset.number) / "report.yaml")
        checks = self._sanity_check_failed(dataset.number)
        refusal = self._explained(dataset, refusal, stop)
        away = refusal.kind in AWAY and not refusal.code.startswith("STEP_")
        if stop.asked() or away or refusal.code == "DATASET_CHANGED":
            state = before
        else:
            outstanding = keeps_report and checks and refusal.code == "STEP_FAILED"
            state = states.OUTSTANDING if outstanding else states.BROKEN
        dataset = self._catalog.update(
            dataset.number, state=state, problem=str(refusal), cases=counted
        )
        log.info("preparation ended", extra={"dataset": dataset.id, "code": refusal.code})
        if state != states.OUTSTANDING:
            raise refusal
        what = ", ".join(f"{number} {name}" for name, number in counted.items())
        feed.emit(
            Done(
                f"dataset {dataset.id} has outstanding tasks ({what}): see the log of "
                "sanity_check, put them right in its prepared folder, then prepare again",
                dataset.number,
            )
        )
        return dataset

    def _explained(self, dataset: Dataset, refusal: Refusal, stop: Stop) -> Refusal:
        """The same code, with the dataset, the log, and where to look."""
        if stop.asked():
            text = (
                f"dataset {dataset.id}: its preparation was stopped; go on with "
                f"`housecall dataset prepare {dataset.number}`"
            )
            return Refusal(refusal.kind, refusal.code, text)
        named = f"dataset {dataset.id}"
        text = refusal.message if named in refusal.message else f"{named}: {refusal.message}"
        if refusal.code.startswith("STEP_"):
            failed = self._failed_steps(dataset.number)
            log_path = self.folder(dataset.number) / "logs" / f"{(failed or ['prepare'])[-1]}.log"
            text += f"; log {log_path}, `housecall dataset show {dataset.number}`"
        return Refusal(refusal.kind, refusal.code, text)

    def _sanity_check_failed(self, number: int) -> bool:
        return self._failed_steps(number) == ["sanity_check"]

    def _failed_steps(self, number: int) -> list[str]:
        kept = self._journal.steps(f"dataset:{number}")
        return [step.name for step in kept if step.state == "FAILED"]

    def _benchmark(self, dataset: Dataset) -> Benchmark | None:
        return self._registry.benchmark(dataset.benchmark_id) if dataset.benchmark_id else None


def _before(number: int) -> str:
    """Name of the fact that says what a dataset was when its preparation was asked for."""
    return f"before:{number}"


def prepared_advice(dataset: Dataset) -> str:
    """What to do when the prepared data is not what it was."""
    if dataset.state == states.OPERATIONAL:
        return ANEW
    return f"run `housecall dataset prepare {dataset.number}` again"


def require_not_operational(dataset: Dataset) -> None:
    if dataset.state == states.OPERATIONAL:
        raise Refusal(
            Kind.CONFLICT,
            "DATASET_OPERATIONAL",
            f"dataset {dataset.id} is operational: its prepared data is fixed; "
            "register it anew to prepare it differently",
        )
