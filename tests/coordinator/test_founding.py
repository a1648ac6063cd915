"""`init` makes a whole coordinator, or leaves everything as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coordinator import founding
from coordinator.__main__ import cli
from coordinator.founding import check_address, found, open_house
from coordinator.settings import Settings
from coordinator.store import Store
from housecall import tokens
from housecall.errors import Kind, Refusal
from tests.coordinator.test_daemon import run

WORDS = {"--trust-domain": "test", "--address": "127.0.0.1:1", "--operator": "olga"}


def init(state: Path, **changed: object) -> list[str]:
    """The words of an `init` that would do, with these options changed or added."""
    options = WORDS | {"--state-dir": str(state)}
    options |= {f"--{name.replace('_', '-')}": str(value) for name, value in changed.items()}
    return ["init", *(word for pair in options.items() for word in pair)]


def refused(*words: str) -> Refusal:
    result: Result = CliRunner().invoke(cli, list(words))
    assert isinstance(result.exception, Refusal), (result.exception, result.output)
    return result.exception


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file below it, but for what SQLite keeps beside its own."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.suffix not in (".db-shm",)}


@pytest.mark.parametrize("gone", ["", "coordinator.db", "ca", "ledger.key"])
def test_nothing_is_founded_over_what_is_left(tmp_path: Path, gone: str) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    found(settings, "test", "127.0.0.1:1")
    for name in ("coordinator.json", *gone.split()):
        path = settings.state_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = contents(settings.state_dir)
    refusal = refused(*init(settings.state_dir))
    assert (refusal.kind, refusal.code) == (Kind.CONFLICT, "ALREADY_FOUNDED")
    assert "restore that file from the newest backup" in refusal.message
    assert contents(settings.state_dir) == before
    with pytest.raises(Refusal, match=r"coordinator\.json") as caught:
        open_house(settings)
    assert caught.value.code == "KEYS_UNREADABLE"


@pytest.mark.parametrize("there", [False, True])
def test_a_store_with_a_ledger_leaves_the_folder_as_it_was(
    tmp_path: Path, database_url: str, there: bool
) -> None:
    first = Settings(state_dir=tmp_path / "first", database_url=database_url)
    found(first, "test", "127.0.0.1:1")
    wrong = tmp_path / "mistyped" / "deep"
    if there:
        wrong.mkdir(parents=True)
    with pytest.raises(Refusal, match="LEDGER_NOT_EMPTY"):
        found(Settings(state_dir=wrong, database_url=first.store_url), "test", "127.0.0.1:1")
    assert wrong.exists() == there
    assert (tmp_path / "mistyped").exists() == there
    assert not list(wrong.glob("*"))


def test_what_fails_half_way_leaves_nothing(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path / "state", database_url=database_url)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(founding, "_first_entry", fail)
    with pytest.raises(OSError, match="No space"):
        found(settings, "test", "127.0.0.1:1")
    monkeypatch.undo()
    assert not settings.state_dir.exists()
    found(settings, "test", "127.0.0.1:1")
    with contextlib.closing(Store(settings.store_url)) as store, store.read() as reader:
        assert reader.tree_size() == 1


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"operator": "Olga B"}, "NAME_INVALID"),
        ({"trust_domain": "Example Org"}, "NAME_INVALID"),
        ({"address": "localhost"}, "ADDRESS_INVALID"),
        ({"token_out": "/dev/full"}, "FILE_EXISTS"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    tmp_path: Path, changed: dict[str, str], code: str
) -> None:
    assert refused(*init(tmp_path / "state", **changed)).code == code
    assert not list(tmp_path.iterdir())


def test_a_token_needs_a_new_file(tmp_path: Path) -> None:
    out = tmp_path / "olga.token"
    out.write_text("another's")
    refusal = refused(*init(tmp_path / "state", token_out=out))
    assert (refusal.kind, refusal.code) == (Kind.CONFLICT, "FILE_EXISTS")
    assert out.read_text() == "another's"
    beyond = refused(*init(tmp_path / "state", token_out=out / "olga.token"))
    assert (beyond.kind, beyond.code) == (Kind.INVALID, "FILE_FAILED")
    assert [path.name for path in tmp_path.iterdir()] == ["olga.token"]
    out.unlink()
    done = run(*init(tmp_path / "state", token_out=out))
    assert done.returncode == 0, done.stderr
    assert tokens.read(out.read_text()).name == "spiffe://test/person/olga"
    assert out.stat().st_mode & 0o777 == 0o600
    assert "Ledger key: test/ledger+" in done.stderr


def test_what_fails_afterwards_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise Refusal(Kind.UNAVAILABLE, "STORE_UNREACHABLE", "the store is away")

    monkeypatch.setattr(founding, "operator_token", fail)
    out = tmp_path / "olga.token"
    result = CliRunner().invoke(cli, init(tmp_path / "state", token_out=out))
    assert isinstance(result.exception, Refusal)
    assert "operator-token --operator olga" in result.exception.message
    assert "Ledger key: test/ledger+" in result.stderr
    assert not out.exists()
    monkeypatch.undo()
    again = ["operator-token", "--operator", "olga", "--state-dir", str(tmp_path / "state")]
    assert CliRunner().invoke(cli, again).exit_code == 0


def test_what_others_write_into_the_folder_meanwhile_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state_dir that was mistyped may be anybody's folder."""

    def fail(*_: object) -> None:
        (tmp_path / "another's").write_text("")
        raise Refusal(Kind.UNAVAILABLE, "STORE_UNREACHABLE", "the store is away")

    monkeypatch.setattr(founding, "_first_entry", fail)
    with pytest.raises(Refusal, match="the store is away"):
        founding.found(Settings(state_dir=tmp_path), "test", "localhost:1")
    assert [path.name for path in tmp_path.iterdir()] == ["another's"]


@pytest.mark.parametrize("below", ["", "deep"])
def test_a_state_folder_that_can_be_none_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    done = run(*init(tmp_path / "file" / below))
    assert done.returncode == 2
    assert "state_dir: expected a folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="a disk of one's own is mounted by root")
def test_a_full_disk_founds_nothing(small_disk: Path) -> None:
    with (small_disk / "filler").open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 65536)
    done = run(*init(small_disk / "state"))
    assert done.returncode == 7, done.stderr
    assert "Traceback" not in done.stderr
    assert not (small_disk / "state").exists()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1",
        "localhost",
        "127.0.0.1:99999",
        "127.0.0.1:0",
        "1.2.3:8443",
        "https://coordinator.example.org:8443",
        "host:8443/x",
        "::1:8443",
        "-host:8443",
        "host:٣",
    ],
)
def test_an_address_that_nobody_can_dial_is_refused(address: str) -> None:
    with pytest.raises(Refusal, match="expected host:port") as caught:
        check_address(address)
    assert (caught.value.kind, caught.value.code) == (Kind.INVALID, "ADDRESS_INVALID")


@pytest.mark.parametrize("address", ["a:1", "coordinator.example.org:8443", "10.0.0.1:65535"])
def test_an_address_that_can_be_dialled_is_taken(address: str) -> None:
    check_address(address)
    check_address("[2001:db8::1]:8443")
