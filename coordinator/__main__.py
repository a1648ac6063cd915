"""`housecall-coordinator`: init, serve, operator-token.

Tasks and threads of `serve`:
  main thread    the event loop: gRPC's sockets, one coroutine a Fleet stream and a board
  unary-*        the thread pool in which unary servicers run
  notary         the one writer of the store
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from coordinator.settings import CONFIG_VARIABLE, Settings
from housecall.errors import EXIT_CODES, Kind, Refusal

log = logging.getLogger("coordinator")


def settings_help() -> str:
    """Each setting with its variable, for `--help`."""
    lines = ["\b", "Settings (TOML file, or environment):"]
    for name, field in Settings.model_fields.items():
        lines += [f"  {name} (HOUSECALL_COORDINATOR_{name.upper()})", f"      {field.description}"]
    return "\n".join(lines)


def _settings(config: Path | None, **overrides: Any) -> Settings:
    if config is not None:
        if not config.is_file():
            raise Refusal(Kind.NOT_FOUND, "CONFIG_MISSING", f"there is no file {config}")
        os.environ[CONFIG_VARIABLE] = str(config)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except (ValidationError, ValueError) as error:
        raise Refusal(Kind.INVALID, "SETTINGS_INVALID", f"settings: {error}") from error


_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file; default /etc/housecall/coordinator.toml where it exists.",
)
_STATE = click.option(
    "--state-dir", type=click.Path(path_type=Path), help="Overrides the setting state_dir."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """The coordinator: keeps what everyone agreed on, and the ledger."""


@cli.command()
@_CONFIG
@_STATE
@click.option("--trust-domain", required=True, help="Name of this federation, as example-org.")
@click.option("--address", required=True, help="Host and port at which everyone will dial it.")
@click.option("--operator", required=True, help="Name of the first operator, as olga.")
@click.option("--token-out", type=click.Path(path_type=Path), help="Write the token there, 0600.")
def init(
    config: Path | None,
    state_dir: Path | None,
    trust_domain: str,
    address: str,
    operator: str,
    token_out: Path | None,
) -> None:
    """Make the CA, the keys and the ledger; print the first operator's join token."""
    from coordinator.founding import found, operator_token

    settings = _settings(config, state_dir=state_dir)
    house = found(settings, trust_domain, address)
    token = operator_token(settings, house, operator)
    click.echo(f"Ledger key: {house.ledger.verifier_key}", err=True)
    _show_token(token, operator, token_out)
    click.echo("Next: housecall-coordinator serve", err=True)


@cli.command("operator-token")
@_CONFIG
@_STATE
@click.option("--operator", required=True, help="Name of the operator, as olga.")
@click.option("--token-out", type=click.Path(path_type=Path), help="Write the token there, 0600.")
def operator_token_command(
    config: Path | None, state_dir: Path | None, operator: str, token_out: Path | None
) -> None:
    """Print a join token for another operator: the way back in when the first one is lost."""
    from coordinator.founding import open_house, operator_token

    settings = _settings(config, state_dir=state_dir)
    _show_token(operator_token(settings, open_house(settings), operator), operator, token_out)


@cli.command()
@_CONFIG
@_STATE
def check(config: Path | None, state_dir: Path | None) -> None:
    """Rebuild the tables from the ledger in memory and compare; exit 5 where they differ."""
    from sqlalchemy.exc import SQLAlchemyError

    from coordinator.rebuild import differences, rebuild
    from coordinator.store import Store

    store = Store(_settings(config, state_dir=state_dir).store_url)
    rebuilt = Store("sqlite://")
    try:
        count = rebuild(store, rebuilt)
        found = differences(store, rebuilt)
    except (Refusal, SQLAlchemyError) as error:
        count, found = 0, [f"the ledger cannot be replayed: {str(error).splitlines()[0]}"]
    if found:
        raise Refusal(
            Kind.CONFLICT,
            "STORE_DIFFERS",
            f"the tables are not what the ledger's {count} entries make: {'; '.join(found)}. Stop "
            "the coordinator and restore the store from a backup",
        )
    click.echo(f"{count} entries: every table is what the ledger makes of it")


@cli.command(epilog=settings_help())
@_CONFIG
@_STATE
@click.option("--listen", help="Overrides the setting listen.")
def serve(config: Path | None, state_dir: Path | None, listen: str | None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and exit 0."""
    from coordinator.founding import open_house

    settings = _settings(config, state_dir=state_dir, listen=listen)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="time=%(asctime)s level=%(levelname)s logger=%(name)s %(message)s",
    )
    asyncio.run(_serve(settings, open_house(settings)))


async def _serve(settings: Settings, house: Any) -> None:
    from coordinator.server import serving
    from housecall.notify import notify

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(settings, house) as port:
        notify("READY=1")
        click.echo(f"housecall-coordinator serves on port {port}", err=True)
        await stop.wait()
        notify("STOPPING=1")
        log.info("stopping")


def _show_token(token: str, operator: str, out: Path | None) -> None:
    if out is None:
        click.echo(token)
        return
    from housecall.identity import write_private

    write_private(out, token.encode())
    click.echo(f"Join token for operator {operator} written to {out}", err=True)


def main() -> None:
    """Refusals become one line and an exit code; see docs/exit-codes.md."""
    try:
        cli(standalone_mode=True)
    except Refusal as refusal:
        click.echo(f"error: {refusal}", err=True)
        sys.exit(EXIT_CODES[refusal.kind])


if __name__ == "__main__":
    main()
