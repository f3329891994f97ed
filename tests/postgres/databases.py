"""The suite's one PostgreSQL, and the new databases that tests get of it. It starts when the first test asks for it.

A database is a clone of a template that was migrated once, so no test sees rows, sequences, settings or connections of
another. Measured: clone, connect, write and drop 14 ms; connect to one that is kept, write and truncate it 9 ms. That is what
the certainty costs, and no code is needed that finds out what a test has left behind.

:func:`new_url` serves every test, :func:`drop_all` is called after each by tests/conftest.py, :func:`close` at the end.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import pytest
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor

import treestore
from tests.postgres.binaries import NoPostgres
from tests.postgres.server import Server

_NAMES = itertools.count(1)
_lent: list[str] = []


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


def new_url(scheme: str = "postgresql", **parameters: Any) -> str:
    """The URL of a new, migrated, empty database, which lasts until the test has ended."""
    name = new_name()
    server().make_database(name, template().template_dbname)
    return server().url(name, scheme, **parameters)


def new_name() -> str:
    """The name of a database that does not exist yet, and that goes with the test if it makes it."""
    name = f"test_{next(_NAMES)}"
    _lent.append(name)
    return name


def drop_all() -> None:
    """Drop what was lent, whoever still uses it."""
    while _lent:
        server().drop_database(_lent.pop())


def close() -> None:
    """End the server, if it was started."""
    if server.cache_info().currsize:
        server().close()
        template.cache_clear()
        server.cache_clear()
