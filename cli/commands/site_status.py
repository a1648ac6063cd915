"""`housecall site status`: what runs and what waits at this site, for what, since when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from cli import connect, since
from cli.command import example, output_option
from cli.messages import plain
from cli.meter import size
from cli.output import Row
from cli.settings import Settings, pass_settings
from cli.since import ago, until
from housecall.v1 import site_pb2
from housecall.v1.site_pb2_grpc import SiteApiStub

WAITS = {
    "slot": "waits for a slot",
    "gpu": "waits for GPUs",
    "disk": "waits for room on the disk",
    "engine": "waits for the engine",
    "consent": "waits for a yes to run",
    "release": "waits for a yes to send",
    "receipt": "waits for its receipt",
    "coordinator": "waits for the coordinator",
    "decision": "is being decided on",
    "image": "waits for its image",
    "files": "waits for additional files",
    "memory": "waits for memory",
    "trust": "waits until its signer is trusted",
}
_TITLES = ["execution", "dataset", "model", "what", "since", "last line", "next"]


@click.command(
    short_help="Show how this site's agent is.",
    epilog=example("housecall site status", "housecall site status --watch"),
)
@since.watch_option
@output_option()
@pass_settings
def status(settings: Settings, watch: bool) -> None:
    """Show how this site's agent is: link, engine, disk, what runs, what waits for what."""
    with connect.site(settings) as end:
        method = SiteApiStub(end.channel).GetStatus

        def look() -> Row:
            return plain(end.call(method, site_pb2.GetStatusRequest()))

        since.show(settings, look, screen=screen, whole=lambda found: found, watch=watch)


def screen(found: Row) -> str:
    now = datetime.now(UTC)
    return "\n".join([since.facts(_facts(found, now)), *_gpus(found), *_work(found, now)])


def _facts(found: Row, now: datetime) -> Iterator[tuple[str, Any]]:
    yield "site", found["site"]
    yield "agent", found["agent_version"]
    yield "coordinator", found["coordinator"]
    yield "link", _link(found, now)
    yield "problem", found["link_problem"]
    yield "clock", _clock(found)
    yield "engine", found["engine_problem"] or _engine(found)
    yield "slots", f"{found['running']} of {found['slots']} in use"
    room = f"{size(found['disk_free_bytes'])} free"
    yield "disk", f"{room}, no step starts below {size(found['disk_reserve_bytes'])}"
    yield "outbox", _outbox(found, now)
    yield "certificate", f"ends {until(found['certificate_expires_at'], now)}"
    yield "policy", found["policy_digest"] or "none: every order asks"
    yield "ledger key", found["verifier_key"]


def _clock(found: Row) -> str:
    """The coordinator tells its time when the link comes up: before the first time nobody knows."""
    if not (found["connected"] or found["connected_at"]):
        return "-"
    return f"{since.skew(found['clock_skew_seconds'])} of the coordinator's"


def _link(found: Row, now: datetime) -> str:
    if found["connected"]:
        return f"connected for {ago(found['link_since'] or found['connected_at'], now)}"
    down = f"down for {ago(found['link_since'], now)}"
    if found["link_ended"]:
        return f"{down}, ended for good: tell the operator and the other sites"
    later = found["next_try_at"]
    tries = since.seconds_between(later, now) < 0 if later else False
    return f"{down}, next try {until(later, now)}" if tries else f"{down}, tries now"


def _engine(found: Row) -> str:
    said = found["environment"] or {"engine": "", "engine_version": ""}
    return f"{said['engine']} {said['engine_version']}"


def _outbox(found: Row, now: datetime) -> str:
    if not found["outbox"]:
        return "empty: every statement has its receipt"
    oldest = ago(found["outbox_since"], now)
    return f"{found['outbox']} without a receipt, the oldest for {oldest}"


def _gpus(found: Row) -> Iterator[str]:
    rows = []
    for gpu in found["gpus"]:
        execution = gpu["local_execution_id"]
        user = f"execution {execution}" if execution else gpu["dataset_id"]
        rows.append([gpu["uuid"], gpu["name"], size(gpu["memory_bytes"]), user or "free"])
    yield from since.section(rows, ["gpu", "name", "memory", "used by"])


def _work(found: Row, now: datetime) -> Iterator[str]:
    rows = [
        [
            row["local_execution_id"] or "",
            row["dataset_id"],
            row["model_id"] or "",
            _what(row),
            ago(row["since"], now),
            f"{ago(row['heard_at'], now)} ago" if row["heard_at"] else "",
            row["next_step"],
        ]
        for row in found["work"]
    ]
    yield from since.section(rows, _TITLES)


def _what(row: Row) -> str:
    reason = row["waits_for"]
    if reason is None:
        return f"runs {row['step']}" if row["step"] else "gets ready"
    return f"{row['step']} {WAITS.get(reason, reason)}".strip()
