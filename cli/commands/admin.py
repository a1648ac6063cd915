"""`housecall admin`: join tokens and revocation, for operators; the status is a room of its own."""

from __future__ import annotations

import click

from cli import connect, publish, tokens
from cli.ask import confirm
from cli.command import LazyGroup, example, filled, output_option, yes_option
from cli.messages import number, plain, words
from cli.output import Column, show_list
from cli.settings import Settings, pass_settings
from housecall.v1 import authority_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.authority_pb2_grpc import AuthorityStub

STATES = authority_pb2.TokenState.DESCRIPTOR
COLUMNS: list[Column] = [
    ("id", "token_id"),
    ("for", lambda row: "/".join(row["name"].rsplit("/", 2)[-2:])),
    ("role", "role"),
    ("state", "state"),
    ("expires", "expires_at"),
]


@click.group(
    cls=LazyGroup,
    table={
        "status": (
            "cli.commands.admin_status:status",
            "Show how the coordinator and its sites are.",
        ),
    },
)
def command() -> None:
    """Status, join tokens and revocation: for operators."""


@command.group(short_help="Make, list and revoke join tokens.")
def token() -> None:
    """Join tokens: one-time, short-lived, each for one name and role."""


@token.command(
    epilog=example(
        "housecall admin token create --site north --out north.token",
        "housecall admin token create --person ada --expires 2h",
        "housecall admin token create --site north --renew",
    )
)
@click.option("--site", metavar="NAME", help="For a site of this name.")
@click.option("--person", metavar="NAME", help="For a person of this name.")
@click.option("--operator", is_flag=True, help="The person becomes an operator.")
@click.option("--renew", is_flag=True, help="For who is enrolled, whose certificate ran out.")
@click.option("--expires", default="24h", show_default=True, help="How long it is good, as 30m.")
@click.option("--out", type=click.Path(), help="Write it to this new file, for you alone to read.")
@output_option()
@pass_settings
def create(
    settings: Settings,
    site: str | None,
    person: str | None,
    operator: bool,
    renew: bool,
    expires: str,
    out: str | None,
) -> None:
    """Make a join token. Its key is made here; the coordinator certifies it unseen."""
    if (site is None) == (person is None):
        raise click.UsageError("give exactly one of --site and --person")
    if site and operator:
        raise click.UsageError("a site cannot be an operator: give --person")
    role = pb.ROLE_SITE if site else pb.ROLE_OPERATOR if operator else pb.ROLE_PERSON
    life = tokens.duration(expires)
    with tokens.place(out) as file:
        with connect.signer(settings) as (end, identity):
            name = publish.participant_id(
                identity, "site" if site else "person", site or person or ""
            )
            issued = tokens.issue(end, identity, name, role, life=life, renews=renew)
        tokens.show(settings, issued, out, file)


@token.command(epilog=example("housecall admin token ls", "housecall admin token ls --state open"))
@click.option("--state", type=click.Choice(words(STATES)), help="Only those in this state.")
@output_option(lists=True)
@pass_settings
def ls(settings: Settings, state: str | None) -> None:
    """List join tokens and whether they were used."""
    wanted = authority_pb2.TokenState.ValueType(number(STATES, state or ""))
    request = authority_pb2.ListTokensRequest(state=wanted)
    with connect.coordinator(settings) as end:
        found = end.pages(AuthorityStub(end.channel).ListTokens, request, "tokens")
    empty = f"no join token is {state}" if state else "no join tokens"
    show_list(settings, [plain(item) for item in found], COLUMNS, empty)


@token.command("revoke", epilog=example("housecall admin token revoke 0123456789abcdef"))
@click.argument("token_id", metavar="ID")
@click.option("--reason", default="", help="Why; it stays in the ledger.")
@output_option()
@pass_settings
def revoke_token(settings: Settings, token_id: str, reason: str) -> None:
    """Make a join token worthless that was not used yet."""
    with connect.signer(settings) as (end, identity):
        predicate = pb.JoinTokenRevoked(token_id=token_id, reason=reason)
        subjects = {f"join token {token_id}": tokens.name_digest(token_id)}
        response = publish.publish(end, identity, predicate, subjects)
    publish.show_receipt(settings, response, f"revoked join token {token_id}")


@command.command(
    short_help="Revoke a participant's keys for good.",
    epilog=example("housecall admin revoke site/north --reason 'stolen disk'"),
)
@click.argument("name", metavar="NAME")
@click.option("--reason", required=True, callback=filled, help="Why; it stays in the ledger.")
@yes_option
@output_option()
@pass_settings
def revoke(settings: Settings, name: str, reason: str, yes: bool) -> None:
    """Revoke the keys of a participant (site/NAME, person/NAME) for good: its calls end at once.

    The name can be enrolled anew, with new keys.
    """
    with connect.signer(settings) as (end, identity):
        whole = publish.any_participant_id(identity, name)
        question = f"Revoke the keys of {whole} for good?"
        if whole == identity.name:
            settings.note(
                "warning: this is you; every call of yours ends at once, and the way back is a new "
                "token by `housecall-coordinator operator-token` on the coordinator's machine"
            )
            question = f"Revoke your own keys, as {whole}, for good?"
        confirm(question, yes=yes)
        predicate = pb.ParticipantRevoked(name=whole, reason=reason)
        subjects = {whole: tokens.name_digest(whole)}
        response = publish.publish(end, identity, predicate, subjects)
    publish.show_receipt(settings, response, f"revoked {whole}")
