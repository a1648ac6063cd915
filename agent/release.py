"""What leaves: drafted, shown, released by its digest, kept in the outbox until its receipt.

A draft holds the payloads exactly as they will be signed; `release` signs and keeps those bytes
and nothing else, in one transaction with what follows from them at the site (`effects.py`).
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

from agent.catalog import Catalog
from agent.effects import Effects
from agent.events import Drafted
from agent.identity import Uplink
from agent.journal import Journal
from agent.records import Draft, DraftedStatement, Execution, Outgoing
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
    """Drafts, signs and keeps what leaves. `wake` tells the link that there is something,
    `reopened` is told of an execution whose order needs another outcome."""

    def __init__(self, journal: Journal, catalog: Catalog, uplink: Uplink) -> None:
        self._journal, self._uplink = journal, uplink
        self._effects = Effects(journal, catalog)
        self._settled = threading.Condition()
        self.receipt_seconds = RECEIPT_SECONDS
        self.wake: Callable[[], None] = lambda: None
        self.reopened: Callable[[Execution], None] = lambda _: None
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
        """The coordinator said no for good. The refusal and what it undoes are one transaction:
        where it fails, the statement waits on, is sent again and refused again."""
        with self._journal.transaction():
            entry = self._journal.outgoing(envelope_digest)
            if entry is None or entry.state != "waiting":
                return
            self._journal.settle_refused(envelope_digest, refusal)
            reopened = self._effects.revert(entry, refusal)
        with self._settled:
            self._settled.notify_all()
        if reopened is not None:
            self.reopened(reopened)

    def reconcile(self) -> None:
        """A release that a kill or a full disk cut off happened as a whole, or not at all."""
        self._effects.reconcile()

    def _keep(self, effect: Mapping[str, Any], entries: list[Outgoing]) -> None:
        """In one transaction with what follows; where it fails, the catalog is put right."""
        try:
            with self._journal.transaction():
                self._effects.apply(effect, entries)
                for entry in entries:
                    self._journal.add_outgoing(entry)
        except BaseException:
            with suppress(OSError, Refusal):  # a full disk: upkeep tries it again
                self._effects.reconcile()
            raise
        self.wake()

    def _entries(self, digests: list[str]) -> list[Outgoing]:
        found = (self._journal.outgoing(digest) for digest in digests)
        return [entry for entry in found if entry is not None]

    def _outgoing(self, made: DraftedStatement) -> Outgoing:
        envelope = self._sign(made.payload)
        kind = statement.open_payload(made.payload)[0]
        return Outgoing(statement.digest(envelope), envelope, kind, made.about, made.lane)

    def _sign(self, payload: bytes) -> bytes:
        return statement.sign(payload, self._uplink.identity.signing_key)


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
