"""What cannot be fingerprinted, in which words."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from housecall.errors import Kind, Refusal
from housecall.fingerprint import DataError, fingerprint
from housecall.fingerprint.refusals import KINDS
from tests.housecall.fingerprint.world import Tree, code_of, plant

NOBODY = 65534


def test_no_part_at_all() -> None:
    with pytest.raises(ValueError, match="expected at least one part, got none"):
        fingerprint({})


def test_a_refusal_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="found nothing; check the path") as caught:
        fingerprint({"data": tmp_path / "gone"})
    assert isinstance(caught.value, DataError)
    assert (caught.value.code, caught.value.kind) == ("DATA_MISSING", Kind.NOT_FOUND)
    assert str(caught.value).endswith(" [DATA_MISSING]")


def test_every_code_has_its_kind_and_is_named() -> None:
    assert set(KINDS) == set(re.findall(r"DATA_[A-Z_]+", fingerprint.__doc__ or ""))


@pytest.mark.parametrize("below", ["gone", "data/scan/a.bin/below"])
def test_a_part_that_is_not_there(tmp_path: Path, data: Path, below: str) -> None:
    missing = tmp_path / below
    code, path, message = code_of({"data": data, "labels": missing})
    assert (code, path) == ("DATA_MISSING", missing)
    assert message == (
        f"labels: expected a folder or a file at {missing}, found nothing; "
        "check the path, and that the disk it is on is mounted"
    )


@pytest.mark.parametrize("tree", [{}, {"sub": None}, {"a": b"", "b/c": b""}])
def test_a_part_without_a_byte(tmp_path: Path, data: Path, tree: Tree) -> None:
    labels = plant(tmp_path / "labels", tree)
    code, path, message = code_of({"data": data, "labels": labels})
    assert (code, path) == ("DATA_EMPTY", labels)
    assert message.startswith(f"labels: expected files with content at {labels}, found ")
    assert message.endswith(" and not one byte; check that it is the right one, and mounted")


def test_special_files_are_refused(tmp_path: Path, data: Path) -> None:
    fifo = data / "scan" / "fifo"
    os.mkfifo(fifo)
    code, path, message = code_of({"data": data})
    assert (code, path) == ("DATA_SPECIAL", fifo)
    assert message == f"{fifo}: expected files and folders only, got a fifo; move it elsewhere"
    assert code_of({"data": fifo})[:2] == ("DATA_SPECIAL", fifo)
    assert code_of({"data": Path("/dev/null")})[:2] == ("DATA_SPECIAL", Path("/dev/null"))


def test_sockets_are_refused(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.chdir(data)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        code, path, message = code_of({"data": data})
    assert (code, path) == ("DATA_SPECIAL", data / "socket")
    assert "got a socket" in message


@contextmanager
def as_nobody() -> Iterator[None]:
    """Permissions do not bind root: act as another user meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach too; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("victim", "mode"), [("scan/a.bin", 0), ("scan", 0), ("scan", 0o744)])
def test_what_may_not_be_read_is_named(open_folder: Path, victim: str, mode: int) -> None:
    folder = plant(open_folder / "data", {"scan/a.bin": b"abc", "b": b"def"})
    closed = folder / victim
    closed.chmod(mode)
    with as_nobody():
        user = os.geteuid()
        code, path, message = code_of({"data": folder})
        assert code_of({"data": folder / "scan" / "a.bin"})[0] == "DATA_UNREADABLE"
    closed.chmod(0o755)
    expected = closed / "a.bin" if mode else closed
    assert (code, path) == ("DATA_UNREADABLE", expected)
    assert message == (
        f"{expected}: expected to read it as user {user}, got: Permission denied; "
        "give that user the right to read, or check the disk"
    )
