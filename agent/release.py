"""What leaves: drafted, shown, released by its digest, kept in the outbox until its receipt.

A draft holds the payloads exactly as they will be signed; `release` signs and keeps those bytes
and nothing else, in one transaction with what follows from them at the site. `about` says what a
statement does, so that a restart or a refusal can put the site's own records right:

    dataset:<number>           registers it               operational:<number>
    test:b<b>m<m>d<d>          the test of that name      result:b<b>m<m>d<d>
    association:<b>:<dataset>  withdrawal:<association>   ended:<execution id>
"""

from __future__ import annotations

import json
import logging
import pwd
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from agent import catalog as states
from agent.catalog import Catalog, Dataset
from agent.events import Drafted
from agent.identity import Uplink
from agent.journal import Journal
from agent.records import Draft, DraftedStatement, Outgoing, State
from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb

RECEIPT_SECONDS = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """A statement to be drafted. Items of one `lane` are sent one after the other."""

    predicate: Message
    subjects: Mapping[str, str]
    about: str
    lane: str


class Releases:
    """Drafts, signs and keeps what leaves. `wake` tells the link that there is something."""

    def __init__(self, journal: Journal, catalog: Catalog, uplink: Uplink) -> None:
        self._journal, self._catalog, self._uplink = journal, catalog, uplink
        self._settled = threading.Condition()
        self.receipt_seconds = RECEIPT_SECONDS
        self.wake: Callable[[], None] = lambda: None
        self.refused: Callable[[Outgoing], None] = lambda _: None
        self.accepted: Callable[[Outgoing], None] = lambda _: None

    def draft(self, uid: int, items: Sequence[Item], effect: Mapping[str, Any]) -> Drafted:
        """Keep what `uid` is shown. `effect` is what follows at the site once it is released."""
        made = tuple(_made(item) for item in items)
        payloads = tuple(each.payload for each in made)
        shown = Drafted(digest_of(payloads), payloads)
        self._journal.add_draft(Draft(shown.digest, uid, made, json.dumps(effect)))
        return shown

    def envelope_digest(self, item: Item) -> str:
        """Of the envelope that a release of `item` will send: Ed25519 always signs alike."""
        return statement.digest(self._sign(_made(item).payload))

    def release(self, digest: str, uid: int) -> list[Outgoing]:
        """Sign and keep exactly the draft `digest`, then wait a little for the receipts. Doing it
        again changes nothing, and gives the receipts again."""
        draft = self._journal.draft(digest)
        if draft is None or draft.uid != uid:
            got = "none of that digest" if draft is None else "one that another user was shown"
            raise Refusal(
                Kind.NOT_FOUND,
                "DRAFT_NOT_FOUND",
                f"draft {digest}: expected one that was shown to you, got {got}; "
                "run the command again and release what it shows",
            )
        entries = [self._outgoing(made) for made in draft.statements]
        digests = [entry.envelope_digest for entry in entries]
        known = self._entries(digests)
        if len(known) == len(entries) and all(entry.state != "refused" for entry in known):
            return self.wait_for(digests)  # released before: the caller asks again
        self._keep(json.loads(draft.effect), entries)
        return self.wait_for(digests)

    def send(self, item: Item, effect: Mapping[str, Any]) -> None:
        """What the site's policy releases: signed and kept, without waiting."""
        self._keep(effect, [self._outgoing(_made(item))])

    def _keep(self, effect: Mapping[str, Any], entries: list[Outgoing]) -> None:
        try:
            with self._journal.transaction():
                self._apply(effect, entries)
                for entry in entries:
                    self._journal.add_outgoing(entry)
        except BaseException:  # the catalog is no part of the transaction
            with suppress(Exception):  # what cannot be put right now is at the next turn
                self.reconcile()
            raise
        self.wake()

    def wait_for(self, digests: list[str]) -> list[Outgoing]:
        """The entries as they are when all are settled, or the time is over. Raises the
        coordinator's refusal of any of them."""

        def settled() -> bool:
            return all(entry.state != "waiting" for entry in self._entries(digests))

        with self._settled:
            self._settled.wait_for(settled, self.receipt_seconds)
        entries = self._entries(digests)
        for entry in entries:
            if entry.state == "refused":
                kind, code, text = entry.refusal
                raise Refusal(Kind(kind), code, text)
        return entries

    def accept(self, envelope_digest: str, receipt: bytes, thing_id: str) -> None:
        """Its receipt is there and was checked."""
        self._journal.settle(envelope_digest, receipt, thing_id)
        with self._settled:
            self._settled.notify_all()
        if (entry := self._journal.outgoing(envelope_digest)) is not None:
            self.accepted(entry)

    def refuse(self, envelope_digest: str, refusal: tuple[str, str, str]) -> None:
        """The coordinator said no for good."""
        entry = self._journal.outgoing(envelope_digest)
        if entry is None or entry.state != "waiting":
            return
        self._journal.settle_refused(envelope_digest, refusal)
        self._revert(entry, refusal)
        with self._settled:
            self._settled.notify_all()
        self.refused(entry)

    def reconcile(self) -> None:
        """At the start, and now and then: a release that was cut off, by a death or a full disk,
        either happened as a whole or not at all. Never in the middle of one."""
        with self._journal.transaction():
            for dataset in self._catalog.all():
                self._reconcile(dataset)

    def _reconcile(self, dataset: Dataset) -> None:
        entry = self._journal.outgoing(dataset.envelope_digest)
        if entry is None or entry.state == "refused":
            self._catalog.remove(dataset.number)
            return
        released = bool(self._journal.sent_about(f"operational:{dataset.number}"))
        if released and dataset.state == states.PREPARED:
            self._catalog.update(dataset.number, state=states.OPERATIONAL)
        if not released and dataset.state == states.OPERATIONAL:
            self._catalog.update(dataset.number, state=states.PREPARED)

    def _apply(self, effect: Mapping[str, Any], entries: list[Outgoing]) -> None:
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
            order = self._journal.execution(effect["execution"]).execution_id
            if order and not self._journal.set_outcome(order, entries[-1].envelope_digest):
                raise Refusal(
                    Kind.CONFLICT, "ORDER_ENDED", f"order {order} has its outcome already"
                )
            self._journal.update_execution(
                effect["execution"],
                state=State(effect["state"]),
                reason=effect.get("reason", ""),
                step="",
            )
            self._journal.close_reviews(effect["execution"], effect["state"])

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

    def _revert(self, entry: Outgoing, refusal: tuple[str, str, str]) -> None:
        what, _, number = entry.about.partition(":")
        log.warning("refused", extra={"kind": entry.kind, "code": refusal[1]})
        with suppress(Refusal):
            if what == "dataset":
                self._catalog.remove(int(number))
            if what == "operational":
                text = f"{refusal[2]} [{refusal[1]}]"
                self._catalog.update(int(number), state=states.PREPARED, problem=text)

    def _entries(self, digests: list[str]) -> list[Outgoing]:
        found = (self._journal.outgoing(digest) for digest in digests)
        return [entry for entry in found if entry is not None]

    def _outgoing(self, made: DraftedStatement) -> Outgoing:
        envelope = self._sign(made.payload)
        kind = statement.open_payload(made.payload)[0]
        return Outgoing(statement.digest(envelope), envelope, kind, made.about, made.lane)

    def _sign(self, payload: bytes) -> bytes:
        return statement.sign(payload, self._uplink.identity.signing_key)


def released_blob(entry: Outgoing) -> str:
    """Where the journal keeps which run a released result is of."""
    return f"released:{entry.envelope_digest}"


def digest_of(payloads: Sequence[bytes]) -> str:
    """What a release names: the payload's digest, or that of the lines of their digests."""
    digests = [statement.digest(payload) for payload in payloads]
    return digests[0] if len(digests) == 1 else statement.digest("\n".join(digests).encode())


def local_user(uid: int) -> pb.Releaser:
    """A user of the site, as the kernel named the peer of the socket."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    return pb.Releaser(local_user=pb.Releaser.LocalUser(uid=uid, name=name))


def by_policy(policy_digest: str, rule: str) -> pb.Releaser:
    return pb.Releaser(policy=pb.Releaser.Policy(digest=policy_digest, rule=rule))


def _made(item: Item) -> DraftedStatement:
    payload = statement.build(item.predicate, item.subjects)
    return DraftedStatement(payload, item.about, item.lane)
