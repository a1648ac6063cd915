"""Times on the wire: protobuf timestamps from aware datetimes."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def stamp(at: datetime) -> Timestamp:
    """The timestamp of an aware datetime."""
    message = Timestamp()
    message.FromDatetime(at)
    return message
