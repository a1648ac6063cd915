"""`install` and `uninstall` without a service: into a folder, and what they refuse."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from housecall import service
from housecall.errors import Refusal
from housecall.service import Machine, Service, install, uninstall

AGENT = Service("housecall-agent", "agent.toml")
PROGRAMS = Path(sys.executable).parent
INSTALLER = Path(__file__).parents[2] / "deploy/bundle/install.sh"
UNIT = "etc/systemd/system/housecall-agent.service"
CONFIG = "etc/housecall/agent.toml"
DROP_IN = "etc/systemd/system/housecall-agent.service.d/10-backoff.conf"


def run(program: str, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAMS / program), *words],
        input=answer,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["agent", "coordinator"])
def test_into_a_folder_and_out_again(tmp_path: Path, name: str) -> None:
    program = f"housecall-{name}"
    wanted = {
        f"etc/systemd/system/{program}.service",
        f"etc/sysusers.d/{program}.conf",
        f"etc/tmpfiles.d/{program}.conf",
        f"etc/housecall/{name}.toml",
    }
    first = run(program, "install", "--root", str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert "run " not in first.stdout
    assert files(tmp_path) - {f"etc/systemd/system/{program}.service.d/10-backoff.conf"} == wanted
    again = run(program, "install", "--root", str(tmp_path))
    assert "write" not in again.stdout
    assert run(program, "uninstall", "--root", str(tmp_path)).returncode == 0
    assert files(tmp_path) == {f"etc/housecall/{name}.toml"}


def test_the_agent_starts_after_what_it_looks_for_once(tmp_path: Path) -> None:
    install(AGENT, Machine(tmp_path))
    (after,) = re.findall(r"^After=(.*)$", (tmp_path / UNIT).read_text(), flags=re.MULTILINE)
    assert {"docker.service", "nvidia-persistenced.service"} <= set(after.split())


def test_settings_of_the_site_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / CONFIG).parent.mkdir(parents=True)
    (tmp_path / CONFIG).write_text("slots = 1\n")
    install(AGENT, Machine(tmp_path))
    assert (tmp_path / CONFIG).read_text() == "slots = 1\n"


def test_a_dry_run_says_all_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(AGENT, Machine(tmp_path, dry_run=True))
    assert f"write {tmp_path / UNIT}" in capsys.readouterr().out
    assert files(tmp_path) == set()


def test_another_user_is_in_the_unit_and_made(tmp_path: Path) -> None:
    assert run("housecall-agent", "install", "--root", str(tmp_path), "--user", "ward").stderr
    assert "\nUser=ward\n" in (tmp_path / UNIT).read_text()
    users = (tmp_path / "etc/sysusers.d/housecall-agent.conf").read_text()
    assert "u ward " in users
    assert "m ward housecall-users" in users
    refused = run("housecall-agent", "install", "--root", str(tmp_path), "--user", "root")
    assert refused.returncode == 2
    assert "takes root's rights away" in refused.stderr


@pytest.mark.parametrize("name", ["agent", "coordinator"])
def test_an_upgrade_keeps_the_user_until_another_is_named(tmp_path: Path, name: str) -> None:
    words = (f"housecall-{name}", "install", "--root", str(tmp_path))
    run(*words, "--user", "ward")
    before = {path: (tmp_path / path).read_text() for path in files(tmp_path)}
    upgraded = run(*words)
    assert (upgraded.returncode, "change user" in upgraded.stdout) == (0, False)
    assert {path: (tmp_path / path).read_text() for path in files(tmp_path)} == before
    assert "change user ward to clinic\n" in run(*words, "--user", "clinic").stdout
    unit = tmp_path / f"etc/systemd/system/housecall-{name}.service"
    assert "\nUser=clinic\n" in unit.read_text()


def test_a_newer_systemd_waits_longer_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, there in ((252, False), (254, True)):
        monkeypatch.setattr(service, "_systemd_version", lambda version=version: version)
        install(AGENT, Machine(tmp_path / str(version)))
        assert (tmp_path / str(version) / DROP_IN).exists() is there


def test_purge_asks_and_takes_state_and_secrets(tmp_path: Path) -> None:
    install(AGENT, Machine(tmp_path))
    state, secret = tmp_path / "var/lib/housecall-agent/journal", tmp_path / "etc/credstore"
    for path in (state, secret / "housecall-agent.join_token", secret / "another.secret"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    words = ("uninstall", "--purge", "--root", str(tmp_path))
    declined = run("housecall-agent", *words, answer="n\n")
    assert declined.returncode == 6
    assert "DECLINED" in declined.stderr
    assert str(state.parent) in declined.stderr
    assert state.exists()
    assert run("housecall-agent", *words, answer="y\n").returncode == 0
    assert files(tmp_path) == {"etc/credstore/another.secret"}


def test_purge_takes_a_link_and_leaves_what_it_leads_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    install(AGENT, Machine(root))
    disk.mkdir()
    (disk / "journal").touch()
    state = root / "var/lib/housecall-agent"
    state.parent.mkdir(parents=True)
    state.symlink_to(disk)
    uninstall(AGENT, Machine(root), purge=True)
    assert files(root) == set()
    assert not state.is_symlink()
    assert files(disk) == {"journal"}
    assert f"remove {state}, a link: {disk} stays" in capsys.readouterr().out


@pytest.mark.parametrize("link", [UNIT, CONFIG, "etc/sysusers.d", "etc"])
def test_nothing_is_written_through_a_link(tmp_path: Path, link: str) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / link).parent.mkdir(parents=True)
    if link.startswith("etc/") and Path(link).suffix:
        (root / link).symlink_to(elsewhere)
    else:
        elsewhere.mkdir()
        (root / link).symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(Refusal) as caught:
        install(AGENT, Machine(root))
    assert caught.value.code == "INSTALL_LINK"
    assert str(elsewhere) in caught.value.message
    assert not elsewhere.exists() or files(elsewhere) == set()


def test_nothing_is_removed_through_a_link(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    install(AGENT, Machine(other))
    root.mkdir()
    (root / "etc").symlink_to(other / "etc")
    before = files(other)
    with pytest.raises(Refusal) as caught:
        uninstall(AGENT, Machine(root), purge=True)
    assert caught.value.code == "INSTALL_LINK"
    assert files(other) == before


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "usr/etc").mkdir(parents=True)
    (tmp_path / "etc").symlink_to("usr/etc")
    install(AGENT, Machine(tmp_path))
    assert (tmp_path / "usr" / UNIT).is_file()


def test_a_program_of_systemd_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal) as caught:
        Machine().run("sh", "-c", "echo no such user >&2; exit 3")
    assert caught.value.code == "INSTALL_FAILED"
    assert "got 3: no such user" in caught.value.message


def test_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = []
    for uid in (1000, 0):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        monkeypatch.setattr(Path, "is_dir", lambda _: False)
        with pytest.raises(Refusal) as caught:
            uninstall(AGENT, Machine())
        codes.append(caught.value.code)
    assert codes == ["INSTALL_NEEDS_ROOT", "INSTALL_NEEDS_SYSTEMD"]


def test_programs_in_a_home_folder_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/home/ada/venv/bin/python")
    with pytest.raises(Refusal) as caught:
        install(AGENT, Machine(dry_run=True))
    assert caught.value.code == "INSTALL_IN_HOME"
    assert "/home/ada/venv/bin" in caught.value.message


@pytest.mark.parametrize("harm", ["another Python", "a changed file", "no such program"])
def test_a_bundle_that_does_not_fit_is_refused(tmp_path: Path, harm: str) -> None:
    found = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (tmp_path / "python-version").write_text("2.7" if harm == "another Python" else found)
    (tmp_path / "requirements.txt").write_text("pip==1 --hash=sha256:0")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  requirements.txt\n")
    (tmp_path / "install.sh").write_bytes(INSTALLER.read_bytes())
    program = "agents" if harm == "no such program" else "agent"
    done = subprocess.run(
        ["sh", str(tmp_path / "install.sh"), program],
        env=os.environ | {"PREFIX": str(tmp_path / "opt"), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    expected = {
        "another Python": f"expected Python 2.7, got {found}",
        "a changed file": "requirements.txt: FAILED",
        "no such program": "expected agent, coordinator or cli, got agents",
    }
    assert expected[harm] in done.stderr + done.stdout
    assert not (tmp_path / "opt").exists()
