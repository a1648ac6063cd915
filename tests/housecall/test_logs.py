"""One format of log lines: for machines, for people, and for systemd's journal."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

SAYS = """
import logging
from housecall import logs
logs.configure("{level}", "{form}")
log = logging.getLogger("a.room")
log.debug("a detail")
log.info("order written down", extra={{"order": 7, "site": "spiffe://t/site/n", "said": "x y"}})
try:
    raise KeyError("gone")
except KeyError:
    log.exception("internal error", extra={{"reference": "c0ffee"}})
log.critical("the end")
"""


def lines(form: str, level: str = "info", journal: Path | None = None) -> list[str]:
    """What a program says on standard error, in a process of its own."""
    code = SAYS.format(form=form, level=level)
    environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    if journal is None:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
        return done.stderr.decode().splitlines()
    with journal.open("wb") as stream:
        found = os.fstat(stream.fileno())
        environment["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
        subprocess.run([sys.executable, "-c", code], stderr=stream, env=environment, check=True)
    return journal.read_text().splitlines()


def test_json_is_one_object_a_line_with_the_ids_as_fields() -> None:
    first, second, third = (json.loads(line) for line in lines("json"))
    at = datetime.datetime.fromisoformat(first.pop("time"))
    assert abs(datetime.datetime.now(datetime.UTC) - at) < datetime.timedelta(minutes=1)
    assert first == {
        "level": "info",
        "logger": "a.room",
        "message": "order written down",
        "order": 7,
        "site": "spiffe://t/site/n",
        "said": "x y",
    }
    assert (second["reference"], "KeyError: 'gone'" in second["exception"]) == ("c0ffee", True)
    assert third["level"] == "critical"


def test_times_are_rfc_3339_in_utc() -> None:
    assert json.loads(lines("json")[0])["time"].endswith("Z")
    time, *_ = lines("text")[0].split(" ")
    assert time[10] == "T"
    assert time.endswith("Z")


def test_text_says_the_same_for_people() -> None:
    first, second, *trace = lines("text")
    _, said = first.split(" ", 1)
    assert said == 'info a.room order written down order=7 site=spiffe://t/site/n said="x y"'
    assert second.endswith("error a.room internal error reference=c0ffee")
    assert trace[0] == "Traceback (most recent call last):"


def test_the_level_decides() -> None:
    assert len(lines("json", "debug")) == 4
    assert [json.loads(line)["message"] for line in lines("json", "error")] == [
        "internal error",
        "the end",
    ]


def test_systemd_gets_levels_and_keeps_the_time_itself(tmp_path: Path) -> None:
    text = lines("text", "debug", tmp_path / "text")
    assert text[0] == "<7>debug a.room a detail"
    assert text[1].startswith("<6>info a.room order written down")
    assert all(line.startswith("<3>") for line in text[2:-1]), "a trace line by line"
    assert text[-1] == "<2>critical a.room the end"
    said = [json.loads(line[3:]) for line in lines("json", journal=tmp_path / "json")]
    assert [list(each)[:2] for each in said] == [["level", "logger"]] * 3


def test_a_journal_that_is_not_this_stream_changes_nothing(tmp_path: Path) -> None:
    """JOURNAL_STREAM is inherited by whatever a service starts, redirected or not."""
    code = SAYS.format(form="json", level="info")
    environment = {**os.environ, "JOURNAL_STREAM": "8:12345"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stderr.startswith(b'{"time": ')
