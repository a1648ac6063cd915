"""Talks to the engine: imports root file systems, builds Dockerfiles, and makes ids repeatable.

Every image carries the digest of all that went into it as a label; an image whose stamp is the
wanted one is not built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound

from examples.images.catalog import Image
from examples.images.packing import BuildError, install_wheels, write_tar

STAMP = "housecall-demo.stamp"
RECIPE = "1"  # raise when this package builds something else from the same inputs
CREATED = "2020-09-13T12:26:40Z"
Fill = Callable[[Path, Path], None]


class Builder:
    """Builds images with one engine; `downloads` keeps what was fetched between runs."""

    def __init__(self, client: docker.DockerClient, downloads: Path) -> None:
        self._client = client
        self._downloads = downloads

    def stamp_of(self, name: str) -> str | None:
        """The stamp of an image, None where it is absent or was built by someone else."""
        try:
            return self._client.images.get(name).labels.get(STAMP)
        except ImageNotFound:
            return None

    def import_root(self, name: str, stamp: str, fill: Fill) -> None:
        """Make an image of one layer out of the files that `fill(root, downloads)` puts down."""
        with tempfile.TemporaryDirectory() as scratch:
            root, layer = Path(scratch, "root"), Path(scratch, "layer.tar")
            root.mkdir()
            fill(root, self._downloads)
            write_tar(root, layer)
            config = {"Env": ["PATH=/usr/bin:/bin"], "Labels": {STAMP: stamp}}
            with layer.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            self._load(name, config, [f"sha256:{digest}"], layer)

    def build(self, image: Image, parent: str, stamp: str) -> None:
        """Build a Dockerfile with the engine's own builder, then pin the id to the content."""
        with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as context:
            folder = Path(scratch, "context")
            write_context(image, folder)
            write_tar(folder, Path(scratch, "context.tar"))
            context.write(Path(scratch, "context.tar").read_bytes())
            context.seek(0)
            try:
                built, _ = self._client.images.build(
                    fileobj=context,
                    custom_context=True,
                    buildargs={"BASE": parent},
                    labels={STAMP: stamp},
                    tag=image.name,
                    rm=True,
                    network_mode="none",
                )
            except DockerException as error:
                raise BuildError(f"{image.name}: {error}") from error
        self._seal(image.name, built)

    def _seal(self, name: str, built: Any) -> None:
        """Load the image again under a fixed date: layers that are there are not sent.

        An engine that insists on the layers' bytes keeps the image as built, with an id of its day.
        """
        config = {key: value for key, value in built.attrs["Config"].items() if value}
        config.pop("Image", None)
        config.pop("Hostname", None)
        try:
            self._load(name, config, built.attrs["RootFS"]["Layers"], None)
        except (DockerException, BuildError):
            built.tag(name)
            return
        with contextlib.suppress(DockerException):
            self._client.images.remove(built.id)

    def _load(
        self, name: str, config: dict[str, Any], layers: list[str], content: Path | None
    ) -> None:
        version = self._client.version()
        document = {
            "architecture": version["Arch"],
            "os": "linux",
            "created": CREATED,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": layers},
            "history": [{"created": CREATED, "created_by": "housecall demo"} for _ in layers],
        }
        config_bytes = json.dumps(document, sort_keys=True).encode()
        names = [f"{digest.removeprefix('sha256:')}/layer.tar" for digest in layers]
        config_name = hashlib.sha256(config_bytes).hexdigest() + ".json"
        manifest = [{"Config": config_name, "RepoTags": [name], "Layers": names}]
        with tempfile.TemporaryFile() as archive_file:
            with tarfile.open(fileobj=archive_file, mode="w") as archive:
                _add(archive, config_name, config_bytes)
                _add(archive, "manifest.json", json.dumps(manifest).encode())
                if content is not None:
                    archive.add(content, names[-1])
            archive_file.seek(0)
            loaded = self._client.images.load(archive_file)
        if not loaded:
            raise BuildError(f"{name}: the engine took the archive and made no image of it")


def stamp(parent_stamp: str, folder: Path | None, *words: str) -> str:
    """Digest of the parent's stamp and all inputs: names, bytes and executable bits of files."""
    digest = hashlib.sha256(f"{RECIPE}\n{parent_stamp}\n{' '.join(words)}\n".encode())
    for path in _inputs(folder) if folder else []:
        executable = "x" if path.stat().st_mode & 0o100 else "-"
        digest.update(f"{path.relative_to(folder or path)} {executable}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def write_context(image: Image, folder: Path) -> None:
    """Copy an image's inputs into `folder`; requirements become `opt/python/`."""
    for path in _inputs(image.folder):
        copy = folder / path.relative_to(image.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        copy.chmod(path.stat().st_mode & 0o777)
    if (image.folder / "requirements.txt").exists():
        install_wheels(image.folder / "requirements.txt", folder / "opt/python")


def _inputs(folder: Path) -> list[Path]:
    """What an image is made of: configuration and parameters are registered, not built in."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.suffix not in (".yaml", ".pyc")
    )


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
