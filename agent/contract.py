"""What an output must be before it may leave: the benchmark's schema and the site's bounds."""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from agent.outputs import check, read_mapping
from agent.suppression import suppress_small_counts
from housecall.errors import Kind, Refusal

SECONDS = 30


class _Checker:
    """A process of its own that applies schemas: a schema's patterns can run for years, and would
    hold every thread of the agent. It is kept, and replaced when it did not answer in time. That it
    died says nothing of the schema: the machine may have no memory for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def ask(self, *question: Any) -> tuple[Any, ...]:
        with self._lock:
            for _ in range(2):  # one that was killed meanwhile is replaced
                with contextlib.suppress(EOFError, OSError):
                    pipe = self._started()
                    pipe.send(question)
                    if not pipe.poll(SECONDS):
                        self._end()
                        raise _endless()
                    answer: tuple[Any, ...] = pipe.recv()
                    return answer
                self._end()
        raise Refusal(
            Kind.UNAVAILABLE,
            "CHECKER_FAILED",
            "output schema: expected the process that applies it to answer, got its end, twice; "
            "free memory on this machine, or look for who killed it",
        )

    def close(self) -> None:
        with self._lock:
            self._end()

    def _started(self) -> Connection:
        if self._pipe is None:
            spawn = multiprocessing.get_context("spawn")
            self._pipe, theirs = spawn.Pipe()
            self._process = spawn.Process(target=_answer, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        return self._pipe

    def _end(self) -> None:
        """Killed, not asked: it may be in the middle of a pattern."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _endless() -> Refusal:
    return Refusal(
        Kind.INVALID,
        "SCHEMA_INVALID",
        f"output schema: expected rules that end within {SECONDS} s, got others; ask "
        "the benchmark's committee",
    )


def _answer(pipe: Connection) -> None:
    """The process: until the agent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the agent
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(_checked(*pipe.recv()))


_CHECKER = _Checker()
atexit.register(_CHECKER.close)


def checked(path: Path, schema_text: str, *, max_bytes: int, minimum_count: int) -> dict[str, Any]:
    """The output in `path` as it may be shown: valid, small counts suppressed. Raises `Refusal`
    with one of the codes OUTPUT_..., SCHEMA_INVALID or CHECKER_FAILED."""
    values = read_mapping(path, max_bytes=max_bytes)
    kind, *rest = _CHECKER.ask(values, schema_text, minimum_count)
    if kind == "refused":
        raise Refusal(Kind.INVALID, *rest)
    accepted = rest[0]
    assert isinstance(accepted, dict)
    return accepted


def _checked(values: Any, schema_text: str, minimum_count: int) -> tuple[Any, ...]:
    """What the checker's process does."""
    try:
        schema = _schema(schema_text)
        return "ok", suppress_small_counts(check(values, schema), schema, minimum_count)[0]
    except Refusal as refusal:
        return "refused", refusal.code, refusal.message


def _schema(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        schema = json.loads(text)
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise Refusal(
            Kind.INVALID,
            "SCHEMA_INVALID",
            "output schema: expected a JSON object, got something else; "
            "ask the benchmark's committee",
        )
    return schema
