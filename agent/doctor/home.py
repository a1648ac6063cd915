"""Checks of the agent's own things: settings, journal, datasets, the agent that runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from pathlib import Path

import grpc
import pynvml

from agent import gpus
from agent.catalog import numbers, read_record
from agent.consent import PolicyFile
from agent.doctor.finding import Skip, Verdict, fail, ok, warn
from agent.doctor.scene import Scene
from agent.doctor.state import mode
from agent.journal_file import require_site, schema_of
from agent.journal_reader import JournalReader
from agent.settings import DEFAULT_FILE, Settings
from housecall.errors import Kind, Refusal
from housecall.rpc import refusals
from housecall.users import user_name
from housecall.v1 import site_pb2, site_pb2_grpc

SOCKET_SECONDS = 5.0


def settings(scene: Scene) -> Verdict:
    now = scene.settings
    file = scene.config or DEFAULT_FILE
    files = [each for each in (file, now.policy_file) if each is not None and each.exists()]
    for each in files:
        bits = each.stat().st_mode
        if bits & (stat.S_IWGRP | stat.S_IWOTH):
            what = f"{each} is {mode(bits)}: others may change what this site allows"
            return warn(what, f"chmod go-w {each}")
    PolicyFile(now.policy_file)  # these two refuse what cannot be read
    now.outward()
    for folder in now.allowed_paths:
        if not os.access(folder, os.R_OK | os.X_OK):
            what = (
                f"allowed_paths: {folder} is no folder that user {user_name(os.geteuid())} can read"
            )
            return warn(what, "make the folder readable, or correct the setting allowed_paths")
    if not now.allowed_paths:
        return warn(
            "allowed_paths is empty: no dataset can be registered",
            "name the folders that datasets may lie in by the setting allowed_paths",
        )
    origin = str(file) if file.exists() else "environment and defaults"
    policy = f"policy {now.policy_file}" if now.policy_file else "no policy: every order asks"
    return ok(f"from {origin}; {policy}")


def journal(scene: Scene) -> Verdict:
    path = scene.settings.state_dir / "journal.sqlite"
    version = schema_of(path)
    if not version:
        raise Skip("there is no journal yet: the agent's first start makes it")
    name = ""
    with suppress(Refusal, OSError):  # the check of the identity says so
        name = scene.identity.name
    if name:
        require_site(path, name)
    with JournalReader(path) as reader:
        waiting = reader.without_receipt()
    return ok(f"{path.name} is whole, schema {version}, {waiting} statements without a receipt")


def datasets(scene: Scene) -> Verdict:
    """The agent leaves out what it cannot read; the first of them is named."""
    root = scene.settings.state_dir / "datasets"
    if not root.is_dir():
        raise Skip("there is no dataset yet: the agent's first start makes their folder")
    found = [n for n in numbers(root) if (root / str(n) / "dataset.json").exists()]
    for number in found:
        read_record(root, number)
    return ok(f"{len(found)} records, each can be read")


def agent(scene: Scene) -> Verdict:
    """Whether one runs, and answers; none is told from one that hangs by the lock it holds."""
    path = scene.settings.socket
    try:
        with grpc.insecure_channel(f"unix:{path}") as channel, refusals("the agent"):
            stub = site_pb2_grpc.SiteApiStub(channel)
            found = stub.GetStatus(site_pb2.GetStatusRequest(), timeout=SOCKET_SECONDS)
    except Refusal as refusal:
        return _silent(scene.settings, refusal)
    if wrong := list(_wrong(found)):
        whats, fixes = zip(*wrong, strict=True)
        return warn(f"it runs, and {'; '.join(whats)}", "; ".join(fixes))
    since = found.connected_at.ToDatetime(UTC).isoformat(timespec="seconds")
    return ok(f"{found.agent_version} runs, connected since {since}")


def _wrong(found: site_pb2.GetStatusResponse) -> Iterator[tuple[str, str]]:
    """What the agent that runs lacks, and what mends it."""
    problem = found.link_problem
    if found.link_ended:
        yield f"has ended its link for good: {problem}", "tell the operator and the other sites"
    elif not found.connected:
        yield f"is not connected: {problem or 'it tries'}", "the checks from dns on say which hop"
    elif problem:
        yield f"has a problem: {problem}", "docs/errors.md has a row for each code"
    if found.engine_problem:
        yield (
            f"has no engine: {found.engine_problem}",
            "the check of the engine says why; where that is well, restart the agent",
        )
    knows, there = {gpu.uuid for gpu in found.gpus}, _gpus()
    if there is not None and knows != there:
        what = f"knows {len(knows)} GPUs, where the driver has {len(there)}"
        yield f"{what}{'' if len(knows) != len(there) else ' others'}", "restart the agent"


def _gpus() -> set[str] | None:
    """By UUID, as an agent that starts now finds them; None where the check of GPUs fails."""
    try:
        return {gpu.uuid for gpu in gpus.discover()}
    except pynvml.NVMLError:
        return None


def _silent(settings: Settings, refusal: Refusal) -> Verdict:
    path = settings.socket
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        what = f"user {user_name(os.geteuid())} may not use {path}"
        return fail(Kind.NOT_ALLOWED, what, "run this as the agent's user, or join the group")
    holder = lock_holder(settings.state_dir / "lock")
    if holder:
        what = f"process {holder} holds the state folder, and {path} does not answer"
        fix = "look at its log; if it hangs, stop it and start it again: nothing is lost"
        return fail(Kind.UNAVAILABLE, f"{what} ({refusal.code})", fix)
    return warn("no agent runs", "`systemctl start housecall-agent`, or `housecall-agent serve`")


def lock_holder(path: Path) -> int:
    """The process that has this file locked, 0 for none; asks the kernel and locks nothing."""
    try:
        found = path.stat().st_ino
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return 0
    for line in locks:  # 1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF
        words = line.split()
        if words[1] == "FLOCK" and words[5].endswith(f":{found}"):
            return int(words[4])
    return 0
