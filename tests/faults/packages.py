"""Debian's packages that the harness stands on, installed where they are missing and root asks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

INSTALL_S = 600


def need(package: str, present: Callable[[], bool]) -> bool:
    """Whether it is there, in the end."""
    if present() or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return present()
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", package]):
        subprocess.run(
            ["apt-get", "-qq", *words],
            env=environment,
            check=True,
            capture_output=True,
            timeout=INSTALL_S,
        )
    return present()
