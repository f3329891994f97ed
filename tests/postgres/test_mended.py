"""Faults that were found by attacking the store from outside, each with what it did."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import treestore
from tests.postgres import databases
from tests.postgres.server import Server
from treestore import Closed, Corrupted
from treestore.backends.postgres import address, checking

TREE = [{"node_id": "a", "title": "t", "text": "text"}, {"node_id": "b", "parent_id": "a", "title": "u"}]


def named(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def test_the_first_write_after_a_restart_passes_whatever_connections_waited() -> None:
    """Each of the connections that were free when the server went down failed one write."""

    async def used() -> None:
        with Server() as server:
            server.make_database("db")
            async with treestore.open(server.url("db", pool_size="6")) as store:
                await store.documents.store_document("p", "1", TREE)
                await asyncio.gather(*[store.documents.get_node("p", "a") for _ in range(30)])
                server.kill()
                server.start()
                await asyncio.sleep(0.2)
                for at in range(8):
                    assert (await store.documents.store_document("q", str(at), TREE)).outcome == "created"

    asyncio.run(used())


def test_a_check_that_takes_long_is_not_taken_for_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "STATEMENT_MARGIN", 0.1)
    problems = checking._problems

    def slow(*arguments: Any) -> list[str]:
        time.sleep(2.5)
        return problems(*arguments)

    monkeypatch.setattr(checking, "_problems", slow)
    with treestore.open_sync(databases.new_url(statement_timeout="0.5")) as store:
        store.documents.store_document("p", "1", TREE)
        assert store.check().ok


@pytest.mark.parametrize("moment", ["20000-01-01", "4000-01-01 BC"])
def test_a_time_that_no_datetime_can_be_is_corrupted(moment: str) -> None:
    """One such row made listing and checking the whole store raise OverflowError."""
    url = databases.new_url()
    with treestore.open_sync(url) as store, databases.server().connect(named(url)) as connection:
        store.documents.store_document("p", "1", TREE)
        store.documents.store_document("q", "1", TREE)
        connection.execute(f"UPDATE policy_versions SET revision_date = '{moment}' WHERE policy_id = 'p'".encode())
        with pytest.raises(Corrupted):
            store.documents.list_documents()
        report = store.check()
        assert not report.ok
        assert report.counts["versions"] == 2, "it goes on"
        assert store.documents.get_node("q", "a").title == "t"


@pytest.mark.parametrize(
    "change", ["effective_date = 'infinity'", "effective_date = '2020-01-01'", "ingested_at = ingested_at - interval '1 day'"]
)
def test_a_time_that_is_not_what_the_facts_say_is_found(change: str) -> None:
    url = databases.new_url()
    with treestore.open_sync(url) as store, databases.server().connect(named(url)) as connection:
        store.documents.store_document("p", "1", TREE)
        assert store.check().ok
        connection.execute(f"UPDATE policy_versions SET {change}".encode())
        assert not store.check().ok


def test_rows_that_went_missing_are_noticed_when_a_document_is_read_whole() -> None:
    url = databases.new_url()
    with treestore.open_sync(url) as store, databases.server().connect(named(url)) as connection:
        store.documents.store_document("p", "1", TREE)
        connection.execute("DELETE FROM policy_nodes WHERE node_id = 'b'")
        with pytest.raises(Corrupted, match="1 nodes and 0 pages are there, of 2 and 0"):
            store.documents.get_document("p")


def test_ids_may_outgrow_32_bits_in_the_way_that_the_docs_say() -> None:
    """A title amended below such an id was refused by the driver."""
    url = databases.new_url()
    with treestore.open_sync(url) as store, databases.server().connect(named(url)) as connection:
        store.documents.store_document("p", "1", TREE)
        connection.execute("ALTER TABLE policy_nodes ALTER id TYPE bigint")
        connection.execute("ALTER SEQUENCE policy_nodes_id_seq AS bigint")
        connection.execute("SELECT setval('policy_nodes_id_seq', 3000000000)")
        store.documents.store_document("p", "1", [*TREE, {"node_id": "c", "parent_id": "b", "title": "v"}])
        store.documents.update_node("p", "a", title="another")
        assert [node.node_id for node in store.documents.get_subtree("p", "a", 2)] == ["a", "b", "c"]
        assert [node.title for node in store.documents.get_ancestor_path("p", "c")] == ["another", "u", "v"]
        assert store.check().ok


def test_a_snapshot_whose_read_was_cancelled_says_that_it_ended() -> None:
    """It said Unavailable first, as if trying again could help."""

    async def used() -> None:
        async with treestore.open(databases.new_url()) as store:
            tree = [{"node_id": str(at), "title": "title " * 20} for at in range(5000)]
            await store.documents.store_document("p", "1", tree, searchable=False)
            cancelled = 0
            for _ in range(20):
                async with store.snapshot() as snapshot:
                    reading = asyncio.create_task(snapshot.documents.get_document("p"))
                    await asyncio.sleep(0.005)
                    reading.cancel()
                    if isinstance((await asyncio.gather(reading, return_exceptions=True))[0], asyncio.CancelledError):
                        cancelled += 1
                        with pytest.raises(Closed):
                            await snapshot.documents.get_node("p", "1")
            assert cancelled
            assert (await store.documents.get_node("p", "1")).node_id == "1"

    asyncio.run(used())
