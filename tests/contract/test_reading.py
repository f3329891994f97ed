"""Reading trees by node: what is answered, in which order, and what is said of what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.clock import SetClock
from tests.contract.samples import MANUAL_IDS, manual, node
from tests.stores import SyncStore
from treestore import Node, NotFound, Outline


@pytest.fixture
def documents(store: SyncStore) -> Any:
    """The documents of a store that holds the manual as policy "p" version "1"."""
    store.documents.store_document("p", "1", manual())
    return store.documents


def ids(nodes: list[Any]) -> list[str]:
    return [one.node_id for one in nodes]


def test_nodes_in_the_order_asked_and_as_often_as_asked(documents: Any) -> None:
    assert documents.get_node("p", "a2").text == "pages outside those of its parent"
    assert ids(documents.get_nodes("p", ["b1", "a", "b1"])) == ["b1", "a", "b1"]
    assert ids(documents.get_nodes("p", iter(["a2"]))) == ["a2"]
    assert documents.get_nodes("p", []) == documents.get_outlines("p", ()) == []


def test_children_and_roots(documents: Any) -> None:
    assert ids(documents.get_children("p")) == ids(documents.get_children("p", None)) == ["a", "b"]
    assert ids(documents.get_children("p", "a")) == ["a1", "a2"]
    assert documents.get_children("p", "a2") == []


@pytest.mark.parametrize(
    ("node_id", "max_depth", "expected"),
    [
        ("a", None, ["a", "a1", "a1x", "a1y", "a2"]),
        ("a", 0, ["a"]),
        ("a", 1, ["a", "a1", "a2"]),
        ("a", 2, ["a", "a1", "a1x", "a1y", "a2"]),
        ("a1", 2**31 - 1, ["a1", "a1x", "a1y"]),
        ("a1y", None, ["a1y"]),
        (None, None, MANUAL_IDS),
        (None, 0, ["a", "b"]),
        (None, 1, ["a", "a1", "a2", "b", "b1"]),
    ],
)
def test_subtrees_and_outlines_to_a_depth(
    documents: Any, node_id: str | None, max_depth: int | None, expected: list[str]
) -> None:
    assert ids(documents.get_subtree("p", node_id, max_depth)) == expected
    assert ids(documents.get_outline("p", node_id, max_depth)) == expected


def test_the_way_to_a_node_begins_at_its_root(documents: Any) -> None:
    assert ids(documents.get_ancestor_path("p", "a1y")) == ["a", "a1", "a1y"]
    assert ids(documents.get_ancestor_path("p", "b")) == ["b"]


def test_an_outline_is_a_node_without_its_text(documents: Any) -> None:
    whole, outlines = documents.get_subtree("p"), documents.get_outline("p")
    assert {type(one) for one in whole} == {Node}
    assert {type(one) for one in outlines} == {Outline}
    for one, outline in zip(whole, outlines, strict=True):
        assert {name: getattr(one, name) for name in Outline.__struct_fields__} == {
            name: getattr(outline, name) for name in Outline.__struct_fields__
        }
    assert documents.get_outlines("p", ["b", "a1x"]) == [outlines[5], outlines[2]]


def test_page_texts_by_page_and_by_range_in_the_order_given(store: SyncStore) -> None:
    pages = [{"page": number, "content": f"page {number}", "width": number} for number in (5, 1, 3, 10, 2)]
    store.documents.store_document("p", "1", manual(), pages=pages)

    found = store.documents.get_page_text("p", 3)
    assert (found.page, found.content, found.extra) == (3, "page 3", {"width": 3})
    for first, last, expected in (
        (None, None, [5, 1, 3, 10, 2]),
        (2, 5, [5, 3, 2]),
        (None, 2, [1, 2]),
        (4, None, [5, 10]),
        (6, 9, []),
    ):
        assert [page.page for page in store.documents.get_page_texts("p", first, last)] == expected
    with pytest.raises(NotFound, match=r"^policy 'p' version '1' has no text of page 4$"):
        store.documents.get_page_text("p", 4)


READS: dict[str, Callable[..., Any]] = {
    "get_document": lambda documents, policy, **kw: documents.get_document(policy, **kw),
    "get_node": lambda documents, policy, **kw: documents.get_node(policy, "a", **kw),
    "get_nodes": lambda documents, policy, **kw: documents.get_nodes(policy, ["a"], **kw),
    "get_nodes of none": lambda documents, policy, **kw: documents.get_nodes(policy, [], **kw),
    "get_outlines": lambda documents, policy, **kw: documents.get_outlines(policy, ["a"], **kw),
    "get_children": lambda documents, policy, **kw: documents.get_children(policy, "a", **kw),
    "get_children of none": lambda documents, policy, **kw: documents.get_children(policy, **kw),
    "get_subtree": lambda documents, policy, **kw: documents.get_subtree(policy, "a", **kw),
    "get_outline": lambda documents, policy, **kw: documents.get_outline(policy, **kw),
    "get_ancestor_path": lambda documents, policy, **kw: documents.get_ancestor_path(policy, "a", **kw),
    "update_node": lambda documents, policy, **kw: documents.update_node(policy, "a", title="x", **kw),
    "get_page_text": lambda documents, policy, **kw: documents.get_page_text(policy, 1, **kw),
    "get_page_texts": lambda documents, policy, **kw: documents.get_page_texts(policy, **kw),
}


@pytest.mark.parametrize("read", READS)
def test_an_unknown_policy_version_or_a_deleted_one_is_named(store: SyncStore, clock: SetClock, read: str) -> None:
    store.documents.store_document("p", "1", manual())
    store.documents.store_document("p", "2", manual())
    store.documents.store_document("q", "1", manual())
    clock.advance(hours=2)
    store.documents.delete_version("p", "2")
    store.documents.delete_document("q")

    for policy_id, version_id, message in (
        ("none", None, "policy 'none' does not exist"),
        ("none", "1", "policy 'none' does not exist"),
        ("p", "3", "policy 'p' has no version '3'"),
        ("p", "2", "policy 'p' version '2' was deleted at 2026-03-01T14:00:00+00:00"),
        ("q", None, "policy 'q' was deleted at 2026-03-01T14:00:00+00:00"),
        ("q", "1", "policy 'q' version '1' was deleted at 2026-03-01T14:00:00+00:00"),
    ):
        with pytest.raises(NotFound) as caught:
            READS[read](store.documents, policy_id, version_id=version_id)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    "verb", ["get_node", "get_children", "get_subtree", "get_outline", "get_ancestor_path", "update_node"]
)
@pytest.mark.parametrize("missing", ["a10", "a ", "A", "", "none"])
def test_an_unknown_node_is_named(documents: Any, verb: str, missing: str) -> None:
    missing = missing or "b1 "
    with pytest.raises(NotFound, match=f"^policy 'p' version '1' has no node {re.escape(repr(missing))}$"):
        getattr(documents, verb)("p", missing)


def test_one_error_names_all_missing_nodes_once_and_counts_them_past_twenty(documents: Any) -> None:
    with pytest.raises(NotFound, match=r"^policy 'p' version '1' has no nodes 'z', 'y'$"):
        documents.get_nodes("p", ["a", "z", "b", "y", "z"])
    with pytest.raises(NotFound, match=r"'n0', .*'n19' and 80 more$"):
        documents.get_outlines("p", [f"n{at}" for at in range(100)])


def test_a_version_is_read_by_its_id_or_is_the_one_in_effect_or_the_latest(store: SyncStore, clock: SetClock) -> None:
    future = datetime(2027, 1, 1, tzinfo=UTC)
    read: Callable[..., Any] = store.documents.get_node

    store.documents.store_document("p", "draft", [node("a", text="draft")], effective_date=future)
    assert read("p", "a").text == "draft", "none is in effect yet: the latest"
    clock.advance(days=1)
    store.documents.store_document("p", "later draft", [node("a", text="later draft")], effective_date=future)
    assert read("p", "a").text == "later draft"
    clock.advance(days=1)
    store.documents.store_document("p", "old", [node("a", text="old")], effective_date=datetime(2020, 1, 1, tzinfo=UTC))
    assert read("p", "a").text == "old", "the one in effect goes before a later ingested one that is not"
    clock.advance(days=1)
    store.documents.store_document("p", "new", [node("a", text="new")])
    assert read("p", "a").text == "new"
    clock.now = future
    assert read("p", "a").text == "later draft", "of equal dates the later ingested wins"
    for version_id in ("draft", "later draft", "old", "new"):
        assert read("p", "a", version_id=version_id).text == version_id


def test_documents_are_listed_in_order_in_pieces_without_the_deleted_ones(store: SyncStore, clock: SetClock) -> None:
    for policy_id in ("c", "a", "b", "Z", "é"):
        store.documents.store_document(policy_id, "1", manual())
    clock.advance(seconds=1)
    store.documents.store_document("a", "2", manual(), description="second")
    store.documents.store_document("a", "3", manual())
    store.documents.delete_version("a", "3")
    store.documents.delete_document("b")

    def listed(**kw: Any) -> list[str]:
        return [summary.policy_id for summary in store.documents.list_documents(**kw)]

    assert listed() == ["Z", "a", "c", "é"]
    assert listed(limit=2) == ["Z", "a"]
    assert listed(after="a", limit=1) == ["c"]
    assert listed(after="b") == ["c", "é"], "a start that is not listed itself"
    assert listed(after="é") == []
    summary = store.documents.list_documents(after="Z", limit=1)[0]
    assert (summary.version.version_id, summary.version_count) == ("2", 2)
    assert summary.version == store.versions.get("a", "2")


def test_an_empty_store_lists_and_counts_nothing(store: SyncStore) -> None:
    assert store.documents.list_documents() == []
    stats = store.stats()
    assert (stats.documents, stats.versions, stats.nodes) == (0, 0, 0)
    report = store.check()
    assert (report.ok, report.problems) == (True, [])


def test_counts_are_of_what_is_not_deleted(store: SyncStore) -> None:
    for policy_id, version_id in (("p", "1"), ("p", "2"), ("q", "1"), ("r", "1")):
        store.documents.store_document(policy_id, version_id, manual())
    store.documents.delete_version("p", "1")
    store.documents.delete_document("r")

    stats = store.stats()
    assert (stats.documents, stats.versions, stats.nodes) == (2, 2, 14)
    assert all(isinstance(value, int | float | str) for value in stats.backend.values())


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parents=st.lists(st.integers(0, 40), max_size=40), max_depth=st.none() | st.integers(0, 5))
def test_random_trees_are_answered_as_a_walk_over_the_input_says(
    store: SyncStore, parents: list[int], max_depth: int | None
) -> None:
    """Node ``i`` hangs below node ``parents[i] % (i + 1) - 1`` (-1: a root)."""
    tree = {f"n{at}": f"n{place % (at + 1) - 1}" if place % (at + 1) else None for at, place in enumerate(parents)}
    store.documents.store_document("random", "1", [node(name, parent, text=name) for name, parent in tree.items()])

    def children(parent: str | None) -> list[str]:
        return [name for name, its_parent in tree.items() if its_parent == parent]

    def below(name: str, levels: int | None) -> list[str]:
        deeper = None if levels is None else levels - 1
        return [name] + [one for child in children(name) if levels != 0 for one in below(child, deeper)]

    assert ids(store.documents.get_document("random").nodes) == [one for root in children(None) for one in below(root, None)]
    assert ids(store.documents.get_children("random")) == children(None)
    for name in tree:
        assert ids(store.documents.get_children("random", name)) == children(name)
        assert ids(store.documents.get_subtree("random", name, max_depth)) == below(name, max_depth)
        way: list[str] = [name]
        while (parent := tree[way[0]]) is not None:
            way.insert(0, parent)
        assert ids(store.documents.get_ancestor_path("random", name)) == way


ANSWERS: dict[str, Callable[[Any], list[Any]]] = {
    "get_node": lambda documents: [documents.get_node("p", "a"), documents.get_node("p", "a1y")],
    "get_nodes": lambda documents: documents.get_nodes("p", ["a", "a1y"]),
    "get_outlines": lambda documents: documents.get_outlines("p", ["a", "a1y"]),
    "get_children": lambda documents: [*documents.get_children("p"), *documents.get_children("p", "a1")],
    "get_subtree": lambda documents: documents.get_subtree("p"),
    "get_subtree to a depth": lambda documents: documents.get_subtree("p", None, 2),
    "get_outline": lambda documents: documents.get_outline("p", "a"),
    "get_ancestor_path": lambda documents: documents.get_ancestor_path("p", "a1y"),
    "get_nodes_by_page": lambda documents: documents.get_nodes_by_page("p", 3),
    "search_nodes": lambda documents: [hit.node for hit in documents.search_nodes("p", "title")],
    "get_document": lambda documents: documents.get_document("p").nodes,
}


@pytest.mark.parametrize("read", ANSWERS)
def test_what_a_caller_does_to_json_values_of_an_answer_is_nobody_elses(documents: Any, read: str) -> None:
    for _ in range(3):
        answer = {one.node_id: one for one in ANSWERS[read](documents)}
        answer["a"].metadata["tier"] = "changed"
        answer["a"].metadata["more"] = [1]
        answer["a1y"].extra["kept"][2].clear()
    again = {one.node_id: one for one in ANSWERS[read](documents)}
    assert again["a"].metadata == {"tier": 1}
    assert again["a1y"].extra == {"kept": [1, None, {"deep": True}]}


def test_what_was_amended_is_read_at_once_however_often_it_was_read_before(documents: Any) -> None:
    for turn in range(3):
        for read in ANSWERS.values():
            read(documents)
        documents.update_node("p", "a1y", title=f"title, amended {turn}", metadata={"turn": turn})
        for read in ANSWERS.values():
            read(documents)
            [found] = [one for one in read(documents) if one.node_id == "a1y"]
            assert (found.title, found.metadata) == (f"title, amended {turn}", {"turn": turn})
