"""The check of the state folder: whose it is and all in it that the agent needs, who may enter,
whether it can be written; and of the socket's folder.

Data, and what containers wrote, is not looked at: that belongs to the container user.
"""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.disk import FULL
from agent.doctor.finding import Verdict, fail, ok, warn
from agent.doctor.scene import Scene
from housecall.errors import Kind
from housecall.users import group_name, user_name

KEYS = ("tls.key", "signing.key")
NEEDED = (
    *("lock", "journal.*", "fingerprints.*", "run", "files", "identity", "identity/*"),
    *("datasets", "datasets/[0-9]*", "datasets/*/dataset.json", "executions", "executions/[0-9]*"),
)
MOST_NAMED = 3
"""Where more belong to somebody else, the whole folder is named."""


def state(scene: Scene) -> Verdict:
    folder, socket = scene.settings.state_dir, scene.settings.socket
    if not folder.is_dir():
        return _absent(folder, socket)
    found = folder.stat()
    if strays := _strays(folder):
        return _given_back(folder, strays)
    if found.st_uid != os.geteuid():
        owner, me = user_name(found.st_uid), user_name(os.geteuid())
        what = f"{folder} belongs to {owner}, this runs as {me}"
        fix = f"run agent and doctor as {owner}"
        if os.geteuid():
            mine = _chown([folder], os.geteuid(), os.getegid())
            fix += f"; where it is to be {me}, as root: `{mine}`"
        return fail(Kind.NOT_ALLOWED, what, fix)
    wrong = list(_exposed(folder))
    if wrong:
        return fail(
            Kind.NOT_ALLOWED,
            f"others may enter: {', '.join(f'{path} is {mode(m)}' for path, m in wrong)}",
            "; ".join(f"chmod {'700' if path.is_dir() else '600'} {path}" for path, _ in wrong),
        )
    if shut := [(path, its.st_mode) for path, its in _needed(folder) if _is_shut(its.st_mode)]:
        what = f"their owner may not use: {', '.join(f'{path} is {mode(m)}' for path, m in shut)}"
        fix = shlex.join(["chmod", "u+rwX", *(str(path) for path, _ in shut)])
        return fail(Kind.NOT_ALLOWED, what, fix)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        kind = Kind.EXHAUSTED if error.errno in FULL else Kind.NOT_ALLOWED
        what = f"{folder} cannot be written: {error.strerror}"
        return fail(kind, what, "free space there, or mount it writable")
    if not may_write(socket.parent):
        return _no_place(socket)
    return ok(f"{folder}, {mode(found.st_mode)}, of {user_name(found.st_uid)}, can be written")


def may_write(folder: Path) -> bool:
    """Whether this user may make files in it, and the folder itself where it is not there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def mode(bits: int) -> str:
    return f"{stat.S_IMODE(bits):04o}"


def _absent(folder: Path, socket: Path) -> Verdict:
    what = f"{folder} is not there"
    if may_write(folder):
        return fail(Kind.NOT_READY, what, "`housecall-agent enroll --token @FILE` makes it")
    me = user_name(os.geteuid())
    fix = f"as root: `install -d -o {me} -m 0700 {folder}`"
    if not may_write(socket.parent):
        fix += f" and `install -d -o {me} -m 0750 {socket.parent}`"
    what = f"{what}, and user {me} may not make it"
    return fail(Kind.NOT_ALLOWED, what, f"{fix}; else set state_dir and socket to where {me} may")


def _no_place(socket: Path) -> Verdict:
    """systemd makes the folder of a service's socket when it starts, and removes it then."""
    me, folder = user_name(os.geteuid()), socket.parent
    fix = f"as root: `install -d -o {me} -m 0750 {folder}`, or set socket to where {me} may"
    if folder.exists():
        return fail(Kind.NOT_ALLOWED, f"user {me} may not write {folder}, the socket's folder", fix)
    what = f"{folder}, the socket's folder, is not there, and user {me} may not make it"
    return warn(what, f"nothing where systemd starts the agent, which makes it; else {fix}")


def _given_back(folder: Path, strays: dict[Path, int]) -> Verdict:
    """`folder` is its owner's; `strays` in it are of these other users."""
    its = folder.stat()
    named = [f"{path} to {user_name(uid)}" for path, uid in strays.items()][:MOST_NAMED]
    more = f", and {len(strays) - MOST_NAMED} more" if len(strays) > MOST_NAMED else ""
    what = f"{folder} belongs to {user_name(its.st_uid)}, in it {', '.join(named)}{more}"
    whole = more and its.st_uid  # of root's, what containers wrote is theirs
    paths = [folder] if whole else list(strays)
    fix = f"as root: `{_chown(paths, its.st_uid, its.st_gid)}`"
    return fail(Kind.NOT_ALLOWED, what, fix)


def _chown(paths: list[Path], uid: int, gid: int) -> str:
    deep = ["-R"] if uid and any(path.is_dir() for path in paths) else []
    return shlex.join(["chown", *deep, f"{user_name(uid)}:{group_name(gid)}", *map(str, paths)])


def _strays(folder: Path) -> dict[Path, int]:
    """What the agent needs in its folder, and somebody else owns, with the owner; what lies in one
    is not named."""
    owner, found = folder.stat().st_uid, dict[Path, int]()
    for path, its in _needed(folder):
        if its.st_uid != owner and found.keys().isdisjoint(path.parents):
            found[path] = its.st_uid
    return found


def _needed(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for pattern in NEEDED:
        for path in sorted(folder.glob(pattern)):
            with suppress(FileNotFoundError):  # SQLite's own come and go
                its = path.lstat()
                if not stat.S_ISLNK(its.st_mode):
                    yield path, its


def _is_shut(mode: int) -> bool:
    """To its owner."""
    needed = 0o700 if stat.S_ISDIR(mode) else 0o600
    return mode & needed != needed


def _exposed(folder: Path) -> Iterator[tuple[Path, int]]:
    """What others may enter or read, and should not."""
    identity = folder / "identity"
    paths = [folder, identity, folder / "journal.sqlite", *(identity / name for name in KEYS)]
    for path in paths:
        if path.exists() and (found := path.stat().st_mode) & 0o077:
            yield path, found
