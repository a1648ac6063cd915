"""Files that change between their listing and the end of their reading."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from housecall.fingerprint import DataError
from housecall.fingerprint.hashing import Unit, hash_unit
from housecall.fingerprint.listing import scan
from tests.housecall.fingerprint.world import MIB, code_of, plant


def listed(folder: Path) -> Unit:
    """The only file of a folder, as it was listed."""
    (entry,) = scan("data", folder).entries
    return Unit(entry.key, 0, entry.size)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    other.replace(path)


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def become_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [append, replace, touch, become_link, become_fifo, Path.unlink])
def test_a_file_changed_after_it_was_listed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = plant(tmp_path / "data", {"a": b"abc"})
    unit = listed(folder)
    change(folder / "a")
    with pytest.raises(DataError) as caught:
        hash_unit(unit, memoryview(bytearray(100)))
    assert (caught.value.code, caught.value.path) == ("DATA_CHANGED", folder / "a")
    assert caught.value.message.endswith("; stop what changes the data and start again")


def test_the_change_is_named_with_before_and_after(tmp_path: Path) -> None:
    folder = plant(tmp_path / "data", {"a": b"abc"})
    os.utime(folder / "a", ns=(5, 5))
    unit = listed(folder)
    append(folder / "a")
    os.utime(folder / "a", ns=(7, 7))
    with pytest.raises(DataError) as caught:
        hash_unit(unit, memoryview(bytearray(100)))
    assert caught.value.message == (
        f"{folder}/a changed while it was read: expected 3 bytes of mtime 5 ns, "
        "got 7 bytes of mtime 7 ns; stop what changes the data and start again"
    )


def test_a_file_that_is_being_written_is_refused(tmp_path: Path) -> None:
    folder = plant(tmp_path / "data", {"a": b"x"})
    os.truncate(folder / "a", 200 * MIB)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            append(folder / "a")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert code_of({"data": folder})[0] == "DATA_CHANGED"
    finally:
        stop.set()
        writer.join()
