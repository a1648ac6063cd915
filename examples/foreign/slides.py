"""Writes the foreign benchmark's raw data: small grey pictures, some with a bright spot."""

from __future__ import annotations

import argparse
from pathlib import Path

SIDE = 8
SLIDES = 12
DIM_SPOT, FALSE_SPOT = 4, 7  # one spot too dim to be found, one speck of dirt


def has_spot(number: int) -> bool:
    return number % 2 == 0


def pixels(number: int) -> list[list[int]]:
    """Grey values from 0 to 255 of slide `number`, the same at every call."""
    grey = [
        [(number * 31 + row * 7 + column * 13) % 90 for column in range(SIDE)]
        for row in range(SIDE)
    ]
    if has_spot(number) or number == FALSE_SPOT:
        grey[number % SIDE][(number * 3) % SIDE] = 120 if number == DIM_SPOT else 230
    return grey


def write_slides(out_dir: Path) -> None:
    """Write `images/*.pgm` (plain PGM, P2) and `truth/truth.txt` below `out_dir`."""
    for folder in (out_dir, out_dir / "images", out_dir / "truth"):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    truth = []
    for number in range(1, SLIDES + 1):
        rows = "\n".join(" ".join(map(str, row)) for row in pixels(number))
        _write(out_dir / f"images/slide_{number:02d}.pgm", f"P2\n{SIDE} {SIDE}\n255\n{rows}\n")
        truth.append(f"slide_{number:02d} {'spot' if has_spot(number) else 'clear'}\n")
    _write(out_dir / "truth/truth.txt", "".join(truth))


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.foreign.slides")
    parser.add_argument("out_dir", type=Path)
    write_slides(parser.parse_args().out_dir)


if __name__ == "__main__":
    main()
