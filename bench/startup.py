"""What the CLI costs before it does anything: `housecall --help`, and one listing RPC, against the
interpreter's own start.

The listing is `housecall benchmark ls` of an enrolled person at a coordinator on loopback: mutual
TLS, one call, an empty table. All by the same interpreter, alternating, medians.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.coordinators import served
from bench.figure import figure, progress

ROUNDS = 25
COMMAND_S = 60.0
PYTHON = [sys.executable, "-c", "pass"]
HOUSECALL = [sys.executable, str(Path(sys.executable).with_name("housecall"))]


def main() -> None:
    """Measure with a home and a coordinator in a temporary folder, and print the figures."""
    with (
        tempfile.TemporaryDirectory(prefix="housecall-bench-") as folder,
        _person(Path(folder)) as environment,
    ):
        words = {
            "python": PYTHON,
            "help": [*HOUSECALL, "--help"],
            "listing": [*HOUSECALL, "benchmark", "ls"],
        }
        times: dict[str, list[float]] = {name: [] for name in words}
        for _ in range(ROUNDS + 1):
            for name, command in words.items():
                times[name].append(_run(command, environment))
    python_s, help_s, listing_s = (statistics.median(spent[1:]) for spent in times.values())
    progress(f"startup: python {python_s:.3f} s, help {help_s:.3f} s, listing {listing_s:.3f} s")
    values = {"python_s": python_s, "help_s": help_s, "rounds": ROUNDS}
    figure("cli_help", help_s / python_s, 7, False, values)
    values = {"python_s": python_s, "listing_s": listing_s, "rounds": ROUNDS}
    figure("cli_listing", listing_s / python_s, 15, False, values)


@contextlib.contextmanager
def _person(folder: Path) -> Iterator[Mapping[str, str]]:
    """The environment of somebody enrolled at a running coordinator."""
    with served(folder / "coordinator") as at:
        environment = {**os.environ, "HOUSECALL_HOME": str(folder / "home")}
        _run([*HOUSECALL, "enroll", "--token", at.token], environment)
        yield environment


def _run(command: list[str], environment: Mapping[str, str]) -> float:
    """Wall time in seconds. Raises RuntimeError with what a failing command said."""
    began = time.perf_counter()
    done = subprocess.run(
        command,
        env=environment,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        words = " ".join(command[1:4])
        raise RuntimeError(f"{words} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds
