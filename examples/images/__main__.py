"""`python -m examples.images build [--only NAME] [--base IMAGE]`."""

from __future__ import annotations

import argparse
import sys
import time

from examples.images.packing import BuildError
from examples.images.plan import build_images


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.images", description=__doc__)
    parser.add_argument("action", choices=("build",))
    parser.add_argument("--only", metavar="NAME", help="this image and what it stands on")
    parser.add_argument("--base", metavar="IMAGE", help="an image with Python 3.11 to build on")
    options = parser.parse_args()
    begin = time.monotonic()
    try:
        built = build_images(only=options.only, base=options.base, say=_say)
    except (BuildError, ValueError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    _say(
        f"{len(built)} images built in {time.monotonic() - begin:.1f} s" if built else "up to date"
    )
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
