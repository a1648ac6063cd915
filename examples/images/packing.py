"""Folders into tarballs that are the same bytes at every build, and wheels into folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

EPOCH = 1_600_000_000
UNUSED = ("tests", "test", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "__pycache__")


class BuildError(Exception):
    """An image cannot be built; the message says what to do about it."""


def write_tar(folder: Path, out: Path) -> None:
    """Pack `folder` with sorted names, fixed times and root as owner."""
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            entry = archive.gettarinfo(path, str(path.relative_to(folder)))
            entry.mtime, entry.uid, entry.gid = EPOCH, 0, 0
            entry.uname = entry.gname = ""
            entry.mode = _mode(entry)
            if entry.isreg():
                with path.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)


def _mode(entry: tarfile.TarInfo) -> int:
    """Readable by any user, whatever the umask of whoever checked the sources out."""
    if entry.isdir():
        return 0o1777 if entry.mode & 0o1000 else 0o755
    return 0o755 if entry.mode & 0o100 else 0o644


def install_wheels(requirements: Path, target: Path) -> None:
    """Install exactly the wheels whose hashes `requirements` lists, compiled in advance."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)]
    command += ["--require-hashes", "--no-deps", "--no-compile", "--only-binary=:all:"]
    command += ["--python-version", "3.11", "--implementation", "cp"]
    command += ["--disable-pip-version-check", "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"pip could not install {requirements.name}:\n{done.stderr.strip()}")
    shutil.rmtree(target / "bin", ignore_errors=True)
    for record in (*target.glob("*.dist-info/direct_url.json"), *target.glob("*.dist-info/RECORD")):
        record.unlink()
    compile_python(target, Path("/opt/python"))


def compile_python(folder: Path, inside: Path) -> None:
    """Drop what no container imports, then compile: a read-only container cannot do it itself.

    Unchecked hashes spare a look at every source file at every import.
    """
    for name in UNUSED:
        for path in [*folder.rglob(name)]:
            if path.is_dir():
                shutil.rmtree(path)
    if sys.version_info[:2] != (3, 11):
        return
    command = [sys.executable, "-m", "compileall", "-q", "-j", str(os.cpu_count() or 1)]
    command += ["--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", str(inside)]
    subprocess.run([*command, str(folder)], stdout=subprocess.DEVNULL, check=False)
