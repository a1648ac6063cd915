"""Calls a slide spotted in the measure that its brightest grey value exceeds a threshold."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

NEEDED_SHARED_MEMORY = 80 << 20  # more than an engine gives without being asked


def infer(data_path: Path, parameters_file: Path, output_path: Path) -> None:
    threshold = read_number(parameters_file, "threshold")
    slope = float(os.environ["SPOT_SLOPE"])
    with (output_path / "scores.tsv").open("w") as out:
        for line in (data_path / "slides.tsv").read_text().splitlines():
            name, _, brightest = line.split("\t")
            score = 0.5 + slope * (float(brightest) - threshold)
            out.write(f"{name}\t{min(max(score, 0.0), 1.0):.4f}\n")


def read_number(path: Path, key: str) -> float:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return float(value)
    raise SystemExit(f"no {key} in the parameters")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["infer"])
    for flag in ("--data_path", "--parameters_file", "--output_path"):
        parser.add_argument(flag, type=Path, required=True)
    options = parser.parse_args()
    shared = os.statvfs("/dev/shm")
    if shared.f_blocks * shared.f_frsize < NEEDED_SHARED_MEMORY:
        print(f"expected {NEEDED_SHARED_MEMORY} bytes of shared memory", file=sys.stderr)
        return 3
    infer(options.data_path, options.parameters_file, options.output_path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
