"""Programs broken on purpose, each in the one way that its name says: what the harness must see.

They are patches of the launched process; the sources stay as they are.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variant:
    """`program` is who is broken; `expects` is the word of the verdict that must not be 0, and
    `says` what one of its findings must say: a pattern."""

    program: str
    expects: str
    says: str
    apply: Callable[[], None]


def settled_when_sent() -> None:
    """The outbox is emptied before the receipt: what the link takes counts as accepted."""
    from agent.outbox import Outbox

    def pump(self: Any) -> None:
        for entry in self._journal.waiting():
            self._journal.settle(entry.envelope_digest, b"", "")
            self.send(entry.envelope)

    Outbox.pump = pump  # type: ignore[method-assign]
    Outbox.receipted = lambda self, said: None  # type: ignore[method-assign]


def receipt_before_commit() -> None:
    """A statement's receipt comes first: the coordinator answers, and commits a little later.
    Who asks for more meanwhile waits for that, so that nothing shows but a death."""
    from coordinator.notary import Notary
    from coordinator.store.engine import Store
    from coordinator.store.reader import Reader
    from coordinator.store.writer import Writer

    commit, end, read = Writer.commit, Writer.end, Store.read
    settle, answer = Notary._settle, Notary._answer
    settling = threading.local()
    uncommitted: list[Writer] = []
    committed = threading.Event()
    committed.set()

    def marked(self: Notary, *arguments: Any, **options: Any) -> Writer:
        settling.now = True
        try:
            return settle(self, *arguments, **options)
        finally:
            settling.now = False

    def later(self: Writer) -> None:
        """Only the notary's: what rebuilds tables in memory commits as ever."""
        if not getattr(settling, "now", False):
            return commit(self)
        self.session.flush()
        return uncommitted.append(self)

    def unless_uncommitted(self: Writer) -> None:
        if self not in uncommitted:
            end(self)

    @contextmanager
    def read_later(self: Store) -> Iterator[Reader]:
        if not getattr(settling, "now", False):
            committed.wait()
        with read(self) as reader:
            yield reader

    def answer_first(self: Notary, answers: Any) -> None:
        if not uncommitted:
            return answer(self, answers)
        committed.clear()
        try:
            answer(self, answers)
            threading.Event().wait(0.5)
            writer = uncommitted.pop()
            commit(writer)
            return end(writer)
        finally:
            committed.set()

    Store.read = read_later  # type: ignore[method-assign]
    Notary._settle = marked  # type: ignore[method-assign]
    Writer.commit = later  # type: ignore[method-assign]
    Writer.end = unless_uncommitted  # type: ignore[method-assign]
    Notary._answer = answer_first  # type: ignore[method-assign]


def acknowledged_first() -> None:
    """An order is acknowledged before it is journalled: the agent answers, and writes it down a
    little later."""
    from agent.session import Session
    from housecall.v1 import fleet_pb2

    take = Session._order

    def answer_first(self: Session, order: fleet_pb2.Order) -> None:
        self.say(order_accepted=fleet_pb2.OrderAccepted(execution_id=order.execution_id))
        threading.Event().wait(0.5)
        take(self, order)

    Session._order = answer_first  # type: ignore[method-assign]


def started_blindly() -> None:
    """A step is started without a look at what runs already, and under a new name each time."""
    from agent.engines.docker import DockerEngine

    start = DockerEngine.start

    def anew(self: Any, spec: Any) -> str:
        return start(self, dataclasses.replace(spec, name=f"{spec.name}-{secrets.token_hex(4)}"))

    DockerEngine.adopt = lambda self, labels: []  # type: ignore[method-assign]
    DockerEngine.start = anew  # type: ignore[method-assign]


def appended_twice() -> None:
    """The coordinator does not look whether it has an envelope already."""
    from coordinator.ledger import Batch

    append = Batch.append

    def again(self: Any, envelope: bytes, opened: Any, **rest: Any) -> int:
        if known.get(opened.envelope_digest):
            name = f"{opened.envelope_digest}#{known[opened.envelope_digest]}"
            opened = dataclasses.replace(opened, envelope_digest=name)
        known[opened.envelope_digest] = known.get(opened.envelope_digest, 0) + 1
        return append(self, envelope, opened, **rest)

    known: dict[str, int] = {}
    setattr(Batch, "append", again)  # noqa: B010 - typed otherwise on purpose
    Batch.find = lambda self, envelope_digest: None  # type: ignore[method-assign]


_UNKEPT = r"receipt for entry \d+, found at|accepted in the outbox, not in the ledger"
VARIANTS = {
    "settled-when-sent": Variant(
        "agent", "lost", r"accepted in the outbox, not in the ledger", settled_when_sent
    ),
    "receipt-before-commit": Variant("coordinator", "lost", _UNKEPT, receipt_before_commit),
    "acknowledged-first": Variant(
        "agent", "lost", r"acknowledged it and had not written it down", acknowledged_first
    ),
    "started-blindly": Variant("agent", "duplicated", r"ran twice at once", started_blindly),
    "appended-twice": Variant("coordinator", "duplicated", r"is at entries", appended_twice),
}
