"""What follows from a release at the site, and what a refusal takes back.

Both belong into the transaction that changes the outbox. `about` says what a statement does, so
that a refusal, or whoever comes after a cut, can put the site's own records right:

    dataset:<number>           registers it               operational:<number>
    test:b<b>m<m>d<d>          the test of that name      result:b<b>m<m>d<d>
    association:<b>:<dataset>  withdrawal:<association>   ended:<execution id>
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agent import catalog as states
from agent.catalog import Catalog, Dataset
from agent.journal import Journal
from agent.records import Execution, Outgoing, State
from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb

REFERENCE_DIFFERS = frozenset({"SUPERSEDES_NOTHING", "RESULT_EXISTS"})
"""A result replaces the one that stands, or none where none does."""
log = logging.getLogger(__name__)


class Effects:
    """On the catalog's datasets, on executions and on orders."""

    def __init__(self, journal: Journal, catalog: Catalog) -> None:
        self._journal, self._catalog = journal, catalog

    def apply(self, effect: Mapping[str, Any], entries: list[Outgoing]) -> None:
        """In the transaction that keeps these entries."""
        if "create" in effect:
            envelope_digest = entries[0].envelope_digest
            self._catalog.create(Dataset(**effect["create"] | {"envelope_digest": envelope_digest}))
        if "operational" in effect:
            self._become_operational(effect["operational"], effect["fingerprint"])
        released = effect.get("released", effect.get("execution"))
        if released and entries[-1].about.startswith("result:"):
            source = self._journal.execution(released).source_id
            self._journal.set_blob(released_blob(entries[-1]), str(source).encode())
        if "execution" in effect:
            self._end(effect, entries[-1].envelope_digest)

    def _end(self, effect: Mapping[str, Any], outcome: str) -> None:
        """A no says which state it answers (`expected`), a yes answers what waits for release: in
        any other state they come too late. How it ended otherwise, it ended already."""
        execution = self._journal.execution(effect["execution"])
        order, state = execution.execution_id, State(effect["state"])
        waited = State.WAITING_RELEASE if state is State.SUCCEEDED else execution.state
        expected = effect.get("expected", waited)
        if execution.state != expected:
            raise Refusal(
                Kind.CONFLICT,
                "REVIEW_DECIDED",
                f"execution {execution.id}: expected it {expected.lower()}, got it "
                f"{execution.state.lower()}; somebody else decided it just now",
            )
        if order and not self._journal.set_outcome(order, outcome):
            raise Refusal(Kind.CONFLICT, "ORDER_ENDED", f"order {order} has its outcome already")
        reason = effect.get("reason", "")
        self._journal.update_execution(execution.id, state=state, reason=reason, step="")
        self._journal.close_reviews(execution.id, state)

    def _become_operational(self, number: int, fingerprint: str) -> None:
        dataset = self._catalog.get(str(number))
        if dataset.state != states.PREPARED or dataset.prepared_fingerprint != fingerprint:
            raise Refusal(
                Kind.CONFLICT,
                "DRAFT_OUTDATED",
                f"dataset {dataset.id}: expected it as it was shown, got it "
                f"{dataset.state.lower()}; set it operational again",
            )
        self._catalog.update(number, state=states.OPERATIONAL)

    def revert(self, entry: Outgoing, refusal: tuple[str, str, str]) -> Execution | None:
        """In the transaction that writes its refusal down. Returns an execution whose order needs
        another outcome."""
        what, _, number = entry.about.partition(":")
        extra = {"kind": entry.kind, "digest": entry.envelope_digest, "code": refusal[1]}
        log.warning("refused", extra=extra)
        with suppress(Refusal):
            if what == "dataset" and self._registered_by(number) == entry.envelope_digest:
                self._catalog.remove(int(number))
            if what == "operational":
                text = f"{refusal[2]} [{refusal[1]}]"
                self._catalog.update(int(number), state=states.PREPARED, problem=text)
        return self._reopen(entry, refusal)

    def _registered_by(self, number: str) -> str:
        return self._catalog.get(number).envelope_digest

    def _reopen(self, entry: Outgoing, refusal: tuple[str, str, str]) -> Execution | None:
        """An order whose outcome was refused still needs its one: that it failed, by this code.
        A result that named the wrong one to replace is good: it waits for its release again.
        Nothing is left to be said where it has ended there, or where this was said already."""
        order, (_, code, text) = self._journal.order_ended_by(entry.envelope_digest), refusal
        if order is None or code == "EXECUTION_ENDED":
            return None
        if code in REFERENCE_DIFFERS and self._replaces_another(entry):
            self._journal.reopen_order(order.execution_id)
            return self._journal.update_execution(order.local_id, state=State.WAITING_RELEASE)
        if self._journal.execution(order.local_id).reason == code:
            log.error("order has no end", extra={"order": order.execution_id, "code": code})
            return None
        self._journal.reopen_order(order.execution_id)
        return self._journal.update_execution(
            order.local_id, state=State.FAILED, reason=code, problem=text
        )

    def _replaces_another(self, entry: Outgoing) -> bool:
        """Released anew it would name another one: the same would be refused for ever."""
        now = standing(self._journal, entry.about)
        return supersedes(entry) != (now.envelope_digest if now else "")

    def reconcile(self) -> None:
        """Bring the catalog, which no transaction holds, to what the journal says; a journal that
        recalls cannot say yet what never happened."""
        if self._journal.recalls():
            return
        with self._journal.transaction():  # none is under way
            for dataset in self._catalog.all():
                self._bring_to_journal(dataset)

    def _bring_to_journal(self, dataset: Dataset) -> None:
        entry = self._journal.outgoing(dataset.envelope_digest)
        if entry is None or entry.state == "refused":
            self._catalog.remove(dataset.number)
            return
        released = bool(self._journal.sent_about(f"operational:{dataset.number}"))
        if released and dataset.state == states.PREPARED:
            self._catalog.update(dataset.number, state=states.OPERATIONAL)
        if not released and dataset.state == states.OPERATIONAL:
            self._catalog.update(dataset.number, state=states.PREPARED)


def standing(journal: Journal, about: str) -> Outgoing | None:
    """The newest result of that name that was released and not refused: no other replaces it."""
    sent = journal.sent_about(about)
    replaced = {supersedes(entry) for entry in sent}
    return next((entry for entry in sent if entry.envelope_digest not in replaced), None)


def supersedes(entry: Outgoing) -> str:
    """The digest of the result that this one replaces, "" for none."""
    said = statement.unverified(entry.envelope).predicate
    return said.supersedes if isinstance(said, pb.ResultSubmitted) else ""


def released_blob(entry: Outgoing) -> str:
    """Where the journal keeps which run a released result is of."""
    return f"released:{entry.envelope_digest}"
