"""Debian's packages, installed where they are missing. Only root can; others get a hint.

Another apt is waited for, a download that broke off is tried again, and the lists are fetched only
when what is there does not suffice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

OPTIONS = ("-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3")
LIMIT_S = 900.0


class AptError(Exception):
    """apt-get is not here, may not be used, or failed; the message ends with its last words."""


def available() -> bool:
    """Whether `install` may be called at all."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(package: str, say: Callable[[str], None] = lambda _: None) -> None:
    """Install `package` and what it needs, nothing recommended. Raises AptError."""
    if not available():
        raise AptError(f"{package} is missing, and only root on Debian can install it")
    say(f"apt-get install {package}")
    words = ("install", "--yes", "--no-install-recommends", package)
    if run(*words).returncode == 0:
        return
    listed = run("update")
    done = run(*words)
    if done.returncode != 0:
        last = (listed.stderr + done.stderr).strip().splitlines()[-15:]
        raise AptError(f"apt-get install {package} failed:\n" + "\n".join(last))


def run(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """One call of apt-get in `folder`; its exit status is the caller's to read."""
    return subprocess.run(
        ["apt-get", "--quiet", "--quiet", *OPTIONS, *words],
        cwd=folder,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
