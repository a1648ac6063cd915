"""How each database is opened, so that the same store means the same on both.

SQLite runs in WAL mode with full synchronisation: a commit that was answered survives power loss.
Its driver would begin transactions when it sees fit; here SQLAlchemy says when and how.

PostgreSQL gets limits, so that a call ends with a no and not never, and so that a coordinator that
was stopped or cut off in the middle of a batch does not hold up the others:

  connect_timeout                 5 s   a server that does not answer
  lock_timeout                   20 s   waiting for another coordinator's batch
  statement_timeout              25 s   one question; lifted for COMMIT, which may wait for standbys
  idle_in_transaction timeout    15 s   a coordinator that hangs while it holds the lock
  TCP keepalives, user timeout   20 s   a connection whose other end is gone
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url

from housecall.errors import Kind, Refusal

WRITES = "housecall_writes"

_SERVER_LIMITS = {
    "lock_timeout": 20_000,
    "statement_timeout": 25_000,
    "idle_in_transaction_session_timeout": 15_000,
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 2,
}
_POSTGRESQL: dict[str, str | int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
    "application_name": "housecall-coordinator",
    "options": " ".join(f"-c {name}={value}" for name, value in _SERVER_LIMITS.items()),
}


def parse_url(text: str) -> URL:
    """An SQLAlchemy URL of a database that is known here; plain `postgresql://` is psycopg's."""
    try:
        url = make_url(text)
    except exc.ArgumentError:
        raise _url_refusal("got what is no URL") from None
    except ValueError:  # it shows what stands before it, as a password with an unquoted character
        raise _url_refusal(
            "got one whose port is no number; a password has %23, %2F, %3F, %40 for #, /, ?, @"
        ) from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise _url_refusal(f"got one that begins with {url.drivername}")
    if url.drivername != "sqlite":
        _check_words(url)
    return url


def _check_words(url: URL) -> None:
    """What stands after `?` goes to libpq, which refuses words that it does not know."""
    from psycopg.pq import Conninfo

    known = [option.keyword.decode() for option in Conninfo.get_defaults()]
    for word in url.query:
        if word not in known:
            near = "".join(f", most like {it}" for it in difflib.get_close_matches(word, known, 1))
            # Not shown: behind an unquoted question mark it may be a password's end.
            raise _url_refusal(f"got a word after ? that libpq does not know{near}")
    try:
        url.get_dialect()().create_connect_args(url)
    except (exc.ArgumentError, ValueError):
        raise _url_refusal("got hosts and ports that do not fit each other") from None


def place(url: URL) -> str:
    """Where the database is, without the password."""
    if url.get_backend_name() == "sqlite":
        return url.database or "memory"
    host = url.host or url.query.get("host") or "the local socket"
    return f"{host}:{url.port or url.query.get('port') or 5432}/{url.database or ''}"


def open_engine(url: URL) -> Engine:
    """An engine; nothing is connected yet."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url)
        event.listen(engine, "connect", _tune_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    limits = {name: value for name, value in _POSTGRESQL.items() if name not in url.query}
    return create_engine(url, pool_pre_ping=True, max_overflow=-1, connect_args=limits)


def take_time(connection: Connection) -> None:
    """Lift the limits for the connection's transaction: it looks at everything, and idles while
    what it saw is replayed."""
    if connection.dialect.name == "postgresql":
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {name} = 0")


def make_file(url: URL) -> None:
    """An empty SQLite file that only its owner reads; nothing for another database."""
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        path.touch(mode=0o600)
        path.chmod(0o600)


def exists(url: URL) -> bool:
    """Opening an SQLite file that is not there would make it."""
    is_file = url.get_backend_name() == "sqlite" and url.database
    return not is_file or Path(str(url.database)).exists()


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the write lock at once: one that reads first and writes later would be
    refused where another wrote in between."""
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _url_refusal(why: str) -> Refusal:
    return Refusal(
        Kind.INVALID,
        "SETTINGS_INVALID",
        "database_url: expected sqlite:////path/of/file or "
        f"postgresql+psycopg://user:password@host:5432/database, {why}",
    )
