"""The suite's one PostgreSQL, and the empty databases that tests get of it. It starts when the first test asks for it.

A database is a clone of a template that was migrated once. After the test it is emptied and lent again, if it is then what the
template is: the same schema, settings and statistics, the same rows in the tables that have any, and nobody connected. Else,
and after a hundred tests, it is dropped. So a test sees nothing of another, and may do to its database what it likes.

Measured: opening a store, storing, reading, checking and the emptying take 23 ms in a database that is lent again, and 80 ms
in a new clone: half of it for the cloning, half for what connections first read about a database that nobody has used yet.

:func:`new_url` serves every test, :func:`take_back` is called after each by tests/conftest.py, :func:`close` at the end.
"""

from __future__ import annotations

import itertools
import time
from functools import cache
from typing import Any

import psycopg
import pytest
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor

import treestore
from tests.postgres.binaries import NoPostgres
from tests.postgres.pgbouncer import NoPgBouncer, PgBouncer
from tests.postgres.server import Server

MOST_USES = 100
"""After these it holds too many dead rows, as nothing vacuums."""

DELETED_BYTES = 8 << 20
"""Up to this size tables are emptied row by row (1 ms), above it by truncation (10 ms)."""

LEAVING_SECONDS = 0.2
"""For the server to notice that a test's connections were closed."""

_NAMES = itertools.count(1)
_uses: dict[str, int] = {}
_free: dict[str, list[str]] = {}
_lent: list[tuple[str, str]] = []
_named: list[str] = []

ALONE = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()"

TABLES = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND oid >= 16384 ORDER BY 1"

SIZE = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class WHERE relkind = 'r' AND oid >= 16384"

# Whatever is made has an object id of its own, above those that a new server uses up; a clone has those of its template.
SCHEMA = """
    SELECT md5(string_agg(line, ' ' ORDER BY line)) FROM (
        SELECT format('class %s %s %s %s', oid, relname, reloptions, relacl) FROM pg_class WHERE oid >= 16384
        UNION ALL SELECT format('column %s %s %s %s %s %s %s %s', attrelid, attnum, attname, atttypid, atttypmod, attnotnull,
            attcollation, attisdropped) FROM pg_attribute WHERE attrelid >= 16384
        UNION ALL SELECT format('default %s', oid) FROM pg_attrdef
        UNION ALL SELECT format('constraint %s %s', oid, convalidated) FROM pg_constraint WHERE oid >= 16384
        UNION ALL SELECT format('index %s %s', indexrelid, indisvalid) FROM pg_index WHERE indexrelid >= 16384
        UNION ALL SELECT format('function %s', oid) FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT format('trigger %s %s', oid, tgenabled) FROM pg_trigger
        UNION ALL SELECT format('rule %s', oid) FROM pg_rewrite WHERE oid >= 16384
        UNION ALL SELECT format('type %s', oid) FROM pg_type WHERE oid >= 16384
        UNION ALL SELECT format('schema %s %s', oid, nspacl) FROM pg_namespace WHERE oid >= 16384 OR nspname = 'public'
        UNION ALL SELECT format('large object %s', oid) FROM pg_largeobject_metadata
        UNION ALL SELECT format('statistics %s', starelid) FROM pg_statistic WHERE starelid >= 16384
        UNION ALL SELECT format('setting %s', setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
            WHERE d.datname = current_database()
    ) AS lines (line)
"""

ROWS = "SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {} t"


@cache
def server() -> Server:
    """The suite's server. Fails the test where there is no PostgreSQL."""
    try:
        return Server()
    except NoPostgres as missing:
        pytest.fail(str(missing), pytrace=False)


@cache
def template() -> NoopExecutor:
    """The migrated template, in the form that pytest-postgresql's fixtures clone from."""
    described = NoopExecutor(host=server().host, port=server().port, user=server().user, options="", dbname="treestore")
    janitor = DatabaseJanitor(
        host=described.host, port=described.port, user=described.user, dbname=described.template_dbname, as_template=True
    )
    janitor.init()
    janitor.load(migrate)
    return described


def migrate(*, dbname: str, **_: Any) -> None:
    """Give an empty database our tables, as opening a store in it does; what pytest-postgresql calls a loader."""
    treestore.open_sync(server().url(dbname)).close()


def new_url(scheme: str = "postgresql", **parameters: str) -> str:
    """The URL of a migrated, empty database, which is this test's until it has ended."""
    return server().url(lend(template().template_dbname), scheme, **parameters)


def lend(origin: str) -> str:
    """The name of a clone of a template, which is this test's until it has ended."""
    free = _free.setdefault(origin, [])
    if free:
        name = free.pop()
    else:
        name = f"test_{next(_NAMES)}"
        server().make_database(name, origin)
    _lent.append((name, origin))
    _uses[name] = _uses.get(name, 0) + 1
    return name


@cache
def _bouncer() -> PgBouncer | NoPgBouncer:
    try:
        return PgBouncer(server())
    except NoPgBouncer as missing:
        return missing


def bouncer() -> PgBouncer:
    """A PgBouncer in front of the suite's server. Skips the test where there is none and none can be fetched, and says why."""
    found = _bouncer()
    if isinstance(found, NoPgBouncer):
        pytest.skip(str(found))
    return found


def bounced_url() -> str:
    """As :func:`new_url`, by way of PgBouncer: of a new clone, since PgBouncer's connections to it stay."""
    by_way_of, name = bouncer(), new_name()
    server().make_database(name, template().template_dbname)
    return by_way_of.url(name)


def new_name() -> str:
    """The name of a database that does not exist; if the test makes it, it goes with the test."""
    name = f"test_{next(_NAMES)}"
    _named.append(name)
    return name


def take_back() -> None:
    """Empty what was lent to a test, or drop it."""
    while _lent:
        name, origin = _lent.pop()
        if _uses[name] < MOST_USES and _emptied(name, origin):
            _free[origin].append(name)
        else:
            server().drop_database(name)
    while _named:
        server().drop_database(_named.pop())


def close() -> None:
    """End the servers that were started."""
    if _bouncer.cache_info().currsize and isinstance(_bouncer(), PgBouncer):
        bouncer().close()
    if server.cache_info().currsize:
        server().close()
        for cached in (server, template, _pristine, _bouncer):
            cached.cache_clear()
        _free.clear()


def _emptied(name: str, origin: str) -> bool:
    """Empty a database; False where it is in use, or not what a truncated clone of its template is."""
    filled, state = _pristine(origin)
    try:
        with server().connect(name) as connection:
            until = time.monotonic() + LEAVING_SECONDS
            while not _one(connection, ALONE):
                if time.monotonic() > until:
                    return False
                time.sleep(0.002)
            if _state(connection, filled) != state:
                return False
            tables = [table for (table,) in connection.execute(TABLES) if table not in filled]
            if _one(connection, SIZE) > DELETED_BYTES:
                connection.execute("TRUNCATE " + ", ".join(tables))
            else:
                connection.execute("SET session_replication_role = replica")  # in any order, whatever refers to what
                connection.execute("; ".join(f"DELETE FROM {table}" for table in tables))
            connection.execute("SELECT setval(seqrelid, seqstart, false) FROM pg_sequence")
    except psycopg.Error:
        return False
    return True


@cache
def _pristine(origin: str) -> tuple[tuple[str, ...], list[Any]]:
    """The tables that hold rows in a template, and its state."""
    with server().connect(origin) as connection:
        filled = tuple(t for (t,) in connection.execute(TABLES) if _one(connection, f"SELECT EXISTS (SELECT FROM {t})"))
        return filled, _state(connection, filled)


def _state(connection: psycopg.Connection[tuple[Any, ...]], filled: tuple[str, ...]) -> list[Any]:
    return [_one(connection, SCHEMA), *(_one(connection, ROWS.format(table)) for table in filled)]


def _one(connection: psycopg.Connection[tuple[Any, ...]], query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]
