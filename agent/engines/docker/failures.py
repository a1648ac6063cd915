"""What the SDK and the engine report, as refusals with the codes of `port.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import requests
import urllib3
from docker.errors import APIError, DockerException, NotFound

from housecall.errors import Kind, Refusal

LOST = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What the SDK lets through when the engine goes away."""


_NO_IMAGE = (
    r"manifest unknown|manifest for .* not found|No such image"
    r"|pull access denied|repository .* not (found|known to registry)"
)
"""A registry's plain no. Some say "denied" of what they do not have."""


def refusal(code: str, text: str) -> Refusal:
    """The engine's own words decide where they name a cause that people can mend."""
    if "no space left on device" in text.lower():
        return Refusal(Kind.EXHAUSTED, "DISK_FULL", f"{text}; free space for the engine")
    if re.search(r"container name .* is already in use|id already in use|already exists", text):
        return Refusal(Kind.CONFLICT, "STEP_EXISTS", f"{text}; look for it")
    if re.search(r"could not select device driver|nvidia-container|no known GPU", text):
        next_step = "install the NVIDIA container toolkit or run without GPUs"
        return Refusal(Kind.NOT_READY, "GPU_UNAVAILABLE", f"{text}; {next_step}")
    if re.search(_NO_IMAGE, text):
        next_step = "load it at the site or ask its owner to publish it"
        return Refusal(Kind.NOT_FOUND, "IMAGE_NOT_FOUND", f"{text}; {next_step}")
    return Refusal(Kind.UNAVAILABLE, code, f"{text}; see the engine's log")


def scan(stream: Iterable[dict[str, Any]], what: str, code: str) -> None:
    """The SDK hides failures of pulls and loads in the stream."""
    for event in stream:
        if "error" in event:
            raise refusal(code, f"{what}: {event['error']}")


@contextmanager
def translated(code: str, what: str) -> Iterator[None]:
    try:
        yield
    except APIError as error:
        raise refusal(code, f"engine could not {what}: {error.explanation or error}") from error
    except (DockerException, *LOST) as error:
        message = f"engine: expected an answer to '{what}', got {type(error).__name__}; start it"
        raise Refusal(Kind.UNAVAILABLE, "ENGINE_UNREACHABLE", message) from error


@contextmanager
def missing_step(container_id: str) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        raise gone(container_id) from error


def gone(container_id: str) -> Refusal:
    message = f"container {container_id[:12]}: expected it at the engine, got nothing"
    return Refusal(Kind.NOT_FOUND, "STEP_NOT_FOUND", f"{message}; run it again")
