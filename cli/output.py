"""Answers on standard output: a table, JSON, or CSV for lists.

Tables are drawn here: a library that does it costs more at start-up than the whole request.
Everything that others wrote (names, reasons, log lines) is stripped of control characters first.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from cli.settings import Settings

Row = dict[str, Any]


@dataclass(frozen=True)
class Abridged:
    """A value that a table shows by its `brief`, and that CSV has whole."""

    path: str
    brief: Callable[[Any], Any]

    def __call__(self, row: Row) -> Any:
        return self.brief(get(row, self.path))


Column = tuple[str, str | Callable[[Row], Any]]
"""Title, and where the row has the value (`origin.owner`) or how to make it."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z")


def clean(text: str) -> str:
    """Text without characters that could steer a terminal or hide others; they are shown as
    escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def short(name: str) -> str:
    """`north` for `spiffe://demo/site/north`; other texts as they are."""
    return name.rsplit("/", 1)[-1] if name.startswith("spiffe://") else name


def brief(digest: str | None) -> str:
    """The first 12 hex digits of a digest: to recognise, not to verify."""
    return digest.removeprefix("sha256:")[:12] if digest else ""


def get(row: Row, path: str) -> Any:
    """The value at a path of keys by dots; None where a message on the way is unset."""
    value: Any = row
    for key in path.split("."):
        value = None if value is None else value[key]
    return value


def cell(value: Any) -> str:
    """A value as a table shows it; times to the second."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value) or "-"
    if isinstance(value, str) and (time := _TIME.fullmatch(value)):
        return f"{time[1]}Z"
    return clean(short(str(value))).replace("\n", " ")


def table(rows: Sequence[Sequence[Any]], titles: Sequence[str]) -> str:
    """Columns by two spaces; numbers to the right."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    right = [
        bool(rows) and all(type(row[i]) in (int, float) for row in rows) for i in range(len(titles))
    ]
    lines = [list(titles), ["-" * width for width in widths], *cells]
    return "\n".join(_line(line, widths, right) for line in lines)


def as_table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    return table(_values(rows, columns), [title for title, _ in columns])


def _values(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[Any]]:
    return [[at(row) if callable(at) else get(row, at) for _, at in columns] for row in rows]


def _line(values: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        value.rjust(width) if to_right else value.ljust(width)
        for value, width, to_right in zip(values, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()


def _whole(row: Row, at: str | Callable[[Row], Any]) -> str:
    """A value as CSV has it: nothing cut off, true and false and mappings as in JSON."""
    if isinstance(at, Abridged):
        at = at.path
    value = at(row) if callable(at) else get(row, at)
    if isinstance(value, (bool, dict)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def tree(value: Any, indent: int = 0) -> Iterable[str]:
    """A mapping as indented `name: value` lines, nothing left out but what is empty."""
    pad = "  " * indent
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        title = f"{pad}-" if isinstance(value, list) else f"{pad}{clean(str(key))}:"
        if isinstance(item, (dict, list)) and item:
            yield title
            yield from tree(item, indent + 1)
        elif isinstance(item, str) and "\n" in item.strip():
            yield title
            yield from (f"{pad}  | {line}" for line in clean(item).rstrip().split("\n"))
        elif item not in (None, "", [], {}):
            yield f"{title} {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(str(value)).strip()


def show_list(settings: Settings, rows: list[Row], columns: Sequence[Column], empty: str) -> None:
    """A list; JSON gives the rows whole, table and CSV the columns. `empty` says what that
    means."""
    if settings.output == "json":
        print_json(rows)
        return
    if settings.output == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([title for title, _ in columns])
        writer.writerows([[_whole(row, at) for _, at in columns] for row in rows])
        click.echo(buffer.getvalue(), nl=False)
    elif rows:
        click.echo(as_table(rows, columns))
    else:
        click.echo(empty, err=True)


def show_one(settings: Settings, value: Row) -> None:
    if settings.output == "json":
        print_json(value)
    else:
        for line in tree(value):
            click.echo(line)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
