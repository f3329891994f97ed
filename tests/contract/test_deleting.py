"""Deleting versions and documents: tombstones, and storing again after it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.clock import SetClock
from tests.contract.samples import manual, node
from tests.stores import SyncStore
from treestore import DeleteResult, Envelope, NotFound


def test_a_deleted_version_leaves_a_tombstone_with_its_facts(store: SyncStore, clock: SetClock) -> None:
    envelope = Envelope(shape="pdf", fields={}, keys=(), node_keys=())
    store.documents.store_document(
        "p", "1", manual(), description="first", pages=[{"page": 1, "content": ""}], pageindex=envelope, created_by="me"
    )
    stored = clock.now
    deleted = clock.advance(hours=1)

    result = store.documents.delete_version("p", "1")

    assert result == DeleteResult(policy_id="p", version_ids=("1",), node_count=7)
    (tombstone,) = store.versions.list("p", include_deleted=True)
    assert (tombstone.deleted_at, tombstone.updated_at, tombstone.revision) == (deleted, deleted, 2)
    assert (tombstone.description, tombstone.created_by, tombstone.created_at) == ("first", "me", stored)
    assert (tombstone.node_count, tombstone.root_count, tombstone.page_count, tombstone.tree_hash) == (0, 0, 0, b"")
    assert tombstone.pageindex is None
    assert [(fact.kind, fact.recorded_at) for fact in tombstone.facts] == [("ingested", stored), ("deleted", deleted)]


def test_deleting_a_document_deletes_all_its_versions_in_the_order_of_ingestion(store: SyncStore, clock: SetClock) -> None:
    for version_id in ("z", "a", "m"):
        store.documents.store_document("p", version_id, manual())
        clock.advance(hours=1)
    store.documents.delete_version("p", "a")
    store.documents.store_document("q", "1", manual())

    result = store.documents.delete_document("p")

    assert (result.version_ids, result.node_count) == (("z", "m"), 14)
    assert [version.version_id for version in store.versions.list("p", include_deleted=True)] == ["z", "a", "m"]
    assert [summary.policy_id for summary in store.documents.list_documents()] == ["q"]


def test_deleting_what_is_not_there_says_so_and_changes_nothing(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual())
    store.documents.delete_version("p", "1")
    before = store.versions.list("p", include_deleted=True)
    clock.advance(hours=1)

    for policy_id, version_id, message in (
        ("p", "1", "policy 'p' version '1' was deleted at 2026-03-01T12:00:00+00:00"),
        ("p", "2", "policy 'p' has no version '2'"),
        ("q", "1", "policy 'q' does not exist"),
    ):
        with pytest.raises(NotFound) as caught:
            store.documents.delete_version(policy_id, version_id)
        assert str(caught.value) == message
    for policy_id, message in (
        ("p", "policy 'p' was deleted at 2026-03-01T12:00:00+00:00"),
        ("q", "policy 'q' does not exist"),
    ):
        with pytest.raises(NotFound) as caught:
            store.documents.delete_document(policy_id)
        assert str(caught.value) == message
    assert store.versions.list("p", include_deleted=True) == before


def test_a_tombstone_is_revived_by_storing_and_its_facts_go_on(store: SyncStore, clock: SetClock) -> None:
    first = clock.now
    store.documents.store_document(
        "p", "1", manual(), effective_date=datetime(2026, 1, 1, tzinfo=UTC), pages=[{"page": 1, "content": "old"}]
    )
    deleted = clock.advance(days=1)
    store.documents.delete_version("p", "1")
    revived = clock.advance(days=1)

    result = store.documents.store_document("p", "1", [node("only", text="new")])

    assert result.outcome == "created"
    version = store.versions.get("p", "1")
    assert (version.created_at, version.ingested_at, version.deleted_at) == (first, revived, None)
    assert version.effective_date is None, "a date of the deleted version is not taken over"
    assert [(fact.kind, fact.recorded_at) for fact in version.facts] == [
        ("ingested", first),
        ("effective", first),
        ("deleted", deleted),
        ("ingested", revived),
    ]
    document = store.documents.get_document("p")
    assert ([one.node_id for one in document.nodes], document.pages) == (["only"], [])


def test_equal_content_after_a_deletion_is_created_not_unchanged(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual())
    store.documents.delete_document("p")
    assert store.documents.store_document("p", "1", manual()).outcome == "created"
    assert len(store.documents.get_document("p").nodes) == 7
    assert store.documents.store_document("p", "1", manual()).outcome == "unchanged"


def test_an_empty_document_too_is_deleted_and_revived(store: SyncStore) -> None:
    for _ in range(2):
        assert store.documents.store_document("p", "1", []).outcome == "created"
        assert store.documents.delete_document("p").version_ids == ("1",)
    assert store.documents.list_documents() == []
    with pytest.raises(NotFound):
        store.documents.get_document("p")


def test_one_of_several_versions_that_share_texts_can_go(store: SyncStore) -> None:
    for version_id in ("1", "2", "3"):
        changed = [one | ({"text": version_id} if one["node_id"] == "b1" else {}) for one in manual()]
        store.documents.store_document("p", version_id, changed, pages=[{"page": 1, "content": "the same"}])
    for gone in ("2", "1"):
        store.documents.delete_version("p", gone)
        nodes = store.documents.get_document("p", version_id="3").nodes
        assert [one.text for one in nodes] == [one.get("text") for one in manual()[:-1]] + ["3"]
        assert store.documents.get_page_text("p", 1, version_id="3").content == "the same"
