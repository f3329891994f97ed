"""What the old service's tables hold that forms no tree: it is reported, with the reason, and left as it is; the rest is
derived; it is read as a list, with a warning; the service reads it as ever; and the next good tree ends it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import treestore
from tests.adoption import adopting, trees
from tests.adoption.old_service.service import Service
from tests.adoption.test_answers import deep
from tests.postgres.faults import FACES, Face, opened
from treestore import BrokenTree, NotFound

Break = Callable[[Service, str], object]


def ingested(*roots: Any) -> Break:
    """The service itself has ingested it."""
    return lambda service, url: service.persist("p", "bad", list(roots))


def changed(statement: str) -> Break:
    """Somebody has changed a node of a good tree by hand; the service that ingested it has gone meanwhile."""

    def change(service: Service, url: str) -> None:
        with Service(url) as before:
            before.persist("p", "bad", trees.policy())
        assert adopting.by_hand(url, f"UPDATE policy_nodes SET {statement} AND version_id = 'bad'") == 1

    return change


KINDS: dict[str, tuple[Break, str]] = {
    "unknown parent": (changed("parent_id = 'nobody' WHERE node_id = 'a1'"), "nobody"),
    "parent of another version": (changed("parent_id = 'g' WHERE node_id = 'a1'"), "'g'"),
    "empty id": (ingested({"title": "one"}, trees.node("b")), "node_id"),
    "several empty ids": (ingested({"title": "one", "nodes": [{"title": "two"}]}, {"title": "three"}), "node_id"),
    "id twice": (ingested(trees.node("a", trees.node("b")), trees.node("c", trees.node("b", text="other"))), "b"),
    "cycle": (changed("parent_id = 'a1x' WHERE node_id = 'a'"), "cycle"),
    "own parent": (changed("parent_id = 'b1' WHERE node_id = 'b1'"), "cycle"),
    "start without end": (ingested(trees.node("a", trees.node("b", page_start=3))), "page"),
    "end without start": (ingested(trees.node("a", trees.node("b", page_end=3))), "page"),
    "negative pages": (ingested(trees.node("a", page_start=-2, page_end=-1)), "page_start"),
    "too deep": (ingested(*deep(201)), "200 levels"),
}


@pytest.fixture
def service(url: str) -> Iterator[Service]:
    with Service(url) as running:
        for version_id in ("0", "good", "z"):
            running.persist("p", version_id, [trees.node("g", trees.node("g1", text="good care"))])
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_broken_is_reported_and_the_rest_derived(url: str, service: Service, kind: str) -> None:
    broken, says = KINDS[kind]
    broken(service, url)
    adopting.upgrade(url)
    before = adopting.old_rows(url)
    first = adopting.derive(url)
    assert first["derived"] == 3
    for summary in (first, adopting.repair(url, "--all"), json.loads(adopting.done(url, "status", "--json"))):
        found = adopting.broken(summary)
        assert list(found) == [("p", "bad")]
        assert says in found["p", "bad"]
    assert adopting.old_rows(url) == before, "it is left as it is"
    assert adopting.status(url) == {"derived": 3, "broken": 1, "stale": 0, "underived": 0, "deleted": 0}
    for arguments in (("status",), ("repair", "--all")):
        plain = adopting.done(url, *arguments)
        assert "bad" in plain
        assert says in plain


@pytest.mark.parametrize("derived", [False, True], ids=["underived", "derived"])
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_broken_is_read_as_a_list(url: str, service: Service, kind: str, face: Face, derived: bool) -> None:
    KINDS[kind][0](service, url)
    adopting.upgrade(url)
    if derived:
        adopting.derive(url)
    rows = service.nodes("p", "bad")
    with opened(url, face) as store:
        documents = store.documents
        with pytest.warns(UserWarning, match="bad"):
            nodes = documents.get_document("p", version_id="bad").nodes
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            assert [node.node_id for node in nodes] == [row.node_id for row in rows]
            assert [node.parent_id for node in nodes] == [row.parent_id for row in rows]
            assert [(node.title, node.text, node.summary) for node in nodes] == [(r.title, r.text, r.summary) for r in rows]
            assert [(node.page_start, node.page_end) for node in nodes] == [(row.page_start, row.page_end) for row in rows]
            assert [node.ordinal for node in nodes] == list(range(len(rows)))
            assert {(node.depth, node.parent_ordinal) for node in nodes} == {(0, -1)}
            assert documents.get_children("p", version_id="bad") == nodes
            assert documents.get_subtree("p", version_id="bad") == nodes
            for node in nodes:
                if node.node_id:
                    first = next(each for each in nodes if each.node_id == node.node_id)
                    assert documents.get_node("p", node.node_id, version_id="bad") == first
                    assert documents.get_ancestor_path("p", node.node_id, version_id="bad") == [first]
                    assert documents.get_children("p", node.node_id, version_id="bad") == []
            with pytest.raises(NotFound):
                documents.get_node("p", "no such node", version_id="bad")
            hits = documents.search_nodes("p", "title", limit=300, version_id="bad")
            titled = [node.ordinal for node in nodes if "title" in node.title]
            assert sorted(hit.node.ordinal for hit in hits) == titled
            assert all(hit.node in nodes for hit in hits)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(documents.get_outline("p", version_id="good")) == 2, "nothing is said of a good one"
    assert [row.id for row in service.nodes("p", "bad")] == [row.id for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_tree_ends_it(url: str, service: Service, kind: str) -> None:
    KINDS[kind][0](service, url)
    adopting.upgrade(url)
    adopting.derive(url)
    service.reingest("p", "bad", trees.policy())
    with treestore.open_sync(url) as store, warnings.catch_warnings():
        warnings.simplefilter("error")
        held = store.documents.get_outline("p", version_id="bad")
        assert [node.section_path for node in held] == ["1", "1.1", "1.1.1", "1.1.2", "1.2", "2", "2.1"]
        adopting.repair(url)
        assert adopting.status(url)["broken"] == 0
        assert store.documents.get_outline("p", version_id="bad") == held
        assert store.check().problems == []


def test_a_good_tree_that_is_broken_later(url: str, service: Service) -> None:
    adopting.upgrade(url)
    adopting.derive(url)
    service.reingest("p", "good", [{"title": "nameless"}])
    with treestore.open_sync(url) as store:
        with pytest.warns(UserWarning, match="good"):
            assert [node.title for node in store.documents.get_outline("p", version_id="good")] == ["nameless"]
        assert list(adopting.broken(adopting.repair(url))) == [("p", "good")]
        assert adopting.status(url)["broken"] == 1
        with pytest.warns(UserWarning, match="good"):
            assert [node.title for node in store.documents.get_outline("p", version_id="good")] == ["nameless"]


def test_treestore_stores_a_good_tree_over_a_broken_one(url: str, service: Service) -> None:
    KINDS["id twice"][0](service, url)
    adopting.upgrade(url)
    adopting.derive(url)
    with treestore.open_sync(url) as store:
        with pytest.warns(UserWarning, match="bad"):
            store.documents.store_document("p", "bad", trees.given(trees.policy()))
        assert adopting.status(url)["broken"] == 0
        assert len(service.nodes("p", "bad")) == 7
        assert store.check().problems == []


def test_a_broken_version_can_be_deleted(url: str, service: Service) -> None:
    KINDS["cycle"][0](service, url)
    adopting.upgrade(url)
    adopting.derive(url)
    with treestore.open_sync(url) as store, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert store.documents.delete_version("p", "bad").node_count == 7
    assert service.nodes("p", "bad") == []
    assert adopting.status(url)["broken"] == 0


def test_ids_that_treestore_can_not_ask_for_stop_nothing(url: str, service: Service) -> None:
    """The service's tables take an empty policy and an empty version."""
    service.persist("", "1", trees.policy())
    service.persist("p", "", trees.policy())
    adopting.upgrade(url)
    assert set(adopting.broken(adopting.derive(url))) <= {("", "1"), ("p", "")}
    status = adopting.status(url)
    assert status["derived"] >= 3
    assert status["derived"] + status["broken"] == 5
    with treestore.open_sync(url) as store:
        assert len(store.documents.get_outline("p", version_id="good")) == 2
        with pytest.warns(BrokenTree):
            assert store.documents.search_documents("good care", 3)
