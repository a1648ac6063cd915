"""What is written down of a step: before it has a container, and when it ends."""

from __future__ import annotations

import secrets
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from agent.records import KeptStep
from agent.step import Step
from agent.uptime import elapsed
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb


def new(step: Step, instance: str, known: KeptStep | None) -> KeptStep:
    """A step that has no container yet. How often it was tried before is not forgotten."""
    record = pb.StepRecord(
        name=step.task,
        container_digest=step.container.digest,
        image_digest=step.container.image_digest,
    )
    owner, token = step.owner.replace(":", "-"), secrets.token_hex(4)
    return KeptStep(
        owner=step.owner,
        name=step.task,
        state="",
        record=record.SerializeToString(),
        container=f"housecall-{instance[:8]}-{owner}-{step.task}-{token}",
        digest=step.container.digest,
        tries=known.tries if known else 0,
    )


def ended(kept: KeptStep, state: str, refusal: Refusal | None) -> KeptStep:
    record = pb.StepRecord.FromString(kept.record)
    record.state = pb.StepState.Value(f"STEP_STATE_{state}")
    record.exit_code = getattr(refusal, "exit_code", 0)
    if not record.HasField("started_at"):
        record.started_at.CopyFrom(_now())
    if kept.boot_id:
        record.seconds = round(elapsed(kept.boot_id, kept.boot_s), 3)
    code, problem = (refusal.code, refusal.message) if refusal else ("", "")
    return replace(kept, state=state, record=record.SerializeToString(), code=code, problem=problem)


def _now() -> Timestamp:
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp
