"""`housecall-coordinator`: init, serve, operator-token; the store's upkeep is in `upkeep.py`.

Tasks and threads of `serve`:
  main thread    the event loop: gRPC's sockets, one coroutine a Fleet stream and a board, gossip
                 with other replicas (`gossip.py`), the round of the watchdog (`pulse.py`)
  unary-*        the thread pool in which unary servicers run
  notary         the one writer of the store
  herald         tells connected sites what the ledger gained (`herald.py`)
  bus            listens to other replicas; on PostgreSQL only (`store/bus.py`)
  metrics        answers scrapes, each in a thread of its own; where spans are reported, the SDK
                 has one thread more (`telemetry.py`)
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from coordinator.options import (
    CONFIG,
    STATE,
    file_failed,
    files,
    is_of_files,
    read_settings,
    settings_help,
)
from coordinator.settings import Settings
from coordinator.stack import give_room
from coordinator.upkeep import COMMANDS, check_at_start
from housecall.errors import EXIT_CODES, Refusal
from housecall.service import Service
from housecall.service_commands import service_commands

if TYPE_CHECKING:
    from coordinator.founding import House

log = logging.getLogger("coordinator")

STOPS = (signal.SIGTERM, signal.SIGINT)
_FILE = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="housecall")
def cli() -> None:
    """The coordinator: keeps what everyone agreed on, and the ledger."""


@cli.command()
@CONFIG
@STATE
@click.option("--trust-domain", required=True, help="Name of this federation, as example-org.")
@click.option("--address", required=True, help="Host and port at which everyone will dial it.")
@click.option("--operator", required=True, help="Name of the first operator, as olga.")
@click.option("--token-out", type=click.Path(path_type=Path), help="Write the token there, 0600.")
@click.option("--ca-certificate", type=_FILE, help="Issuing CA of your own (PEM), with its chain.")
@click.option("--ca-key", type=_FILE, help="Its key (PEM).")
@click.option("--ca-root", type=_FILE, help="Its root (PEM); default: the last of the chain.")
def init(
    config: Path | None,
    state_dir: Path | None,
    trust_domain: str,
    address: str,
    operator: str,
    token_out: Path | None,
    ca_certificate: Path | None,
    ca_key: Path | None,
    ca_root: Path | None,
) -> None:
    """Make the CA, the keys and the ledger; print the first operator's join token."""
    from coordinator.adoption import adopted_of
    from coordinator.founding import check_operator, found

    settings = read_settings(config, state_dir=state_dir)
    check_operator(trust_domain, operator)
    adopted = adopted_of(ca_certificate, ca_key, ca_root)
    with _place(token_out) as place:
        with files(settings.state_dir):
            house = found(settings, trust_domain, address, adopted)
        click.echo(f"Ledger key: {house.ledger.verifier_key}", err=True)
        with _founded(operator, token_out or settings.state_dir):
            _show_token(settings, house, operator, place)
    click.echo("Next: housecall-coordinator serve", err=True)


@cli.command("operator-token")
@CONFIG
@STATE
@click.option("--operator", required=True, help="Name of the operator, as olga.")
@click.option("--token-out", type=click.Path(path_type=Path), help="Write the token there, 0600.")
def operator_token_command(
    config: Path | None, state_dir: Path | None, operator: str, token_out: Path | None
) -> None:
    """Print a join token for another operator: the way back in when the first one is lost."""
    from coordinator.founding import check_operator, open_house
    from coordinator.keys import check_ca, check_keys

    settings = read_settings(config, state_dir=state_dir)
    house = open_house(settings)
    check_keys(settings, house)
    check_ca(settings, house)
    check_operator(house.trust_domain, operator)
    with _place(token_out) as place:
        _show_token(settings, house, operator, place)


@cli.command(epilog=settings_help())
@CONFIG
@STATE
@click.option("--listen", help="Overrides the setting listen.")
def serve(config: Path | None, state_dir: Path | None, listen: str | None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and exit 0."""
    from coordinator.founding import open_house
    from coordinator.keys import check_ca, check_keys
    from housecall import logs

    settings = read_settings(config, state_dir=state_dir, listen=listen)
    logs.configure(settings.log_level, settings.log_format)
    for number in STOPS:  # until the event loop takes them: nothing is under way yet
        signal.signal(number, lambda *_: sys.exit(0))
    house = open_house(settings)
    check_keys(settings, house)
    check_ca(settings, house, now=False)
    if settings.check_at_start:
        check_at_start(settings)
    asyncio.run(_serve(settings, house))


async def _serve(settings: Settings, house: Any) -> None:
    from coordinator.server import serving
    from housecall.notify import notify

    stop = asyncio.Event()
    async with serving(settings, house):
        for number in STOPS:  # before, they end it as it stands
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
        log.info("stopping")


SERVICE = Service("housecall-coordinator", "coordinator.toml")
for command in (*COMMANDS, *service_commands(SERVICE, lambda function: function)):
    cli.add_command(command)


@contextmanager
def _place(out: Path | None) -> Iterator[IO[bytes] | None]:
    """Where a token goes: a new file, which is made before anything else is; None = the output."""
    if out is None:
        yield None
        return
    from housecall.files import new_private

    with files(out):
        with new_private(out) as place:
            yield place
        click.echo(f"Join token written to {out}", err=True)


def _show_token(settings: Settings, house: House, operator: str, place: IO[bytes] | None) -> None:
    from coordinator.founding import operator_token

    token = operator_token(settings, house, operator)
    if place is None:
        click.echo(token)
        return
    place.write(token.encode())
    place.flush()


@contextmanager
def _founded(operator: str, place: Path) -> Iterator[None]:
    """What fails now fails in a coordinator that is there."""
    try:
        with files(place):
            yield
    except Refusal as refusal:
        raise Refusal(
            refusal.kind,
            refusal.code,
            f"{refusal.message}. The coordinator is founded, its first operator has no token: run "
            f"`housecall-coordinator operator-token --operator {operator}`",
        ) from refusal


def main() -> None:
    """Refusals become one line and an exit code; see docs/exit-codes.md."""
    give_room()
    try:
        cli(standalone_mode=True)
    except Refusal as refusal:
        _end(refusal)
    except OSError as error:
        if not is_of_files(error):
            raise
        _end(file_failed(error))


def _end(refusal: Refusal) -> NoReturn:
    click.echo(f"error: {refusal}", err=True)
    sys.exit(EXIT_CODES[refusal.kind])


if __name__ == "__main__":
    main()
