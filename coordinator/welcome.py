"""What a site is told when its stream opens, and how an order is put: reads of the store, as
messages of the stream."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from coordinator.ledger import Ledger
from coordinator.lifecycle import ENDED_EXECUTIONS
from coordinator.models import Execution
from coordinator.store import Reader, Store
from housecall import merkle
from housecall.errors import Kind, Refusal
from housecall.times import stamp
from housecall.v1 import fleet_pb2 as pb
from housecall.verify import check_checkpoint

NEWS_PAGE = 500
MOST_WELCOME_BYTES = 2 * 2**20  # one more order fits in a message: an envelope has at most 1 MiB


class Welcomes:
    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger

    def welcome(self, site: str, hello: pb.Hello) -> tuple[pb.CoordinatorMessage, list[int]]:
        """What the site should be doing, and proof that the ledger continues what it saw; the
        orders that found no room are given by number."""
        with self._store.read() as reader:
            if reader.participant(site).revoked_index is not None:  # since the stream was opened
                raise Refusal(Kind.UNAUTHENTICATED, "REVOKED", f"{site} is revoked")
            size = reader.tree_size()
            seen = 0
            if hello.checkpoint:
                seen = check_checkpoint(hello.checkpoint, self._ledger.verifier_key).size
            proof = merkle.consistency_proof(seen, size, reader.node) if 0 < seen <= size else []
            rows = reader.open_executions(site)
            open_ids = {row.id for row in rows}
            welcome = pb.Welcome(
                coordinator_time=stamp(datetime.now(UTC)),
                checkpoint=self._ledger.checkpoint(size, reader.node),
                consistency_proof=proof,
                cancelled_execution_ids=dict.fromkeys(
                    doing.execution_id
                    for doing in hello.doing
                    if doing.execution_id not in open_ids
                ),
            )
            later = []
            for row in rows:
                if welcome.ByteSize() < MOST_WELCOME_BYTES:
                    welcome.orders.append(self._order(reader, row, size))
                else:
                    later.append(row.id)
        return pb.CoordinatorMessage(welcome=welcome), later

    def order(self, number: int) -> pb.CoordinatorMessage:
        with self._store.read() as reader:
            order = self._order(reader, reader.execution(number), reader.tree_size())
        return pb.CoordinatorMessage(order=order)

    def _order(self, reader: Reader, row: Execution, size: int) -> pb.Order:
        bundle = self._ledger.bundle(reader, reader.entry(row.ledger_index), size)
        return pb.Order(execution_id=row.id, bundle=bundle, line=row.line)

    def news(self, site: str, cursor: int) -> list[pb.News]:
        """The next page of what concerns the site; one that is not full is the last."""
        with self._store.read() as reader:
            return [
                pb.News(ledger_index=entry.ledger_index, envelope=entry.envelope)
                for entry in reader.news(site, cursor, NEWS_PAGE)
            ]

    def own(self, hello: pb.Hello, site: str) -> list[pb.Progress]:
        """The progress that the Hello tells of orders of this site that have not ended: the last
        word on each. One question, however much a Hello says; no more than the site's open orders.
        """
        with self._store.read() as reader:
            open_ids = reader.open_execution_ids(site)
        said = {each.execution_id: each for each in hello.doing if each.execution_id in open_ids}
        return list(said.values())

    def is_own(self, progress: pb.Progress, site: str) -> bool:
        """Whether it is of an order of this site that has not ended."""
        with self._store.read() as reader:
            row = reader.find(Execution, progress.execution_id)
            return row is not None and row.site == site and row.state not in ENDED_EXECUTIONS

    def own_preparing(self, said: Sequence[pb.Preparing], site: str) -> list[pb.Preparing]:
        """Those of datasets that this site registered."""
        with self._store.read() as reader:
            own = reader.own_dataset_ids(site, [each.dataset_id for each in said])
        return [each for each in said if each.dataset_id in own]
