"""What the fake servicers share: they remember what they were asked, and refuse the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from housecall.errors import Refusal
from housecall.rpc import status_of


def refuse(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    context.abort_with_status(status_of(refusal))
    raise AssertionError("abort returns")


class Servicer:
    """Methods that a fake does not define answer UNIMPLEMENTED. `asked` holds the requests."""

    def __init__(self) -> None:
        self.asked: list[Message] = []

    def last(self, kind: type[Message]) -> Any:
        """The newest request of a kind."""
        return next(request for request in reversed(self.asked) if isinstance(request, kind))

    def __getattr__(self, name: str) -> Callable[[Any, grpc.ServicerContext], NoReturn]:
        if not name[:1].isupper():
            raise AttributeError(name)

        def missing(request: Any, context: grpc.ServicerContext) -> NoReturn:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the fake has no {name}")

        return missing
