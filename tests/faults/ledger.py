"""The ledger as it stands in the store, read past the coordinator; and what it says of orders."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from housecall import merkle, statement
from housecall.note import open_checkpoint
from housecall.v1 import statements_pb2 as pb

QUERY = "SELECT ledger_index, kind, envelope FROM ledger_entry ORDER BY ledger_index"


@dataclass(frozen=True)
class Order:
    """One line of an ExecutionRequested; `number` is its execution id."""

    number: int
    dataset_id: str
    model_id: int


@dataclass
class History:
    """Every entry in its order, and what follows from them."""

    envelopes: list[bytes] = field(default_factory=list)
    indices: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    orders: dict[int, Order] = field(default_factory=dict)
    outcomes: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    results: list[pb.ResultSubmitted] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, index: int, kind: str, envelope: bytes) -> None:
        if index != len(self.envelopes):
            self.gaps.append(f"entry {index}: expected {len(self.envelopes)}")
        self.envelopes.append(envelope)
        self.indices[statement.digest(envelope)].append(index)
        self.kinds[kind] += 1
        said = statement.unverified(envelope).predicate
        if isinstance(said, pb.ExecutionRequested):
            for line in said.executions:
                number = len(self.orders) + 1
                self.orders[number] = Order(number, line.dataset_id, line.model.id)
        elif isinstance(said, pb.ExecutionEnded):
            state = pb.ExecutionState.Name(said.state).removeprefix("EXECUTION_STATE_")
            self.outcomes[said.execution_id].append(f"{state} {said.reason}")
        elif isinstance(said, pb.ExecutionCancelled):
            for number in said.execution_ids:
                self.outcomes[number].append("CANCELLED there")
        elif isinstance(said, pb.ResultSubmitted):
            self.results.append(said)
            if said.execution_id:
                self.outcomes[said.execution_id].append("RESULT")

    def open_orders(self) -> list[int]:
        return [number for number in self.orders if not self.outcomes.get(number)]

    def root(self, size: int) -> bytes:
        """Of the first `size` entries, computed from their bytes alone."""
        nodes: dict[tuple[int, int], bytes] = {}
        for index, envelope in enumerate(self.envelopes[:size]):
            leaf = merkle.leaf_hash(envelope)
            for level, number, value in merkle.new_nodes(index, leaf, lambda *key: nodes[key]):
                nodes[level, number] = value
        return merkle.root(size, lambda *key: nodes[key])

    def disagrees(self, checkpoint: str, verifier_key: str) -> str:
        """What is wrong with a checkpoint that somebody was given; "" when nothing is."""
        seen = open_checkpoint(checkpoint, verifier_key)
        if seen.size > len(self.envelopes):
            return f"a checkpoint of size {seen.size}, the ledger has {len(self.envelopes)}"
        if self.root(seen.size) != seen.root:
            return f"a checkpoint of size {seen.size} has another root"
        return ""


def read(url: str) -> History | None:
    """None while the store does not answer."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(text(QUERY)).all()
    except SQLAlchemyError:
        return None
    finally:
        engine.dispose()
    history = History()
    for index, kind, envelope in rows:
        history.add(index, kind, bytes(envelope))
    return history
