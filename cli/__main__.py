"""The CLI `housecall`: arguments -> one request -> a table or JSON.

Commands are loaded when called, so that `--help` costs no more than click; every way a command
can end is in failures.py.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from cli import failures
from cli.command import LazyGroup
from cli.settings import DEFAULT_SOCKET, Settings
from housecall.errors import Refusal

COMMANDS: dict[str, tuple[str, str]] = {
    "enroll": ("cli.commands.enroll:command", "Turn a join token into your identity."),
    "whoami": ("cli.commands.whoami:command", "Who you are to the coordinator."),
    "profile": ("cli.commands.profile:command", "Your identities on this machine."),
    "dataset": ("cli.commands.dataset:command", "Register, prepare and offer a site's data."),
    "benchmark": ("cli.commands.benchmark:command", "Create, run and watch benchmarks."),
    "association": ("cli.commands.association:command", "Who takes part in which benchmark."),
    "container": ("cli.commands.container:command", "Register containers and look at them."),
    "model": ("cli.commands.model:command", "Register models and offer them to benchmarks."),
    "result": ("cli.commands.result:command", "Look at, submit, export and verify results."),
    "execution": ("cli.commands.execution:command", "Follow and cancel executions."),
    "review": ("cli.commands.review:command", "What waits for a yes of this site."),
    "site": ("cli.commands.site:command", "This site's agent, and the sites of the fleet."),
    "ledger": ("cli.commands.ledger:command", "Checkpoints, entries and their verification."),
    "admin": ("cli.commands.admin:command", "Status, join tokens and revocation: for operators."),
    "completion": ("cli.commands.completion:command", "Completion for your shell."),
}


class Root(LazyGroup):
    """The root command: ends every run through failures.py, also under click's test runner."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        words = list(sys.argv[1:] if args is None else args)
        settings = Settings(output="json" if failures.json_asked(words) else "table")
        refusal = ""
        _begin_trace(settings)
        try:
            code = super().main(
                words, "housecall", complete_var, standalone_mode=False, obj=settings, **extra
            )
        except Exception as error:
            code, refusal = failures.end(error, settings), getattr(error, "code", "")
        code = code if isinstance(code, int) else 0
        if settings.trace:
            with contextlib.suppress(Exception):  # a command never fails because of its trace
                settings.trace.end(code, str(refusal))
        sys.exit(code)


def _begin_trace(settings: Settings) -> None:
    """A command never fails because of its trace."""
    names = ("HOUSECALL_TRACE_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    endpoint = next(filter(None, map(os.environ.get, names)), None)
    if endpoint is None:
        return
    from cli.traces import CommandTrace

    try:
        settings.trace = CommandTrace(endpoint)
    except Refusal as error:
        settings.note(f"warning: no trace of this command: {error}")


@click.command(
    cls=Root,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start at a site with `housecall dataset register --help`, elsewhere with "
    "`housecall enroll --help`.",
)
@click.version_option(package_name="housecall")
@click.option(
    "--socket",
    envvar="HOUSECALL_SOCKET",
    default=DEFAULT_SOCKET,
    show_default=True,
    type=click.Path(path_type=Path, readable=False),  # connect.py asks whether it may be used
    help="Unix socket of the site's agent [env HOUSECALL_SOCKET].",
)
@click.option(
    "--profile",
    envvar="HOUSECALL_PROFILE",
    help="Which of your identities to use [env HOUSECALL_PROFILE].",
)
@click.pass_context
def root(ctx: click.Context, socket: Path, profile: str | None) -> None:
    """The model makes a house call: judge medical AI where the data is."""
    settings = ctx.ensure_object(Settings)
    settings.socket = socket
    settings.socket_chosen = ctx.get_parameter_source("socket") is ParameterSource.COMMANDLINE
    settings.profile = profile or None


def main() -> None:
    """Entry point of the console script."""
    # C-core would print handshake failures that `housecall.rpc` explains.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Loading modules makes many objects and no garbage: collect less often.
    gc.set_threshold(50_000)
    try:
        root.main()
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else 1)


def _leave(code: int) -> NoReturn:
    """End at once: taking the interpreter apart costs a command as much as its request does,
    and by now every channel is closed and every file written."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
