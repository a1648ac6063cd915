"""`housecall completion`: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cli.command import example


@click.command(
    epilog=example(
        "housecall completion bash > ~/.local/share/bash-completion/completions/housecall"
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    found = get_completion_class(shell)
    assert found is not None
    script = found(ctx.find_root().command, {}, "housecall", "_HOUSECALL_COMPLETE")
    click.echo(script.source_template % script.source_vars())
