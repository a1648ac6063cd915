"""Our programs as another user of this machine, also where that one cannot reach the interpreter:
all that they need is imported before root becomes that user."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Mapping

_BECOME = """
import encodings.idna, importlib, os, pkgutil, sys
for package in ("agent", "cli", "housecall"):
    for each in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(each.name)
_, uid, gid, kind, what, *words = sys.argv
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
sys.argv = [what if kind == "-m" else kind, *words]
if kind == "-m":
    importlib.import_module(what + ".__main__").main()
else:
    exec(what)
"""


def run_as(
    user: pwd.struct_passwd, *words: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m PACKAGE ...` or `python -c CODE ...` of a user who is in no group but their own.
    Only root can."""
    return subprocess.run(
        [sys.executable, "-c", _BECOME, str(user.pw_uid), str(user.pw_gid), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
