"""What only a store behind PgBouncer can get wrong: each transaction is on another of two connections that it shares with all.

The contract suite runs by way of it too, as the kind "postgres-pgbouncer".
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import treestore
from tests.clock import SetClock
from tests.contract.samples import bushy, node
from tests.contract.test_groups import group, whole
from tests.postgres import databases
from tests.postgres.faults import FACES, Face, eventually, fails, opened, store_one
from tests.postgres.pgbouncer import PORT, PgBouncer
from tests.postgres.server import Server
from tests.stores import open_backend
from treestore import Timeout, Unavailable
from treestore.operations import Check

TASKS, TURNS = 12, 8


@pytest.fixture
def url(pgbouncer: PgBouncer) -> str:
    return databases.bounced_url()


def named(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def states(server: Server, database: str) -> set[Any]:
    """What the sessions of a database are doing."""
    with server.connect() as connection:
        rows = connection.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", (database,)
        )
        return {state for (state,) in rows}


def left_behind(bouncer: PgBouncer, database: str) -> list[Any]:
    """What each of PgBouncer's connections still holds of those who used it."""
    found = []
    for _ in range(4):
        with psycopg.connect(host=bouncer.host, port=PORT, user="postgres", dbname=database, prepare_threshold=None) as client:
            row = client.execute(
                "SELECT (SELECT count(*) FROM pg_prepared_statements), current_setting('statement_timeout'),"
                " current_setting('transaction_read_only')"
            ).fetchone()
            found.append(row)
    return found


async def test_many_tasks_on_two_connections(url: str) -> None:
    async with treestore.open(url) as store:

        async def work(at: int) -> None:
            for turn in range(TURNS):
                tree = [node("root", text=f"{at}/{turn}"), *[node(f"{n}", "root", text=f"{at}/{turn}") for n in range(9)]]
                await store.documents.store_document(f"p{at % 4}", "1", tree)
                await store.documents.update_node(f"p{at % 4}", "root", metadata={"by": at})
                held = await store.documents.get_document(f"p{at % 4}")
                assert len({one.text for one in held.nodes}) == 1
                assert await store.documents.search_nodes(f"p{at % 4}", f"{turn}") is not None

        await asyncio.gather(*map(work, range(TASKS)))
        versions = [await store.versions.get(f"p{at}", "1") for at in range(4)]
        assert sum(version.revision for version in versions) == 2 * TASKS * TURNS
        assert (await store.check()).problems == []


def test_nothing_is_left_behind_in_sessions_of_others(url: str, pgbouncer: PgBouncer, postgres_server: Server) -> None:
    before = left_behind(pgbouncer, named(url))
    with opened(url + "&statement_timeout=7") as store:
        store.documents.store_document("p", "1", list(bushy(3000)))
        store.documents.update_node("p", "00001", title="x")
        with store.snapshot() as snapshot:
            assert snapshot.documents.get_node("p", "00001").title == "x"
        assert store.documents.search_nodes("p", "text")
        assert store.check().problems == []
    assert left_behind(pgbouncer, named(url)) == before
    eventually(lambda: states(postgres_server, named(url)) <= {"idle"})


@pytest.mark.parametrize("face", FACES)
def test_the_time_of_a_statement_is_bounded_in_each_transaction(url: str, face: Face, postgres_server: Server) -> None:
    with opened(url + "&statement_timeout=0.4", face) as store:
        store_one(store)
        with postgres_server.connect(named(url)) as locking, locking.transaction():
            locking.execute("LOCK TABLE policy_nodes IN ACCESS EXCLUSIVE MODE")
            for call in (
                lambda: store.documents.get_node("p", "a"),
                lambda: store.documents.get_document("p"),
                lambda: store_one(store, "q"),
                lambda: store.check(),
            ):
                with fails(Timeout, "TREESTORE_STATEMENT_TIMEOUT_SECONDS", within=8):
                    call()
        assert store.documents.get_node("p", "a").text == "text of a"
        store_one(store, "q")
        assert store.check().problems == []


def test_groups_over_several_policies_in_opposite_order(url: str, clock: SetClock) -> None:
    """On two connections, whoever waits for a lock holds one of them."""
    names = ["a", "b", "c", "d"]
    backend = open_backend(url, clock)

    def work(at: int) -> None:
        some = names if at % 2 else names[::-1]
        for _ in range(5):
            backend.write_now(group(*[whole(name, f"{at}") for name in some]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert backend.read_one_now(Check()).counts["versions"] == 8 * len(names)
    assert backend.read_one_now(Check()).problems == []
    backend.close_now()


@pytest.mark.parametrize("face", FACES)
def test_connections_of_pgbouncer_killed(url: str, face: Face, postgres_server: Server) -> None:
    """To its clients it says so by an error of its own."""
    with opened(url, face) as store:
        store_one(store)
        for at in range(3):
            with postgres_server.connect() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                    (named(url),),
                )
            assert store.documents.get_node("p", "a").text == "text of a"
            try:
                store_one(store, f"q{at}")
            except Unavailable:
                store_one(store, f"q{at}")
        assert store.check().problems == []
