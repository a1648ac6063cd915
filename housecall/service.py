"""A program as a service of systemd: its unit, user and folders, put in place and taken away.

The files come from `deploy/` (in an installed wheel: `housecall/deploy/`). Their text is used as it
is but for two words: where the programs lie, and the user. Nothing is asked here;
`housecall/service_commands.py` does that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from housecall.errors import Kind, Refusal

DEFAULT_BIN = "/opt/housecall/bin"
BACKOFF_SINCE = 254
USER = r"[a-z_][a-z0-9_-]{0,30}"
HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))
"""What `ProtectHome=` hides from the services."""


@dataclass(frozen=True)
class Service:
    """`name` is its unit, its user and its state folder; `config` its file in /etc/housecall."""

    name: str
    config: str


@dataclass(frozen=True)
class Machine:
    """Where it is put: `root` is / for this machine, or a folder that an image is made of."""

    root: Path = Path("/")
    dry_run: bool = False
    say: Callable[[str], None] = print

    @property
    def is_staged(self) -> bool:
        return self.root != Path("/")

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def run(self, *command: str) -> None:
        """Part of bringing this machine up to date: left out where files are only staged."""
        if self.is_staged:
            return
        self.say(f"run {' '.join(command)}")
        if self.dry_run:
            return
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refusal(
                Kind.NOT_READY,
                "INSTALL_FAILED",
                f"{' '.join(command)}: expected exit code 0, got {done.returncode}: "
                f"{done.stderr.strip()}; mend that, then run the same command again",
            )

    def write(self, path: Path, text: str) -> None:
        self._require_inside(path)
        if path.is_symlink():
            _refuse_link(path)
        if path.is_file() and path.read_text() == text:
            self.say(f"unchanged {path}")
            return
        self.say(f"write {path}")
        if not self.dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o644)

    def remove(self, path: Path) -> None:
        if not (path.exists() or path.is_symlink()):
            return
        self._require_inside(path)
        link = f", a link: {path.readlink()} stays" if path.is_symlink() else ""
        self.say(f"remove {path}{link}")
        if self.dry_run:
            return
        if path.is_dir() and not link:
            shutil.rmtree(path)
        else:
            path.unlink()

    def _require_inside(self, path: Path) -> None:
        """No folder on the way may be a link out of `root`, as others can make one there."""
        folder = Path(os.path.realpath(path.parent))
        if not folder.is_relative_to(os.path.realpath(self.root)):
            _refuse_link(path.parent)


def install(service: Service, machine: Machine, *, user: str = "") -> None:
    """Put everything in place; again to upgrade. What runs is restarted, nothing is started. No
    `user` is the one that it has, or the service's own."""
    _check(machine)
    has = _installed_user(service, machine)
    if user and has and user != has:
        machine.say(f"change user {has} to {user}")
    user = user or has
    programs = Path(DEFAULT_BIN) if machine.is_staged else _programs()
    for kind, path in _files(service, machine):
        text = (_deploy() / kind / path.name).read_text()
        text = text.replace(DEFAULT_BIN, str(programs))
        machine.write(path, _of_user(text, service, user) if user else text)
    config = machine.path("etc/housecall", service.config)
    if config.exists():
        machine.say(f"keep {config}")
    else:
        machine.write(config, (_deploy() / "etc" / service.config).read_text())
    if _systemd_version() >= BACKOFF_SINCE:
        machine.write(_backoff(service, machine), (_deploy() / "systemd/backoff.conf").read_text())
    machine.run("systemd-sysusers", f"/etc/sysusers.d/{service.name}.conf")
    machine.run("systemd-tmpfiles", "--create", f"/etc/tmpfiles.d/{service.name}.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "--quiet", service.name)
    machine.run("systemctl", "try-restart", service.name)


def uninstall(service: Service, machine: Machine, *, purge: bool = False) -> None:
    """Stop it and take its files away. State, settings and user stay; `purge` leaves the user."""
    _check(machine)
    if machine.path("etc/systemd/system", f"{service.name}.service").exists():
        machine.run("systemctl", "disable", "--now", "--quiet", service.name)
    machine.remove(_backoff(service, machine))
    for _, path in _files(service, machine):
        machine.remove(path)
    machine.run("systemctl", "daemon-reload")
    if purge:
        for path in purged(service, machine):
            machine.remove(path)


def purged(service: Service, machine: Machine) -> list[Path]:
    """What `purge` removes for good, of what is there."""
    paths = [
        machine.path("var/lib", service.name),
        machine.path("etc/housecall", service.config),
        *machine.path("etc/credstore").glob(f"{service.name}.*"),
    ]
    return [path for path in paths if path.exists() or path.is_symlink()]


def _files(service: Service, machine: Machine) -> list[tuple[str, Path]]:
    """(folder in `deploy/`, path on the machine)."""
    return [
        ("systemd", machine.path("etc/systemd/system", f"{service.name}.service")),
        ("sysusers.d", machine.path("etc/sysusers.d", f"{service.name}.conf")),
        ("tmpfiles.d", machine.path("etc/tmpfiles.d", f"{service.name}.conf")),
    ]


def _backoff(service: Service, machine: Machine) -> Path:
    return machine.path("etc/systemd/system", f"{service.name}.service.d", "10-backoff.conf")


def _refuse_link(path: Path) -> NoReturn:
    raise Refusal(
        Kind.NOT_ALLOWED,
        "INSTALL_LINK",
        f"{path}: expected no link, got one to {os.path.realpath(path)}, where nothing is changed; "
        "remove the link if nobody means it, then run the same command again",
    )


def _installed_user(service: Service, machine: Machine) -> str:
    """That of the unit which is there, as an upgrade keeps it; "" where there is none."""
    unit = machine.path("etc/systemd/system", f"{service.name}.service")
    text = unit.read_text() if unit.is_file() else ""
    found = re.search(rf"^User=({USER})$", text, flags=re.MULTILINE)
    return found[1] if found else ""


def _of_user(text: str, service: Service, user: str) -> str:
    text = re.sub(rf"^User={service.name}$", f"User={user}", text, flags=re.MULTILINE)
    return re.sub(rf"^([um]) {service.name} ", rf"\1 {user} ", text, flags=re.MULTILINE)


def _deploy() -> Path:
    """In a wheel, beside this module; in a checkout, beside its package."""
    package = Path(__file__).parent
    found = [path for path in (package / "deploy", package.parent / "deploy") if path.is_dir()]
    return found[0]


def _systemd_version() -> int:
    try:
        done = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return 0
    match = re.match(r"systemd (\d+)", done.stdout)
    return int(match[1]) if match else 0


def _check(machine: Machine) -> None:
    if machine.is_staged or machine.dry_run:
        return
    if os.geteuid() != 0:
        raise Refusal(
            Kind.NOT_ALLOWED,
            "INSTALL_NEEDS_ROOT",
            f"services are put in place by root: expected user 0, got {os.geteuid()}; use sudo, or "
            "look with --dry-run",
        )
    if not Path("/run/systemd/system").is_dir():
        raise Refusal(
            Kind.NOT_READY,
            "INSTALL_NEEDS_SYSTEMD",
            "expected systemd as this machine's first process, got another one: start `serve` by "
            "what starts services here, or stage the files with --root",
        )


def _programs() -> Path:
    programs = Path(sys.executable).parent
    for place in (programs, Path(sys.base_prefix)):
        if any(place.is_relative_to(hidden) for hidden in HIDDEN):
            raise Refusal(
                Kind.INVALID,
                "INSTALL_IN_HOME",
                f"the programs and their Python must be where services see them: {place} is in a "
                "home folder; install into /opt/housecall with Python of the system",
            )
    return programs
