"""Trees of real files, caches and clocks that the tests of fingerprints share."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from housecall.fingerprint import DataError, FingerprintCache, fingerprint
from tests.housecall.fingerprint.reference import reference

MIB = 1 << 20

Tree = dict[str, bytes | None]
"""Content by path; None is an empty folder."""


def plant(folder: Path, tree: Tree) -> Path:
    """Create the files of a tree, in the order of the mapping."""
    folder.mkdir(parents=True)
    for path, content in tree.items():
        target = folder / path
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return folder


def digest_of(tree: Tree, **options: int) -> str:
    """Fingerprint of a tree as the part `data`, through real files."""
    with tempfile.TemporaryDirectory() as folder:
        data = plant(Path(folder, "data"), tree)
        got = fingerprint({"data": data}, **options).digest  # type: ignore[arg-type]
        assert got == reference({"data": data})
        return got


def later(seconds: float = 60) -> Callable[[], int]:
    """A clock that runs ahead, so that files made just now are old enough to be remembered."""
    return lambda: time.time_ns() + int(seconds * 1e9)


def code_of(parts: Mapping[str, Path]) -> tuple[str, Path, str]:
    """Code, path and message of the refusal."""
    with pytest.raises(DataError) as caught:
        fingerprint(parts)
    return caught.value.code, caught.value.path, caught.value.message


def remembered(cache: FingerprintCache, folder: Path) -> dict[bytes, bytes]:
    return cache.load([os.fsencode(folder.resolve())])


def poison(cache: FingerprintCache, folder: Path) -> None:
    """Wrong digests for all that the cache knows: whoever uses it gets another fingerprint."""
    known = remembered(cache, folder)
    assert known
    cache.save(dict.fromkeys(known, b"0" * 64), later(3600)())
