"""What people do with the site's datasets, from registration to being operational.

Each method starts a piece of work, or joins the one under way, and returns its job; the job's
feed ends with a draft, or says how it ended. Nothing here sends: that is `release.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from google.protobuf import json_format

from agent import catalog as states
from agent.catalog import Catalog, Dataset
from agent.events import Done, Feed
from agent.fingerprints import Fingerprinter
from agent.journal import Journal
from agent.preparation import Preparation, prepared_advice, require_not_operational
from agent.readable import require_readable
from agent.registry import Registry
from agent.release import Item, Releases, local_user
from agent.worker import CANCELLED, Job, Worker
from housecall.errors import Kind, Refusal
from housecall.statement import digest
from housecall.v1 import statements_pb2 as pb


@dataclass(frozen=True)
class Registration:
    """What somebody wants to register; one of benchmark and container is 0."""

    name: str
    description: str
    location: str
    data_path: str
    labels_path: str
    metadata_path: str
    benchmark_id: int
    container_id: int
    already_prepared: bool


class Datasets:
    def __init__(
        self,
        catalog: Catalog,
        journal: Journal,
        registry: Registry,
        fingerprints: Fingerprinter,
        preparation: Preparation,
        releases: Releases,
        worker: Worker,
    ) -> None:
        self._catalog, self._journal, self._registry = catalog, journal, registry
        self._fingerprints, self._preparation = fingerprints, preparation
        self._releases, self._worker = releases, worker

    def draft_registration(self, asked: Registration, uid: int) -> Job:
        if not asked.name.strip():
            raise Refusal(Kind.INVALID, "NAME_MISSING", "name: expected some text, got none")
        if bool(asked.benchmark_id) == bool(asked.container_id):
            raise Refusal(
                Kind.INVALID,
                "PREPARATION_UNCLEAR",
                "expected either a benchmark or a preparation container, got both or none",
            )
        key = f"register:{uid}:{digest(repr(asked).encode())}"
        return self._worker.spawn(key, lambda job: self._register(asked, uid, job))

    def prepare(self, dataset_id: str) -> Job:
        """Takes a slot; runs what is missing of prepare, sanity_check and statistics."""
        number = self._catalog.get(dataset_id).number
        return self._queue(number, resumed=not self._preparation.begin(number))

    def _queue(self, number: int, *, resumed: bool) -> Job:
        return self._worker.queue(
            _job_key(number),
            lambda job: self._preparation.run(number, job.feed, job.stop, resumed=resumed),
        )

    def stop_preparation(self, dataset_id: str) -> None:
        dataset = self._catalog.get(dataset_id)
        job = self._worker.find(_job_key(dataset.number))
        if job is None or not self._worker.cancel(job, CANCELLED):
            raise Refusal(
                Kind.CONFLICT,
                "NOT_PREPARING",
                f"dataset {dataset.id}: expected a preparation that runs, got none",
            )

    def reconcile(self) -> None:
        """Preparations that were cut off go on."""
        for dataset in self._catalog.all():
            if dataset.state == states.PREPARING:
                self._queue(dataset.number, resumed=True)

    def live(self) -> set[str]:
        """Owners whose containers are wanted."""
        found = self._catalog.all()
        return {f"dataset:{each.number}" for each in found if each.state == states.PREPARING}

    def check(self, dataset_id: str, *, full: bool) -> Job:
        """Does the data still have the fingerprints that were registered?"""
        dataset = self._catalog.get(dataset_id)

        def work(job: Job) -> None:
            self._verify(dataset, job, full=full)
            what = "raw and prepared data" if dataset.prepared_fingerprint else "raw data"
            job.feed.emit(Done(f"dataset {dataset.id}: {what} are unchanged", dataset.number))

        return self._worker.spawn(f"check:{dataset.number}:{full}", work)

    def draft_operational(self, dataset_id: str, uid: int) -> Job:
        dataset = self._catalog.get(dataset_id)
        require_not_operational(dataset)
        key = f"operational:{uid}:{dataset.number}"
        return self._worker.spawn(key, lambda job: self._operational(dataset, uid, job))

    def _register(self, asked: Registration, uid: int, job: Job) -> None:
        paths = {
            "data": self._catalog.check_path(asked.data_path, "data path"),
            "labels": self._catalog.check_path(asked.labels_path, "labels path"),
        }
        if asked.metadata_path:
            paths["metadata"] = self._catalog.check_path(asked.metadata_path, "metadata path")
        preparation = self._preparation_of(asked)
        taken = self._fingerprints.take("raw data", paths, job.feed, job.stop)
        self._require_new(taken, preparation)
        for part, path in paths.items():
            require_readable(part, path, self._preparation.user)
        number = max(self._catalog.next_number(), self._journal.registered_number() + 1)
        dataset = Dataset(
            number=number,
            id=self._catalog.id_of(number),
            name=asked.name,
            description=asked.description,
            location=asked.location,
            data_path=str(paths["data"]),
            labels_path=str(paths["labels"]),
            metadata_path=str(paths.get("metadata", "")),
            preparation_id=preparation.id,
            preparation_digest=preparation.digest,
            benchmark_id=asked.benchmark_id,
            already_prepared=asked.already_prepared,
            raw_fingerprint=taken,
        )
        item = _registration_item(dataset, uid)
        self._draft(uid, [item], {"create": asdict(dataset)}, job.feed)

    def _require_new(self, raw_fingerprint: str, preparation: pb.Pin) -> None:
        """The same data for the same preparation, again, is a mistake until it is fixed."""
        for known in self._catalog.all():
            same = (known.raw_fingerprint, known.preparation_digest)
            fixed = known.state == states.OPERATIONAL
            if same == (raw_fingerprint, preparation.digest) and not fixed:
                raise Refusal(
                    Kind.CONFLICT,
                    "DATASET_EXISTS",
                    f"this data is registered as {known.id} ({known.name}) already: go on with "
                    f"`housecall dataset prepare {known.number}`",
                )

    def _preparation_of(self, asked: Registration) -> pb.Pin:
        if asked.benchmark_id:
            pin = self._registry.benchmark(asked.benchmark_id).statement.preparation
        else:
            pin = pb.Pin(id=asked.container_id)
        container = self._registry.container(pin.id, pin.digest)
        if container.statement.role != pb.CONTAINER_ROLE_PREPARATION:
            raise Refusal(
                Kind.INVALID,
                "CONTAINER_WRONG_ROLE",
                f"container {container.id}: expected a preparation container, got "
                f"{pb.ContainerRole.Name(container.statement.role)}",
            )
        return pb.Pin(id=container.id, digest=container.digest)

    def _operational(self, dataset: Dataset, uid: int, job: Job) -> None:
        if dataset.already_prepared and dataset.state != states.PREPARED:
            dataset = self._checked_first(dataset, job)
        if dataset.state != states.PREPARED:
            raise Refusal(
                Kind.NOT_READY,
                "DATASET_NOT_PREPARED",
                f"dataset {dataset.id}: expected it prepared, got it {dataset.state.lower()}; "
                f"run `housecall dataset prepare {dataset.number}`",
            )
        self._verify(dataset, job, full=False)
        said = pb.DatasetOperational(
            dataset_id=dataset.id,
            raw_fingerprint=dataset.raw_fingerprint,
            prepared_fingerprint=dataset.prepared_fingerprint,
            steps=[
                pb.StepRecord.FromString(kept.record)
                for kept in self._journal.steps(f"dataset:{dataset.number}")
            ],
            releaser=local_user(uid),
        )
        json_format.ParseDict(dict(dataset.statistics), said.statistics)
        subjects = {f"dataset {dataset.id}": dataset.prepared_fingerprint}
        item = Item(said, subjects, f"operational:{dataset.number}", dataset.id)
        effect = {"operational": dataset.number, "fingerprint": dataset.prepared_fingerprint}
        self._draft(uid, [item], effect, job.feed)

    def _checked_first(self, dataset: Dataset, job: Job) -> Dataset:
        """Data that came prepared still needs its sanity check and statistics."""
        work = self.prepare(dataset.id)
        work.pass_on(job)
        work.outcome()
        return self._catalog.get(dataset.id)

    def _verify(self, dataset: Dataset, job: Job, *, full: bool) -> None:
        raw = self._catalog.parts(dataset, prepared=False)
        expected = dataset.raw_fingerprint
        followed = (job.feed, job.stop)
        self._fingerprints.require("raw data", raw, expected, *followed, full=full, of=dataset.id)
        if dataset.prepared_fingerprint and not dataset.already_prepared:
            prepared = self._catalog.parts(dataset, prepared=True)
            expected = dataset.prepared_fingerprint
            self._fingerprints.require(
                "prepared data",
                prepared,
                expected,
                *followed,
                full=full,
                of=dataset.id,
                advice=prepared_advice(dataset),
            )

    def _draft(self, uid: int, items: list[Item], effect: dict[str, object], feed: Feed) -> None:
        feed.emit(self._releases.draft(uid, items, effect))


def _registration_item(dataset: Dataset, uid: int) -> Item:
    said = pb.DatasetRegistered(
        dataset_id=dataset.id,
        name=dataset.name,
        description=dataset.description,
        location=dataset.location,
        preparation=pb.Pin(id=dataset.preparation_id, digest=dataset.preparation_digest),
        raw_fingerprint=dataset.raw_fingerprint,
        already_prepared=dataset.already_prepared,
        releaser=local_user(uid),
    )
    subjects = {f"dataset {dataset.id}": dataset.raw_fingerprint}
    return Item(said, subjects, f"dataset:{dataset.number}", dataset.id)


def _job_key(number: int) -> str:
    return f"dataset:{number}"
