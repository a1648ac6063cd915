"""Which image a name means now: its digest, from the name, the caller, or the Docker engine."""

from __future__ import annotations

import json
import re
import subprocess

from housecall.errors import Kind, Refusal

INSPECT_SECONDS = 30
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def resolve(image: str, container_type: str, given: str) -> str:
    """The digest to pin. One in the name wins, and `given` must agree with it."""
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
        return named
    if given:
        return given
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
    found = json.loads(done.stdout)
    digests = [name.partition("@")[2] for name in found.get("RepoDigests") or []]
    return check_digest(digests[0] if digests else found["Id"], f"image {image}")


def _not_found(image: str, why: str) -> Refusal:
    return Refusal(
        Kind.NOT_FOUND,
        "IMAGE_NOT_FOUND",
        f"image {image}: no digest found ({why}); pull or build it here, write name@sha256:... in "
        "the configuration, or give --image-digest",
    )
