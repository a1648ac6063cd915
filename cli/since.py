"""Status screens: how long ago something was, facts in two columns, and screens that renew
themselves. What stands on a screen is each command's business."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from cli.output import cell, print_json, table
from cli.settings import Settings

T = TypeVar("T")
LOOK_EVERY_S = 2.0
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))
watch_option = click.option(
    "--watch", is_flag=True, help="Look again every two seconds until Ctrl-C."
)


def span(seconds: float) -> str:
    """A length of time in its largest unit: `12 s`, `3 min`, `5 h`, `2 d`."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def ago(time_text: str | None, now: datetime) -> str:
    """How long a time of `plain` lies back; `-` for one that is unset."""
    return span(seconds_between(time_text, now)) if time_text else "-"


def until(time_text: str | None, now: datetime) -> str:
    """How far a time of `plain` lies ahead: `in 3 d`, `2 h ago`, `-`."""
    if not time_text:
        return "-"
    ahead = -seconds_between(time_text, now)
    return f"in {span(ahead)}" if ahead >= 0 else f"{span(-ahead)} ago"


def seconds_between(time_text: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(time_text)).total_seconds()


def skew(seconds: float) -> str:
    """A difference of clocks: `0.3 s ahead`, `2 h behind`."""
    size = f"{abs(seconds):.1f} s" if abs(seconds) < 60 else span(abs(seconds))
    return f"{size} {'behind' if seconds < 0 else 'ahead'}"


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """One `name  value` a line, the values under each other; those without a value left out."""
    shown = [(name, cell(value)) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)


def section(rows: Sequence[Sequence[Any]], titles: Sequence[str]) -> Iterator[str]:
    """A table with an empty line before it; nothing where it would be empty."""
    if rows:
        yield ""
        yield table(rows, titles)


def show(
    settings: Settings,
    look: Callable[[], T],
    *,
    screen: Callable[[T], str],
    whole: Callable[[T], dict[str, Any]],
    watch: bool,
) -> None:
    """What `look` finds: as a screen, or whole as JSON; over and over with `watch`."""
    if not watch:
        found = look()
        if settings.output == "json":
            print_json(whole(found))
        else:
            click.echo(screen(found))
        return
    settings.on_interrupt = "stopped watching"
    if settings.output == "json":
        for found in _again(look):
            click.echo(json.dumps(whole(found), ensure_ascii=False))
    elif sys.stdout.isatty():
        _draw(screen(found) for found in _again(look))
    else:
        for found in _again(look):
            click.echo(screen(found) + "\n")


def _again(look: Callable[[], T]) -> Iterator[T]:
    for _ in itertools.count():
        yield look()
        time.sleep(LOOK_EVERY_S)


def _draw(screens: Iterable[str]) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(Text(""), auto_refresh=False) as live:
        for screen in screens:
            live.update(Text(screen, no_wrap=True), refresh=True)
