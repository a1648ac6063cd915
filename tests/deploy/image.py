"""A machine that boots, as an image: Debian with systemd and Python, and Housecall's wheels in it.

Made of Debian's packages and of the project's own bundle, with no registry. Two layers: the plain
machine, made again when its packages change; and one on which the bundle's `install.sh` has run,
made again when the requirements do. The project itself is installed by every test run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import docker

from examples.images import debian
from examples.images.builder import STAMP, Builder, stamp
from examples.images.plan import DOWNLOADS

PLAIN, INSTALLED = "housecall-test/machine:1", "housecall-test/machine-installed:1"
RECIPE = "1"  # raise when `_fill` makes something else of the same packages
PACKAGES = (
    "bash",
    "coreutils",
    "dbus",
    "dbus-bin",
    "dbus-daemon",
    "dbus-session-bus-common",
    "dbus-system-bus-common",
    "debianutils",
    "findutils",
    "grep",
    "gzip",
    "libacl1",
    "libapparmor1",
    "libargon2-1",
    "libattr1",
    "libaudit1",
    "libblkid1",
    "libcap-ng0",
    "libcap2",
    "libcryptsetup12",
    "libdbus-1-3",
    "libdevmapper1.02.1",
    "libfdisk1",
    "libgcrypt20",
    "libgpg-error0",
    "libip4tc2",
    "libjson-c5",
    "libkmod2",
    "liblz4-1",
    "libmount1",
    "libncursesw6",
    "libp11-kit0",
    "libpam0g",
    "libpcre2-8-0",
    "libproc2-0",
    "libreadline8",
    "libseccomp2",
    "libselinux1",
    "libsemanage2",
    "libsepol2",
    "libsmartcols1",
    "libsystemd-shared",
    "libsystemd0",
    "libtinfo6",
    "libudev1",
    "libzstd1",
    "login",
    "mount",
    "passwd",
    "procps",
    "sed",
    "systemd",
    "systemd-sysv",
    "tar",
    "util-linux",
)
OF_HARDWARE = (
    "dev-hugepages.mount",
    "getty.target",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-firstboot.service",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
)
"""Units that have no business in a container."""


def image(client: docker.DockerClient, bundle: Path) -> str:
    """The name of an image with what `bundle` needs; built where it is missing or old."""
    builder = Builder(client, DOWNLOADS)
    plain = stamp("", None, RECIPE, *debian.PYTHON_PACKAGES, *PACKAGES)
    if builder.stamp_of(PLAIN) != plain:
        builder.import_root(PLAIN, plain, _fill)
    parts = [(bundle / name).read_bytes() for name in ("requirements.txt", "install.sh")]
    wanted = stamp(plain, None, *(hashlib.sha256(part).hexdigest() for part in parts))
    if builder.stamp_of(INSTALLED) != wanted:
        _install(client, bundle, wanted)
    return INSTALLED


def _fill(root: Path, downloads: Path) -> None:
    debian.python_root(root, downloads)
    debian.unpack(PACKAGES, root, downloads)
    for name, target in (("var/run", "/run"), ("var/lock", "/run/lock")):
        (root / name).rmdir()
        (root / name).symlink_to(target)
    for unit in OF_HARDWARE:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    default = root / "etc/systemd/system/default.target"
    default.symlink_to("/usr/lib/systemd/system/multi-user.target")
    (root / "etc/machine-id").touch()
    groups = root / "etc/group"
    groups.write_text(groups.read_text() + "adm:x:4:\ntty:x:5:\nshadow:x:42:\nutmp:x:43:\n")


def _install(client: docker.DockerClient, bundle: Path, wanted: str) -> None:
    container: Any = client.containers.run(
        PLAIN,
        ["sh", "/bundle/install.sh", "cli"],
        volumes={str(bundle): {"bind": "/bundle", "mode": "ro"}},
        network_mode="none",
        detach=True,
    )
    try:
        ended = container.wait(timeout=300)
        assert ended["StatusCode"] == 0, container.logs().decode()
        repository, tag = INSTALLED.split(":")
        container.commit(repository, tag, conf={"Labels": {STAMP: wanted}})
    finally:
        container.remove(force=True)
