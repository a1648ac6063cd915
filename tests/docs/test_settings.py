"""Every setting has its row, with its variable, and no row is of nothing."""

from __future__ import annotations

import re

import pytest

from agent import settings as agent
from coordinator.settings import CONFIG_VARIABLE, Settings
from tests.docs.pages import DOCS, codes_in, keyed_rows, page


def test_the_coordinators_settings() -> None:
    documented = keyed_rows(page("settings-coordinator.md"))
    assert documented.keys() == Settings.model_fields.keys()
    for name, field in Settings.model_fields.items():
        _, variable, default, what = documented[name]
        assert variable == f"`HOUSECALL_COORDINATOR_{name.upper()}`"
        assert default == (f"`{field.default}`" if str(field.default) else "empty")
        assert what
    assert CONFIG_VARIABLE in codes_in(page("settings-coordinator.md"))


@pytest.mark.parametrize("name", [name for name, *_ in agent.listing()])
def test_the_agents_settings(name: str) -> None:
    lines = [line for line in page("settings-agent.md").splitlines() if f"`{name}`" in line]
    assert any(line.startswith("|") for line in lines), f"docs/settings-agent.md lacks {name}"


def test_the_agents_page_has_no_setting_that_is_gone() -> None:
    named = set(re.findall(rf"\b{agent.PREFIX}([A-Z_]+)\b", page("settings-agent.md")))
    assert {name.lower() for name in named} - {"config"} <= agent.Settings.model_fields.keys()


def test_variables_in_the_docs_exist() -> None:
    """No page may name a variable of the two programs that they do not read."""
    known = {f"HOUSECALL_COORDINATOR_{name.upper()}" for name in Settings.model_fields}
    known |= {agent.PREFIX + name.upper() for name in agent.Settings.model_fields}
    known |= {CONFIG_VARIABLE, f"{agent.PREFIX}CONFIG"}
    for path in DOCS.rglob("*.md"):
        found = re.findall(r"HOUSECALL_(?:AGENT|COORDINATOR)_[A-Z_]*[A-Z]", path.read_text("utf-8"))
        assert set(found) <= known, path.name
