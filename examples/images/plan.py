"""Decides what has to be built: only images whose inputs, or whose parents' inputs, changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import docker
from docker.errors import DockerException, ImageNotFound

from examples.images import catalog, debian
from examples.images.builder import Builder, stamp
from examples.images.packing import BuildError

DOWNLOADS = catalog.EXAMPLES.parent / ".demo" / "downloads"
ROOTS = {catalog.BASE: debian.python_root, catalog.BUSYBOX: debian.busybox_root}
PACKAGES = {catalog.BASE: debian.PYTHON_PACKAGES, catalog.BUSYBOX: debian.BUSYBOX_PACKAGES}
Say = Callable[[str], None]


def build_images(
    *,
    only: str | None = None,
    base: str | None = None,
    downloads: Path = DOWNLOADS,
    say: Say = print,
) -> list[str]:
    """Build what is out of date and return the names of what was built.

    `base` takes the place of both root file systems that are made from Debian's packages.
    Raises BuildError, or ValueError for an unknown `only`.
    """
    images = catalog.wanted(only)
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        raise BuildError("no Docker engine answers: run `python -m examples.engine up`") from error
    try:
        return _build(Builder(client, downloads), images, _given_base(client, base), say)
    finally:
        client.close()


def _given_base(client: docker.DockerClient, base: str | None) -> tuple[str, str] | None:
    if base is None:
        return None
    try:
        image = client.images.get(base)
    except ImageNotFound:
        try:
            image = client.images.pull(base)
        except DockerException as error:
            raise BuildError(f"base image {base} is not here and cannot be pulled") from error
    return base, str(image.id)


def _build(
    builder: Builder,
    images: tuple[catalog.Image, ...],
    given: tuple[str, str] | None,
    say: Say,
) -> list[str]:
    built: list[str] = []
    stamps: dict[str, str] = {}
    names: dict[str, str] = {}
    for root in ROOTS:
        names[root] = given[0] if given else root
        stamps[root] = given[1] if given else stamp("", None, *PACKAGES[root])

    def bring(name: str, work: Callable[[], None]) -> None:
        if builder.stamp_of(name) == stamps[name]:
            return
        begin = time.monotonic()
        say(f"building {name}")
        work()
        built.append(name)
        say(f"  {name} built in {time.monotonic() - begin:.1f} s")

    needed = {image.parent for image in images}
    for root, fill in ROOTS.items():
        if given is None and root in needed:
            bring(root, lambda root=root, fill=fill: builder.import_root(root, stamps[root], fill))  # type: ignore[misc]
    for image in images:
        stamps[image.name] = stamp(stamps[image.parent], image.folder)
        names[image.name] = image.name
        parent = names[image.parent]
        bring(
            image.name,
            lambda image=image, parent=parent: builder.build(image, parent, stamps[image.name]),  # type: ignore[misc]
        )
    return built
