"""`make bundle`: everything that a machine without a network needs, in one archive.

The project's wheel, the wheels of what it needs to run (of `requirements.txt`, by its hashes; what
only tests need is left out), `install.sh`, and the digests of it all.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"
EXTRA = ("pip",)
"""Installs the others, on machines whose Python has no pip."""


def needed(name: str = "housecall") -> set[str]:
    """Names of all that `name` needs to run, as this environment's metadata has them."""
    found: set[str] = set()
    todo = [(name, "")]
    while todo:
        here, extra = todo.pop()
        for line in requires(here) or ():
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            wanted = canonicalize_name(requirement.name)
            extras = requirement.extras or {""}
            todo += [(wanted, each) for each in {"", *extras} if f"{wanted}[{each}]" not in found]
            found |= {f"{wanted}[{each}]" for each in {"", *extras}}
    return {each.partition("[")[0] for each in found}


def requirements() -> str:
    """The blocks of requirements.txt, hashes and all, of what is needed."""
    wanted = needed() | set(EXTRA)
    blocks = re.split(r"^(?=[a-zA-Z0-9])", (ROOT / "requirements.txt").read_text(), flags=re.M)
    named = [(canonicalize_name(re.split(r"[=\[ ]", block)[0]), block) for block in blocks]
    kept = [(name, block) for name, block in named if name in wanted]
    if missing := wanted - {name for name, _ in kept}:
        raise SystemExit(f"requirements.txt lacks {sorted(missing)}: run `make lock`")
    return "".join(re.sub(r"^ +# .*\n", "", block, flags=re.M) for _, block in kept)


def fill(folder: Path, python: str = PYTHON) -> None:
    """The bundle's content, unpacked."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    (folder / "requirements.txt").write_text(requirements())
    (folder / "python-version").write_text(f"{python}\n")
    shutil.copy(ROOT / "deploy/bundle/install.sh", folder)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT))
    _pip(
        *("download", "--no-deps", "--require-hashes", "--only-binary=:all:"),
        *("--python-version", python, "--implementation", "cp", "--dest", str(wheels)),
        *("--requirement", str(folder / "requirements.txt")),
    )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    (folder / "SHA256SUMS").write_text(
        "".join(f"{_sha256(path)}  {path.relative_to(folder)}\n" for path in files)
    )


def pack(folder: Path, out: Path) -> None:
    with tarfile.open(out, "w:gz") as archive:
        archive.add(folder, folder.name)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pip {words[0]} failed:\n{done.stderr.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.bundle", description=__doc__)
    parser.add_argument("--python", default=PYTHON, help="version at the site [%(default)s]")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"housecall-{version('housecall')}-bundle"
    with tempfile.TemporaryDirectory() as scratch:
        fill(Path(scratch, name), options.python)
        pack(Path(scratch, name), options.out / f"{name}.tar.gz")
    print(options.out / f"{name}.tar.gz")


if __name__ == "__main__":
    main()
