"""A run as it goes and as it ended: a row a model, then the counts; and what a run would be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from cli import progress
from cli.messages import plain
from cli.meter import size
from cli.output import Column, Row, print_json, show_list
from cli.settings import Settings
from housecall.errors import Kind, Refusal
from housecall.v1 import site_pb2

COLUMNS: list[Column] = [
    ("model", lambda row: f"{row['model_id']} {row['model_name']}".strip()),
    ("result", "result"),
    ("partial", "partial"),
    ("from cache", "from_cache"),
    ("error", lambda row: _error(row)),
]
PLAN_COLUMNS: list[Column] = [
    ("container", lambda row: f"{row['model_id'] or ''} {row['model_name']}".strip()),
    ("would", lambda row: "come from cache" if row["from_cache"] else "run"),
    ("image", lambda row: "present" if row["image_present"] else f"pull {_pull(row)}"),
    ("additional files", lambda row: "present" if row["additional_files_present"] else "fetch"),
]


def count(rows: Iterable[Row]) -> dict[str, int]:
    """total = skipped + failed + ran; partial ones are counted among skipped and ran."""
    tally: Counter[str] = Counter()
    for row in rows:
        failed = not row["result"]
        kind = "failed" if failed else "skipped" if row["from_cache"] else "ran"
        tally.update(["total", kind])
        if row["partial"] and not failed:
            tally[f"{kind}_partial"] += 1
    names = ("total", "skipped", "skipped_partial", "failed", "ran", "ran_partial")
    return {name: tally[name] for name in names}


def follow(events: Iterable[site_pb2.RunEvent]) -> list[Row]:
    """Show the run; its table, or the rows that came where the stream ended without one."""
    rows: dict[int, Row] = {}
    ended = False
    with progress.view() as view:
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "step":
                step = event.step
                view.show(step.event, f"model {step.model_id} {step.model_name}: ")
            elif kind == "row":
                rows[event.row.model_id] = plain(event.row)
            elif kind == "table":
                rows = {row.model_id: plain(row) for row in event.table.rows}
                ended = True
    if not ended:
        raise Refusal(
            Kind.UNAVAILABLE,
            "WORK_CUT_OFF",
            "the agent ended the stream before the run was done: run the command again to join it",
        )
    return [rows[model_id] for model_id in sorted(rows)]


def show_rows(settings: Settings, rows: list[Row], counts: dict[str, int]) -> None:
    if settings.output == "json":
        print_json({"rows": rows, "counts": counts})
        return
    show_list(settings, rows, COLUMNS, "no approved models to run")
    settings.say(
        f"\ntotal: {counts['total']}\n"
        f"skipped (from cache): {counts['skipped']}, "
        f"of which partial: {counts['skipped_partial']}\n"
        f"failed: {counts['failed']}\n"
        f"ran: {counts['ran']}, of which partial: {counts['ran_partial']}"
    )


def show_plan(settings: Settings, plan: site_pb2.PlanRunResponse) -> None:
    if settings.output == "json":
        print_json(plain(plan))
        return
    show_list(settings, plain(plan)["items"], PLAN_COLUMNS, "no approved models to run")
    pull = sum(item.image_bytes for item in plan.items if not item.image_present)
    settings.say(
        f"\nto pull: {size(pull)}\nprepared data: {size(plan.prepared_bytes)}\n"
        f"disk free: {size(plan.disk_free_bytes)}"
    )


def _error(row: Row) -> Any:
    code = f"[{row['error_code']}]" if row["error_code"] else ""
    return f"{row['error']} {code}".strip()


def _pull(row: Row) -> str:
    return size(row["image_bytes"]) if row["image_bytes"] else "(size unknown)"
