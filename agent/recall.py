"""What the journal lost, and the ledger still knows: news tell every statement that concerns the
site, its own included.

A statement that this site signed and its journal does not know goes into the outbox once more: the
coordinator answers the same envelope with the receipt of the entry that there is, which is checked
as every receipt. What it does for the site is read off the statement. Only what the site's own key
signed is written down; of the rest, as what an earlier key of a site enrolled anew signed, the
numbers of datasets alone are kept, so that none is given out twice.

After a salvage the news come from the first one on. Until they were told, what the catalog says and
the journal does not know may be in the ledger: `effects.py` takes nothing back.
"""

from __future__ import annotations

import logging
import re

from google.protobuf.message import Message

from agent.effects import released_blob
from agent.identity import Uplink
from agent.journal import Journal
from agent.records import Outgoing
from agent.results import about_result
from housecall import statement
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
UNKNOWN_RUN = 0
log = logging.getLogger(__name__)


class Recall:
    def __init__(self, journal: Journal, uplink: Uplink) -> None:
        self._journal, self._uplink = journal, uplink

    def told(self, envelope: bytes) -> None:
        """Of an entry of the ledger that concerns this site."""
        if self._journal.has_outgoing(statement.digest(envelope)):
            return
        try:
            said = statement.unverified(envelope)
        except Refusal:  # of a kind that a newer coordinator knows
            return
        about, lane = self._about(said.predicate)
        if about and self._is_own(envelope):
            self._keep(Outgoing(said.envelope_digest, envelope, said.kind, about, lane))
        elif about.startswith("dataset:"):  # an own one is in the outbox, which has its number
            self._journal.take_number(int(about.removeprefix("dataset:")))

    def caught_up(self) -> None:
        """All was told that there is."""
        if self._journal.recalls():
            self._journal.set_fact("recalls", "")
            log.info("journal caught up")

    def _keep(self, entry: Outgoing) -> None:
        with self._journal.transaction():
            self._journal.add_outgoing(entry)
            if entry.about.startswith("result:"):
                self._journal.set_blob(released_blob(entry), str(UNKNOWN_RUN).encode())
        log.warning("recalled", extra={"kind": entry.kind, "digest": entry.envelope_digest})

    def _is_own(self, envelope: bytes) -> bool:
        key = self._uplink.identity.signing_key.public_key().public_bytes_raw()
        try:
            statement.verify(envelope, key)
        except Refusal:
            return False
        return True

    def _about(self, said: Message) -> tuple[str, str]:
        """What it does for this site, and its lane; nothing where it is not about its datasets."""
        dataset_id = getattr(said, "dataset_id", "")
        site, _, number = dataset_id.partition("/")
        if site != self._uplink.identity.short_name or not _NUMBER.fullmatch(number):
            return "", ""
        match said:
            case pb.DatasetRegistered():
                return f"dataset:{number}", dataset_id
            case pb.DatasetOperational():
                return f"operational:{number}", dataset_id
            case pb.ResultSubmitted():
                return about_result(said), dataset_id
        return "", ""
