"""What the coordinator is told of an ordered execution that has not ended: its state and step,
since when, and what it waits for. Words and a time only: the problem itself stays in the journal.
"""

from __future__ import annotations

from datetime import UTC, datetime

from agent.records import Execution, State
from housecall.times import stamp
from housecall.v1 import fleet_pb2
from housecall.v1 import statements_pb2 as pb

LACKS = {
    "DISK_FULL": fleet_pb2.WAIT_REASON_DISK,
    "ENGINE_UNREACHABLE": fleet_pb2.WAIT_REASON_ENGINE,
}
"""Why the journal says that an execution is queued again -> what it waits for."""


def progress_of(execution: Execution) -> fleet_pb2.Progress:
    said = fleet_pb2.Progress(
        execution_id=execution.execution_id,
        state=pb.ExecutionState.Value(f"EXECUTION_STATE_{execution.state}"),
        step=execution.step,
        since=stamp(datetime.fromtimestamp(execution.updated_at, UTC)),
    )
    if execution.state is State.QUEUED:
        said.waits_for = LACKS.get(execution.reason, fleet_pb2.WAIT_REASON_SLOT)
    return said
