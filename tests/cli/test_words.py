"""What surrounds every command: its help, its docs, exit codes, completion, start-up."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.__main__ import root
from cli.exit_codes import MEANINGS
from tests.cli.conftest import World

DOCS = Path(__file__).parents[2] / "docs"
HEAVY = ("grpc", "google.protobuf", "rich", "yaml", "cryptography", "docker", "jsonschema")
NEVER = ("sqlmodel", "sqlalchemy", "docker", "tabulate", "pydantic", "opentelemetry")
FOR_SIGNING = ("rich", "jsonschema", "yaml", "cryptography")


def walk(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command by its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from walk(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


COMMANDS = dict(walk(root))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert command.epilog
    assert f"housecall {name}" in command.epilog or f" {name.split()[0]} " in command.epilog
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert all(option.help for option in options), name
    names = {word for option in options for word in option.opts}
    assert name == "completion" or "--output" in names
    if name.endswith(" ls"):
        assert "csv" in next(o for o in options if "--output" in o.opts).type.choices  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_in_the_docs(name: str) -> None:
    page = (DOCS / "cli.md").read_text()
    assert f"### `housecall {name}" in page, name
    section = page.split(f"### `housecall {name}", 1)[1].split("\n#", 1)[0]
    shared = {"--output", "--yes"}
    for parameter in COMMANDS[name].params:
        word = max(parameter.opts, key=len)
        if isinstance(parameter, click.Option) and word not in shared:
            assert f"`{word}" in section, f"{name}: {word}"


def test_every_option_of_the_root_is_in_the_docs() -> None:
    page = (DOCS / "cli.md").read_text()
    names = ("HOUSECALL_HOME", "HOUSECALL_SOCKET", "HOUSECALL_PROFILE")
    for word in (*names, "--socket", "--profile", "--output", "--yes"):
        assert f"`{word}" in page


def test_every_exit_code_is_in_the_docs() -> None:
    page = (DOCS / "exit-codes.md").read_text()
    for code, meaning in MEANINGS.items():
        assert f"| {code} | {meaning}" in page


@pytest.mark.parametrize("words", [[], ["dataset"], ["admin", "token"]])
def test_help_lists_every_command(world: World, words: list[str]) -> None:
    text = world.done(*words, "--help")
    group: click.Command = root
    for word in words:
        assert isinstance(group, click.Group)
        found = group.get_command(click.Context(group), word)
        assert found is not None
        group = found
    assert isinstance(group, click.Group)
    for name in group.list_commands(click.Context(group)):
        assert f"\n  {name} " in text


def groups(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from groups(command, (*words, name))


@pytest.mark.parametrize("words", list(groups(root)), ids=" ".join)
def test_help_has_whole_sentences(world: World, words: tuple[str, ...]) -> None:
    """One a command, each short enough for its line."""
    listed = world.done(*words, "--help").split("Commands:\n")[1].split("\n\n")[0]
    for line in listed.splitlines():
        text = re.split("  +", line.strip(), maxsplit=1)[1]
        assert text.endswith("."), line
        assert "..." not in text, line
        assert len(text) <= 60, line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(world: World, shell: str) -> None:
    script = world.done("completion", shell)
    assert "_HOUSECALL_COMPLETE" in script
    assert "housecall" in script


def test_completion_completes(world: World) -> None:
    environment = {
        **world.environment,
        "_HOUSECALL_COMPLETE": "bash_complete",
        "COMP_WORDS": "housecall benchmark ",
        "COMP_CWORD": "2",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-m", "cli"], env=environment, capture_output=True, text=True, check=False
    )
    assert "plain,watch" in done.stdout.splitlines()


def test_usage_errors_name_the_next_step(world: World) -> None:
    result = world.run("dataset", "lss")
    assert result.exit_code == 2
    assert "Try 'housecall dataset --help'." in result.stderr
    assert "error: No such command 'lss'" in result.stderr
    assert "[USAGE]" in result.stderr
    assert world.run().exit_code == 2


def loaded(world: World, *words: str) -> set[str]:
    """Modules that a process of its own has loaded when the command is done."""
    code = (
        "import sys; from cli.__main__ import root\n"
        f"try: root.main({list(words)!r})\n"
        "except SystemExit: print('MODULES', *sys.modules)"
    )
    environment = {**world.environment, "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.rsplit("MODULES", 1)[1].split())


def test_help_loads_click_and_no_more(world: World) -> None:
    assert not loaded(world, "--help").intersection((*HEAVY, *NEVER))


def test_a_listing_loads_nothing_to_sign_with(elsewhere: World) -> None:
    elsewhere.done("benchmark", "ls")
    modules = loaded(elsewhere, "benchmark", "ls")
    assert "grpc" in modules
    assert not modules.intersection((*NEVER, *FOR_SIGNING))


def test_a_listing_at_a_site_loads_no_more(at_site: World) -> None:
    assert not loaded(at_site, "dataset", "ls", "--mine").intersection((*NEVER, *FOR_SIGNING))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "completion"])
def test_no_command_needs_the_heavy_ones_for_its_help(world: World, name: str) -> None:
    assert not loaded(world, *name.split(), "--help").intersection((*NEVER, "rich", "jsonschema"))
