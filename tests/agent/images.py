"""A tiny image to try engines on: busybox and nothing else, made offline but for its package.

Cached by its tag at the engine; built in about a second otherwise.
"""

from __future__ import annotations

import atexit
import functools
import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import docker

from examples.images import debian
from examples.images.plan import DOWNLOADS

TAG = "housecall-test/busybox:1"
_APPLETS = "sh cat cp dd df echo env false head id kill ls mkdir mount seq sleep stat touch true wc"


@functools.cache
def client() -> Any:
    """A client of its own, to look at what the engine under test did."""
    opened = docker.APIClient(timeout=30)
    atexit.register(opened.close)
    return opened


def busybox() -> str:
    """The image id of `TAG`, built when the engine lacks it."""
    engine = client()
    try:
        image = engine.inspect_image(TAG)
    except docker.errors.ImageNotFound:
        repository, tag = TAG.split(":")
        engine.import_image_from_data(_filesystem(_binary()), repository=repository, tag=tag)
        image = engine.inspect_image(TAG)
    return str(image["Id"])


def derived(changes: list[str], tag: str) -> str:
    """The busybox image with Dockerfile instructions such as `VOLUME /data` applied; cached by
    the tag."""
    busybox()
    engine = client()
    try:
        return str(engine.inspect_image(f"{tag}:1")["Id"])
    except docker.errors.ImageNotFound:
        container = engine.create_container(TAG, command="true")["Id"]
    try:
        engine.commit(container, repository=tag, tag="1", changes=changes)
    finally:
        engine.remove_container(container, force=True)
    return str(engine.inspect_image(f"{tag}:1")["Id"])


def save(image_id: str, path: Path) -> Path:
    """A `docker save` archive of that image."""
    with path.open("wb") as archive:
        for chunk in client().get_image(image_id):
            archive.write(chunk)
    return path


def _binary() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        debian.unpack(debian.BUSYBOX_PACKAGES, Path(folder), DOWNLOADS)
        return (Path(folder) / "bin/busybox").read_bytes()


def _filesystem(binary: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in ("bin", "tmp", "proc", "sys", "dev", "etc", "in", "out"):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(member)
        member = tarfile.TarInfo("bin/busybox")
        member.mode, member.size = 0o755, len(binary)
        archive.addfile(member, io.BytesIO(binary))
        for applet in _APPLETS.split():
            member = tarfile.TarInfo(f"bin/{applet}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(member)
    return buffer.getvalue()
