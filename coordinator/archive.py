"""The archive: every entry once more, on another disk, before anyone is answered.

The newest backup and the archive bring back the last statement that anyone got a receipt for. Files
`entries-<index of the first>.jsonl` hold blocks: up to PAGE entries, a JSON object a line, then a
line with the checkpoint that signs the tree up to the last of them. A block that a crash cut off
was answered to nobody; it is cut away at the next start.
"""

from __future__ import annotations

import json
import logging
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
from coordinator.store.files import sync
from housecall import merkle
from housecall.errors import Kind, Refusal
from housecall.note import Checkpoint
from housecall.verify import check_checkpoint

log = logging.getLogger(__name__)

PAGE = 500
ENTRIES_A_FILE = 10_000
_CHECKPOINT = b'{"checkpoint": '


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
        with self._reachable(), ExitStack() as stack:
            self._lock = stack.enter_context(hold(folder))
            self._path, self._end, self._newest = self._mended()
            stack.pop_all()
        self.size = self._newest.size if self._newest else 0

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def check(self, reader: Reader) -> None:
        """Refuses where the store is not what was archived, or older than that."""
        size = reader.tree_size()
        if self.size > size:
            raise Refusal(
                Kind.NOT_READY,
                "STORE_BEHIND_ARCHIVE",
                f"the store has {size} entries, and {self.size} are in the archive in "
                f"{self._folder}: empty the store and restore the backup with `--archive`, so "
                "that nothing is lost that sites have receipts for",
            )
        if self._newest and merkle.root(self.size, reader.node) != self._newest.root:
            raise invalid(self._folder, f"its first {self.size} entries are not the store's")

    def follow(self, reader: Reader, size: int) -> None:
        """Bring it up to `size` entries of a store; they are on the disk when it returns.

        Refuses ARCHIVE_FAILED; the next call writes what is missing then.
        """
        with self._reachable():
            while self.size < size:
                self._append(reader.entries(self.size, min(PAGE, size - self.size)), reader)

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
        if path is None or self.size - _first(path) >= ENTRIES_A_FILE:
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
        self._path, self._end, self.size = path, end + len(block), size

    def _mended(self) -> tuple[Path | None, int, Checkpoint | None]:
        """The file to go on with, where its last whole block ends, and what that signs."""
        for path in reversed(_files(self._folder)):
            end, signed = 0, None
            with path.open("rb") as file:
                for line in file:
                    if line.startswith(_CHECKPOINT) and line.endswith(b"\n"):
                        end, signed = file.tell(), line
            if signed:
                checked = _checked(path, json.loads(signed), self._ledger.verifier_key)
                return path, end, checked
            path.unlink()  # begun, and cut off within its first block
        return None, 0, None


def blocks(folder: Path, verifier_key: str) -> Iterator[Block]:
    """Everything in an archive that nobody writes to, in order.

    Refuses ARCHIVE_INVALID where a line is damaged or a checkpoint not signed by the ledger's key.
    """
    files = _files(folder)
    if not files:
        raise invalid(folder, "it holds no entries")
    for path in files:
        entries: list[LedgerEntry] = []
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # cut off
                said = _parsed(path, line)
                if "checkpoint" in said:
                    yield Block(entries, _checked(path, said, verifier_key))
                    entries = []
                else:
                    entries.append(_entry(path, said))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("entries-*.jsonl"))


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
