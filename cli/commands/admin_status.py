"""`housecall admin status`: the coordinators, their sites, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import Any

import click

from cli import connect, since
from cli.command import example, output_option
from cli.messages import plain
from cli.output import Row, short
from cli.settings import Settings, pass_settings
from cli.since import ago, until
from housecall.v1 import registry_pb2
from housecall.v1.registry_pb2_grpc import RegistryStub

WAITS_FOR = {
    "waiting_consent": "a person of the site: consent",
    "queued": "a slot",
    "running": "",
    "waiting_release": "a person of the site: release",
}
"""State of an accepted execution -> whom it waits for."""
LACKS = {
    lack: f"a person of the site: {lack}" for lack in ("disk", "engine", "image", "files", "memory")
}
"""What a queued one lacks -> whom it waits for, since no slot is what it waits for."""
BACK_UP = "`housecall-coordinator backup`"


@click.command(
    short_help="Show how the coordinator and its sites are.",
    epilog=example("housecall admin status", "housecall admin status --output json"),
)
@since.watch_option
@output_option()
@pass_settings
def status(settings: Settings, watch: bool) -> None:
    """Show how the coordinator and its sites are, what is open, and who waits for whom."""
    with connect.coordinator(settings) as end:
        method = RegistryStub(end.channel).GetOverview

        def look() -> Row:
            return plain(end.call(method, registry_pb2.GetOverviewRequest()))

        since.show(settings, look, screen=screen, whole=lambda found: found, watch=watch)


def screen(found: Row) -> str:
    """Times are told by the coordinator's clock, which stated them all."""
    now = datetime.fromisoformat(found["coordinator"]["now"])
    parts = (_replicas(found, now), _sites(found, now), _open(found, now))
    return "\n".join([since.facts(_facts(found, now)), *chain.from_iterable(parts)])


def _facts(found: Row, now: datetime) -> Iterator[tuple[str, Any]]:
    own = found["coordinator"]
    yield "coordinator", f"{own['version']}, serving for {ago(own['serving_since'], now)}"
    yield "database", own["database"]
    newest = ago(own["checkpoint_at"], now)
    yield "ledger", f"{own['ledger_size']} entries, the newest {newest} ago"
    yield "last backup", _backup(own, now)
    connected = sum(row["site"]["connected"] for row in found["sites"])
    yield "sites", f"{len(found['sites'])}, {connected} connected"
    yield "open executions", _counted(found["executions_open"], found["executions"])
    yield "open requests", _counted(found["requests_open"], found["requests"])
    yield "join tokens", len(found["tokens"])


def _counted(count: int, rows: list[Row]) -> str:
    return str(count) if count == len(rows) else f"{count}; the oldest {len(rows)} are below"


def _backup(own: Row, now: datetime) -> str | None:
    """None from a coordinator that does not say."""
    last = own["last_backup"]
    if last:
        said = f"{ago(last['taken_at'], now)} ago, {last['ledger_size']} entries"
        return f"{said}; overdue: run {BACK_UP}" if own["backup_overdue"] else said
    return f"never: run {BACK_UP}" if own["backup_overdue"] else None


def _replicas(found: Row, now: datetime) -> Iterator[str]:
    rows = [
        [
            row["name"],
            row["host"],
            ago(row["serving_since"], now),
            row["sites"],
            row["version"],
            row["store"],
        ]
        for row in found["replicas"]
    ]
    titles = ["replica", "host", "serving for", "sites", "version", "store"]
    yield from since.section(rows, titles)


def _sites(found: Row, now: datetime) -> Iterator[str]:
    rows = [
        [
            row["site"]["name"],
            _link(row["site"], now),
            row["site"]["agent_version"],
            since.skew(row["site"]["clock_skew_seconds"]) if row["site"]["connected"] else "-",
            until(row["certificate_expires_at"], now),
            row["site"]["running"],
            row["site"]["waiting"],
        ]
        for row in found["sites"]
    ]
    titles = ["site", "link", "agent", "clock", "certificate ends", "running", "waiting"]
    yield from since.section(rows, titles)


def _link(site: Row, now: datetime) -> str:
    if site["connected"]:
        return f"connected for {ago(site['connected_at'], now)}"
    if site["heard_at"]:
        return f"away, heard {ago(site['heard_at'], now)} ago"
    return "away, not heard since the start"


def _open(found: Row, now: datetime) -> Iterator[str]:
    connected = {row["site"]["name"]: row["site"]["connected"] for row in found["sites"]}
    executions = [_execution(row, now, connected) for row in found["executions"]]
    titles = ["execution", "site", "dataset", "model", "state", "since", "waits for"]
    yield from since.section(executions, titles)
    requests = [
        [
            row["association_id"],
            row["benchmark_id"],
            row["dataset_id"] or f"model {row['model_id']}",
            ago(row["since"], now),
            f"{row['approvals']} of {row['votes_needed']}",
            ", ".join(map(short, row["waits_for"])),
        ]
        for row in found["requests"]
    ]
    titles = ["association", "benchmark", "of", "since", "votes", "waits for"]
    yield from since.section(requests, titles)
    tokens = [
        [
            row["token_id"],
            "/".join(row["name"].rsplit("/", 2)[-2:]),
            row["role"],
            ago(row["issued_at"], now),
            until(row["expires_at"], now),
        ]
        for row in found["tokens"]
    ]
    titles = ["join token", "for", "role", "issued", "expires"]
    yield from since.section(tokens, titles)


def _execution(row: Row, now: datetime, connected: dict[str, bool]) -> list[Any]:
    execution = row["execution"]
    state = str(execution["state"])
    waits_for = LACKS.get(row["waits_for"]) or WAITS_FOR.get(state, "the agent")
    if not row["accepted"]:
        waits_for = "the agent to take it"
    if not connected.get(row["site"]):
        waits_for = "the site to connect"
    detail = f": {execution['step']}" if execution["step"] else ""
    return [
        execution["id"],
        row["site"],
        execution["dataset_id"],
        execution["model"]["id"],
        state.replace("_", " ") + detail,
        ago(execution["updated_at"], now),
        waits_for,
    ]
