"""Additional files of a container: fetched once, checked, unpacked, and verified at every use.

The cache holds `<digest>/files` beside `<digest>/manifest.json`, complete or absent: it is made
in a folder of another name, synced, and renamed. Only the SHA-256 decides what is taken; where
it comes from does not matter. Fetching is in `fetching.py`, unpacking in `unpacking.py`; whether
to fetch at all is left to the pipeline.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.fetching import Outward, fetch
from agent.unpacking import DEFAULT_BOUNDS, Bounds, refuse, unpack
from housecall.errors import Kind, Refusal
from housecall.files import sync

__all__ = ["PARTIAL", "Bounds", "ensure", "remove_partial"]

CHUNK = 2**20
FULL = (errno.ENOSPC, errno.EDQUOT)
PARTIAL = ".partial-"
_REPLACING = threading.Lock()  # one agent a cache: its threads take turns
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


def ensure(
    source: str,
    digest: str,
    cache: Path,
    *,
    allow_local: bool,
    outward: Outward,
    bounds: Bounds = DEFAULT_BOUNDS,
    stopped: Callable[[], bool] = lambda: False,
) -> Path:
    """The folder with the verified files of the tarball `digest`, fetched from `source` (http,
    https; with `allow_local` also a file URL or a path) unless the cache holds them intact.
    Raises `Refusal` ADDITIONAL_FILES_UNAVAILABLE, _PRIVATE, _DIGEST_DIFFERS, _UNSAFE or
    DISK_FULL."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        refuse(Kind.INVALID, "DIGEST_DIFFERS", "a digest sha256:<64 hex digits>", "another text")
    entry = cache / match[1]
    if _intact(entry):
        return entry / "files"
    with _disk(), _workplace(cache) as work:
        archive = work / "archive"
        _fetch(source, archive, bounds, allow_local=allow_local, outward=outward, stopped=stopped)
        _require_digest(archive, match[1])
        fresh = work / "entry"
        (fresh / "files").mkdir(parents=True)
        unpack(archive, fresh / "files", bounds)
        _write_manifest(fresh)
        with _REPLACING:
            if not _intact(entry):
                _publish(fresh, entry, work / "broken")
    return entry / "files"


def _publish(fresh: Path, entry: Path, broken: Path) -> None:
    if entry.exists():
        entry.rename(broken)
    fresh.rename(entry)
    sync(entry.parent)


def _fetch(
    source: str,
    archive: Path,
    bounds: Bounds,
    *,
    allow_local: bool,
    outward: Outward,
    stopped: Callable[[], bool],
) -> None:
    parts = urllib.parse.urlsplit(source)
    if parts.scheme in ("http", "https"):
        fetch(source, archive, bounds.archive_bytes, outward=outward, stopped=stopped)
        return
    if parts.scheme not in ("", "file") or not allow_local:
        allowed = "http or https" + (", a file URL or a path" if allow_local else "")
        refuse(Kind.INVALID, "UNAVAILABLE", f"a source by {allowed}", parts.scheme or "a path")
    local = urllib.parse.unquote(parts.path) if parts.scheme else source
    _copy(Path(local), archive, bounds, stopped)


def _copy(source: Path, archive: Path, bounds: Bounds, stopped: Callable[[], bool]) -> None:
    size = 0
    try:
        reader = source.open("rb")
    except OSError as error:
        refuse(Kind.UNAVAILABLE, "UNAVAILABLE", "an archive from a local path", str(error.strerror))
    with reader, archive.open("wb") as file:
        while chunk := reader.read(CHUNK):
            if stopped():
                text = "additional files from a local path: the copy was stopped; start it again"
                raise Refusal(Kind.CONFLICT, "STEP_STOPPED", text)
            size += len(chunk)
            if size > bounds.archive_bytes:
                refuse(Kind.INVALID, "UNSAFE", f"at most {bounds.archive_bytes} bytes", "more")
            file.write(chunk)


def _require_digest(archive: Path, expected: str) -> None:
    with archive.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != expected:
        refuse(Kind.CONFLICT, "DIGEST_DIFFERS", f"sha256:{expected}", f"sha256:{got}")


def _write_manifest(entry: Path) -> None:
    manifest = entry / "manifest.json"
    manifest.write_text(json.dumps(_tree(entry / "files", keep=True), sort_keys=True))
    sync(manifest)
    sync(entry)


def _intact(entry: Path) -> bool:
    try:
        recorded = json.loads((entry / "manifest.json").read_text())
        return bool(recorded == _tree(entry / "files"))
    except (OSError, ValueError):
        return False


def _tree(root: Path, *, keep: bool = False) -> dict[str, str]:
    """Each path below the root: a file's digest, a link's target, or that it is a folder. With
    `keep` all of it is on the disk then."""
    tree = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            tree[name] = f"link:{path.readlink()}"
            continue
        if keep:
            sync(path)
        if path.is_dir():
            tree[name] = "folder"
        else:
            with path.open("rb") as file:
                tree[name] = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return tree


@contextmanager
def _workplace(cache: Path) -> Iterator[Path]:
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=cache))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def remove_partial(cache: Path) -> None:
    """What a killed agent left half done; to be called when it starts."""
    for work in cache.glob(PARTIAL + "*"):
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        message = "additional files: expected space in the cache, got a full disk; free some"
        raise Refusal(Kind.EXHAUSTED, "DISK_FULL", message) from error
