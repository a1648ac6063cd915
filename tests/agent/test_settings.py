"""Settings: their sources, their noes, and that each is documented."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from agent import settings
from agent.__main__ import main
from housecall.errors import Refusal

PAGE = Path(__file__).parents[2] / "docs" / "settings-agent.md"


@pytest.mark.parametrize("name", [name for name, *_ in settings.listing()])
def test_every_setting_has_its_row_and_its_help(name: str) -> None:
    variable = f"HOUSECALL_AGENT_{name.upper()}"
    assert f"| `{name}` | `{variable}` |" in PAGE.read_text()
    assert variable in CliRunner().invoke(main, ["serve", "--help"]).output
    assert all(text for *_, text in settings.listing())


def test_the_environment_overrides_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('slots = 3\npids = 99\nallowed_paths = ["/a"]\n')
    monkeypatch.setenv("HOUSECALL_AGENT_PIDS", "100")
    loaded = settings.load(file)
    assert (loaded.slots, loaded.pids, loaded.allowed_paths) == (3, 100, [Path("/a")])
    monkeypatch.setenv("HOUSECALL_AGENT_ALLOWED_PATHS", "/b:/c")
    assert settings.load(file).allowed_paths == [Path("/b"), Path("/c")]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("slot = 3", "setting slot: there is no setting of that name, the nearest is slots; see"),
        ("slots = 0", "slots"),
        ('container_user = "0:0"', "container_user"),
        ("slots =", "expected TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    with pytest.raises(Refusal, match=named) as caught:
        settings.load(file)
    assert caught.value.code == "SETTINGS_INVALID"


def test_no_identity_says_how_to_get_one(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'state_dir = "{tmp_path}"\nlog_level = "error"\n')
    result = CliRunner().invoke(main, ["serve", "--config", str(file)])
    assert result.exit_code == 6
    assert "housecall-agent enroll --token" in result.output


@pytest.mark.parametrize(
    ("made", "said"),
    [(None, "No such file"), ("folder", "Is a directory"), (b"\xff\xfe", "no text")],
)
def test_a_join_token_in_a_file_that_cannot_be_read(
    tmp_path: Path, made: str | bytes | None, said: str
) -> None:
    token, config = tmp_path / "north.token", tmp_path / "agent.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n')
    if isinstance(made, bytes):
        token.write_bytes(made)
    elif made:
        token.mkdir()
    words = ["enroll", "--token", f"@{token}", "--config", str(config)]
    shown = CliRunner().invoke(main, words)
    assert (shown.exit_code, "[FILE_FAILED]" in shown.output) == (2, True), shown.output
    assert f"join token {token}: " in shown.output
    assert said in shown.output
