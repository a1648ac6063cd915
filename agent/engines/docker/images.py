"""Images by digest: found at the site, pulled where that is allowed, loaded from archives."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from agent.engines.docker.connection import Connection
from agent.engines.docker.failures import scan, translated
from agent.engines.docker.pulling import Pull
from housecall.errors import Kind, Refusal

MAX_IMAGE_CONFIG_BYTES = 4 * 2**20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Images:
    """The engine's images; without `allow_pull` only those already at the site."""

    def __init__(self, connection: Connection, *, allow_pull: bool) -> None:
        self._connection = connection
        self._allow_pull = allow_pull

    @property
    def _client(self) -> Any:
        return self._connection.client

    def find(self, reference: str, digest: str, stopped: Callable[[], bool]) -> str:
        if not _DIGEST.fullmatch(digest):
            message = f"image {reference}: expected a digest sha256:<64 hex digits>, got {digest!r}"
            raise Refusal(Kind.INVALID, "IMAGE_DIGEST_INVALID", message)
        found = self._local(digest)
        if found is None and self._allow_pull:
            wanted = reference if "@" in reference else f"{_repository(reference)}@{digest}"
            Pull(self._connection, wanted).run(stopped)
            found = self._local(digest)
        if found is not None:
            return found
        other = self._inspect(reference)
        if other is not None:
            raise _differs(f"image {reference}", digest, other["Id"])
        message = f"image {reference}: expected {digest} at the site, got nothing; load it"
        raise Refusal(Kind.NOT_FOUND, "IMAGE_NOT_FOUND", message)

    def load_archive(self, path: Path, expected_image_id: str) -> str:
        if self._inspect(expected_image_id) is not None:
            return expected_image_id
        held = _archived_image_id(path)
        if held != expected_image_id:
            raise _differs("image archive", expected_image_id, held)
        with translated("IMAGE_ARCHIVE_INVALID", "load the archive"), path.open("rb") as archive:
            scan(self._client.load_image(archive), "image archive", "IMAGE_ARCHIVE_INVALID")
        if self._inspect(expected_image_id) is None:
            raise _differs("image archive", expected_image_id, "another image")
        return expected_image_id

    def size(self, image_id: str) -> int:
        image = self._inspect(image_id)
        if image is None:
            message = f"image {image_id}: expected it at the site, got nothing; load it"
            raise Refusal(Kind.NOT_FOUND, "IMAGE_NOT_FOUND", message)
        return int(image["Size"])

    def volumes(self, image_id: str) -> list[str]:
        """The paths that the image declares as VOLUME; none of an image that is gone."""
        image = self._inspect(image_id) or {}
        return list((image.get("Config") or {}).get("Volumes") or {})

    def _inspect(self, image: str) -> dict[str, Any] | None:
        with translated("ENGINE_UNREACHABLE", "inspect an image"), suppress(NotFound):
            found: dict[str, Any] = self._client.inspect_image(image)
            return found
        return None

    def _local(self, digest: str) -> str | None:
        """The image whose id, or one of whose manifests under any name, has this digest."""
        found = self._inspect(digest)
        if found is not None:
            return str(found["Id"])
        with translated("ENGINE_UNREACHABLE", "list its images"):
            images = self._client.images()
        for image in images:
            if any(name.endswith("@" + digest) for name in image.get("RepoDigests") or ()):
                return str(image["Id"])
        return None


def _repository(reference: str) -> str:
    head, _, tail = reference.rpartition(":")
    return head if head and "/" not in tail else reference


def _archived_image_id(path: Path) -> str:
    """The id of the one image in a `docker save` archive: the digest of its configuration."""
    try:
        with tarfile.open(path) as archive:
            manifest = json.loads(_member(archive, "manifest.json"))
            (image,) = manifest
            return "sha256:" + hashlib.sha256(_member(archive, image["Config"])).hexdigest()
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as error:
        message = "image archive: expected a `docker save` archive of one image, got "
        message += f"{type(error).__name__}; ask its owner for a new one"
        raise Refusal(Kind.INVALID, "IMAGE_ARCHIVE_INVALID", message) from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise KeyError(name)
    return member.read(MAX_IMAGE_CONFIG_BYTES)


def _differs(what: str, expected: str, got: str) -> Refusal:
    message = f"{what}: expected {expected}, got {got}; ask its owner which one is meant"
    return Refusal(Kind.CONFLICT, "IMAGE_DIGEST_DIFFERS", message)
