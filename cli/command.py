"""How every command is declared: groups that load a noun's file only when it is called, the
`--output` and `--yes` options, and the example under each help text."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from cli.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


class LazyGroup(click.Group):
    """A group with commands that are loaded only when they are called, beside its own.

    `table` has a row `name: ("module:attribute", one line of help)` for each of them; listing
    them, for help or completion, imports none.
    """

    def __init__(self, *args: Any, table: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self.table]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.table[cmd_name][0].partition(":")
        loaded: click.Command = getattr(importlib.import_module(module), attribute)
        return loaded

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines().items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        lines = self._lines().items()
        return [
            CompletionItem(name, help=text) for name, text in lines if name.startswith(incomplete)
        ]

    def _lines(self) -> dict[str, str]:
        own = {name: each.get_short_help_str(limit=70) for name, each in self.commands.items()}
        return own | {name: text for name, (_, text) in self.table.items()}


def example(*lines: str) -> str:
    """A command's epilog: lines to type, shown as they stand."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def output_option(*, lists: bool = False) -> Callable[[F], F]:
    """`--output table|json`, for lists also csv; kept in the settings."""
    choices = ["table", "json", "csv"] if lists else ["table", "json"]

    def remember(ctx: click.Context, _parameter: click.Parameter, value: str) -> None:
        ctx.ensure_object(Settings).output = value

    return click.option(
        "--output",
        "-o",
        type=click.Choice(choices),
        default="table",
        show_default=True,
        expose_value=False,
        is_eager=True,
        callback=remember,
        help="How to print the answer.",
    )


def filled(_ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Callback of an option whose text must say something."""
    if not value.strip():
        name = max(parameter.opts, key=len)
        raise click.UsageError(f"{name}: expected a text, got an empty one; say it in a few words")
    return value


yes_option = click.option(
    "--yes", "-y", is_flag=True, help="Answer the question with yes: for scripts."
)
