"""How a command that did not succeed ends: one line on standard error, for programs also JSON on
standard output, and an exit code (docs/exit-codes.md)."""

from __future__ import annotations

import itertools
import json

import click

from cli.ask import Declined
from cli.exit_codes import DECLINED, INTERRUPTED
from cli.settings import Settings
from housecall.errors import EXIT_CODES, Kind, Refusal


def end(error: Exception, settings: Settings) -> int:
    """Report what ended the command and give its exit code; unknown errors are raised again."""
    if isinstance(error, click.Abort):
        click.echo(f"interrupted: {settings.on_interrupt}", err=True)
        return INTERRUPTED
    refusal = _refusal(error)
    if refusal is None:
        raise error
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return EXIT_CODES[Kind.INVALID]
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help'.", err=True)
    report(refusal, as_json=settings.output == "json")
    return DECLINED if isinstance(refusal, Declined) else EXIT_CODES[refusal.kind]


def report(refusal: Refusal, *, as_json: bool) -> None:
    if as_json:
        error = {"kind": refusal.kind.value, "code": refusal.code, "message": refusal.message}
        click.echo(json.dumps({"error": error}, indent=2, ensure_ascii=False))
    click.echo(f"error: {refusal}", err=True)


def _refusal(error: Exception) -> Refusal | None:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, click.ClickException):
        return Refusal(Kind.INVALID, "USAGE", error.format_message())
    if isinstance(error, UnicodeDecodeError):
        return Refusal(Kind.INVALID, "FILE_FAILED", f"expected a UTF-8 text file: {error}")
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return Refusal(Kind.INVALID, "FILE_FAILED", what)
    return None


def json_asked(words: list[str]) -> bool:
    """Whether the command line asks for JSON: known even where it cannot be parsed."""
    spellings = {"--output json", "-o json"}
    pairs = {f"{first} {second}" for first, second in itertools.pairwise(words)}
    return bool(spellings & pairs) or bool({"--output=json", "-ojson"} & set(words))
