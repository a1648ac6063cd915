"""Rule 7: what symbolic links count as, and which are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from housecall.fingerprint import fingerprint
from tests.housecall.fingerprint.world import code_of, plant


def test_links_inside_count_as_what_they_lead_to(tmp_path: Path) -> None:
    linked = plant(tmp_path / "linked", {"real/a": b"1", "real/sub/b": b"2"})
    (linked / "folder").symlink_to("real")
    (linked / "real" / "file").symlink_to("../real/sub/b")
    (linked / "absolute").symlink_to(linked / "real" / "a")
    copied = tmp_path / "copied"
    shutil.copytree(linked, copied, symlinks=False)
    assert fingerprint({"data": linked}) == fingerprint({"data": copied})


def test_a_folder_reached_twice_is_no_loop(tmp_path: Path) -> None:
    folder = plant(tmp_path / "data", {"a/x": b"1", "b/y": b"2"})
    (folder / "a" / "to_b").symlink_to("../b")
    (folder / "to_b").symlink_to("b")
    assert fingerprint({"data": folder}).files == 4


@pytest.mark.parametrize("target", [".", "..", "../../data", "self"])
def test_a_link_that_leads_back_is_refused(tmp_path: Path, target: str) -> None:
    folder = plant(tmp_path / "data", {"sub/x": b"1"})
    link = folder / "sub" / "self"
    link.symlink_to(target)
    code, path, message = code_of({"data": folder})
    assert (code, path) == ("DATA_SYMLINK_LOOP", link)
    assert message == (
        f"link {link}: expected a file or a folder at its end, "
        "got one that leads back to itself; remove the link"
    )


def test_links_that_lead_to_each_other_are_refused(tmp_path: Path) -> None:
    folder = plant(tmp_path / "data", {"a/x": b"1", "b/y": b"2"})
    (folder / "a" / "to_b").symlink_to("../b")
    (folder / "b" / "to_a").symlink_to("../a")
    assert code_of({"data": folder})[0] == "DATA_SYMLINK_LOOP"


def test_a_part_that_is_a_looping_link_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "loop"
    link.symlink_to("loop")
    assert code_of({"data": link})[:2] == ("DATA_SYMLINK_LOOP", link)


@pytest.mark.parametrize("kind", ["file", "folder", "missing", "prefix"])
def test_a_link_out_of_the_part_is_refused(tmp_path: Path, data: Path, kind: str) -> None:
    outside = plant(tmp_path / "data2", {"secret": b"s"})
    target = {
        "file": outside / "secret",
        "folder": tmp_path,
        "missing": tmp_path / "gone",
        "prefix": outside,
    }[kind]
    link = data / "scan" / "out"
    link.symlink_to(target)
    code, path, message = code_of({"data": data})
    assert (code, path) == ("DATA_OUTSIDE", link)
    assert message == (
        f"link {link} leads to {target}: expected that everything lies below {data}; "
        "put the file itself there"
    )


def test_a_link_to_nothing_is_refused(data: Path) -> None:
    link = data / "scan" / "dangling"
    link.symlink_to("gone")
    code, path, message = code_of({"data": data})
    assert (code, path) == ("DATA_MISSING", link)
    assert message == (
        f"link {link}: expected a file or a folder at {data}/scan/gone, found nothing; "
        "restore it or remove the link"
    )
