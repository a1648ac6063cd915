"""`python -m tests.faults [--seed S] [--seconds N] [--faults N] [--variant NAME]`."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import time
from pathlib import Path

from tests.faults.plan import TICKS, Options
from tests.faults.run import default_folder, run
from tests.faults.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--faults", type=int, default=0, help="0 = one every 3.1 s")
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=2, help="0 = one coordinator on SQLite")
    parser.add_argument("--rest", type=float, default=180.0, help="seconds to come to rest")
    parser.add_argument("--variant", choices=[*VARIANTS], default="")
    parser.add_argument("--only", default="", help="kinds that begin so, by commas")
    parser.add_argument("--sides", default="", help="of commits, for all traps, by commas")
    parser.add_argument("--ticks", type=int, help="quarters of a second that every model takes")
    parser.add_argument("--no-live-restore", action="store_true")
    asked = parser.parse_args()
    options = Options(
        seed=asked.seed,
        seconds=asked.seconds,
        faults=asked.faults,
        folder=default_folder(ROOT, asked.seed, asked.variant),
        replicas=asked.replicas,
        sites=asked.sites,
        variant=asked.variant,
        only=tuple(asked.only.split(",")),
        sides=tuple(filter(None, asked.sides.split(","))),
        rest_s=asked.rest,
        live_restore=not asked.no_live_restore,
        ticks=(asked.ticks,) if asked.ticks else TICKS,
    )
    # Ended from outside it cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    verdict = run(options, lambda line: _say(line, began))
    print(f"boundaries: {verdict.boundaries}\n{verdict.line()}")
    print(f"seed {asked.seed}; evidence in {options.folder}", flush=True)
    return 0 if verdict.good else 1


def _say(line: str, began: float) -> None:
    print(f"[{time.monotonic() - began:7.1f} s] {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
