"""Commands that keep the store: migrate, check, rebuild, backup, restore; and the check at a start.

`check` and `backup` run beside a serving coordinator. The others want the state folder for
themselves, and every other coordinator on the same database stopped.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coordinator.options import CONFIG, STATE, files, read_settings
from coordinator.settings import Settings
from housecall.errors import Kind, Refusal
from housecall.notify import notify

if TYPE_CHECKING:
    from coordinator.rebuild import Checked

log = logging.getLogger(__name__)

SAY_EVERY_SECONDS = 5.0
MORE_TIME_USEC = 60_000_000


class Progress:
    """Says now and then how far it is: to the log, and to systemd, which then waits longer."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def __call__(self, done: int, size: int) -> None:
        now = time.monotonic()
        if now - self._said_at < SAY_EVERY_SECONDS:
            return
        self._said_at = now
        log.info("checking the store", extra={"entries": done, "of": size})
        notify(f"EXTEND_TIMEOUT_USEC={MORE_TIME_USEC}\nSTATUS=checking entry {done} of {size}")


def check_at_start(settings: Settings) -> None:
    """Refuses where a table is not what the ledger's entries make of it."""
    from coordinator.rebuild import check_store
    from coordinator.store import Store

    began = time.monotonic()
    with closing(Store(settings.store_url)) as store:
        checked = check_store(store, Progress())
    _require_equal(checked)
    seconds = round(time.monotonic() - began, 1)
    log.info("store checked", extra={"entries": checked.size, "seconds": seconds})


@click.command()
@CONFIG
@STATE
def check(config: Path | None, state_dir: Path | None) -> None:
    """Rebuild the tables from the ledger in memory and compare; exit 5 where they differ."""
    from coordinator.founding import open_house
    from coordinator.keys import check_ca, check_keys
    from coordinator.rebuild import check_store
    from coordinator.store import Store

    settings = read_settings(config, state_dir=state_dir)
    house = open_house(settings)
    check_keys(settings, house)
    check_ca(settings, house)
    with closing(Store(settings.store_url)) as store:
        checked = check_store(store, Progress(), signatures=True)
    _require_equal(checked)
    click.echo(f"{checked.size} entries: every table is what the ledger makes of it")
    click.echo(f"root {checked.root.hex()}")


@click.command()
@CONFIG
@STATE
def rebuild(config: Path | None, state_dir: Path | None) -> None:
    """Make the tables again from the ledger's entries, which are verified first."""
    from coordinator.rebuild import repair
    from coordinator.store import Store

    settings = read_settings(config, state_dir=state_dir)
    with _alone(settings), closing(Store(settings.store_url)) as store:
        repaired = repair(store, Progress())
    for line in repaired.differences:
        click.echo(f"made again: {line}")
    click.echo(f"{repaired.size} entries: every table is what the ledger makes of it")


@click.command()
@CONFIG
@STATE
def migrate(config: Path | None, state_dir: Path | None) -> None:
    """Bring the store of an older version up to date, in one transaction."""
    from coordinator import store

    settings = read_settings(config, state_dir=state_dir)
    with _alone(settings):
        done = store.migrate(settings.store_url)
    if done.before == done.after:
        click.echo(f"the store has schema {done.after} already")
        return
    click.echo(f"the store has schema {done.after} now, it had {done.before}")
    if done.copy:
        click.echo(f"as it was before: {done.copy}")


@click.command()
@CONFIG
@STATE
@click.argument("out", type=click.Path(path_type=Path))
def backup(config: Path | None, state_dir: Path | None, out: Path) -> None:
    """Write a new folder OUT with one moment of the store, the keys and the CA."""
    from coordinator.backup import back_up

    settings, began = read_settings(config, state_dir=state_dir), datetime.now(UTC)
    with files(out), _room(out):
        taken = back_up(settings, out)
    _note_backup(settings, began, taken.size)
    click.echo(f"{taken.size} entries, root {taken.root.hex()}, in {out}", err=True)
    click.echo(taken.checkpoint, nl=False)


@click.command()
@CONFIG
@STATE
@click.argument("source", type=click.Path(path_type=Path), metavar="BACKUP")
@click.option(
    "--archive",
    "archives",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with an archive: what came after the backup is appended from it. Give the one of "
    "every coordinator.",
)
def restore(
    config: Path | None, state_dir: Path | None, source: Path, archives: tuple[Path, ...]
) -> None:
    """Fill an empty database and state folder from BACKUP, which is verified first."""
    from coordinator import backup
    from coordinator.archive import torn
    from coordinator.lock import hold

    settings = read_settings(config, state_dir=state_dir)
    with files(settings.state_dir), hold(settings.state_dir):
        taken = backup.restore(settings, source, Progress(), archives)
    for path in (path for archive in archives for path in torn(archive)):
        click.echo(
            f"warning: {path} is cut off behind its last checkpoint, and what follows that is left "
            "out: it was answered to nobody, if nothing but a crash cut it off",
            err=True,
        )
    click.echo(f"{taken.size} entries, root {taken.root.hex()}: restored")


COMMANDS = (migrate, check, rebuild, backup, restore)


def _note_backup(settings: Settings, began: datetime, ledger_size: int) -> None:
    """The backup is complete, whether or not the store can be told: a standby only reads."""
    from coordinator.store import Store
    from coordinator.store.backups import Backup, note_backup

    try:
        with closing(Store(settings.store_url)) as store:
            note_backup(store, Backup(began, ledger_size))
    except Refusal as refusal:
        click.echo(
            f"warning: `housecall admin status` will not know of this backup: {refusal.message}",
            err=True,
        )


def _alone(settings: Settings) -> AbstractContextManager[object]:
    """Nobody serves this SQLite file meanwhile. Of PostgreSQL, its lock takes care."""
    from coordinator.lock import hold

    return hold(settings.state_dir) if settings.store_url.startswith("sqlite") else nullcontext()


@contextmanager
def _room(out: Path) -> Iterator[None]:
    """A disk that is full while a backup is written is that of the backup."""
    try:
        yield
    except (Refusal, OSError) as error:
        if getattr(error, "errno", getattr(error, "code", "")) not in (errno.ENOSPC, "STORE_FULL"):
            raise
        raise Refusal(
            Kind.EXHAUSTED,
            "BACKUP_NO_ROOM",
            f"no room for a backup at {out}: nothing of it was left there; make room, or name a "
            "folder on another disk",
        ) from error


def _require_equal(checked: Checked) -> None:
    if checked.differences:
        raise Refusal(
            Kind.CONFLICT,
            "STORE_DIFFERS",
            f"the tables are not what the ledger's {checked.size} entries make: "
            f"{'; '.join(checked.differences)}. Something else than this program changed them: "
            "find out what, then run `housecall-coordinator rebuild`",
        )
