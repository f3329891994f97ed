"""Nodes by page: which lie on it, whatever their nesting, in every version, and after every change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.clock import SetClock
from tests.contract.samples import MANUAL_IDS, manual, node
from tests.stores import BothFaces, SyncStore
from treestore import InvalidInput, NotFound, Outline, SyncDriver, TreeStore
from treestore.operations import GetNodes, OnPages

MAX = 2**31 - 1


def ids(nodes: list[Any]) -> list[str]:
    return [one.node_id for one in nodes]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0, 0, []),
        (1, 1, ["a"]),
        (2, 2, ["a", "a1", "a1x"]),
        (3, 3, ["a", "a1", "a1x", "a1y"]),
        (9, 9, ["a"]),
        (10, 11, []),
        (12, 12, ["a2"]),
        (5, 13, ["a", "a1", "a1y", "a2"]),
        (0, MAX, ["a", "a1", "a1x", "a1y", "a2"]),
        (MAX, MAX, []),
    ],
)
def test_nodes_on_pages_in_document_order(store: SyncStore, first: int, last: int, expected: list[str]) -> None:
    store.documents.store_document("p", "1", manual())
    assert ids(store.documents.get_nodes_by_pages("p", first, last)) == expected
    if first == last:
        assert ids(store.documents.get_nodes_by_page("p", first)) == expected


def test_they_are_whole_nodes_as_they_are_read_otherwise(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual())
    found = store.documents.get_nodes_by_page("p", 3)
    assert found == store.documents.get_nodes("p", ["a", "a1", "a1x", "a1y"])
    assert [one.text for one in found] == ["text of a", "", "text of a1x", None]


def test_a_document_without_page_ranges_or_without_nodes_has_nothing_on_any_page(store: SyncStore) -> None:
    store.documents.store_document("p", "1", [node("a", page_index=3, line_num=3)])
    store.documents.store_document("q", "1", [])
    for policy_id in ("p", "q"):
        assert store.documents.get_nodes_by_pages(policy_id, 0, MAX) == []


def test_every_node_on_all_pages(store: SyncStore) -> None:
    store.documents.store_document("p", "1", [{**one, "page_start": 0, "page_end": MAX} for one in manual()])
    for page in (0, 47, MAX):
        assert ids(store.documents.get_nodes_by_page("p", page)) == MANUAL_IDS


def test_thousands_of_nodes_loaded_in_bulk(store: SyncStore) -> None:
    count = 4000
    tree = [node("root", page_start=0, page_end=MAX)]
    tree += [node(f"{at}", "root", text="text " * 60, page_start=at // 3, page_end=at // 3 + 1) for at in range(count)]
    store.documents.store_document("p", "1", tree)
    expected = ["root", *[f"{at}" for at in range(count) if at // 3 <= 700 <= at // 3 + 1]]
    assert ids(store.documents.get_nodes_by_page("p", 700)) == expected
    assert len(store.documents.get_nodes_by_pages("p", 0, MAX)) == count + 1


def test_pages_follow_replacement_versions_and_deletion(store: SyncStore) -> None:
    store.documents.store_document("p", "1", [node("a", page_start=1, page_end=2)])
    store.documents.store_document("p", "2", [node("b", page_start=2, page_end=3)])
    assert ids(store.documents.get_nodes_by_page("p", 2)) == ["b"]
    assert ids(store.documents.get_nodes_by_page("p", 2, version_id="1")) == ["a"]

    store.documents.store_document("p", "1", [node("c", page_start=5, page_end=6)])
    assert store.documents.get_nodes_by_page("p", 2, version_id="1") == []
    assert ids(store.documents.get_nodes_by_page("p", 6, version_id="1")) == ["c"]

    store.documents.update_node("p", "c", version_id="1", title="amended", text="amended")
    assert store.documents.get_nodes_by_page("p", 6, version_id="1")[0].text == "amended"

    store.documents.delete_version("p", "1")
    with pytest.raises(NotFound, match="policy 'p' version '1' was deleted"):
        store.documents.get_nodes_by_page("p", 6, version_id="1")
    assert ids(store.documents.get_nodes_by_page("p", 2)) == ["b"]
    with pytest.raises(NotFound, match="policy 'none' does not exist"):
        store.documents.get_nodes_by_page("none", 6)


def test_a_snapshot_keeps_its_pages(steady_store: SyncStore) -> None:
    steady_store.documents.store_document("p", "1", [node("a", page_start=1, page_end=2)])
    with steady_store.snapshot() as snapshot:
        steady_store.documents.store_document("p", "1", [node("b", page_start=1, page_end=1)])
        assert ids(snapshot.documents.get_nodes_by_pages("p", 1, 5)) == ["a"]
    assert ids(steady_store.documents.get_nodes_by_pages("p", 1, 5)) == ["b"]


@pytest.mark.parametrize("page", [-1, 2**31, 10**30, -(10**30), 1.0, "1", True, None, b"1", [1]])
def test_what_is_no_page_is_refused_by_name(store: SyncStore, page: Any) -> None:
    store.documents.store_document("p", "1", manual())
    with pytest.raises(InvalidInput) as caught:
        store.documents.get_nodes_by_page("p", page)
    assert caught.value.field == "page"
    for field, (first, last) in {"first": (page, 5), "last": (5, page)}.items():
        with pytest.raises(InvalidInput) as caught:
            store.documents.get_nodes_by_pages("p", first, last)
        assert caught.value.field == field


def test_reversed_pages_are_refused(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual())
    with pytest.raises(InvalidInput, match=r"^first: must not be above last \(6 > 5\)$"):
        store.documents.get_nodes_by_pages("p", 6, 5)


def test_outlines_on_pages(backend: BothFaces, clock: SetClock) -> None:
    TreeStore(SyncDriver(backend, clock)).documents.store_document("p", "1", manual())
    outlines = backend.read_one_now(OnPages(Outline, "p", "1", 2, 2))
    assert {type(one) for one in outlines} == {Outline}
    assert outlines == backend.read_one_now(GetNodes(Outline, "p", "1", ("a", "a1", "a1x")))
    assert backend.read_one_now(OnPages(Outline, "p", "1", 2, 12)) != []


pages = st.integers(0, 6) | st.sampled_from([0, MAX - 1, MAX]) | st.integers(0, MAX)
ranges = st.none() | st.tuples(pages, pages).map(sorted)


def meets(one: Outline, first: int, last: int) -> bool:
    """Whether a node that has a page range lies on any of these pages."""
    assert one.page_start is not None and one.page_end is not None
    return one.page_start <= last and one.page_end >= first


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parents=st.lists(st.tuples(st.integers(0, 40), ranges), max_size=300), asked=st.tuples(pages, pages).map(sorted))
def test_random_trees_are_answered_as_a_look_at_every_node_says(
    store: SyncStore, parents: list[tuple[int, list[int] | None]], asked: list[int]
) -> None:
    """Node ``i`` hangs below node ``place % (i + 1) - 1`` (-1: a root)."""
    tree = []
    for at, (place, pages) in enumerate(parents):
        parent = place % (at + 1) - 1
        span = {} if pages is None else {"page_start": pages[0], "page_end": pages[1]}
        tree.append(node(f"n{at}", f"n{parent}" if parent >= 0 else None, **span))
    store.documents.store_document("random", "1", tree)
    nodes = store.documents.get_subtree("random")
    for first, last in (asked, (asked[0], asked[0]), (0, MAX)):
        expected = [one for one in nodes if one.page_end is not None and meets(one, first, last)]
        assert store.documents.get_nodes_by_pages("random", first, last) == expected
