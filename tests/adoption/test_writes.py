"""treestore's writers on versions that the old service writes too: the service never gets an error nor waits in a circle,
nothing is applied to nodes that it was not decided from, no change is lost, and what is left is what the last one wrote.

``ADOPTION_WRITES=2000 pytest tests/adoption/test_writes.py`` writes for longer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

import treestore
from tests.adoption import adopting, trees
from tests.adoption.old_service import rules
from tests.adoption.old_service.models import PolicyVersion
from tests.adoption.old_service.service import Service
from tests.adoption.writers import (
    NOTHING,
    SECONDS,
    Writers,
    assert_rows_of,
    assert_same_for_both,
    held,
    together,
    wait_until_busy,
)
from tests.clock import SetClock
from tests.postgres.faults import opened
from tests.stateful.test_machine import answered
from tests.stores import SyncStore
from treestore import Conflict, NotFound, pageindex

WRITES = int(os.environ.get("ADOPTION_WRITES", "20"))
KEYS = [("q", "1"), ("q", "2"), ("r", "1")]


@pytest.fixture
def url() -> str:
    """Whose server looks for circles of waiting at once, so that none goes unseen because somebody soon gives up."""
    made = adopting.old_url()
    adopting.by_hand(made, f"ALTER DATABASE {adopting.one(made, 'SELECT current_database()')} SET deadlock_timeout = '2ms'")
    return made


@pytest.fixture
def service(url: str) -> Iterator[Service]:
    """The service, on tables that were adopted: version 1 of p holds generation 4 and was derived."""
    with Service(url) as running:
        running.persist("p", "1", trees.generation(4))
        adopting.upgrade(url)
        adopting.derive(url)
        yield running
    assert adopting.deadlocks(url) == 0


def assert_sound(url: str, store: Any) -> None:
    """Nothing is broken, and after a repair everything derived is what is derived anew."""
    adopting.repair(url)
    found = adopting.status(url)
    assert (found["stale"], found["underived"], found["broken"]) == (0, 0, 0)
    assert store.check().problems == []


# --- in a loop -----------------------------------------------------------------------------------------------------------


def test_both_write_the_same_versions(url: str, service: Service) -> None:
    writers = Writers(service, KEYS)
    until = threading.Event()
    with treestore.open_sync(url) as store, opened(url, "async") as other:
        together(
            *[partial(writers.work_as_old_code, seed, until) for seed in (1, 2)],
            *[partial(writers.work_through_treestore, each, seed, until) for seed, each in enumerate((store, store, other))],
            until=until,
            holds=lambda: all(writers.counts[kind] > WRITES for kind in ("old: ingested", "stored", "amended", "deleted")),
        )
        writers.assert_last_writer_stays(store)
        assert_sound(url, store)
        writers.assert_last_writer_stays(other)


def test_no_status_and_no_amendment_is_lost(url: str, service: Service) -> None:
    """The service sets statuses of nodes while treestore amends what they say: the last of each is there. Where the service
    never rests, treestore may give up: it says so, and nothing was done."""
    statuses: dict[str, Any] = {}
    summaries: dict[str, str] = {}
    until = threading.Event()

    def set_statuses() -> None:
        turn = 0
        while not until.wait(0.01):
            node_id, status = f"n{turn * 5 % 28}", ("approved", "flagged", "pending")[turn % 3]
            assert service.set_status("p", "1", node_id, status) == 1  # type: ignore[arg-type]
            statuses[node_id] = status
            turn += 1

    def amend(store: Any) -> None:
        turn = 0
        while not until.is_set():
            node_id, summary = f"n{turn * 3 % 28}", f"amended {turn}"
            with suppress(Conflict):
                store.documents.update_node("p", node_id, version_id="1", summary=summary)
                summaries[node_id] = summary
                amended.append(turn)
            turn += 1

    amended: list[int] = []
    with treestore.open_sync(url) as store:
        together(set_statuses, partial(amend, store), until=until, holds=lambda: len(amended) > WRITES and len(statuses) == 28)
        nodes = {node.node_id: node for node in service.nodes("p", "1")}
        assert {node_id: nodes[node_id].validation_status for node_id in statuses} == statuses
        assert {node_id: nodes[node_id].summary for node_id in summaries} == summaries
        assert_same_for_both(service, store, ("p", "1"))
        assert_sound(url, store)


@pytest.mark.filterwarnings("ignore::treestore.BrokenTree")
def test_a_service_that_writes_the_row_last_gets_no_error_either(url: str, service: Service) -> None:
    """Two such ingestions at once leave both their nodes there, as they always did; the next one mends it."""
    until = threading.Event()
    done: list[str] = []

    def ingest() -> None:
        while not until.wait(0.01):
            service.reingest("p", "1", trees.generation(6), nodes_first=True)
            done.append("old")

    def store_again(store: Any) -> None:
        turn = 0
        while not until.is_set():
            with suppress(Conflict):
                store.documents.store_document("p", "1", trees.given(trees.generation(turn)))
                done.append("new")
            turn += 1

    with treestore.open_sync(url) as store:
        enough = lambda: min(done.count("old"), done.count("new")) > WRITES // 3  # noqa: E731
        together(ingest, partial(store_again, store), until=until, holds=enough)
        service.reingest("p", "1", trees.generation(7))
        assert_rows_of(service.nodes("p", "1"), 7)
        assert_same_for_both(service, store, ("p", "1"))
        assert_sound(url, store)


# --- one beside the other ------------------------------------------------------------------------------------------------


def beside(url: str, ingest: Callable[[Callable[[], None]], Any], write: Callable[[], Any]) -> Any:
    """What a write gives that begins while a transaction of the service is open, and ends after it."""
    with ThreadPoolExecutor(1) as pool:
        with held(ingest):
            running = pool.submit(answered, write)
            wait_until_busy(url)
        return running.result(SECONDS)


def reingest(service: Service, number: int) -> Callable[[Callable[[], None]], Any]:
    return lambda before_commit: service.reingest("p", "1", trees.generation(number), before_commit=before_commit)


def test_an_amendment_is_decided_again_on_the_tree_that_has_come(url: str, service: Service, store: SyncStore) -> None:
    fields: dict[str, Any] = {"summary": "amended 1", "title": "generation g5 new title"}
    node = beside(url, reingest(service, 5), partial(store.documents.update_node, "p", "n3", version_id="1", **fields))
    assert node.text is not None
    assert node.text.startswith("g5 "), "it is amended as it is in the new tree"
    rows = {row.node_id: row for row in service.nodes("p", "1")}
    assert {row.title.split()[1] for row in rows.values()} == {"g5"}
    assert len(rows) == 24
    assert (rows["n3"].summary, rows["n3"].title) == ("amended 1", "generation g5 new title")
    assert_same_for_both(service, store, ("p", "1"))
    assert_sound(url, store)


def test_an_amendment_of_a_node_that_goes_meanwhile_is_refused(url: str, service: Service, store: SyncStore) -> None:
    amend = partial(store.documents.update_node, "p", "n27", version_id="1", summary="amended 1")
    kind, message = beside(url, reingest(service, 5), amend)
    assert kind is NotFound
    assert "n27" in message
    assert_rows_of(service.nodes("p", "1"), 5)
    assert not any((row.summary or "").startswith("amended") for row in service.nodes("p", "1"))


def test_a_tree_that_is_stored_meanwhile_comes_after_the_one_ingested(url: str, service: Service, store: SyncStore) -> None:
    stored = beside(
        url, reingest(service, 5), partial(store.documents.store_document, "p", "1", trees.given(trees.generation(8)))
    )
    assert stored.outcome == "replaced"
    assert_rows_of(service.nodes("p", "1"), 8)
    assert_same_for_both(service, store, ("p", "1"))
    assert_sound(url, store)


def test_a_version_that_both_store_for_the_first_time(url: str, service: Service, store: SyncStore) -> None:
    """Whoever comes second replaces what the first one has stored."""

    def persist(before_commit: Callable[[], None]) -> None:
        service.persist("p", "new", trees.generation(5), before_commit=before_commit)

    stored = beside(url, persist, partial(store.documents.store_document, "p", "new", trees.given(trees.generation(8))))
    assert stored.outcome == "replaced"
    assert_rows_of(service.nodes("p", "new"), 8)
    assert_same_for_both(service, store, ("p", "new"))


def test_what_is_deleted_meanwhile_is_what_was_ingested(url: str, service: Service, store: SyncStore) -> None:
    deleted = beside(url, reingest(service, 5), partial(store.documents.delete_version, "p", "1"))
    assert deleted.node_count == 24
    assert_rows_of(service.nodes("p", "1"), NOTHING)
    assert_same_for_both(service, store, ("p", "1"))


@pytest.mark.parametrize("node_id", ["n9", "n3", "n0"], ids=["the node", "one above it", "another"])
def test_a_status_that_is_set_meanwhile_stays(url: str, service: Service, store: SyncStore, node_id: str) -> None:
    amend = partial(store.documents.update_node, "p", "n9", version_id="1", summary="amended 1")
    beside(url, lambda before_commit: service.set_status("p", "1", node_id, "flagged", before_commit), amend)
    rows = {row.node_id: row for row in service.nodes("p", "1")}
    assert rows[node_id].validation_status == "flagged"
    assert rows["n9"].summary == "amended 1"
    assert_same_for_both(service, store, ("p", "1"))
    assert_sound(url, store)


NODE = """
    policy_nodes SET validation_status = 'approved', updated_at = timezone('utc', clock_timestamp())
    WHERE version_id = '1' AND node_id = '{}'
"""
VERSION = "policy_versions SET source_url = 'u' WHERE version_id = '{}'"
DEEP, ABOVE = "n24", "n4"
"""A node of generation 4, and one that it lies in."""


@pytest.mark.parametrize("verb", ["store", "amend", "delete", "delete all", "date", "derive"])
@pytest.mark.parametrize(
    "rows",
    [
        (NODE.format(DEEP), NODE.format(ABOVE), VERSION.format(1)),
        (NODE.format(ABOVE), NODE.format(DEEP), VERSION.format(1)),
        (VERSION.format(2), VERSION.format(1), NODE.format(ABOVE)),
        (VERSION.format(1), VERSION.format(2), NODE.format(DEEP)),
    ],
    ids=["from below", "from above", "newest first", "oldest first"],
)
def test_the_service_takes_rows_in_an_order_of_its_own(url: str, service: Service, verb: str, rows: tuple[str, ...]) -> None:
    """It holds one row and then wants others that a writer of treestore's would have by now, if it waited with rows in its
    hands; the server would give up one of the two."""
    service.persist("p", "2", trees.generation(3))
    service.set_status("p", "1", "n0", "flagged")
    with treestore.open_sync(url) as store:
        documents = store.documents
        writes: dict[str, Callable[[], Any]] = {
            "store": lambda: documents.store_document("p", "1", trees.given(trees.generation(8))),
            "amend": lambda: documents.update_node("p", DEEP, version_id="1", title="generation g4 other"),
            "delete": lambda: documents.delete_version("p", "1"),
            "delete all": lambda: documents.delete_document("p"),
            "date": lambda: store.versions.set_effective_date("p", "1", SetClock().now),
            "derive": lambda: adopting.repair(url),
        }
        assert ABOVE in [node.node_id for node in documents.get_ancestor_path("p", DEEP, version_id="1")][:-1]
        with ThreadPoolExecutor(1) as pool, service.engine.connect() as connection:
            with connection.begin():
                connection.execute(text("SET LOCAL lock_timeout = '5s'"))
                connection.execute(text(f"UPDATE {rows[0]}"))
                running = pool.submit(answered, writes[verb])
                wait_until_busy(url, least=1.5 if verb == "derive" else 0.3)
                for row in rows[1:]:
                    connection.execute(text(f"UPDATE {row}"))
            running.result(SECONDS)
        assert_same_for_both(service, store, ("p", "1"))
        assert_sound(url, store)


# --- one after the other -------------------------------------------------------------------------------------------------


def test_a_tree_that_the_service_has_replaced_is_stored_again(service: Service, store: SyncStore) -> None:
    """The version's row still has the hash of what treestore had derived."""
    given = trees.given(trees.generation(4))
    assert store.documents.store_document("p", "1", given).outcome == "replaced", "the columns are others"
    assert store.documents.store_document("p", "1", given).outcome == "unchanged"
    service.reingest("p", "1", trees.generation(5))
    assert store.documents.store_document("p", "1", given).outcome == "replaced"
    assert_rows_of(service.nodes("p", "1"), 4)
    assert_same_for_both(service, store, ("p", "1"))
    assert store.documents.store_document("p", "1", given).outcome == "unchanged"


def test_a_date_that_is_set_makes_nothing_stale_fit(url: str, service: Service, store: SyncStore) -> None:
    service.reingest("p", "1", trees.generation(5))
    store.versions.set_effective_date("p", "1", SetClock().now)
    assert_same_for_both(service, store, ("p", "1"))
    assert adopting.status(url)["stale"] == 1
    assert_sound(url, store)


def test_an_amendment_after_a_status_leaves_hashes_that_fit(url: str, service: Service, store: SyncStore) -> None:
    service.set_status("p", "1", "n3", "approved")
    store.documents.update_node("p", "n21", version_id="1", text="another text")
    assert store.check().problems == []
    assert_same_for_both(service, store, ("p", "1"))
    held_now = store.documents.get_document("p", version_id="1")
    with treestore.open_sync("memory://") as model:
        model.documents.store_document("p", "1", held_now.nodes)
        assert model.versions.get("p", "1").tree_hash == held_now.version.tree_hash


@pytest.mark.parametrize("derived", [True, False], ids=["derived", "underived"])
def test_what_treestore_writes_keeps_the_services_rules(url: str, service: Service, store: SyncStore, derived: bool) -> None:
    """Each kind of write, on what was derived and on what was not; the service holds all that it reads against its rules."""
    if not derived:
        service.reingest("p", "1", trees.policy())
    else:
        store.documents.store_document("p", "1", trees.given(trees.policy()))
    update = partial(store.documents.update_node, "p", version_id="1")
    for fields in (
        {"title": "another title"},
        {"title": "x" * 600},
        {"title": "short"},
        {"text": None},
        {"text": ""},
        {"text": "another"},
        {"summary": None},
        {"summary": ""},
        {"validation_status": "approved"},
        {"metadata": {"a": 1}},
    ):
        for node_id in ("a", "a1", "a1x"):
            update(node_id, **fields)
            rows = service.nodes("p", "1")
            assert [row.node_id for row in rows] == ["a", "a1", "a1x", "a1y", "a2", "b", "b1"]
            assert_same_for_both(service, store, ("p", "1"))
    before = service.version("p", "1").ingested_at
    store.documents.store_document("p", "1", trees.given(trees.generation(9)))
    assert service.version("p", "1").ingested_at > before
    assert [row.node_id for row in service.nodes("p", "1")] == rules.preorder(service.nodes("p", "1"))
    store.documents.store_document("new", "1", trees.given(trees.policy()))
    assert [row.node_id for row in service.nodes("new", "1")] == ["a", "a1", "a1x", "a1y", "a2", "b", "b1"]
    service.cite("new", "1")
    service.reingest("new", "1", trees.generation(2))
    assert_same_for_both(service, store, ("new", "1"))
    assert_sound(url, store)


@pytest.mark.parametrize("verb", ["date", "amend", "delete"])
def test_what_the_service_says_of_a_version_is_not_taken_back(url: str, service: Service, store: SyncStore, verb: str) -> None:
    """It sets who has validated a tree while treestore changes something else of the version's row."""

    def validate(before_commit: Callable[[], None]) -> None:
        with service.sessions.begin() as session:
            session.get_one(PolicyVersion, ("p", "1")).tree_validated_by = "a reviewer"
            session.flush()
            before_commit()

    date = SetClock().now
    writes: dict[str, Callable[[], Any]] = {
        "date": lambda: store.versions.set_effective_date("p", "1", date),
        "amend": lambda: store.documents.update_node("p", "n3", version_id="1", summary="amended 1"),
        "delete": lambda: store.documents.delete_version("p", "1"),
    }
    beside(url, validate, writes[verb])
    row = service.version("p", "1")
    assert row.tree_validated_by == "a reviewer"
    assert row.effective_date == (date.replace(tzinfo=None) if verb == "date" else None)
    assert store.versions.list("p", include_deleted=True)[0].tree_validated_by == "a reviewer"


def test_what_treestore_alone_keeps_outlives_a_status(url: str, service: Service, store: SyncStore) -> None:
    """The service has no columns for it, and its changes make what was derived stale, not what was given."""
    for file in trees.FILES:
        read = pageindex.read(file)
        more: dict[str, Any] = {"pages": read.pages, "pageindex": read.envelope, "pageindex_doc_id": read.doc_id}
        store.documents.store_document("real", "1", read.nodes, metadata={"kept": True}, tags=["a"], **more)
        first = store.documents.get_outline("real", version_id="1")[0].node_id
        store.documents.update_node("real", first, version_id="1", metadata={"of": "the node"})
        before = store.documents.get_document("real", version_id="1")
        for repair in (False, True):
            assert service.set_status("real", "1", before.nodes[-1].node_id, "flagged") == 1
            if repair:
                adopting.repair(url)
            found = store.documents.get_document("real", version_id="1")
            assert pageindex.dumps(found) == pageindex.dumps(before)
            assert [node.metadata for node in found.nodes] == [node.metadata for node in before.nodes]
            assert (found.version.metadata, found.version.tags) == ({"kept": True}, ("a",))
            assert [node.validation_status for node in found.nodes] == ["pending"] * (len(found.nodes) - 1) + ["flagged"]
            assert found.pages == before.pages
    assert store.check().problems == []
