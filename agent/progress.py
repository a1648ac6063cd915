"""What the coordinator is told of an ordered execution that has not ended: its state and step,
since when, and what it waits for. Words and a time only: the problem itself stays in the journal.
"""

from __future__ import annotations

from datetime import UTC, datetime

from agent.lacks import LACKS
from agent.records import Execution, State
from housecall.times import stamp
from housecall.v1 import fleet_pb2
from housecall.v1 import statements_pb2 as pb


def progress_of(execution: Execution) -> fleet_pb2.Progress:
    said = fleet_pb2.Progress(
        execution_id=execution.execution_id,
        state=pb.ExecutionState.Value(f"EXECUTION_STATE_{execution.state}"),
        step=execution.step,
        since=stamp(datetime.fromtimestamp(execution.updated_at, UTC)),
    )
    if execution.state is State.QUEUED:
        lack = LACKS.get(execution.reason)
        said.waits_for = lack.waits_for if lack else fleet_pb2.WAIT_REASON_SLOT
    return said
