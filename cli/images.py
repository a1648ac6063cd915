"""Which image a name means now: its digest, from the name, the caller, or the Docker engine."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from housecall.errors import Kind, Refusal

INSPECT_SECONDS = 30
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def resolve(image: str, container_type: str, given: str) -> str:
    """The digest to pin. One in the name wins, and `given` must agree with it; neither may
    contradict what this machine's engine knows under the same name."""
    if given:
        check_digest(given, "--image-digest")
    named = image.partition("@")[2]
    if named:
        check_digest(named, "image")
        if given and given != named:
            raise Refusal(
                Kind.INVALID,
                "IMAGE_DIGEST_MISMATCH",
                f"image {image}: expected {named}, got --image-digest {given}; leave that out",
            )
    if pinned := named or given:
        if container_type == "DockerImage":
            _check_engine(image, pinned)
        return pinned
    if container_type != "DockerImage":
        raise _not_found(image, f"a {container_type} is not looked up")
    return _from_engine(image)


def check_digest(digest: str, what: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise Refusal(
            Kind.INVALID,
            "DIGEST_INVALID",
            f"{what}: expected sha256: and 64 hex digits, got {digest!r}",
        )
    return digest


def plain_name(image: str) -> str:
    """`evaluator` for `registry:5000/demo/evaluator:1@sha256:...`."""
    return image.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0]


def _from_engine(image: str) -> str:
    """The manifest's digest where a registry gave one, else the configuration's."""
    return check_digest(_digests(_inspect(image))[0], f"image {image}")


def _check_engine(image: str, pinned: str) -> None:
    """Nothing to say where there is no engine, or it does not know the name."""
    name = image.partition("@")[0]
    try:
        if name != image and _digests(_inspect(image)):
            return
    except Refusal:
        pass
    try:
        known = _digests(_inspect(name))
    except Refusal:
        return
    if pinned not in known:
        raise Refusal(
            Kind.CONFLICT,
            "IMAGE_DIGEST_DIFFERS",
            f"image {name}: expected {pinned}, got {' or '.join(known)} from the engine of this "
            "machine; pull or build the image that is meant, or give the digest of this one",
        )


def _digests(found: Any) -> list[str]:
    """The manifest's in every registry, then the configuration's."""
    names = found.get("RepoDigests") or []
    return list(dict.fromkeys([*(name.partition("@")[2] for name in names), found["Id"]]))


def _inspect(image: str) -> Any:
    command = ["docker", "image", "inspect", "--format", "{{json .}}", "--", image]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSPECT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise _not_found(image, "there is no docker command on this machine") from None
    except subprocess.TimeoutExpired:
        raise _not_found(image, "the Docker engine did not answer in time") from None
    if done.returncode != 0:
        raise _not_found(image, done.stderr.strip().splitlines()[-1] if done.stderr else "unknown")
    return json.loads(done.stdout)


def _not_found(image: str, why: str) -> Refusal:
    return Refusal(
        Kind.NOT_FOUND,
        "IMAGE_NOT_FOUND",
        f"image {image}: no digest found ({why}); pull or build it here, write name@sha256:... in "
        "the configuration, or give --image-digest",
    )
