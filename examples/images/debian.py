"""Root file systems from Debian's packages: a Python without a package manager, and a busybox."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from examples import apt
from examples.images.packing import BuildError, compile_python

PYTHON_PACKAGES = (
    "base-files",
    "dash",
    "libbz2-1.0",
    "libc6",
    "libcrypt1",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libsqlite3-0",
    "libssl3",
    "libstdc++6",
    "libuuid1",
    "media-types",
    "netbase",
    "python3-minimal",
    "python3.11",
    "python3.11-minimal",
    "tzdata",
    "zlib1g",
)
BUSYBOX_PACKAGES = ("busybox-static",)
APPLETS = (
    "sh",
    "awk",
    "basename",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dirname",
    "echo",
    "env",
    "expr",
    "find",
    "grep",
    "head",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "od",
    "printf",
    "rm",
    "sed",
    "sleep",
    "sort",
    "tail",
    "test",
    "touch",
    "tr",
    "true",
    "uniq",
    "wc",
    "xargs",
)
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/lintian", "usr/share/locale")


def python_root(root: Path, downloads: Path) -> None:
    """Fill `root` with what a container needs to run Python 3.11, compiled in advance."""
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    unpack(PYTHON_PACKAGES, root, downloads)
    for name in UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    _accounts(root)
    compile_python(root / "usr/lib/python3.11", Path("/usr/lib/python3.11"))


def busybox_root(root: Path, downloads: Path) -> None:
    """Fill `root` with one static program under the names of a small POSIX userland."""
    unpack(BUSYBOX_PACKAGES, root, downloads)
    shutil.rmtree(root / "usr", ignore_errors=True)
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    _accounts(root)


def _accounts(root: Path) -> None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    for name in ("tmp", "proc", "sys", "dev"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)


def unpack(packages: tuple[str, ...], root: Path, downloads: Path) -> None:
    """Put packages' files into `root`, as they are; what is not in `downloads` is fetched."""
    for archive in _download(packages, downloads):
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE
        ) as unpacking:
            subprocess.run(
                ["tar", "--extract", "--keep-directory-symlink", "--directory", root],
                stdin=unpacking.stdout,
                check=True,
            )
        if unpacking.returncode != 0:
            raise BuildError(f"dpkg-deb could not read {archive.name}")


def _download(packages: tuple[str, ...], downloads: Path) -> list[Path]:
    """Fetch what is not there yet; apt checks every package against Debian's signed lists."""
    for program in ("apt-get", "dpkg-deb", "tar"):
        if shutil.which(program) is None:
            raise BuildError(f"{program} is not here: pass --base python:3.11-slim instead")
    downloads.mkdir(parents=True, exist_ok=True)
    lacking = [name for name in packages if not list(downloads.glob(f"{name}_*.deb"))]
    words = ("-o", "APT::Sandbox::User=root", "download", *lacking)
    if lacking and apt.run(*words, folder=downloads).returncode != 0:
        apt.run("update")
        done = apt.run(*words, folder=downloads)
        if done.returncode != 0:
            raise BuildError(f"apt-get download failed: {done.stderr.strip()}")
    return [max(downloads.glob(f"{name}_*.deb")) for name in packages]
