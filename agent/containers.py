"""A registered container made ready at this site: image, configuration, parameters, files.

The registration was verified by `registry.py`; the image is found by digest, additional files
are verified at every use. How its tasks are run is left to `pipeline.py`.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent import additional_files
from agent.engines.port import Engine
from agent.fetching import Outward
from agent.registry import Container
from housecall.container_config import ContainerConfig, Role, parse
from housecall.errors import Kind, Refusal
from housecall.statement import digest
from housecall.v1 import statements_pb2 as pb

ROLES = {
    pb.CONTAINER_ROLE_PREPARATION: Role.PREPARATION,
    pb.CONTAINER_ROLE_MODEL: Role.MODEL,
    pb.CONTAINER_ROLE_EVALUATOR: Role.EVALUATOR,
}


@dataclass(frozen=True)
class Ready:
    """A container that can be started. `files` is None when it has no additional files."""

    digest: str
    image_digest: str
    image_id: str
    config: ContainerConfig
    parameters: str
    files: Path | None
    parameters_digest: str
    files_digest: str


@dataclass(frozen=True)
class Presence:
    """What of a container is at the site already."""

    image_present: bool
    image_bytes: int
    files_present: bool


class Containers:
    """Makes containers ready. `local` is the same engine without leave to pull."""

    def __init__(
        self, engine: Engine, local: Engine, cache: Path, *, allow_local: bool, outward: Outward
    ) -> None:
        self._engine = engine
        self._local = local
        self._cache = cache
        self._allow_local = allow_local
        self._outward = outward
        additional_files.remove_partial(cache)

    def ready(
        self, container: Container, role: Role, stopped: Callable[[], bool] = lambda: False
    ) -> Ready:
        """Fetches what is missing until `stopped`. Raises `Refusal` when it is not what was
        registered."""
        stated = container.statement
        if ROLES.get(stated.role) is not role:
            raise Refusal(
                Kind.INVALID,
                "CONTAINER_WRONG_ROLE",
                f"container {container.id}: expected a container for {role.value}, got "
                f"{pb.ContainerRole.Name(stated.role)}",
            )
        config = parse(stated.configuration, role)
        extra = stated.additional_files
        return Ready(
            digest=container.digest,
            image_digest=stated.image_digest,
            image_id=self._image(config, stated.image_digest, stopped),
            config=config,
            parameters=stated.parameters,
            files=self._files(extra.uri, extra.digest, stopped) if extra.digest else None,
            parameters_digest=digest(stated.parameters.encode()) if stated.parameters else "",
            files_digest=extra.digest,
        )

    def presence(self, container: Container) -> Presence:
        """Looks without fetching."""
        stated = container.statement
        config = parse(stated.configuration, ROLES[stated.role])
        files = stated.additional_files.digest
        known = not files or (self._cache / files.removeprefix("sha256:")).is_dir()
        try:
            image = self._local.find_image(config.image, stated.image_digest)
            return Presence(True, self._local.image_size(image), known)
        except Refusal as refusal:
            if refusal.kind is Kind.UNAVAILABLE:
                raise
            return Presence(False, 0, known)

    def _image(
        self, config: ContainerConfig, image_digest: str, stopped: Callable[[], bool]
    ) -> str:
        if config.container_type != "DockerArchive":
            return self._engine.find_image(config.image, image_digest, stopped)
        scheme = urllib.parse.urlsplit(config.image).scheme
        if scheme in ("", "file") and self._allow_local:
            path = Path(urllib.parse.urlsplit(config.image).path)
            return self._engine.load_archive(path, image_digest)
        return self._local.find_image(config.image, image_digest)

    def _files(self, uri: str, files_digest: str, stopped: Callable[[], bool]) -> Path:
        return additional_files.ensure(
            uri,
            files_digest,
            self._cache,
            allow_local=self._allow_local,
            outward=self._outward,
            stopped=stopped,
        )
