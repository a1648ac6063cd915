"""`housecall-agent`: the program that a site runs.

Threads of `serve`:

    main        makes everything (`server.py`), then waits for SIGTERM or SIGINT
    link        the stream to the coordinator: dials, reads, backs off (`link.py`);
                gRPC's own thread writes what the link's mailbox holds
    slot-<n>    one each slot: preparations and executions (`worker.py`); each running step has
                one more that follows its log (`pipeline.py`)
    light work  one each draft, check or order under consideration (`worker.py`)
    local       a pool that answers the local API (`local_api.py`); a stream holds one of them
    environment asks the engine what it is, while somebody waits for it (`environment.py`)
    relay       accepts callers on the public socket; two a connection pass bytes on
                (`local/relay.py`)
    upkeep      reconciles journal and work, copies the journal, looks whether the clock was set or
                a signer trusted (`upkeep.py`)
    sweep       removes strays (`upkeep.py`, `strays.py`)
    renewal     renews the certificate when two thirds of its life are over (`identity.py`)
    metrics     answers scrapes, each in a thread of its own (`telemetry.py`); where spans are
                reported, the SDK has one thread more
    watchdog    tells systemd that the agent lives, after a round through its doors (`pulse.py`)

What survives the process is in `journal.py` and `catalog.py`; everything else may be lost.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from agent.disk import unusable
from agent.settings import CONFIG_VARIABLE, Settings, listing, load
from housecall.errors import EXIT_CODES, Kind, Refusal
from housecall.identity import split_id
from housecall.service import Service
from housecall.service_commands import service_commands

log = logging.getLogger("agent")
_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
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
    """A refusal, or a disk that does not let us, ends the program with its exit code and a line."""

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        try:
            command(**arguments)
        except (Refusal, OSError) as error:
            refusal = unusable(error) if isinstance(error, OSError) else error
            if refusal is None:
                raise
            click.echo(f"housecall-agent: {refusal}", err=True)
            sys.exit(EXIT_CODES[refusal.kind])

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="housecall")
def main() -> None:
    """The agent of a site: keeps its data, runs models on it, and sends what was released."""


@main.command(epilog=_settings_help())
@_config
@_refusing
def serve(config: Path | None) -> None:
    """Run the agent until SIGTERM."""
    settings = load(config)
    from housecall import logs

    logs.configure(settings.log_level, settings.log_format)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _enrol_once(settings)
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
    from agent.owner import as_owner
    from housecall import tokens

    settings = load(config)
    text, proxy = tokens.given(token), settings.outward().proxy
    with as_owner(settings.state_dir):
        identity = enrol(text, settings.identity_dir, proxy)
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
    from agent.journal_file import require_served
    from agent.owner import as_owner

    _require_signer(name, enrolment_digest)
    path = load(config).state_dir / "journal.sqlite"
    with as_owner(path.parent):
        require_served(path)
        with closing(Journal(path)) as journal:
            journal.trust(name, enrolment_digest)
    click.echo(f"trusted: {name} as enrolled in {enrolment_digest}")


@main.command("recover-journal")
@_config
@_refusing
def recover_journal(config: Path | None) -> None:
    """Save what can be read of a damaged journal, over its last backup; stop the agent first."""
    from agent.journal_file import missing
    from agent.lock import only_one
    from agent.owner import as_owner
    from agent.salvage import salvage

    path = load(config).state_dir / "journal.sqlite"
    if not path.parent.is_dir():
        raise missing(path)
    with as_owner(path.parent):
        lock = only_one(path.parent)
        try:
            found = salvage(path)
        finally:
            os.close(lock)
    for table, count in sorted(found.rows.items()):
        click.echo(f"{table}: {count} rows read")
    below = "over the last backup" if found.backup else "there was no backup that could be read"
    click.echo(f"saved, {below}; the damaged journal is kept as {found.damaged.name}")
    click.echo("next: housecall-agent serve; orders come again by themselves", err=True)


@main.command()
@click.option(
    "--check", "names", multiple=True, metavar="NAME", help="Only this check and what it needs."
)
@click.option(
    "--output", "-o", type=click.Choice(["table", "json"]), default="table", help="How to print it."
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write what helps others to help, without data, paths or secrets: FILE.tar.gz.",
)
@_config
@_refusing
def doctor(names: tuple[str, ...], output: str, bundle: Path | None, config: Path | None) -> None:
    """Check this site hop by hop; name the first that fails, and what mends it."""
    from agent.doctor.command import run

    sys.exit(run(config, names=names, output=output, target=bundle))


for command in service_commands(Service("housecall-agent", "agent.toml"), _refusing):
    main.add_command(command)


def _require_signer(name: str, enrolment_digest: str) -> None:
    """What a signer can be called, and the digest of an envelope: both as a refusal says them."""
    kind = split_id(name)[1]
    if kind not in ("person", "site"):
        raise Refusal(
            Kind.INVALID,
            "NAME_INVALID",
            f"name {name!r}: expected a person or a site, got a {kind}; the refusal SIGNER_CHANGED "
            "has the name",
        )
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", enrolment_digest):
        raise Refusal(
            Kind.INVALID,
            "DIGEST_INVALID",
            f"digest: expected sha256:<64 hex digits>, got {enrolment_digest[:80]!r}; the refusal "
            "SIGNER_CHANGED has the digest",
        )


def _enrol_once(settings: Settings) -> None:
    """The first start of a service that was given its join token as a credential."""
    token = settings.join_token.get_secret_value()
    if not token or (settings.identity_dir / "identity.json").exists():
        return
    from agent.identity import enrol
    from housecall import tokens

    identity = enrol(tokens.given(token), settings.identity_dir, settings.outward().proxy)
    log.info("enrolled", extra={"site": identity.name})


def _serve(settings: Settings, stop: threading.Event) -> None:
    from agent.engines.docker import DockerEngine
    from agent.pulse import Pulse
    from agent.server import Agent
    from agent.telemetry import observed
    from housecall.notify import notify
    from housecall.watchdog import fed

    def engines(allow_pull: bool) -> DockerEngine:
        return DockerEngine(settings.engine or None, allow_pull=allow_pull)

    with observed(Agent(settings, engines)) as agent, closing(Pulse(agent)) as pulse:
        pulse.check()
        log.info("ready", extra={"site": agent.uplink.identity.name})
        notify("READY=1")
        with fed(pulse.check):
            stop.wait()
        notify("STOPPING=1")
        log.info("stopping")
    log.info("stopped")


if __name__ == "__main__":
    main()
