"""Since when an order is as its site says: by the site's word, on the coordinator's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.standing import Doing, Word, began_at
from housecall.times import stamp
from housecall.v1 import fleet_pb2
from housecall.v1 import statements_pb2 as pb

NOW = datetime(2026, 3, 10, tzinfo=UTC)
EARLIER = NOW - timedelta(days=9)
WORD = Word(1, 1)
RUNNING, CONSENT = pb.EXECUTION_STATE_RUNNING, pb.EXECUTION_STATE_WAITING_CONSENT


@pytest.mark.parametrize(
    ("since", "skew_s", "at"),
    [
        (stamp(EARLIER), 0.0, EARLIER),
        (stamp(EARLIER), 3600.0, EARLIER - timedelta(hours=1)),
        (stamp(EARLIER), -3600.0, EARLIER + timedelta(hours=1)),
        (stamp(NOW + timedelta(hours=1)), 0.0, NOW),
        (Timestamp(seconds=2**62), 0.0, NOW),
        (stamp(datetime(1, 1, 1, tzinfo=UTC)), 3600.0, NOW),
    ],
)
def test_a_sites_word(since: Timestamp, skew_s: float, at: datetime) -> None:
    said = fleet_pb2.Progress(state=RUNNING, since=since)
    assert began_at(said, None, now=NOW, skew_s=skew_s) == at


@pytest.mark.parametrize(
    ("known", "at"),
    [
        (None, NOW),
        (Doing(WORD, EARLIER, RUNNING, "x" * 100), EARLIER),
        (Doing(WORD, EARLIER, RUNNING, "infer"), NOW),
        (Doing(WORD, EARLIER, CONSENT, "x" * 100), NOW),
    ],
)
def test_an_older_agent_that_does_not_say_since_when(known: Doing | None, at: datetime) -> None:
    said = fleet_pb2.Progress(state=RUNNING, step="x" * 101)
    assert began_at(said, known, now=NOW, skew_s=0.0) == at
