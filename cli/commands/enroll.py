"""`housecall enroll`: a join token becomes an identity."""

from __future__ import annotations

import sys

import click

from cli.command import example, output_option
from cli.output import show_one
from cli.settings import Settings, pass_settings
from housecall.v1 import statements_pb2 as pb


@click.command(epilog=example("housecall enroll --token @token.txt"))
@click.option(
    "--token",
    required=True,
    metavar="TEXT|@FILE|-",
    help="The join token, a file that holds it, or - for standard input.",
)
@output_option()
@pass_settings
def command(settings: Settings, token: str) -> None:
    """Turn a join token into your identity.

    Keys are made here and never leave. Prefer @FILE or -: other users see command lines.
    """
    from housecall import client

    folder = settings.identity_folder
    identity = client.enrol(_text(token), folder, pb.ROLE_PERSON)
    show_one(
        settings,
        {
            "name": identity.name,
            "coordinator": identity.address,
            "ledger_key": identity.verifier_key,
            "folder": str(folder),
        },
    )
    settings.next("housecall whoami")


def _text(token: str) -> str:
    from housecall import tokens

    if token == "-":  # noqa: S105 - standard input's customary name
        return sys.stdin.read()
    return tokens.given(token)
