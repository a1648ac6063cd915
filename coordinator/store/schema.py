"""Which schema a database has, and how it gets the newest one.

A revision's number is its name: "0001" is the first release's, which named itself in a table of its
own; later ones are named by Alembic's table. An upgrade is one transaction that nobody else writes
beside; a process that dies in it leaves the old schema whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, func, inspect, select, text

from coordinator.store.databases import WRITES, take_time
from coordinator.store.files import copy_database
from housecall.errors import Kind, Refusal

if TYPE_CHECKING:  # a start should not wait for it
    from alembic.config import Config

SCHEMA = "0003"
RELEASED = "0001"
APPENDING = 0x486F757365  # the advisory lock under which PostgreSQL's writers take turns

MIGRATIONS = Path(__file__).parent / "migrations"


def found(connection: Connection) -> str:
    """The revision of a database; nothing where it has no tables of ours."""
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" in tables:
        query = "SELECT version_num FROM alembic_version"
    elif "schema_version" in tables:
        query = "SELECT max(version) FROM schema_version"
    else:
        return ""
    revision = connection.execute(text(query)).scalar()
    return str(revision).rjust(4, "0") if revision else ""


def check(revision: str, place: str) -> None:
    """Refuses any but the newest."""
    if revision == SCHEMA:
        return
    where = f"the store at {place}"
    if not revision:
        raise Refusal(
            Kind.NOT_READY,
            "STORE_EMPTY",
            f"{where} holds no ledger: `housecall-coordinator restore` the newest backup, or run "
            "`housecall-coordinator init` for a new coordinator",
        )
    if revision > SCHEMA:
        raise Refusal(
            Kind.NOT_READY,
            "STORE_NEWER",
            f"{where} has schema {revision}, this program expects {SCHEMA}: run the version of "
            "housecall-coordinator that wrote it, or a newer one",
        )
    raise Refusal(
        Kind.NOT_READY,
        "STORE_OLDER",
        f"{where} has schema {revision}, this program expects {SCHEMA}: stop every coordinator on "
        "it and run `housecall-coordinator migrate`",
    )


@contextlib.contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """A transaction beside which nobody writes; committed at the end. No limit on its time."""
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        if engine.dialect.name == "postgresql":
            take_time(connection)
            connection.execute(select(func.pg_advisory_xact_lock(APPENDING)))
        yield connection


def upgrade(connection: Connection, revision: str) -> None:
    """From `revision` to the newest, within the connection's transaction."""
    from alembic import command

    config = alembic_config(connection)
    if revision == RELEASED and "alembic_version" not in inspect(connection).get_table_names():
        command.stamp(config, RELEASED)
    command.upgrade(config, "head")


def alembic_config(connection: Connection) -> Config:
    """What Alembic's commands need to know: no file of its own."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def keep_copy(url: URL, revision: str) -> Path | None:
    """A copy of an SQLite file beside it, before it is changed."""
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    path = Path(url.database)
    copy = path.with_name(f"{path.name}.schema-{revision}")
    copy_database(path, copy)
    return copy
