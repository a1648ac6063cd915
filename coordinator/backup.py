"""Backup and restore: a backup is a state folder, with the store as SQLite whatever it was.

It is taken within one moment of the store, while coordinators go on serving, and is there complete
or not at all. A restore believes nothing: it replays the entries, signatures included, up to the
signed checkpoint, and fills an empty database of either kind with what follows from them. So it
also moves a coordinator from SQLite to PostgreSQL and back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.archive import blocks, invalid
from coordinator.founding import House, open_house
from coordinator.keys import KEYS, check_keys, foreign_file
from coordinator.ledger import root_of
from coordinator.rebuild import Progress, check_root, rebuild, replay, silent
from coordinator.settings import DATABASE, Settings
from coordinator.store import Reader, Store, Writer, migrate
from coordinator.store.copy import copy
from coordinator.store.files import copy_database, settle
from housecall import merkle
from housecall.errors import Kind, Refusal
from housecall.files import sync
from housecall.identity import write_private
from housecall.verify import check_checkpoint

CHECKPOINT = "checkpoint"
MOVED = ".moved"


@dataclass(frozen=True)
class Taken:
    """The ledger in a backup: its size, its root, and the checkpoint that signs both."""

    size: int
    root: bytes
    checkpoint: str


def back_up(settings: Settings, out: Path) -> Taken:
    """Write the folder `out`, private to its owner. Refuses where there is one already."""
    house = open_house(settings)
    check_keys(settings, house)
    if out.exists():
        raise Refusal(Kind.CONFLICT, "BACKUP_EXISTS", f"{out} is there already: name a new folder")
    unfinished = out.with_name(f"{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    try:
        _copy_files(settings.state_dir, unfinished)
        with contextlib.closing(Store(settings.store_url)) as store:
            taken = _copy_store(store, house, unfinished / DATABASE)
        write_private(unfinished / CHECKPOINT, taken.checkpoint.encode())
        settle(unfinished / DATABASE)
        for folder in (unfinished / "ca", unfinished):
            sync(folder)
        unfinished.rename(out)
    except BaseException:  # it holds keys
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    sync(out.parent)
    return taken


def restore(
    settings: Settings, source: Path, progress: Progress = silent, archives: Sequence[Path] = ()
) -> Taken:
    """Fill an empty database, and the state folder where it is empty, from the backup `source`,
    and what came after it from `archives`, one of each coordinator that had one."""
    house, checkpoint = _open_backup(settings, source)
    _check_keys(settings.state_dir, source)
    with _rebuilt(source / DATABASE, progress) as rebuilt:
        with rebuilt.read() as reader:
            _check_backup(source, reader, house, checkpoint)
        for archive in archives:
            _bring_forward(rebuilt, archive, house, progress)
        with rebuilt.read() as reader:
            _fill(settings, source, reader)
            if not settings.store_url.startswith("sqlite"):
                _put_aside(settings.state_dir / DATABASE)
            return _taken(reader, house)


def _check_backup(source: Path, reader: Reader, house: House, checkpoint: str) -> None:
    """Refuses BACKUP_INVALID where its entries are not what its checkpoint signs."""
    foreign = foreign_file(reader, house)
    if foreign:
        raise _invalid(source, f"its {foreign} is not of the coordinator whose ledger it holds")
    size = reader.tree_size()
    root = merkle.root(size, reader.node)
    try:
        signed = check_checkpoint(checkpoint, house.ledger.verifier_key)
    except Refusal as refusal:
        raise _invalid(source, f"its checkpoint does not hold: {refusal.message}") from refusal
    if (signed.size, signed.root) != (size, root):
        raise _invalid(
            source,
            f"expected {signed.size} entries with root {signed.root.hex()} as its checkpoint "
            f"says, got {size} with {root.hex()}",
        )


def _bring_forward(rebuilt: Store, archive: Path, house: House, progress: Progress) -> None:
    """Replay what an archive holds beyond the backup; what both hold has to be the same."""
    for block in blocks(archive, house.ledger.verifier_key):
        with rebuilt.read() as reader:
            size = reader.tree_size()
        new = [entry for entry in block.entries if entry.ledger_index >= size]
        try:
            replay(rebuilt, new, signatures=True)
        except Refusal as refusal:
            raise invalid(archive, refusal.message) from refusal
        signed = block.checkpoint
        progress(signed.size, signed.size)
        with rebuilt.read() as reader:
            if signed.size > reader.tree_size() or (
                merkle.root(signed.size, reader.node) != signed.root
            ):
                raise invalid(archive, f"its {signed.size} entries are not what it signs")


def _copy_files(source: Path, target: Path) -> None:
    """A state folder besides its store; what says that it is one comes last."""
    ca = [f"ca/{path.name}" for path in sorted((source / "ca").iterdir()) if path.is_file()]
    for name in (*KEYS, *ca, "coordinator.json"):
        write_private(target / name, (source / name).read_bytes())


def _copy_store(source: Store, house: House, path: Path) -> Taken:
    """One moment of `source` as an SQLite file, read again and hashed before it counts."""
    with contextlib.closing(Store.create(f"sqlite:///{path}")) as made:
        with source.read() as reader:
            reader.take_time()
            _write(made, reader)
        made.check_file()
        with made.read() as reader:
            size = reader.tree_size()
            check_root(reader, size, root_of(reader.envelopes()))
            return _taken(reader, house)


def _taken(reader: Reader, house: House) -> Taken:
    size = reader.tree_size()
    root = merkle.root(size, reader.node)
    return Taken(size, root, house.ledger.checkpoint(size, reader.node))


def _open_backup(settings: Settings, source: Path) -> tuple[House, str]:
    """The house in a backup, and its checkpoint."""
    parts = (DATABASE, CHECKPOINT, "coordinator.json", "ca", *KEYS)
    missing = [name for name in parts if not (source / name).exists()]
    if missing:
        raise _invalid(source, f"it has no {', '.join(missing)}")
    try:
        house = open_house(settings.model_copy(update={"state_dir": source}))
    except Refusal as refusal:
        raise _invalid(source, refusal.message) from refusal
    return house, (source / CHECKPOINT).read_text(errors="replace")


def _check_keys(folder: Path, source: Path) -> None:
    """A state folder that holds keys of a coordinator must hold those of this one."""
    there = [name for name in KEYS if (folder / name).exists()]
    if any((folder / name).read_bytes() != (source / name).read_bytes() for name in there):
        raise Refusal(
            Kind.CONFLICT,
            "ALREADY_FOUNDED",
            f"{folder} holds another coordinator than {source}: restore into an empty folder",
        )


@contextlib.contextmanager
def _rebuilt(database: Path, progress: Progress) -> Iterator[Store]:
    """What follows from the entries of a backup, in memory; the backup itself is not written to."""
    with (
        tempfile.TemporaryDirectory(prefix="housecall-restore-") as folder,
        contextlib.closing(Store.create("sqlite://")) as rebuilt,
    ):
        path = Path(folder) / DATABASE
        with _of_the_backup(database.parent, path):
            copy_database(database, path)
            migrate(f"sqlite:///{path}")
            store = Store(f"sqlite:///{path}")
        with contextlib.closing(store), store.read() as reader:
            with _of_the_backup(database.parent, path):
                store.check_file()
            rebuild(reader, rebuilt, progress, signatures=True)
        yield rebuilt


@contextlib.contextmanager
def _of_the_backup(source: Path, path: Path) -> Iterator[None]:
    """What the store at `path` refuses, which is a copy of the backup's, the backup is to blame
    for; but for a disk that is full. Raises OSError for that."""
    try:
        yield
    except Refusal as refusal:
        match refusal.code:
            case "STORE_UNREADABLE":
                raise _invalid(source, f"its {DATABASE} is cut off or damaged") from refusal
            case "STORE_EMPTY":
                raise _invalid(source, f"its {DATABASE} holds no ledger") from refusal
            case "STORE_FULL":
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))
                raise full from refusal
        raise


def _put_aside(path: Path) -> None:
    """The file that was the store before it moved to PostgreSQL: where `database_url` is missing
    one day, it must not be served as if nothing had been said since."""
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{path}{MOVED}{ending}")


def _fill(settings: Settings, source: Path, rebuilt: Reader) -> None:
    """The store, and the state folder where it holds no coordinator: nothing where the store holds
    a ledger. The files come first, so that one that is killed can be run again."""
    folder = settings.state_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.closing(Store.create(settings.store_url)) as store, _filling(store) as writer:
        if not (folder / "coordinator.json").exists():
            _copy_files(source, folder)
        copy(rebuilt, writer)


def _write(store: Store, source: Reader) -> None:
    """Everything from `source`, into a store without a ledger."""
    with _filling(store) as writer:
        copy(source, writer)


@contextlib.contextmanager
def _filling(store: Store) -> Iterator[Writer]:
    """One transaction on a store without a ledger."""
    with store.failures(), contextlib.closing(store.writer()) as writer:
        writer.begin()
        if writer.tree_size():
            raise Refusal(
                Kind.CONFLICT,
                "LEDGER_NOT_EMPTY",
                f"the store at {store.place} holds a ledger already: restore into an empty one",
            )
        yield writer
        writer.commit()


def _invalid(source: Path, why: str) -> Refusal:
    return Refusal(Kind.INVALID, "BACKUP_INVALID", f"{source} cannot be restored: {why}")
