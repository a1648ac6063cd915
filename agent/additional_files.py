"""Additional files of a container: fetched once, checked, unpacked, and verified at every use.

The cache holds `<digest>/files` beside `<digest>/manifest.json`, complete or absent: it is made
in a folder of another name, synced, and renamed. Only the SHA-256 decides what is taken; where
it comes from does not matter. Unpacking is in `unpacking.py`; whether to fetch at all is left
to the pipeline.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.unpacking import DEFAULT_BOUNDS, Bounds, refuse, unpack
from housecall.errors import Kind, Refusal

__all__ = ["PARTIAL", "Bounds", "ensure", "remove_partial"]

CHUNK = 2**20
READ_TIMEOUT_S = 60
FETCH_S = 6 * 3600
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
    bounds: Bounds = DEFAULT_BOUNDS,
    stopped: Callable[[], bool] = lambda: False,
) -> Path:
    """The folder with the verified files of the tarball `digest`, fetched from `source` (http,
    https; with `allow_local` also a file URL or a path) unless the cache holds them intact.
    Raises `Refusal` ADDITIONAL_FILES_UNAVAILABLE, _DIGEST_DIFFERS, _UNSAFE or DISK_FULL."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        refuse(Kind.INVALID, "DIGEST_DIFFERS", "a digest sha256:<64 hex digits>", "another text")
    entry = cache / match[1]
    if _intact(entry):
        return entry / "files"
    with _disk(), _workplace(cache) as work:
        archive = work / "archive"
        _fetch(_location(source, allow_local), archive, match[1], bounds, stopped)
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
    _sync(entry.parent)


def _location(source: str, allow_local: bool) -> str:
    scheme = urllib.parse.urlsplit(source).scheme
    if scheme in ("http", "https"):
        return source
    if scheme not in ("", "file") or not allow_local:
        allowed = "http or https" + (", a file URL or a path" if allow_local else "")
        refuse(Kind.INVALID, "UNAVAILABLE", f"a source by {allowed}", scheme or "a path")
    return source if scheme else Path(source).absolute().as_uri()


def _fetch(
    location: str, target: Path, expected: str, bounds: Bounds, stopped: Callable[[], bool]
) -> None:
    hasher, size = hashlib.sha256(), 0
    host = urllib.parse.urlsplit(location).hostname or "a local path"
    try:
        with (
            urllib.request.urlopen(location, timeout=READ_TIMEOUT_S) as answer,  # noqa: S310
            target.open("wb") as file,
        ):
            until = time.monotonic() + FETCH_S
            while chunk := answer.read1(CHUNK):
                if stopped():
                    raise Refusal(
                        Kind.CONFLICT,
                        "STEP_STOPPED",
                        f"additional files from {host}: the fetch was stopped; start it again",
                    )
                if time.monotonic() > until:
                    wanted = f"an end of the fetch from {host} within {FETCH_S} s"
                    refuse(Kind.UNAVAILABLE, "UNAVAILABLE", wanted, "none")
                size += len(chunk)
                if size > bounds.archive_bytes:
                    refuse(Kind.INVALID, "UNSAFE", f"at most {bounds.archive_bytes} bytes", "more")
                hasher.update(chunk)
                file.write(chunk)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = getattr(error, "code", None) or getattr(error, "reason", None)
        why = f"{reason or type(error).__name__}"
        refuse(Kind.UNAVAILABLE, "UNAVAILABLE", f"an archive from {host}", why)
    if hasher.hexdigest() != expected:
        got = f"sha256:{hasher.hexdigest()}"
        refuse(Kind.CONFLICT, "DIGEST_DIFFERS", f"sha256:{expected}", got)


def _write_manifest(entry: Path) -> None:
    manifest = entry / "manifest.json"
    manifest.write_text(json.dumps(_tree(entry / "files", sync=True), sort_keys=True))
    _sync(manifest)
    _sync(entry)


def _intact(entry: Path) -> bool:
    try:
        recorded = json.loads((entry / "manifest.json").read_text())
        return bool(recorded == _tree(entry / "files"))
    except (OSError, ValueError):
        return False


def _tree(root: Path, *, sync: bool = False) -> dict[str, str]:
    """Each path below the root: a file's digest, a link's target, or that it is a folder."""
    tree = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            tree[name] = f"link:{path.readlink()}"
            continue
        if sync:
            _sync(path)
        if path.is_dir():
            tree[name] = "folder"
        else:
            with path.open("rb") as file:
                tree[name] = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return tree


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
