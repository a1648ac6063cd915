"""Every metric has its row, no row is of nothing, and the examples name only what is there."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.docs.pages import ROOT, codes_in, keyed_rows, page

SOURCES = ("coordinator", "agent")
_NAME = re.compile(r'(?:f"\{PREFIX\}|_gauge\(\s*")(\w+)"')
_COUNTER = re.compile(r'Counter\(\s*f"\{PREFIX\}(\w+)"')
_SERIES = re.compile(r"\bhousecall_(?:coordinator|agent)_\w+")


def exposed(program: str) -> set[str]:
    """Names as Prometheus sees them, read off the source."""
    source = (ROOT / program / "metrics.py").read_text(encoding="utf-8")
    counters = set(_COUNTER.findall(source))
    names = {f"{name}_total" if name in counters else name for name in _NAME.findall(source)}
    return {f"housecall_{program}_{name}" for name in names}


def test_every_metric_has_its_row() -> None:
    documented = keyed_rows(page("telemetry.md"))
    assert documented.keys() == exposed("coordinator") | exposed("agent")
    for name, (_, kind, _, what) in documented.items():
        assert kind in ("gauge", "counter", "histogram"), name
        assert (kind == "counter") == name.endswith("_total"), name
        assert what.endswith("."), name


@pytest.mark.parametrize("fence", re.findall(r"```yaml\n(.*?)```", page("telemetry.md"), re.S))
def test_examples_are_yaml_and_name_metrics_that_exist(fence: str) -> None:
    assert yaml.safe_load(fence)
    assert set(_SERIES.findall(fence)) <= exposed("coordinator") | exposed("agent")


def test_attributes_that_the_page_names_are_reported() -> None:
    text = page("telemetry.md")
    named = codes_in(text[text.index("Attributes begin with") :].split("\n\n")[0])
    files = ("agent/traces.py", "coordinator/telemetry.py", "cli/traces.py", "housecall/spans.py")
    sources = "".join((ROOT / name).read_text(encoding="utf-8") for name in files)
    for name in named - {"housecall."}:
        assert f'"{name}"' in sources or f"housecall.{name}" in sources
