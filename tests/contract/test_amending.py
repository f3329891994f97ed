"""Amending single nodes in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.clock import SetClock
from tests.contract.samples import ALL_PLANES, MANUAL_IDS, deep, manual, node, wide
from tests.stores import SyncStore
from treestore import InvalidInput, Node

PAGES = [{"page": 1, "content": "one"}, {"page": 2, "content": "two", "extra key": [1]}]

AMENDMENTS: list[dict[str, Any]] = [
    {"title": "new title"},
    {"title": ""},
    {"summary": "new"},
    {"summary": None},
    {"text": ALL_PLANES},
    {"text": "x" * 60_000},
    {"text": ""},
    {"text": None},
    {"validation_status": "flagged"},
    {"metadata": {"tier": True}},
    {"metadata": {"tier": 1.0}},
    {"metadata": {}},
    {"metadata": None},
    {"title": "t", "summary": "s", "text": "x", "validation_status": "approved", "metadata": {"k": [None]}},
]


@pytest.mark.parametrize("fields", AMENDMENTS, ids=str)
def test_an_amendment_is_as_if_the_tree_had_been_stored_with_it(
    store: SyncStore, clock: SetClock, fields: dict[str, Any]
) -> None:
    store.documents.store_document("p", "1", manual(), pages=PAGES, metadata={"kept": 1})
    before = {one.node_id: one for one in store.documents.get_document("p").nodes}
    later = clock.advance(hours=1)

    returned = store.documents.update_node("p", "a", **fields)

    document = store.documents.get_document("p")
    amended = {one.node_id: one for one in document.nodes}
    assert returned == amended["a"] == store.documents.get_node("p", "a")
    assert returned.updated_at == later
    for name in Node.__struct_fields__:
        if name not in {*fields, "updated_at", "node_hash", "tree_hash", "text_hash"}:
            assert getattr(returned, name) == getattr(before["a"], name), name
    assert {name: amended[name] for name in MANUAL_IDS[1:]} == {name: before[name] for name in MANUAL_IDS[1:]}

    whole = [one | fields if one["node_id"] == "a" else one for one in manual()]
    stored = store.documents.store_document("q", "1", whole, pages=PAGES)
    assert document.version.tree_hash == stored.tree_hash
    assert document.version.node_hash == store.versions.get("q", "1").node_hash
    assert (document.version.updated_at, document.version.revision) == (later, 2)
    assert document.version.metadata == {"kept": 1}
    assert store.documents.store_document("p", "1", whole, pages=PAGES, metadata={"kept": 1}).outcome == "unchanged"


@pytest.mark.parametrize("node_id", MANUAL_IDS)
def test_the_hashes_follow_up_to_the_root_and_nowhere_else(store: SyncStore, node_id: str) -> None:
    store.documents.store_document("p", "1", manual(), pages=PAGES)
    before = {one.node_id: one for one in store.documents.get_outline("p")}
    way = {one.node_id for one in store.documents.get_ancestor_path("p", node_id)}

    store.documents.update_node("p", node_id, text="amended")

    after = {one.node_id: one for one in store.documents.get_outline("p")}
    assert {name for name in after if after[name].tree_hash != before[name].tree_hash} == way
    assert {name for name in after if after[name].node_hash != before[name].node_hash} == way
    assert [name for name in after if after[name].updated_at is not None] == [node_id]


def test_metadata_and_status_are_no_part_of_what_a_node_says(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual())
    before = store.documents.get_outline("p")
    store.documents.update_node("p", "a1x", metadata={"x": 1}, validation_status="flagged")
    after = store.documents.get_outline("p")
    assert [one.node_hash for one in after] == [one.node_hash for one in before]
    assert [one.tree_hash == other.tree_hash for one, other in zip(after, before, strict=True)].count(False) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"title": "title of a"},
        {"text": "text of a"},
        {"metadata": {"tier": 1}, "summary": "all of a", "validation_status": "pending"},
    ],
    ids=str,
)
def test_values_that_are_there_already_write_nothing(store: SyncStore, clock: SetClock, fields: dict[str, Any]) -> None:
    store.documents.store_document("p", "1", manual())
    before = store.documents.get_document("p")
    clock.advance(hours=1)

    assert store.documents.update_node("p", "a", **fields) == before.nodes[0]
    assert store.documents.get_document("p") == before


def test_an_amendment_stays_in_its_version(store: SyncStore) -> None:
    for version_id in ("1", "2"):
        store.documents.store_document("p", version_id, manual())
    store.documents.update_node("p", "a", version_id="1", text="amended")

    assert store.documents.get_node("p", "a", version_id="1").text == "amended"
    assert store.documents.get_node("p", "a", version_id="2").text == "text of a"
    store.documents.delete_version("p", "1")
    assert store.documents.get_node("p", "a", version_id="2").text == "text of a"


def test_amendments_add_up_and_storing_the_tree_undoes_them(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual())
    for at in range(5):
        clock.advance(minutes=1)
        store.documents.update_node("p", "a1y", text=f"text {at}")
        store.documents.update_node("p", "b", title=f"title {at}")
    assert store.documents.get_node("p", "a1y").text == "text 4"
    assert store.versions.get("p", "1").revision == 11

    assert store.documents.store_document("p", "1", manual()).outcome == "replaced"
    assert store.documents.get_node("p", "a1y").text is None
    assert store.documents.get_node("p", "a1y").updated_at is None


@pytest.mark.parametrize(("tree", "node_id"), [(deep, "level 199"), (wide, "00199")])
def test_in_deep_and_wide_trees(store: SyncStore, tree: Callable[[int], Any], node_id: str) -> None:
    store.documents.store_document("p", "1", tree(200))
    store.documents.update_node("p", node_id, text="amended")
    given = [one | ({"text": "amended"} if one["node_id"] == node_id else {}) for one in tree(200)]
    assert store.documents.store_document("p", "1", given).outcome == "unchanged"


@pytest.mark.parametrize("field", ["parent_id", "page_start", "section_path", "extra", "nodes", "titel"])
def test_other_fields_are_refused(store: SyncStore, field: str) -> None:
    store.documents.store_document("p", "1", manual())
    before = store.documents.get_document("p")
    fields: dict[str, Any] = {field: "x"}
    with pytest.raises(InvalidInput, match=r"can't be amended in place; only title, summary, text, validation_status, meta"):
        store.documents.update_node("p", "a", **fields)
    assert store.documents.get_document("p") == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"title": None}, "node 'a': title: must be a string, not None"),
        ({"title": 1}, "node 'a': title: must be a string, not 1"),
        ({"text": "a\0b"}, "node 'a': text: must not contain NUL (character 1)"),
        ({"summary": "\ud800"}, "node 'a': summary: must not contain a lone surrogate"),
        ({"validation_status": "maybe"}, "node 'a': validation_status: must be one of pending, approved, flagged"),
        ({"validation_status": None}, "node 'a': validation_status: must be one of pending, approved, flagged"),
        ({"metadata": []}, "node 'a': metadata: must be an object"),
        ({"metadata": {"x": float("nan")}}, "node 'a': metadata.x: must be a finite number"),
    ],
    ids=str,
)
def test_values_that_break_a_rule_are_refused(store: SyncStore, fields: dict[str, Any], message: str) -> None:
    store.documents.store_document("p", "1", [node("a")])
    before = store.documents.get_document("p")
    with pytest.raises(InvalidInput) as caught:
        store.documents.update_node("p", "a", **fields)
    assert str(caught.value).startswith(message)
    assert store.documents.get_document("p") == before
