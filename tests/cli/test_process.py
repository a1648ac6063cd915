"""The CLI as a process of its own: a terminal's questions, Ctrl-C, exit codes of the script."""

from __future__ import annotations

import grp
import os
import pty
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cli.conftest import World
from tests.somebody import run_as

HOUSECALL = [sys.executable, "-m", "cli"]
SUBMIT = ("result", "submit", "b1m4d1")


def environment(world: World) -> dict[str, str]:
    return {**os.environ, **world.environment, "COLUMNS": "100"}


def on_a_terminal(world: World, words: tuple[str, ...], typed: bytes) -> tuple[int, str]:
    """Exit code and everything on the screen."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*HOUSECALL, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(world)
        )
    finally:
        os.close(theirs)
    screen = b""
    while b"[y/N]" not in screen:
        screen += os.read(ours, 1024)
    os.write(ours, typed)
    while True:
        try:
            screen += os.read(ours, 1024)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    return process.wait(30), screen.decode()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run it as somebody else")
@pytest.mark.parametrize("shut", ["folder", "socket"])
def test_who_is_not_in_the_sockets_group_is_told_the_way_in(shut: str) -> None:
    """Below /tmp itself: the folders of tests are root's alone."""
    group, user = grp.getgrnam("daemon"), pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "run"
        folder.mkdir()
        Path(made).chmod(0o755)
        with socket.socket(socket.AF_UNIX) as agent:
            agent.bind(str(folder / "agent.sock"))
            for path in (folder, folder / "agent.sock"):
                os.chown(path, -1, group.gr_gid)
            (folder / "agent.sock").chmod(0o660)
            folder.chmod(0o750 if shut == "folder" else 0o755)
            for words in (("site", "status"), ("benchmark", "ls")):
                at = ("-m", "cli", "--socket", str(folder / "agent.sock"))
                done = run_as(user, *at, *words, env={"HOUSECALL_HOME": f"{made}/home"})
                assert done.returncode == 4, done.stderr
                assert "[SOCKET_DENIED]" in done.stderr
                assert f"usermod -aG {group.gr_name} {user.pw_name}" in done.stderr


def test_enter_is_no(at_site: World) -> None:
    code, screen = on_a_terminal(at_site, SUBMIT, b"\n")
    assert code == 11
    assert "Sign result b1m4d1 and send exactly this? [y/N]" in screen
    assert "declined: nothing has left the site" in screen


def test_y_is_yes(at_site: World) -> None:
    code, screen = on_a_terminal(at_site, SUBMIT, b"y\n")
    assert code == 0
    assert "ledger entry 12 in a tree of 13" in screen


def test_a_terminal_shows_bars_and_leaves_the_text_whole(at_site: World) -> None:
    words = ("dataset", "associate", "1", "--benchmark", "1")
    code, screen = on_a_terminal(at_site, words, b"y\n")
    assert code == 0
    assert "infer: succeeded in 12.0 s" in screen


def test_ctrl_c_says_what_goes_on(at_site: World) -> None:
    at_site.site.hangs = True
    command = [*HOUSECALL, "dataset", "prepare", "1"]
    # A test run in the background is born with SIGINT ignored, and its children too; a terminal's
    # shell is not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command, env=environment(at_site), stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stderr is not None
        # gRPC may have a line of its own to say before
        assert any(line == "prepare: running\n" for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted: the work goes on at the site" in said
    assert at_site.site.left_alone.wait(10)


@pytest.mark.parametrize(
    ("words", "look"),
    [
        ("dataset prepare 1", "housecall dataset show 1"),
        ("benchmark run 1 --dataset 1", "housecall execution ls"),
    ],
)
def test_an_agent_that_ends_in_the_middle(at_site: World, words: str, look: str) -> None:
    at_site.site.hangs = True
    command = [*HOUSECALL, *words.split()]
    with subprocess.Popen(
        command, env=environment(at_site), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert any(line.endswith(": running\n") for line in process.stderr)
        at_site.stop()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 8
    assert f"what was begun goes on: `{look}`" in said


def test_the_scripts_exit_code(at_site: World) -> None:
    run = ("benchmark", "run", "1", "--dataset", "1", "--output", "json")
    done = subprocess.run(
        [*HOUSECALL, *run], env=environment(at_site), capture_output=True, text=True, check=False
    )
    assert done.returncode == 10
    assert done.stdout.startswith("{")


def test_a_closed_pipe_is_no_error(at_site: World) -> None:
    line = " ".join(HOUSECALL) + " dataset ls --mine -o json | true"
    done = subprocess.run(
        ["sh", "-c", line], env=environment(at_site), capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
