"""Checks of the machine: room on its disks, its clock."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import struct
from pathlib import Path

from agent.doctor.finding import Level, Verdict, fail, ok, warn, worst
from agent.doctor.scene import Scene
from agent.journal_reader import JournalReader
from housecall.errors import Kind, Refusal

STA_UNSYNC = 0x0040
_STATUS_AT = 5 * 8
"""Where `struct timex` has its status on machines of 64 bits: adjtimex(2)."""


def disk(scene: Scene) -> Verdict:
    """Of the state, and of the engine where its disk is this machine's."""
    settings = scene.settings
    reserve = settings.disk_reserve_bytes
    parts = {"state": settings.state_dir}
    try:
        if scene.engine.root_dir is not None:
            parts["engine"] = scene.engine.root_dir
    except Refusal:
        pass  # the check of the engine says so
    found = [_room(scene, name, folder) for name, folder in parts.items()]
    if (bad := worst(found)).level is not Level.OK:
        return bad
    return ok(f"{', '.join(each.found for each in found)}; {_size(reserve)} are the reserve")


def _room(scene: Scene, name: str, folder: Path) -> Verdict:
    settings, on = scene.settings, os.statvfs(_existing(folder))
    reserve, free = settings.disk_reserve_bytes, on.f_bavail * on.f_frsize
    if free < reserve or (on.f_files and not on.f_favail):
        lacks = _size(free) if free < reserve else "no room for another file"
        what = f"{name}, {folder}: {lacks} free, {_size(reserve)} are the reserve"
        return fail(Kind.EXHAUSTED, what, _more(name))
    foreseen = largest_output(settings.state_dir) if name == "state" else 0
    if free < reserve + foreseen:
        what = f"{name}: {_size(free)} free; a step once wrote {_size(foreseen)}"
        return warn(f"{what}, and {_size(reserve)} are the reserve", _more(name))
    return ok(f"{name} {_size(free)} free")


def largest_output(state_dir: Path) -> int:
    """What the largest step took, as the journal knows; 0 where it does not."""
    try:
        with JournalReader(state_dir / "journal.sqlite") as reader:
            return reader.largest_output()
    except sqlite3.Error:
        return 0


def clock_source(scene: Scene) -> Verdict:
    """Whether the kernel holds its clock for set by somebody: NTP, PTP."""
    synchronised = kernel_synchronised()
    if synchronised is None:
        return warn("the kernel does not say whether its clock is set", "compare it by hand")
    if not synchronised:
        return warn(
            "this machine's clock is not set by NTP", "`timedatectl set-ntp true`, or chrony"
        )
    return ok("the clock is synchronised")


def kernel_synchronised() -> bool | None:
    """By adjtimex(2), which changes nothing when asked so; None where it cannot be asked."""
    timex = ctypes.create_string_buffer(512)
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "adjtimex") or libc.adjtimex(timex) < 0:
        return None
    (status,) = struct.unpack_from("i", timex, _STATUS_AT)
    return not status & STA_UNSYNC


def _more(name: str) -> str:
    if name == "engine":
        return "`docker image prune`, or a larger disk for the engine"
    return "remove old predictions in executions/, or lower the setting disk_reserve_bytes"


def _existing(folder: Path) -> Path:
    """The folder, or what it will lie in."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
