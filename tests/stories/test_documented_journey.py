"""The commands of README and docs/data-owner.md, typed as they stand there, at a real site."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from examples.demo.world import COMMITTEE, HOSPITALS, World
from examples.images.catalog import EXAMPLES

ROOT = EXAMPLES.parent
QUESTION = "[y/N]"


def journey(page: str) -> list[str]:
    """The lines of a page's `sh journey` blocks."""
    blocks = re.findall(r"```sh journey\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks, f"{page} has no block marked `sh journey`"
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def type_it(world: World, who: str, command: str) -> tuple[int, str]:
    """Run one line in a shell set up by the site's own .env file, answering questions with y."""
    shell = f"source {shlex.quote(str(world.folder / f'{who}.env'))} && {command}"
    leader, follower = pty.openpty()
    with subprocess.Popen(
        ["bash", "-c", shell],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        start_new_session=True,
    ) as process:
        os.close(follower)
        screen, answered = "", 0
        while chunk := _read(leader):
            screen += chunk
            while screen.count(QUESTION) > answered:
                os.write(leader, b"y\n")
                answered += 1
        code = process.wait(60)
    os.close(leader)
    return code, screen


def _read(leader: int) -> str:
    try:
        return os.read(leader, 65536).decode(errors="replace")
    except OSError:  # the other end is closed
        return ""


def commands(page: str) -> list[tuple[str, bool]]:
    """(command, typed by the committee member) in the order of the page."""
    found = []
    for line in journey(page):
        command = line.lstrip("# ").strip()
        if command.startswith("housecall "):
            found.append((command, line.startswith("#")))
    return found


@pytest.mark.parametrize(("page", "site"), [("README.md", 0), ("docs/data-owner.md", 2)])
def test_the_journey_works_as_documented(world: World, page: str, site: int) -> None:
    who = HOSPITALS[site]
    typed = []
    for command, by_committee in commands(page):
        if by_committee:
            listed = world.json(COMMITTEE, "association", "ls", "--state", "requested")
            command = command.replace(" ID ", f" {listed[-1]['id']} ")
        code, screen = type_it(world, COMMITTEE if by_committee else who, command)
        assert code in (0, 10), f"{command}\n{screen}"
        assert "Traceback" not in screen
        typed.append(command.split()[1:3])
    wanted = ["register", "ls", "prepare", "set-operational", "associate", "run", "show", "submit"]
    assert [verb for verb in wanted if verb not in [words[1] for words in typed]] == []
    shown = world.json(who, "result", "show", "b1m4d1")
    assert shown.get("result", shown)["submitted"] is True


def test_enter_is_no_and_nothing_leaves(world: World, tmp_path: Path) -> None:
    raw = world.raw("south")
    words = ["dataset", "register", "--name", "n", "--description", "d", "--location", "l"]
    words += ["--data-path", f"{raw}/data", "--labels-path", f"{raw}/labels", "--benchmark", "1"]
    before = world.json("south", "dataset", "ls", "--mine")
    command = f"yes '' | head -1 | housecall {shlex.join(words)}"
    code, screen = type_it(world, "south", command)
    assert code != 0
    assert QUESTION not in screen or "declined" in screen
    assert world.json("south", "dataset", "ls", "--mine") == before
