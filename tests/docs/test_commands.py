"""Every command of the CLI, every exit code and every make target has its place in the docs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agent.__main__ import main as agent
from cli.__main__ import root
from cli.exit_codes import MEANINGS
from coordinator.__main__ import cli as coordinator
from tests.docs.pages import DOCS, ROOT, page, rows

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def commands(command: click.Command, path: str = "housecall") -> Iterator[str]:
    """The full name of every command that is no group."""
    if not isinstance(command, click.Group):
        yield path
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None, f"{path} {name} is listed and cannot be loaded"
        yield from commands(inner, f"{path} {name}")


def targets() -> list[str]:
    """Make targets that `make help` shows."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)


def names(text: str, what: str) -> bool:
    """Whether a text names a command or target, and not only one that begins like it."""
    return bool(re.search(rf"{re.escape(what)}(?![a-z0-9_-])", text))


@pytest.mark.parametrize("name", list(commands(root)))
def test_every_command_is_in_the_reference(name: str) -> None:
    headings = [line for line in page("cli.md").splitlines() if line.startswith("#")]
    assert any(names(line, name) for line in headings), f"docs/cli.md lacks `{name}`"


def test_the_reference_has_no_command_that_is_gone() -> None:
    found = re.findall(r"^#+ `(housecall(?: [a-z][a-z-]*)+)", page("cli.md"), re.MULTILINE)
    assert set(found) <= set(commands(root))


@pytest.mark.parametrize(
    ("program", "pages", "name"),
    [
        *(("housecall-coordinator", ["operator.md"], name) for name in coordinator.commands),
        *(("housecall-agent", ["agent.md", "site.md"], name) for name in agent.commands),
    ],
)
def test_every_command_of_the_daemons_has_its_page(
    program: str, pages: list[str], name: str
) -> None:
    text = "".join(page(each) for each in pages)
    assert names(text, f"{program} {name}"), f"{pages} lack `{program} {name}`"


def test_commands_in_the_docs_exist() -> None:
    """What a page tells people to type after `housecall` is a command or a group."""
    known = set(commands(root))
    known |= {name.rsplit(" ", depth)[0] for name in known for depth in (1, 2)} | {"housecall"}
    for path in PAGES:
        for line in path.read_text(encoding="utf-8").splitlines():
            for typed in re.findall(r"(?:^|`|\$ )housecall((?: [a-z][a-z-]*)+)", line):
                words = typed.split()
                assert _is_known(words, known), f"{path.name}: there is no `housecall{typed}`"


def _is_known(words: list[str], known: set[str]) -> bool:
    """Whether words begin with a command, or are a group in full."""
    prefixes = {f"housecall {' '.join(words[:count])}" for count in (1, 2, 3)}
    leaves = {name for name in known if not any(k.startswith(f"{name} ") for k in known)}
    return bool(prefixes & leaves) or f"housecall {' '.join(words)}" in known


def typed(text: str) -> Iterator[list[str]]:
    """The words of every `housecall` command in a page's code blocks."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        if line.startswith("housecall "):
            yield line.split(" #")[0].split()[1:]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_options_in_the_docs_exist(path: Path) -> None:
    for words in typed(path.read_text(encoding="utf-8")):
        command: click.Command = root
        while isinstance(command, click.Group):
            inner = command.get_command(click.Context(command), words[0]) if words else None
            if inner is None:
                break
            command, words = inner, words[1:]
        known = {option for each in (root, command) for p in each.params for option in p.opts}
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= known | {"--help"}, f"{path.name}: housecall {command.name}"


@pytest.mark.parametrize("code", list(MEANINGS))
def test_every_exit_code_has_its_row(code: int) -> None:
    found = [cells for cells in rows(page("exit-codes.md")) if cells[0].strip("`") == str(code)]
    assert len(found) == 1
    assert MEANINGS[code] in found[0][1]


@pytest.mark.parametrize("target", targets())
def test_every_make_target_is_named(target: str) -> None:
    text = "".join((ROOT / name).read_text("utf-8") for name in ("README.md", "CONTRIBUTING.md"))
    assert names(text, f"make {target}"), f"README.md and CONTRIBUTING.md lack `make {target}`"


def test_targets_in_the_docs_exist() -> None:
    for path in PAGES:
        text = path.read_text("utf-8")
        fenced = "".join(re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL))
        found = re.findall(r"`make ([a-z-]+)", text)
        found += re.findall(r"^make ([a-z-]+)", fenced, re.MULTILINE)
        assert set(found) <= set(targets()), path.name
