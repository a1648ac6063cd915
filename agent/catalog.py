"""The site's datasets: the only file that knows where data lies.

One folder a dataset, `datasets/<number>/`: `dataset.json` (replaced in one move), `prepared/`
with `data`, `labels` and `metadata`, `report.yaml`, `statistics.yaml`, `logs/`. What was prepared
elsewhere stays where it is. What the steps do in these folders is left to `preparation.py`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from housecall.errors import Kind, Refusal
from housecall.files import sync
from housecall.identity import write_private

log = logging.getLogger(__name__)
REGISTERED, PREPARING, OUTSTANDING = "REGISTERED", "PREPARING", "OUTSTANDING"
BROKEN, PREPARED, OPERATIONAL = "BROKEN", "PREPARED", "OPERATIONAL"


@dataclass(frozen=True)
class Dataset:
    """What the site knows about one of its datasets. `envelope_digest` is that of the statement
    which registered it; `benchmark_id` is 0 when a preparation container was chosen directly;
    `state` is one of the words above."""

    number: int
    id: str
    name: str
    description: str
    location: str
    data_path: str
    labels_path: str
    metadata_path: str
    preparation_id: int
    preparation_digest: str
    benchmark_id: int
    already_prepared: bool
    raw_fingerprint: str
    envelope_digest: str = ""
    state: str = REGISTERED
    prepared_fingerprint: str = ""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    cases: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


class Catalog:
    """The datasets below `root`; safe to use from several threads."""

    def __init__(self, root: Path, *, site: str, allowed: list[Path], forbidden: Path) -> None:
        self.root = root
        self._site = site
        self._allowed = [Path(os.path.realpath(path)) for path in allowed]
        self._forbidden = Path(os.path.realpath(forbidden))
        self._lock = threading.RLock()
        self._damaged: set[int] = set()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def check_path(self, text: str, what: str) -> Path:
        """The real path of a folder that datasets may be in; raises `Refusal`."""
        path = Path(os.path.realpath(text))
        if not Path(text).is_absolute():
            raise _not_allowed(f"{what}: expected an absolute path, got {text!r}")
        if not self._allowed:
            raise _not_allowed(
                f"{what} {text}: this site allows no folder for datasets yet; name some in the "
                "agent's setting allowed_paths (HOUSECALL_AGENT_ALLOWED_PATHS)"
            )
        if not any(path.is_relative_to(folder) for folder in self._allowed):
            allowed = ", ".join(str(folder) for folder in self._allowed)
            raise _not_allowed(
                f"{what} {text}: expected a path below {allowed}, got {path}; move the data, or "
                "add its folder to the agent's setting allowed_paths"
            )
        if path.is_relative_to(self._forbidden) or self._forbidden.is_relative_to(path):
            raise _not_allowed(f"{what} {text}: the agent's own folder cannot be data")
        if path.exists() and not path.is_dir():
            raise Refusal(
                Kind.INVALID,
                "PATH_NOT_A_FOLDER",
                f"{what} {text}: expected a folder, got a file; containers are given folders: "
                "put the file into one of its own",
            )
        return path

    def require_in_place(self, kept: str, what: str) -> None:
        """Before it is mounted: no link has taken its place since it was registered."""
        if kept and str(self.check_path(kept, what)) != kept:
            raise _not_allowed(f"{what} {kept}: a link has taken its place; register it anew")

    def parts(self, dataset: Dataset, *, prepared: bool) -> dict[str, Path]:
        """The named parts that a fingerprint covers."""
        if not prepared or dataset.already_prepared:
            parts = {"data": dataset.data_path, "labels": dataset.labels_path}
            if dataset.metadata_path:
                parts["metadata"] = dataset.metadata_path
            return {name: Path(path) for name, path in parts.items()}
        folder = self.folder(dataset.number) / "prepared"
        found = {name: folder / name for name in ("data", "labels", "metadata")}
        if not any(found["metadata"].iterdir() if found["metadata"].is_dir() else ()):
            del found["metadata"]
        return found

    def folder(self, number: int) -> Path:
        return self.root / str(number)

    def next_number(self) -> int:
        with self._lock:
            return max(numbers(self.root), default=0) + 1

    def id_of(self, number: int) -> str:
        return f"{self._site}/{number}"

    def all(self) -> list[Dataset]:
        """Without those whose record is damaged: one must not hold up the others. `get` of such a
        one says what to do."""
        return [found for n in numbers(self.root) if (found := self._readable(n)) is not None]

    def get(self, dataset_id: str) -> Dataset:
        """By id, "north/1", or by its number alone."""
        site, _, number = dataset_id.rpartition("/")
        known = number.isdigit() and (self.folder(int(number)) / "dataset.json").exists()
        if not known or site not in ("", self._site):
            raise Refusal(
                Kind.NOT_FOUND,
                "DATASET_NOT_FOUND",
                f"dataset {dataset_id}: expected one of {self._site}, got none of that id; "
                "`housecall dataset ls --mine` lists them",
            )
        return self._read(int(number))

    def create(self, dataset: Dataset) -> None:
        """Take its number, or refuse with DRAFT_OUTDATED when it was taken meanwhile."""
        with self._lock:
            folder = self.folder(dataset.number)
            if (folder / "dataset.json").exists():
                raise Refusal(
                    Kind.CONFLICT,
                    "DRAFT_OUTDATED",
                    f"dataset {dataset.id}: the number was taken since this was shown; "
                    "register again",
                )
            folder.mkdir(mode=0o700, exist_ok=True)
            sync(self.root)
            self._write(dataset)

    def update(self, number: int, **changes: Any) -> Dataset:
        with self._lock:
            dataset = replace(self._read(number), **changes)
            self._write(dataset)
            return dataset

    def remove(self, number: int) -> None:
        """Only what was never prepared: a registration that came to nothing. Gone is no error."""
        with self._lock:
            folder = self.folder(number)
            if (folder / "dataset.json").exists() and self._read(number).state == REGISTERED:
                shutil.rmtree(folder)

    def _readable(self, number: int) -> Dataset | None:
        if not (self.folder(number) / "dataset.json").exists():
            return None
        try:
            found = self._read(number)
        except Refusal as refusal:
            if number not in self._damaged:
                log.error("dataset left out", extra={"dataset": number, "code": refusal.code})
            self._damaged.add(number)
            return None
        self._damaged.discard(number)
        return found

    def _read(self, number: int) -> Dataset:
        return read_record(self.root, number)

    def _write(self, dataset: Dataset) -> None:
        text = json.dumps(asdict(dataset), indent=1)
        write_private(self.folder(dataset.number) / "dataset.json", text.encode())


def numbers(root: Path) -> list[int]:
    """Of the folders below `root`, whatever is in them."""
    return sorted(int(path.name) for path in root.iterdir() if path.name.isdigit())


def read_record(root: Path, number: int) -> Dataset:
    """Refuses a damaged one with DATASET_DAMAGED."""
    try:
        return Dataset(**json.loads((root / str(number) / "dataset.json").read_text()))
    except (ValueError, TypeError) as error:
        raise Refusal(
            Kind.INTERNAL,
            "DATASET_DAMAGED",
            f"dataset {number}: its record cannot be read ({error}); restore "
            f"datasets/{number}/dataset.json from a backup of the state folder",
        ) from error


def _not_allowed(message: str) -> Refusal:
    return Refusal(Kind.NOT_ALLOWED, "PATH_NOT_ALLOWED", message)
