"""The port's calls, made to Docker: start, adopt, wait, logs, stop, remove."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import requests
from docker.errors import DockerException, NotFound

from agent.engines import port
from agent.engines.docker import cage, endings, processes
from agent.engines.docker.connection import Connection
from agent.engines.docker.failures import LOST, gone, missing_step, translated
from agent.engines.docker.images import Images
from agent.engines.docker.lines import lines
from agent.engines.port import EngineFacts, Exit, Running, StepSpec
from housecall.errors import Refusal


class DockerEngine:
    """`url` None means the environment's DOCKER_HOST or the default socket; without
    `allow_pull` only images that are already at the site are found. Connects when first used."""

    def __init__(self, url: str | None, *, allow_pull: bool) -> None:
        self._connection = Connection(url)
        self._images = Images(self._connection, allow_pull=allow_pull)

    @property
    def _client(self) -> Any:
        return self._connection.client

    def close(self) -> None:
        self._connection.close()

    def facts(self) -> EngineFacts:
        with translated("ENGINE_UNREACHABLE", "ask for its facts"):
            info, version = self._client.info(), self._client.version()
        parts = " ".join(part.get("Name", "") for part in version.get("Components") or ())
        return EngineFacts(
            kind="podman" if "podman" in parts.lower() else "docker",
            version=version["Version"],
            runtime=info.get("DefaultRuntime", ""),
            os=info.get("OperatingSystem", ""),
            architecture=info.get("Architecture", ""),
            cpus=info["NCPU"],
            memory_bytes=info["MemTotal"],
            cgroup_version=str(info.get("CgroupVersion", "1")),
        )

    def find_image(
        self, reference: str, digest: str, stopped: Callable[[], bool] = lambda: False
    ) -> str:
        return self._images.find(reference, digest, stopped)

    def load_archive(self, path: Path, expected_image_id: str) -> str:
        return self._images.load_archive(path, expected_image_id)

    def image_size(self, image_id: str) -> int:
        return self._images.size(image_id)

    def start(self, spec: StepSpec) -> str:
        with translated("STEP_START_FAILED", f"start {spec.name}"):
            with self._connection.anew() as anew:  # one that goes down starts nothing
                cage.check_cage(anew.info())
            own = () if self._connection.socket is None else (self._connection.socket,)
            for mount in spec.mounts:
                port.check_mount(mount, port.ENGINE_SOCKETS + own)
            container_id = str(self._create(spec)["Id"])
            try:
                self._check_gpus(container_id, spec)
                self._client.start(container_id)
            except BaseException:
                with suppress(DockerException, *LOST):
                    self._client.remove_container(container_id, force=True, v=True)
                raise
        return container_id

    def start_created(self, container_id: str) -> None:
        try:
            with translated("STEP_START_FAILED", "start a container"), missing_step(container_id):
                self._client.start(container_id)
        except Refusal as refusal:
            unseen = refusal.code == "STEP_EXISTS"
            if unseen and not self.may_run(container_id):
                self.remove(container_id)  # its processes ended, and the engine never learns it
                raise gone(container_id) from refusal
            raise

    def adopt(self, labels: Mapping[str, str]) -> list[Running]:
        if not labels:
            raise ValueError("adopt() needs at least one label: others' containers are not ours")
        wanted = [f"{name}={value}" for name, value in labels.items()]
        with translated("ENGINE_UNREACHABLE", "list its containers"):
            found = self._client.containers(all=True, filters={"label": wanted})
        return [
            Running(each["Id"], each["Names"][0].lstrip("/"), each["Labels"], each["State"])
            for each in found
        ]

    def wait(self, container_id: str, timeout_s: float) -> Exit | None:
        # A timeout and a lost connection look alike here; the inspection tells them apart.
        with translated("ENGINE_UNREACHABLE", "wait"), missing_step(container_id):
            with suppress(requests.exceptions.ConnectionError, requests.exceptions.Timeout):
                self._client.wait(container_id, timeout=max(timeout_s, 0.001))
            state = self._client.inspect_container(container_id)["State"]
        if state["Running"]:
            return None
        if state["Status"] == "created":
            return Exit(-1, False, state["Error"] or "the container was never started")
        with translated("ENGINE_UNREACHABLE", "tell how it ended"), self._connection.anew() as anew:
            own = endings.by_itself(anew, container_id, state["ExitCode"])
        return Exit(state["ExitCode"], state["OOMKilled"], state["Error"], own)

    def may_run(self, container_id: str) -> bool:
        return processes.may_run(container_id, self._connection.socket)

    def logs(self, container_id: str) -> Iterator[str]:
        with translated("ENGINE_UNREACHABLE", "read logs"), missing_step(container_id):
            self._client.inspect_container(container_id)  # logs() of what is gone would leak
            stream = self._client.logs(container_id, stream=True, follow=True)
            with closing(stream._response):  # its own close() leaves the socket to the collector
                yield from lines(stream)

    def stop(self, container_id: str, grace_s: int) -> None:
        with translated("ENGINE_UNREACHABLE", "stop a container"), suppress(NotFound):
            self._client.stop(container_id, timeout=grace_s)

    def remove(self, container_id: str) -> None:
        with translated("ENGINE_UNREACHABLE", "remove a container"), suppress(NotFound):
            self._client.remove_container(container_id, force=True, v=True)

    def _check_gpus(self, container_id: str, spec: StepSpec) -> None:
        cage.check_gpus(self._client.inspect_container(container_id)["HostConfig"], spec)

    def _create(self, spec: StepSpec) -> dict[str, Any]:
        entrypoint = None if spec.entrypoint is None else list(spec.entrypoint) or [""]
        settings = cage.host_config(spec, self._images.volumes(spec.image_id))
        created: dict[str, Any] = self._client.create_container(
            spec.image_id,
            command=None if spec.command is None else list(spec.command),
            entrypoint=entrypoint,
            name=spec.name,
            user=spec.user,
            environment=port.cage_environment(spec),
            labels=dict(spec.labels),
            network_disabled=True,
            healthcheck={"test": ["NONE"]},
            host_config=self._client.create_host_config(**settings),
            use_config_proxy=False,  # the site's proxies, and the passwords in them, stay out
        )
        return created
