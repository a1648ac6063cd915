"""From every released schema to the newest: nothing lost, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, text
from sqlmodel import SQLModel

from coordinator.rebuild import check_store
from coordinator.store import Store, migrate
from coordinator.store.backups import BACKUPS
from coordinator.store.engine import Database
from coordinator.store.schema import MIGRATIONS, RELEASED, SCHEMA, alembic_config
from housecall.errors import Refusal
from tests import postgres
from tests.coordinator import released
from tests.coordinator.test_daemon import init, run

ENTRIES = 26
STEPS = 25
"""More than a migration asks of its database: the last processes come to their end."""


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    released.sqlite_file(path)
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def old_url(request: pytest.FixtureRequest, old_file: Path) -> str:
    """A store of the first release."""
    if request.param == "sqlite":
        return f"sqlite:///{old_file}"
    url = str(request.getfixturevalue("postgresql_url"))
    released.fill_postgresql(url, old_file)
    return url


def schema_of(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        said = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {re.sub(r"\s+", " ", sql).strip() for (sql,) in said} - {""}


def test_the_first_revision_is_the_released_schema(old_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with (
        contextlib.closing(Database(f"sqlite:///{path}")) as database,
        database.engine.begin() as connection,
    ):
        command.upgrade(alembic_config(connection), RELEASED)
        connection.execute(text("DROP TABLE alembic_version"))
    assert schema_of(path) == schema_of(old_file)


def test_the_newest_revision_is_what_the_models_say(tmp_path: Path, database_url: str) -> None:
    url, expected = database_url or f"sqlite:///{tmp_path / 'new.db'}", MetaData()
    for table in (*SQLModel.metadata.sorted_tables, *BACKUPS.sorted_tables):
        table.to_metadata(expected)
    with contextlib.closing(Store.create(url)) as store, store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, expected) == []
        assert context.get_current_revision() == SCHEMA
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == SCHEMA


def test_postgresql_compares_every_text_by_its_bytes(postgresql_url: str) -> None:
    query = (
        "SELECT count(*) FILTER (WHERE collation_name = 'C'), count(*) FROM information_schema."
        "columns WHERE data_type = 'character varying' AND table_schema = 'public' "
        "AND table_name <> 'alembic_version'"
    )
    with (
        contextlib.closing(Store.create(postgresql_url)) as store,
        store.engine.connect() as connection,
    ):
        by_bytes, texts = connection.execute(text(query)).one()
    assert by_bytes == texts > 30


def test_a_released_store_is_refused_until_it_is_migrated(old_url: str) -> None:
    with pytest.raises(Refusal) as caught:
        Store(old_url)
    assert caught.value.code == "STORE_OLDER"
    assert "schema 0001" in caught.value.message
    assert "housecall-coordinator migrate" in caught.value.message
    done = migrate(old_url)
    assert (done.before, done.after) == (RELEASED, SCHEMA)
    with contextlib.closing(Store(old_url)) as store:
        checked = check_store(store, signatures=True)
    assert (checked.size, checked.differences) == (ENTRIES, [])
    assert migrate(old_url).before == SCHEMA


def test_a_migration_keeps_every_row_and_the_old_file(old_file: Path) -> None:
    before = released.rows(old_file)
    done = migrate(f"sqlite:///{old_file}")
    after = released.rows(old_file)
    del after["alembic_version"], after["backup"]
    assert after == {name: rows for name, rows in before.items() if name != "schema_version"}
    assert done.copy is not None
    assert released.rows(done.copy) == before
    assert done.copy.stat().st_mode & 0o777 == 0o600


def test_a_newer_store_is_refused_and_left_alone(old_url: str) -> None:
    migrate(old_url)
    with contextlib.closing(Store(old_url)) as store, store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    for look in (Store, migrate):
        with pytest.raises(Refusal) as caught:
            look(old_url)
        assert caught.value.code == "STORE_NEWER"
        assert f"expects {SCHEMA}" in caught.value.message


def test_nothing_is_nothing_to_migrate(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        migrate(f"sqlite:///{tmp_path / 'none.db'}")
    assert caught.value.code == "STORE_EMPTY"


def test_the_programs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert init(state, 1).returncode == 0
    (state / "coordinator.db").unlink()
    released.sqlite_file(state / "coordinator.db")
    refused = run("serve", "--state-dir", str(state))
    assert refused.returncode == 6
    assert "STORE_OLDER" in refused.stderr
    done = run("migrate", "--state-dir", str(state))
    assert done.returncode == 0, done.stderr
    assert f"schema {SCHEMA} now, it had 0001" in done.stdout
    foreign = run("check", "--state-dir", str(state))
    assert foreign.returncode == 6
    assert "KEYS_FOREIGN" in foreign.stderr, "the keys of who wrote that store are not here"
    assert f"{SCHEMA} already" in run("migrate", "--state-dir", str(state)).stdout


def dying(urls: list[str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.coordinator.dying", *urls],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=dict(os.environ),
    )
    return done.stdout.split()


def require_killed_at_every_step(said: list[str]) -> None:
    assert set(said) == {"killed", "done"}
    assert said.index("done") > 8, "it was killed before each of its steps"
    assert said == sorted(said, reverse=True)


def test_killed_at_every_step_of_sqlite(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(STEPS)]
    for path in paths:
        released.sqlite_file(path)
    before = released.rows(paths[0])
    said = dying([f"sqlite:///{path}" for path in paths])
    require_killed_at_every_step(said)
    for path, how in zip(paths, said, strict=True):
        if how == "killed":
            assert released.rows(path) == before
            assert migrate(f"sqlite:///{path}").before == RELEASED
        require_whole(f"sqlite:///{path}")


def test_killed_at_every_step_of_postgresql(postgresql: postgres.Server, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    released.sqlite_file(path)
    with contextlib.ExitStack() as stack:
        template = stack.enter_context(postgresql.database())
        released.fill_postgresql(postgresql.url(template), path)
        names = [stack.enter_context(postgresql.database(template)) for _ in range(STEPS)]
        urls = [postgresql.url(name) for name in names]
        said = dying(urls)
        require_killed_at_every_step(said)
        for url, how in zip(urls, said, strict=True):
            if how == "killed":
                assert migrate(url).before == RELEASED
            require_whole(url)


def require_whole(url: str) -> None:
    with contextlib.closing(Store(url)) as store, store.read() as reader:
        assert reader.tree_size() == ENTRIES
