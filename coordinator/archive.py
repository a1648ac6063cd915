"""The archive: every entry once more, on another disk, before anyone is answered.

The newest backup and the archive bring back the last statement that anyone got a receipt for. Files
`entries-<index of the first>.jsonl` hold blocks: up to PAGE entries, a JSON object a line, then a
line with the checkpoint that signs the tree up to the last of them. A block that a crash cut off
was answered to nobody; it is cut away at the next start.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from coordinator.ledger import Ledger
from coordinator.lock import hold
from coordinator.models import LedgerEntry
from coordinator.store import Reader
from housecall import merkle
from housecall.errors import Kind, Refusal
from housecall.files import sync
from housecall.note import Checkpoint
from housecall.verify import check_checkpoint

log = logging.getLogger(__name__)

PAGE = 500
ENTRIES_A_FILE = 10_000


@dataclass(frozen=True)
class Block:
    """Entries as they were archived, and the checkpoint that ends with them."""

    entries: list[LedgerEntry]
    checkpoint: Checkpoint


class Archive:
    """One folder, written by one coordinator; `size` is the number of entries that it goes up to.

    Opening refuses ARCHIVE_INVALID where it is not of this ledger, and COORDINATOR_RUNNING where
    another coordinator writes it. Use it with `with`.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder, self._ledger = folder, ledger
        self._failed = False
        self._path: Path | None = None
        self._end = 0
        with self._reachable(), ExitStack() as stack:
            _require_folder(folder)
            self._lock = stack.enter_context(hold(folder))
            self._newest = self._found()
            stack.pop_all()
        self.size = self._newest.checkpoint.size if self._newest else 0
        self._last = self._newest.entries[-1].envelope_digest if self._newest else ""

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def check(self, reader: Reader) -> None:
        """Refuses where the store is not what was archived, or older than that."""
        self._require_continued(reader, reader.tree_size())
        newest = self._newest and self._newest.checkpoint
        if newest and merkle.root(newest.size, reader.node) != newest.root:
            raise self._parted()

    def follow(self, reader: Reader, size: int) -> None:
        """Bring it up to `size` entries of a store; they are on the disk when it returns.

        Refuses ARCHIVE_FAILED; the next call writes what is missing then. And refuses where the
        store does not continue what was archived, as one that came back without its last commits.
        """
        self._require_continued(reader, size)
        with self._reachable():
            while self.size < size:
                self._append(reader.entries(self.size, min(PAGE, size - self.size)), reader)

    def _require_continued(self, reader: Reader, size: int) -> None:
        if self.size > size:
            raise Refusal(
                Kind.NOT_READY,
                "STORE_BEHIND_ARCHIVE",
                f"the store has {size} entries, and {self.size} are in the archive in "
                f"{self._folder}: empty the store and restore the backup with `--archive`, so "
                "that nothing is lost that sites have receipts for",
            )
        if self.size and reader.entry(self.size - 1).envelope_digest != self._last:
            raise self._parted()

    def _parted(self) -> Refusal:
        return invalid(self._folder, f"its first {self.size} entries are not the store's")

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Failures of its disk inside are refusals; the log has the first of a row, and the end."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                log.error("archive lost", extra={"folder": str(self._folder), "reason": str(error)})
            self._failed = True
            raise Refusal(
                Kind.UNAVAILABLE,
                "ARCHIVE_FAILED",
                f"the coordinator cannot write its archive ({error.strerror}): try again, the same "
                "statement counts once; the operator checks the disk of archive_dir",
            ) from error
        if self._failed:
            self._failed = False
            log.info("archive back", extra={"folder": str(self._folder), "entries": self.size})

    def _append(self, entries: Sequence[LedgerEntry], reader: Reader) -> None:
        """A block behind the last one that is whole."""
        size = self.size + len(entries)
        path, end = self._path, self._end
        if path is None or not path.exists() or self.size - _first(path) >= ENTRIES_A_FILE:
            path, end = self._folder / f"entries-{self.size:012}.jsonl", 0
            path.touch(mode=0o600)
            sync(self._folder)
        signed = {"checkpoint": self._ledger.checkpoint(size, reader.node)}
        lines = [*map(_line, entries), signed]
        block = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        with path.open("r+b", buffering=0) as file:
            file.truncate(end)
            file.seek(end)
            _write(file, block)
        sync(path)
        self._path, self._end = path, end + len(block)
        self.size, self._last = size, entries[-1].envelope_digest

    def _found(self) -> Block | None:
        """The newest whole block; the next one comes behind it, over what a crash cut off."""
        newest = None
        for path in _files(self._folder)[-2:]:  # the newest file may hold no whole block yet
            self._path, self._end = path, 0
            for block, end in _whole(path, self._ledger.verifier_key):
                newest, self._end = block, end
        begun = newest.checkpoint.size if newest else 0
        if self._path and not self._end and _first(self._path) != begun:
            raise invalid(self._path, f"it holds nothing whole, and does not begin at {begun}")
        return newest


def _require_folder(folder: Path) -> None:
    """It is made by a person: one that is not there may be a disk that is not mounted."""
    if not folder.is_dir():
        raise Refusal(
            Kind.NOT_READY,
            "ARCHIVE_MISSING",
            f"archive_dir: expected a folder at {folder}, found none: is its disk mounted? Else "
            "make it, for the user that the coordinator runs as alone",
        )


def torn(folder: Path) -> list[Path]:
    """Files of an archive with something behind their last whole block: what a crash cut off."""
    found = []
    for path in _files(folder):
        with path.open("rb") as file:
            last = deque(file, maxlen=1)
        if any(not (x.startswith(b'{"checkpoint"') and x.endswith(b"\n")) for x in last):
            found.append(path)
    return found


def blocks(folder: Path, verifier_key: str) -> Iterator[Block]:
    """Everything in an archive that nobody writes to, in order.

    Refuses ARCHIVE_INVALID where a line is damaged or a checkpoint not signed by the ledger's key.
    """
    files = _files(folder)
    if not files:
        raise invalid(folder, "it holds no entries")
    for path in files:
        for block, _ in _whole(path, verifier_key):
            yield block


def _whole(path: Path, verifier_key: str) -> Iterator[tuple[Block, int]]:
    """The blocks of a file, each with the offset of its end; not one that was cut off."""
    entries: list[LedgerEntry] = []
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            said = _parsed(path, line)
            if "checkpoint" in said:
                yield Block(entries, _checked(path, said, verifier_key)), end
                entries = []
            else:
                entries.append(_entry(path, said))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"entries-{'[0-9]' * 12}.jsonl"))


def _first(path: Path) -> int:
    return int(path.stem.removeprefix("entries-"))


def _write(file: Any, block: bytes) -> None:
    written = 0
    while written < len(block):
        written += file.write(block[written:])


def _line(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "ledger_index": entry.ledger_index,
        "accepted_at": entry.accepted_at.isoformat(),
        "kind": entry.kind,
        "signer": entry.signer,
        "enrolment_index": entry.enrolment_index,
        "thing_id": entry.thing_id,
        "envelope_digest": entry.envelope_digest,
        "envelope": entry.envelope.decode(),
    }


def _entry(path: Path, said: dict[str, Any]) -> LedgerEntry:
    with suppress(LookupError, ValueError, TypeError, AttributeError):
        return LedgerEntry(
            ledger_index=int(said["ledger_index"]),
            accepted_at=datetime.fromisoformat(said["accepted_at"]),
            kind=str(said["kind"]),
            signer=str(said["signer"]),
            enrolment_index=int(said["enrolment_index"]),
            thing_id=str(said["thing_id"]),
            envelope_digest=str(said["envelope_digest"]),
            envelope=said["envelope"].encode(),
        )
    raise invalid(path, "a line is not an entry")


def _parsed(path: Path, line: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        said = json.loads(line)
        if isinstance(said, dict):
            return said
    raise invalid(path, "a line is damaged")


def _checked(path: Path, said: dict[str, Any], verifier_key: str) -> Checkpoint:
    try:
        return check_checkpoint(str(said["checkpoint"]), verifier_key)
    except Refusal as refusal:
        raise invalid(path, refusal.message) from refusal


def invalid(where: Path, why: str) -> Refusal:
    """An archive that is not what it should be; nothing was changed."""
    return Refusal(
        Kind.INVALID,
        "ARCHIVE_INVALID",
        f"the archive in {where} cannot be used: {why}. Expected an archive of this coordinator, "
        "or an empty folder to begin one",
    )
