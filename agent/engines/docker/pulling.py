"""A pull that can be stopped, and that ends: the SDK waits for the engine, and it for a registry,
without a limit.

A thread of its own talks to the engine. Hanging up ends the pull there. Before the engine's first
word the SDK has nothing to hang up: nobody waits any more, and the thread does it at that word.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import requests
from docker.types import CancellableStream

from agent.engines.docker.connection import Connection
from agent.engines.docker.failures import scan, translated
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of

PULL_S = 6 * 3600.0
POLL_S = 0.2


class Pull:
    """Of an image by its reference, once."""

    def __init__(self, connection: Connection, reference: str) -> None:
        self._connection, self._reference = connection, reference
        self._lock = threading.Lock()
        self._given_up = False
        self._answer: requests.Response | None = None
        self._error: Refusal | None = None

    def run(self, stopped: Callable[[], bool]) -> None:
        """Raises `Refusal` IMAGE_NOT_FOUND, IMAGE_PULL_FAILED or STEP_STOPPED."""
        until = time.monotonic() + PULL_S
        thread = threading.Thread(target=self._talk, name="pull", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(POLL_S)
            if stopped():
                text = f"image {self._reference}: the pull was stopped; start it again"
                self._give_up(Refusal(Kind.CONFLICT, "STEP_STOPPED", text))
            if time.monotonic() > until:
                text = f"image {self._reference}: expected it within {PULL_S:g} s, got a part"
                text += "; load it at the site, or ask who runs the registry"
                self._give_up(Refusal(Kind.UNAVAILABLE, "IMAGE_PULL_FAILED", text))
        if self._error is not None:
            raise self._error

    def _talk(self) -> None:
        try:
            with (
                translated("IMAGE_PULL_FAILED", f"pull {self._reference}"),
                self._connection.anew() as client,
            ):
                client.hooks["response"] = self._answered
                events = client.pull(self._reference, stream=True, decode=True)
                scan(events, f"image {self._reference}", "IMAGE_PULL_FAILED")
        except Exception as error:
            self._error = refusal_of(error)
        finally:
            if self._answer is not None:
                self._answer.close()  # one that broke off is in no pool

    def _answered(self, answer: requests.Response, **_: object) -> None:
        with self._lock:
            self._answer = answer
            if self._given_up:
                _hang_up(answer)

    def _give_up(self, refusal: Refusal) -> None:
        with self._lock:
            self._given_up = True
            if self._answer is not None:
                _hang_up(self._answer)
        raise refusal


def _hang_up(answer: requests.Response) -> None:
    with suppress(OSError, AttributeError):  # it ended meanwhile
        CancellableStream(iter(()), answer).close()
