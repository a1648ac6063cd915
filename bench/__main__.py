"""`python -m bench [NAME ...]`: figures go to standard output, one JSON line each, progress to
standard error.

A missed bound is in its line (`"ok": false`), not in the exit code: whether that matters depends on
what else the machine was doing. Everything temporary is in one folder, which is removed at the end,
at Ctrl-C and at SIGTERM; so are the programs that were started.
"""

from __future__ import annotations

import importlib
import signal
import sys
import tempfile

from bench.figure import progress

NAMES = (
    "fingerprint",
    "statements",
    "execution",
    "startup",
    "reconnect",
    "catchup",
    "replicas",
)
USAGE = f"usage: python -m bench [{'|'.join(NAMES)} ...]"
INTERRUPTED = 130


def main() -> int:
    names = sys.argv[1:] or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        print(f"unknown: {' '.join(unknown)}\n{USAGE}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="housecall-bench-") as folder:
            tempfile.tempdir = folder
            for name in names:
                progress(f"measuring {name}")
                importlib.import_module(f"bench.{name}").main()
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
