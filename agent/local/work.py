"""What runs and what waits at this site, for what and since when: read off the journal, the slots,
the GPUs and the link. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from agent.catalog import PREPARING
from agent.lacks import LACKS
from agent.local.messages import timestamp
from agent.local.room import Rooms
from agent.records import Execution, KeptStep, State
from housecall.v1 import fleet_pb2
from housecall.v1 import site_pb2 as site
from housecall.v1 import statements_pb2 as pb

OPEN = (
    State.ORDERED,
    State.WAITING_CONSENT,
    State.QUEUED,
    State.RUNNING,
    State.WAITING_RELEASE,
)
MENDS = {
    fleet_pb2.WAIT_REASON_DISK: "free space, or lower the setting disk_reserve_bytes",
    fleet_pb2.WAIT_REASON_ENGINE: "housecall-agent doctor --check engine",
    fleet_pb2.WAIT_REASON_IMAGE: "see that the engine reaches the registry, or load the image",
    fleet_pb2.WAIT_REASON_FILES: "see that this machine reaches their source",
    fleet_pb2.WAIT_REASON_MEMORY: "free memory on this machine",
}
"""What a person can do about what is missing."""
LINK = "housecall-agent doctor"


def work(rooms: Rooms, environment: pb.EnvironmentFacts) -> list[site.Work]:
    """Oldest first; those whose time is not known come last."""
    look = _Look(rooms, engine=bool(environment.engine))
    found = [*look.executions(), *look.untaken(), *look.preparations(), *look.statements()]
    return sorted(found, key=lambda each: each.since.ToNanoseconds() or 2**63)


def gpus(rooms: Rooms) -> list[site.GpuUse]:
    holder = {uuid: owner for owner, uuids in rooms.gpus.holders().items() for uuid in uuids}
    found = []
    for gpu in rooms.gpus.gpus:
        use = site.GpuUse(uuid=gpu.uuid, name=gpu.name, memory_bytes=gpu.memory_bytes)
        kind, _, number = holder.get(gpu.uuid, "").partition(":")
        if kind == "execution":
            use.local_execution_id = int(number)
        elif kind == "dataset":
            use.dataset_id = rooms.catalog.id_of(int(number))
        found.append(use)
    return found


class _Look:
    """One look at everything, so that its parts fit each other. `engine` is whether it answers."""

    def __init__(self, rooms: Rooms, *, engine: bool) -> None:
        self._rooms, self._engine = rooms, engine
        self._connected = rooms.link_state().connected
        self._begun = {kept.owner: kept for kept in rooms.journal.begun_steps()}
        self._reviews = {review.local_id: review for review in rooms.journal.reviews()}
        self._queued = rooms.worker.queued()
        self._for_gpus = rooms.gpus.queued()

    def executions(self) -> Iterator[site.Work]:
        for state in OPEN:
            for execution in self._rooms.journal.executions(state=state):
                yield self._execution(execution)

    def untaken(self) -> Iterator[site.Work]:
        for each in self._rooms.orders.untaken.orders():
            said = self._execution(each.execution)
            said.waits_for = fleet_pb2.WAIT_REASON_TRUST
            said.next_step = (
                f"ask {each.signer} by another way whether they enrolled anew, and then "
                f"`housecall-agent trust {each.signer} {each.enrolment_digest}`"
            )
            _set(said.since, each.since)
            yield said

    def preparations(self) -> Iterator[site.Work]:
        for dataset in self._rooms.catalog.all():
            owner = f"dataset:{dataset.number}"
            said = site.Work(dataset_id=dataset.id)
            if owner in self._queued:
                said.waits_for = fleet_pb2.WAIT_REASON_SLOT
                _set(said.since, self._queued[owner])
                yield said
            elif dataset.state == PREPARING:
                self._running(said, owner, self._rooms.catalog.folder(dataset.number))
                yield said

    def statements(self) -> Iterator[site.Work]:
        for entry in self._rooms.journal.waiting():
            yield site.Work(
                dataset_id=entry.lane if "/" in entry.lane else "",
                step=entry.kind,
                waits_for=fleet_pb2.WAIT_REASON_RECEIPT,
                since=timestamp(entry.since),
                next_step="" if self._connected else LINK,
            )

    def _execution(self, execution: Execution) -> site.Work:
        said = site.Work(
            local_execution_id=execution.id,
            execution_id=execution.execution_id,
            benchmark_id=execution.benchmark_id,
            model_id=execution.model_id,
            dataset_id=execution.dataset_id,
            since=timestamp(execution.updated_at),
        )
        if execution.state is State.RUNNING:
            owner = f"execution:{execution.source_id}"
            self._running(said, owner, self._rooms.executor.folder(execution.source_id))
        elif execution.state is State.QUEUED:
            said.waits_for, said.next_step = self._queue(execution)
        elif execution.state is State.ORDERED:
            said.waits_for = fleet_pb2.WAIT_REASON_DECISION
            if not self._connected:
                said.waits_for, said.next_step = fleet_pb2.WAIT_REASON_COORDINATOR, LINK
        else:
            self._reviewed(said, execution)
        return said

    def _running(self, said: site.Work, owner: str, folder: Path) -> None:
        """Its step, or what it waits for; neither while it gets ready. Since when the engine is
        away is not known."""
        kept = self._begun.get(owner)
        if kept is not None:
            said.step = kept.name
            said.since.CopyFrom(_started(kept))
            _set(said.heard_at, _written_at(folder / "logs" / f"{kept.name}.log"))
        if owner in self._for_gpus:
            said.waits_for = fleet_pb2.WAIT_REASON_GPU
            _set(said.since, self._for_gpus[owner])
        elif not self._engine:
            said.waits_for = fleet_pb2.WAIT_REASON_ENGINE
            said.next_step = MENDS[said.waits_for]
            said.ClearField("since")

    def _queue(self, execution: Execution) -> tuple[fleet_pb2.WaitReason.ValueType, str]:
        if lack := LACKS.get(execution.reason):
            return lack.waits_for, MENDS[lack.waits_for]
        if self._rooms.worker.find(f"resume:{execution.source_id}") is not None:
            return fleet_pb2.WAIT_REASON_COORDINATOR, "" if self._connected else LINK
        return fleet_pb2.WAIT_REASON_SLOT, ""

    def _reviewed(self, said: site.Work, execution: Execution) -> None:
        """Without a review it is the agent that decides, by its policy."""
        consent = execution.state is State.WAITING_CONSENT
        said.waits_for = fleet_pb2.WAIT_REASON_CONSENT if consent else fleet_pb2.WAIT_REASON_RELEASE
        review = self._reviews.get(execution.id)
        if review is None:
            said.waits_for = fleet_pb2.WAIT_REASON_DECISION
        else:
            said.next_step = f"housecall review show {review.id}"
            _set(said.since, review.since)


def _started(kept: KeptStep) -> Timestamp:
    return pb.StepRecord.FromString(kept.record).started_at


def _written_at(log: Path) -> float:
    """When it last grew; 0 where there is none yet."""
    try:
        return log.stat().st_mtime if log.stat().st_size else 0.0
    except OSError:
        return 0.0


def _set(field: Timestamp, seconds: float) -> None:
    if (known := timestamp(seconds)) is not None:
        field.CopyFrom(known)
