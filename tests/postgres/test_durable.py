"""A commit waits for the disk, whatever the database's settings say about that."""

from __future__ import annotations

import asyncio

import pytest

import treestore
from tests.postgres import databases


@pytest.mark.parametrize(("found", "used"), [("off", "on"), ("on", "on"), ("remote_write", "remote_write")])
@pytest.mark.parametrize("bounced", [False, True])
def test_synchronous_commit(found: str, used: str, bounced: bool) -> None:
    url = databases.bounced_url() if bounced else databases.new_url()
    name = url.partition("?")[0].rpartition("/")[2]
    with databases.server().connect(name) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {found}')

    async def setting() -> str:
        async with treestore.open(url) as store:
            backend = store._driver.backend
            pool = backend._pools.here()  # type: ignore[union-attr]
            connection = await pool.acquire()
            transaction = await backend._session(pool, connection).begin()  # type: ignore[union-attr]
            said: str = await connection.fetchval("SHOW synchronous_commit")
            await transaction.rollback()
            pool.keep(connection)
            return said

    assert asyncio.run(setting()) == used
