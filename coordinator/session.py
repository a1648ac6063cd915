"""One stream: its mailbox, and the ways in which it ends. Lives on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from coordinator.standing import Standing
from housecall.errors import Kind, Refusal
from housecall.v1 import fleet_pb2

MOST_MAIL = 10_000
END_SECONDS = 5.0
CUT_SECONDS = 0.5
"""How long a stream that ends may take to send what is on its way, and one that is cut."""
Mail: TypeAlias = fleet_pb2.CoordinatorMessage | int


def draining() -> Refusal:
    return Refusal(
        Kind.UNAVAILABLE,
        "DRAINING",
        "this coordinator stops: dial again at once, another replica or its successor answers",
    )


class Session:
    """`next` empties the mailbox for the stream's one writer: messages, and numbers of orders,
    which are made when they are sent. `cancel` ends the stream's task, whatever it waits for."""

    def __init__(self, site: str, standing: Standing, cancel: Callable[[], object]) -> None:
        self.site = site
        self.standing = standing
        self._unanswered = 0  # statements of this stream that the notary has
        self._cancel = cancel
        self._mail: asyncio.Queue[Mail | None] = asyncio.Queue()
        self.refusal: Refusal | None = None
        """What the stream ends with."""
        self._draining = False
        self._deadline: asyncio.TimerHandle | None = None

    def send(self, **message: object) -> None:
        self.post(fleet_pb2.CoordinatorMessage(**message))  # type: ignore[arg-type]

    def post(self, mail: Mail) -> None:
        """A site that does not read what it is sent loses its stream, and nothing else: it is told
        again after its next Hello."""
        if self._mail.qsize() < MOST_MAIL:
            self._mail.put_nowait(mail)
        elif self._deadline is None:
            self.cut(
                Refusal(
                    Kind.EXHAUSTED,
                    "MAIL_UNREAD",
                    f"{MOST_MAIL} messages were not read: dial again, all of it is told again",
                )
            )

    async def next(self) -> Mail | None:
        """None at the end. Raises the refusal that the stream ends with."""
        mail = await self._mail.get()
        if mail is None and self.refusal:
            raise self.refusal
        return mail

    def take(self) -> bool:
        """Whether one more statement of this stream may go to the notary."""
        if self._draining:
            return False
        self._unanswered += 1
        return True

    def answered(self) -> None:
        self._unanswered -= 1
        if self._draining and not self._unanswered:
            self.end(draining())

    # ends: the first one counts

    def end(self, refusal: Refusal | None = None, within: float = END_SECONDS) -> None:
        """After what is on its way; where the agent does not read that, the stream breaks."""
        if self._deadline is None:
            self.refusal = refusal
            self._mail.put_nowait(None)
            self._deadline = asyncio.get_running_loop().call_later(within, self._cancel)

    def hung_up(self) -> None:
        """The agent says nothing more. Answers that it waits for still go out while draining."""
        if not (self._draining and self._unanswered):
            self.end()

    def supersede(self) -> None:
        """What is on its way is for the newer stream, or sent again."""
        while not self._mail.empty():
            self._mail.get_nowait()
        self.send(superseded=fleet_pb2.Superseded())
        self.end(
            Refusal(
                Kind.CONFLICT,
                "SUPERSEDED",
                f"another agent of {self.site} connected and took over: run one agent a site",
            )
        )

    def cut(self, refusal: Refusal) -> None:
        """At once: what is on its way is not sent."""
        while not self._mail.empty():
            self._mail.get_nowait()
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
        self.end(refusal, CUT_SECONDS)

    def drain(self) -> None:
        """After the answers to the statements that the notary has."""
        self._draining = True
        if not self._unanswered:
            self.end(draining())

    def closed(self) -> None:
        """Its stream is over."""
        if self._deadline:
            self._deadline.cancel()
