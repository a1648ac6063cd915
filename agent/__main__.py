"""`housecall-agent`: the program that a site runs.

Threads of `serve`:

    main        makes everything (`server.py`), then waits for SIGTERM or SIGINT
    link        the stream to the coordinator: dials, reads, backs off (`link.py`);
                gRPC's own thread writes what the link's mailbox holds
    slot-<n>    one each slot: preparations and executions (`worker.py`); each running step has
                one more that follows its log (`pipeline.py`)
    light work  one each draft, check or order under consideration (`worker.py`)
    local       a pool that answers the local API (`local_api.py`); a stream holds one of them
    relay       accepts callers on the public socket; two a connection pass bytes on
                (`local/relay.py`)
    renewal     renews the certificate when two thirds of its life are over (`identity.py`)

What survives the process is in `journal.py` and `catalog.py`; everything else may be lost.
"""

from __future__ import annotations

import functools
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agent.settings import Settings, listing, load
from housecall.errors import EXIT_CODES, Refusal

log = logging.getLogger("agent")
_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="HOUSECALL_AGENT_CONFIG",
    help="Settings file, TOML [default: /etc/housecall/agent.toml if it is there].",
)


def _settings_help() -> str:
    lines = [
        f"{variable}\n  {text}" + (f" [default: {default}]" if default else "")
        for _, variable, default, text in listing()
    ]
    body = "\n".join(lines)
    return f"\b\nSettings, in the file by their name in lower case without the prefix:\n{body}"


def _refusing(command: Callable[..., None]) -> Callable[..., None]:
    """A refusal ends the program with its exit code and one line."""

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        try:
            command(**arguments)
        except Refusal as refusal:
            click.echo(f"housecall-agent: {refusal}", err=True)
            sys.exit(EXIT_CODES[refusal.kind])

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The agent of a site: keeps its data, runs models on it, and sends what was released."""


@main.command(epilog=_settings_help())
@_config
@_refusing
def serve(config: Path | None) -> None:
    """Run the agent until SIGTERM."""
    settings = load(config)
    from agent import logs

    logs.configure(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _serve(settings, stop)


@main.command()
@click.option(
    "--token", required=True, help="The join token, or @FILE with it; the file keeps it off `ps`."
)
@_config
@_refusing
def enroll(token: str, config: Path | None) -> None:
    """Turn a site's join token into this agent's identity."""
    from agent.identity import enrol

    identity = enrol(token, load(config).identity_dir)
    click.echo(f"enrolled as {identity.name} at {identity.address}")
    click.echo("next: housecall-agent serve", err=True)


@main.command()
@_config
@_refusing
def settings(config: Path | None) -> None:
    """List every setting with its value now."""
    now = load(config)
    for name, variable, _, text in listing():
        click.echo(f"{name} = {getattr(now, name)}\n    {variable}: {text}")


@main.command()
@click.argument("name")
@click.argument("enrolment_digest", metavar="DIGEST")
@_config
@_refusing
def trust(name: str, enrolment_digest: str, config: Path | None) -> None:
    """Trust a new enrolment of NAME (a SPIFFE id), after asking them by another way."""
    from agent.journal import Journal

    journal = Journal(load(config).state_dir / "journal.sqlite")
    journal.trust(name, enrolment_digest)
    journal.close()
    click.echo(f"trusted: {name} as enrolled in {enrolment_digest}")


def _serve(settings: Settings, stop: threading.Event) -> None:
    from agent.engines.docker import DockerEngine
    from agent.server import Agent
    from housecall.notify import notify

    def engines(allow_pull: bool) -> DockerEngine:
        return DockerEngine(settings.engine or None, allow_pull=allow_pull)

    with Agent(settings, engines) as agent:
        log.info("ready", extra={"site": agent.uplink.identity.name})
        notify("READY=1")
        stop.wait()
        notify("STOPPING=1")
        log.info("stopping")
    log.info("stopped")


if __name__ == "__main__":
    main()
