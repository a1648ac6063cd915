"""The definition, against a second implementation written from the rules alone."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest

import housecall.fingerprint
from housecall.fingerprint import Fingerprint, fingerprint
from tests.housecall.fingerprint.reference import reference
from tests.housecall.fingerprint.world import MIB, plant


def test_the_vector_in_the_documentation(tmp_path: Path) -> None:
    data = plant(tmp_path / "data", {"scan/a.bin": b"abc", "empty": None})
    labels = tmp_path / "labels.csv"
    labels.write_bytes(b"x,1\n")
    got = fingerprint({"labels": labels, "data": data})
    digest = "sha256:3e953506e0f3efe1b9a88baa488966a671fe32b069b49a1bcddc52872fe38668"
    assert got == Fingerprint(digest=digest, files=2, bytes=7)
    assert reference({"labels": labels, "data": data}) == digest
    documented = housecall.fingerprint.__doc__ or ""
    assert digest in documented
    manifest = re.search(r"^    housecall fingerprint 1\n(    .*\n)+", documented, re.MULTILINE)
    assert manifest
    text = re.sub(r"^    ", "", manifest[0], flags=re.MULTILINE)
    assert f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" == digest


@pytest.mark.parametrize(
    "size", [1, MIB - 1, MIB, MIB + 1, 64 * MIB, 64 * MIB + 1, 128 * MIB, 128 * MIB + 3]
)
def test_sizes_around_every_bound(tmp_path: Path, size: int) -> None:
    folder = plant(tmp_path / "data", {"small": b"x"})
    with (folder / "large").open("wb") as file:
        file.write(b"begin")
        file.truncate(size)
        file.seek(max(size - 3, 0))
        file.write(b"end"[:size])
    parts = {"data": folder}
    assert fingerprint(parts).digest == reference(parts)
    assert fingerprint(parts, threads=1).digest == reference(parts)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    folder = plant(tmp_path / "data", {"a": b"x"})
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe\n"))).write_bytes(b"y")
    assert fingerprint({"data": folder}).digest == reference({"data": folder})


def test_where_a_part_lies_does_not_count(tmp_path: Path, data: Path) -> None:
    moved = tmp_path / "elsewhere" / "deeper"
    shutil.copytree(data, moved)
    link = tmp_path / "link"
    link.symlink_to(data)
    first = fingerprint({"data": data})
    assert fingerprint({"data": moved}) == first
    assert fingerprint({"data": link}) == first
    assert fingerprint({"data": Path(os.path.relpath(data))}) == first


def test_a_file_as_a_part_counts_with_its_name(tmp_path: Path) -> None:
    first, same = tmp_path / "labels.csv", tmp_path / "moved" / "labels.csv"
    other = tmp_path / "other.csv"
    same.parent.mkdir()
    for path in (first, same, other):
        path.write_bytes(b"x,1\n")
    assert fingerprint({"labels": first}) == fingerprint({"labels": same})
    assert fingerprint({"labels": first}) != fingerprint({"labels": other})
    assert fingerprint({"labels": first}).digest != fingerprint({"labels": same.parent}).digest


def test_swapped_parts_differ_and_one_folder_may_be_two(tmp_path: Path, data: Path) -> None:
    labels = plant(tmp_path / "labels", {"a.csv": b"1"})
    digests = {
        fingerprint(parts).digest
        for parts in (
            {"data": data, "labels": labels},
            {"data": labels, "labels": data},
            {"data": data, "labels": data},
            {"data": data},
            {"labels": data},
        )
    }
    assert len(digests) == 5
    assert fingerprint({"data": data, "labels": data}).files == 4
