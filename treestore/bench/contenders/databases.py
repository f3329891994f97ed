"""Databases on the PostgreSQL server that a run was given: each store has a new one, which is dropped with it.

The database that the server's URL names is only connected to; nothing is written there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treestore.backends.postgres.address import parse
from treestore.backends.postgres.errors import translate
from treestore.bench.contender import Place
from treestore.config import Settings
from treestore.errors import InvalidInput

NAMED = "treestore_bench_"
"""How the names of the databases begin."""


class Database:
    """A new and empty database; ``url`` is that of the server, but for the database's name.

    Raises InvalidInput for a URL that is none, and what :func:`treestore.open` raises where the server can't be reached or the
    user may not make databases.
    """

    def __init__(self, place: Place) -> None:
        if place.server is None:
            raise InvalidInput("is needed", field="--postgres")
        self._server = place.server
        self._name = NAMED + secrets.token_hex(6)
        self.url = with_database(place.server, self._name)
        run(self._server, f"CREATE DATABASE {self._name}")

    def drop(self) -> None:
        """Drop it, whoever is connected."""
        run(self._server, f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)")

    def vacuum(self) -> None:
        """What a server does by itself from time to time: clear what is dead, and count what there is for the planner."""
        run(self.url, "VACUUM ANALYZE")


def check(server: str) -> str:
    """The version of this server. Raises, before any time is spent, what making a database there raises."""
    try:
        import asyncpg  # noqa: F401
    except ImportError as error:
        missing = f"needs {error.name}, which is not installed: install treestore with its extra, postgres"
        raise InvalidInput(missing, field="--postgres") from error
    Database(Place(Path(), server)).drop()
    version: str = run(server, "SHOW server_version")
    return version.partition(" ")[0]


def with_database(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    before, _, query = url.partition("?")
    scheme, _, rest = before.partition("://")
    parameters = [one for one in query.split("&") if one and not one.startswith("dbname=")]
    asked = f"?{'&'.join(parameters)}" if parameters else ""
    return f"{scheme}://{rest.partition('/')[0]}/{name}{asked}"


def run(url: str, command: str) -> Any:
    """Run one command on a connection of its own, outside of any transaction; what its first row says, if it has one.

    Raises errors of treestore.
    """
    address = parse(url, Settings())

    async def connected() -> Any:
        import asyncpg

        connection = await asyncpg.connect(**address.asyncpg_arguments())
        try:
            return await connection.fetchval(command)
        finally:
            await connection.close()

    with told(url):
        return asyncio.run(connected())


@contextmanager
def told(url: str) -> Iterator[None]:
    """Errors of the driver become those of treestore."""
    from treestore.backends.postgres.backend import DRIVER_ERRORS

    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate(error, parse(url, Settings()).shown) from error
