"""Versions that treestore has deleted: their row stays, for those who cite it; the old service sees no nodes; it can bring
them back; and going back to a database without treestore leaves the row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.exc import IntegrityError

from tests.adoption import adopting, trees
from tests.adoption.old_service.service import Service
from tests.adoption.writers import assert_same_for_both
from tests.postgres.faults import opened
from tests.stores import SyncStore
from treestore import NotFound


@pytest.fixture
def service(url: str) -> Iterator[Service]:
    """Two versions of a policy, of which the first is cited, on adopted tables."""
    with Service(url) as running:
        running.persist("p", "1", trees.policy())
        running.persist("p", "2", trees.generation(2))
        running.cite("p", "1", "case 7")
        adopting.upgrade(url)
        yield running


@pytest.mark.parametrize("derived", [False, True], ids=["underived", "derived"])
def test_a_version_that_is_cited_is_deleted(url: str, service: Service, store: SyncStore, derived: bool) -> None:
    if derived:
        adopting.derive(url)
    cited = service.outputs("p", "1")
    assert store.documents.delete_version("p", "1").node_count == 7
    assert service.nodes("p", "1") == []
    assert service.outputs("p", "1") == cited, "the row is there, as it was"
    assert [version.version_id for version in service.versions("p")] == ["2", "1"]
    with pytest.raises(IntegrityError):
        service.delete("p", "1")
    with pytest.raises(NotFound):
        store.documents.get_outline("p", version_id="1")
    assert [version.version_id for version in store.versions.list("p")] == ["2"]
    adopting.repair(url)
    with pytest.raises(NotFound):
        store.documents.get_outline("p", version_id="1")
    assert service.nodes("p", "1") == []
    assert store.check().problems == []


@pytest.mark.parametrize("repaired", [False, True], ids=["as it is", "repaired"])
def test_the_service_brings_it_back(url: str, service: Service, store: SyncStore, repaired: bool) -> None:
    store.documents.delete_document("p")
    assert service.count() == (2, 0)
    with pytest.raises(NotFound):
        store.documents.get_outline("p")
    service.reingest("p", "1", trees.generation(3), pdf_sha256="3")
    if repaired:
        adopting.repair(url)
    assert_same_for_both(service, store, ("p", "1"))
    assert store.versions.get("p", "1").deleted_at is None
    assert [version.version_id for version in store.versions.list("p")] == ["1"]
    assert store.versions.latest("p").pdf_sha256 == "3"
    assert [summary.policy_id for summary in store.documents.list_documents()] == ["p"]
    assert store.documents.search_nodes("p", "care", version_id="1")
    assert store.stats().versions == 1
    assert store.stats().nodes == len(service.nodes("p", "1"))
    store.documents.update_node("p", "n3", version_id="1", summary="amended after its return")
    assert_same_for_both(service, store, ("p", "1"))
    assert store.documents.delete_version("p", "1").node_count == 27
    assert service.nodes("p", "1") == []
    adopting.repair(url)
    assert store.check().problems == []


def test_an_empty_ingestion_brings_nothing_back(service: Service, store: SyncStore) -> None:
    """That nodes are there again is what tells; the next ingestion that has some does."""
    store.documents.delete_version("p", "1")
    service.reingest("p", "1", [])
    with pytest.raises(NotFound):
        store.documents.get_outline("p", version_id="1")
    service.reingest("p", "1", trees.policy())
    assert_same_for_both(service, store, ("p", "1"))


def test_a_tombstone_is_stored_again(url: str, service: Service, store: SyncStore) -> None:
    store.documents.delete_version("p", "1")
    assert store.documents.store_document("p", "1", trees.given(trees.policy())).outcome == "created"
    assert len(service.nodes("p", "1")) == 7
    assert_same_for_both(service, store, ("p", "1"))


def test_the_service_deletes_what_nothing_cites(url: str, service: Service, store: SyncStore) -> None:
    """Its rows go, and all that treestore had derived of them is of nobody: nothing of it is found."""
    adopting.derive(url)
    assert store.documents.search_nodes("p", "care", version_id="2")
    service.delete("p", "2")
    with pytest.raises(NotFound):
        store.documents.get_outline("p", version_id="2")
    assert store.documents.search_documents("therapy", 10) == []
    adopting.repair(url)
    assert store.check().problems == []
    service.persist("p", "2", trees.generation(7))
    assert_same_for_both(service, store, ("p", "2"))
    adopting.repair(url)
    assert_same_for_both(service, store, ("p", "2"))
    assert store.check().problems == []


def test_the_row_stays_when_treestore_goes(url: str, service: Service) -> None:
    with opened(url) as store:
        store.documents.delete_version("p", "1")
    cited, rows = service.outputs("p", "1"), adopting.old_rows(url)
    ran = adopting.run(url, "downgrade", "base", "--yes")
    assert ran.status == 0
    assert "plain rows again: 1." in ran.err, "it says how many were deleted"
    assert adopting.old_rows(url) == rows
    assert service.outputs("p", "1") == cited
    assert service.nodes("p", "1") == []
    service.reingest("p", "1", trees.policy())
    assert len(service.nodes("p", "1")) == 7
