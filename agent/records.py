"""What the journal keeps, as frozen values: executions, orders, outbox, reviews."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class State(enum.StrEnum):
    """Of an execution; the names are those of `ExecutionState` without their prefix."""

    ORDERED = "ORDERED"
    WAITING_CONSENT = "WAITING_CONSENT"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    WAITING_RELEASE = "WAITING_RELEASE"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REFUSED = "REFUSED"
    CANCELLED = "CANCELLED"


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.REFUSED, State.CANCELLED})


@dataclass(frozen=True)
class Execution:
    """One benchmark x dataset x model, ordered (`execution_id`) or started here (0).

    `key` names its content; `source_id` is the execution whose containers ran, itself or an
    earlier one of the same content. `result` is a serialised ResultSubmitted of the run, without
    what is only known when it is drafted (purpose, order, releaser). `cancelled_by` is a serialised
    Releaser: the person at the site who cancelled it, empty where none did.
    """

    benchmark_id: int
    model_id: int
    model_digest: str
    dataset_id: str
    purpose: str
    id: int = 0
    execution_id: int = 0
    key: str = ""
    state: State = State.QUEUED
    step: str = ""
    reason: str = ""
    problem: str = ""
    ignore_errors: bool = False
    partial: bool = False
    source_id: int = 0
    result: bytes = b""
    created_at: float = 0.0
    updated_at: float = 0.0
    finished_at: float = 0.0
    cancelled_by: bytes = b""


@dataclass(frozen=True)
class KeptStep:
    """A step as it was written down: before it starts, and when it ends.

    `owner` is "execution:<id>" or "dataset:<number>", `digest` the registered container's. `state`
    is RUNNING, SUCCEEDED, FAILED or STOPPED; a failure keeps its code and problem. `record` is a
    serialised StepRecord. `container` is the name at the engine, `tries` how often it was started,
    `gpus` the UUIDs it holds. Its start is `boot_s` seconds after the boot `boot_id` (no wall
    clock). `bytes` is what its outputs took in the end.
    """

    owner: str
    name: str
    state: str
    record: bytes
    digest: str
    container: str
    tries: int = 0
    code: str = ""
    problem: str = ""
    boot_id: str = ""
    boot_s: float = 0.0
    gpus: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class Order:
    """An order as it was received: its execution id, the bundle that proves it, and which line.
    `outcome` is the digest of the one envelope that answered it, "" before."""

    execution_id: int
    bundle: bytes
    line: int
    envelope_digest: str
    requested_by: str
    local_id: int = 0
    outcome: str = ""


@dataclass(frozen=True)
class Outgoing:
    """A signed statement on its way. `about` says what it does for this site (see effects.py);
    entries of one `lane` are sent one after the other, each after the receipt of the one before.
    `state` is waiting, accepted or refused; a refusal's kind, code and text are kept. It waits
    `since`, in seconds of the wall clock, which is for display."""

    envelope_digest: str
    envelope: bytes
    kind: str
    about: str
    lane: str
    seq: int = 0
    state: str = "waiting"
    refusal: tuple[str, str, str] = ("", "", "")
    receipt: bytes = b""
    id: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class Review:
    """Something that waits for a person: kind RUN or RELEASE of the execution `local_id`."""

    kind: str
    local_id: int
    id: int = 0
    since: float = 0.0
    decision: str = ""


@dataclass(frozen=True)
class DraftedStatement:
    payload: bytes
    about: str
    lane: str


@dataclass(frozen=True)
class Draft:
    """What a person was shown: the statements, and for whom (a local uid)."""

    digest: str
    uid: int
    statements: tuple[DraftedStatement, ...] = field(default=())
    effect: str = ""
