"""Bad input: refused by one clear line that names the field, the node and the rule, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, cast

import pytest

from tests.contract.samples import deep, manual, node
from tests.stores import SyncStore
from treestore import Envelope, InvalidInput

FAR_EAST = timezone(timedelta(hours=14))


def levels(count: int) -> Any:
    value: Any = 1
    for _ in range(count):
        value = [value]
    return value


def nested_levels(count: int) -> dict[str, Any]:
    top = below = node("top")
    for at in range(count):
        below["nodes"] = [node(f"n{at}")]
        del below["nodes"][0]["parent_id"]
        below = below["nodes"][0]
    del top["parent_id"]
    return top


NODES: list[tuple[str, Any, str]] = [
    ("duplicate id", [node("a"), node("b"), node("a")], "node 'a'"),
    ("unknown parent", [node("a", "zz")], "node 'a': parent_id"),
    ("own parent", [node("a", "a")], "node 'a'"),
    ("cycle", [node("r"), node("a", "c"), node("b", "a"), node("c", "b")], "cycle"),
    ("too deep, flat", list(deep(201)), "200 levels"),
    ("100,000 levels, flat", list(deep(100_000)), "200 levels"),
    ("100,000 levels, nested", [nested_levels(100_000)], "200 levels"),
    ("start above end", [node("a", page_start=3, page_end=2)], "node 'a': page_start"),
    ("start alone", [node("a", page_start=3)], "node 'a': page_"),
    ("end alone", [node("a", page_end=3)], "node 'a': page_"),
    ("NUL in the text", [node("a", text="x\0")], "node 'a': text: must not contain NUL"),
    ("NUL in the id", [node("a\0b")], "node_id: must not contain NUL"),
    ("NUL in metadata", [node("a", metadata={"k": ["\0"]})], "node 'a': metadata.k[0]: must not contain NUL"),
    ("NUL in a key", [node("a", extra={"\0": 1})], "node 'a': extra"),
    ("surrogate in the title", [node("a", title="\udfff")], "node 'a': title: must not contain a lone surrogate"),
    ("surrogate in the summary", [node("a", summary="\ud800x")], "node 'a': summary: must not contain a lone surrogate"),
    ("surrogate in an unknown key", [node("a", other="\ud800")], "node 'a'"),
    ("page as float", [node("a", page_start=1.0, page_end=2)], "node 'a': page_start: must be an integer, not 1.0"),
    ("page as boolean", [node("a", page_start=True, page_end=2)], "node 'a': page_start: must be an integer, not True"),
    ("page as string", [node("a", start_index="1", end_index=2)], "must be an integer, not '1'"),
    ("negative page", [node("a", page_start=-1, page_end=2)], "node 'a': page_start: must be from 0 to 2147483647"),
    ("page over 32 bits", [node("a", page_start=1, page_end=2**31)], "node 'a': page_end: must be from 0 to 2147483647"),
    ("line over 32 bits", [node("a", line_num=10**30)], "node 'a': line_num: must be from 0 to 2147483647"),
    ("page index as string", [node("a", page_index="x")], "node 'a': page_index: must be an integer"),
    ("empty id", [node("")], "node_id: must not be empty"),
    ("no id", [{"title": "a"}], "node_id"),
    ("over-long id", [node("x" * 101)], "node_id: is 101 characters long, at most 100 are allowed"),
    ("id as number", [node("a") | {"node_id": 7}], "node_id: must be a string, not 7"),
    ("over-long section path", [node("a", section_path="x" * 501)], "node 'a': section_path: is 501 characters long"),
    ("no title", [{"node_id": "a"}], "node 'a': title"),
    ("title as number", [node("a") | {"title": 1}], "node 'a': title: must be a string, not 1"),
    ("text as bytes", [node("a", text=b"x")], "node 'a': text: must be a string"),
    ("unknown status", [node("a", validation_status="done")], "node 'a': validation_status: must be one of pending"),
    ("metadata as list", [node("a", metadata=[1])], "node 'a': metadata: must be an object"),
    ("infinite number", [node("a", metadata={"x": float("inf")})], "node 'a': metadata.x: must be a finite number"),
    ("not a number", [node("a", score=float("nan"))], "must be a finite number, not nan"),
    ("huge integer", [node("a", metadata={"x": 2**64})], "node 'a': metadata.x: must be an integer from -2**63 to 2**64 - 1"),
    ("deep JSON", [node("a", metadata={"x": levels(100)})], "node 'a': metadata: is nested more than 100 levels deep"),
    ("no JSON value", [node("a", metadata={"x": {1}})], "node 'a': metadata.x: must be a JSON value"),
    ("key is no string", [node("a", metadata={1: 2})], "node 'a': metadata: keys must be strings, not 1"),
    ("a node is no object", [node("a"), "b"], "must be"),
    ("nodes is a string", "nodes", "must be"),
    ("nodes is one object", node("a"), "must be"),
    ("nodes is a number", 1, "must be"),
    ("children are no list", [node("a") | {"nodes": "b"}], "node 'a': nodes"),
    ("child contradicts its place", [node("a", nodes=[node("b", "c")])], "node 'b': parent_id"),
]


def refused(store: SyncStore, message: str, store_it: Callable[[], Any]) -> None:
    """Refused in one short line that holds ``message``, and nothing written."""
    before = store.versions.list("p", include_deleted=True), store.documents.get_document("p")
    with pytest.raises(InvalidInput) as caught:
        store_it()
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    assert (store.versions.list("p", include_deleted=True), store.documents.get_document("p")) == before
    assert [summary.policy_id for summary in store.documents.list_documents()] == ["p"]


@pytest.mark.parametrize(("nodes", "message"), [case[1:] for case in NODES], ids=[case[0] for case in NODES])
def test_nodes(store: SyncStore, nodes: Any, message: str) -> None:
    store.documents.store_document("p", "1", manual())
    refused(store, message, lambda: store.documents.store_document("p", "1", nodes))
    refused(store, message, lambda: store.documents.store_document("new", "1", nodes))


COLUMNS: list[tuple[str, Any, str]] = [
    ("pageindex_doc_id", "x" * 65, "pageindex_doc_id: is 65 characters long, at most 64 are allowed"),
    ("pageindex_doc_id", None, "pageindex_doc_id: must be a string, not None"),
    ("pdf_sha256", "x" * 65, "pdf_sha256: is 65 characters long"),
    ("markdown_ptr", "\0", "markdown_ptr: must not contain NUL"),
    ("tree_json_ptr", 1, "tree_json_ptr: must be a string, not 1"),
    ("source_url", "\udc80", "source_url: must not contain a lone surrogate"),
    ("tree_validated_by", "x" * 101, "tree_validated_by: is 101 characters long"),
    ("description", b"x", "description: must be a string"),
    ("created_by", None, "created_by: must be a string, not None"),
    ("metadata", [], "metadata: must be an object"),
    ("metadata", {"a": {"b": "\0"}}, "metadata.a.b: must not contain NUL"),
    ("metadata", {"a": object()}, "metadata.a: must be a JSON value"),
    ("tags", "tag", "tags: must be a list of strings"),
    ("tags", ["a", 1], "tags[1]: must be a string, not 1"),
    ("tags", ["a", "\0"], "tags[1]: must not contain NUL"),
    ("tags", 1, "tags: must be a list of strings"),
    ("effective_date", "2026-01-01", "effective_date: must be a datetime or a date, not '2026-01-01'"),
    ("effective_date", 20260101, "effective_date: must be a datetime or a date"),
    ("effective_date", datetime.min, "effective_date: is out of range"),
    ("effective_date", datetime.max.replace(tzinfo=UTC), "effective_date: is out of range"),
    ("effective_date", datetime(1, 1, 1, tzinfo=FAR_EAST), "effective_date: is out of range"),
    ("revision_date", True, "revision_date: must be a datetime or a date"),
    ("tree_validated_at", 1.5, "tree_validated_at: must be a datetime or a date"),
    ("pageindex", {}, "pageindex: must be an Envelope"),
    (
        "pageindex",
        Envelope(shape="pdf", fields={"x": "\0"}, keys=(), node_keys=()),
        "pageindex.fields.x: must not contain NUL",
    ),
    ("pageindex", Envelope(shape="pdf", fields={}, keys=("\0",), node_keys=()), "pageindex.keys[0]: must not contain NUL"),
    ("pageindex", Envelope(shape=cast(Any, "html"), fields={}, keys=(), node_keys=()), "pageindex.shape: must be one of pdf"),
    ("pages", [{"page": 1, "content": "x"}, {"page": 1, "content": "y"}], "page"),
    ("pages", [{"page": 1}], "content"),
    ("pages", [{"content": ""}], "page"),
    ("pages", [{"page": -1, "content": ""}], "must be from 0 to 2147483647"),
    ("pages", [{"page": True, "content": ""}], "must be an integer, not True"),
    ("pages", [{"page": 2**31, "content": ""}], "must be from 0 to 2147483647"),
    ("pages", [{"page": 1, "content": "\udc80"}], "must not contain a lone surrogate"),
    ("pages", [{"page": 1, "content": "", "x": "\0"}], "must not contain NUL"),
    ("pages", [{"page": 1, "content": "", "x": "\ud800"}], "must not contain a lone surrogate"),
    ("pages", ["page"], "must be"),
    ("pages", 3, "must be"),
]


@pytest.mark.parametrize(("column", "value", "message"), COLUMNS, ids=[f"{at}-{case[0]}" for at, case in enumerate(COLUMNS)])
def test_columns_and_pages(store: SyncStore, column: str, value: Any, message: str) -> None:
    store.documents.store_document("p", "1", manual())
    given: dict[str, Any] = {column: value}
    refused(store, message, lambda: store.documents.store_document("p", "1", manual(), **given))
    refused(store, message, lambda: store.documents.store_document("new", "1", manual(), **given))


BAD_IDS: list[tuple[Any, str]] = [
    ("", "must not be empty"),
    ("x" * 101, "is 101 characters long"),
    ("a\0b", "must not contain NUL"),
    ("\ud83d", "must not contain a lone surrogate"),
    (7, "must be a string, not 7"),
    (b"x", "must be a string"),
]

VERBS: dict[str, Callable[[SyncStore, Any], Any]] = {
    "policy_id of store_document": lambda store, bad: store.documents.store_document(bad, "1", manual()),
    "version_id of store_document": lambda store, bad: store.documents.store_document("p", bad, manual()),
    "policy_id of get_document": lambda store, bad: store.documents.get_document(bad),
    "version_id of get_document": lambda store, bad: store.documents.get_document("p", version_id=bad),
    "after of list_documents": lambda store, bad: store.documents.list_documents(after=bad),
    "policy_id of delete_version": lambda store, bad: store.documents.delete_version(bad, "1"),
    "version_id of delete_version": lambda store, bad: store.documents.delete_version("p", bad),
    "policy_id of delete_document": lambda store, bad: store.documents.delete_document(bad),
    "policy_id of get_node": lambda store, bad: store.documents.get_node(bad, "a"),
    "node_id of get_node": lambda store, bad: store.documents.get_node("p", bad),
    "version_id of get_node": lambda store, bad: store.documents.get_node("p", "a", version_id=bad),
    "node_ids[1] of get_nodes": lambda store, bad: store.documents.get_nodes("p", ["a", bad]),
    "node_ids[1] of get_outlines": lambda store, bad: store.documents.get_outlines("p", ["a", bad]),
    "parent_id of get_children": lambda store, bad: store.documents.get_children("p", bad),
    "node_id of get_subtree": lambda store, bad: store.documents.get_subtree("p", bad),
    "node_id of get_outline": lambda store, bad: store.documents.get_outline("p", bad),
    "node_id of get_ancestor_path": lambda store, bad: store.documents.get_ancestor_path("p", bad),
    "policy_id of update_node": lambda store, bad: store.documents.update_node(bad, "a", title="x"),
    "node_id of update_node": lambda store, bad: store.documents.update_node("p", bad, title="x"),
    "version_id of get_page_text": lambda store, bad: store.documents.get_page_text("p", 1, version_id=bad),
    "policy_id of get_page_texts": lambda store, bad: store.documents.get_page_texts(bad),
    "policy_id of get": lambda store, bad: store.versions.get(bad, "1"),
    "version_id of get": lambda store, bad: store.versions.get("p", bad),
    "policy_id of list": lambda store, bad: store.versions.list(bad),
    "policy_id of latest": lambda store, bad: store.versions.latest(bad),
    "policy_id of get_version_as_of": lambda store, bad: store.versions.get_version_as_of(bad, date(2026, 1, 1)),
    "policy_id of set_effective_date": lambda store, bad: store.versions.set_effective_date(bad, "1", date(2026, 1, 1)),
    "version_id of set_effective_date": lambda store, bad: store.versions.set_effective_date("p", bad, date(2026, 1, 1)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_ids_in_every_verb(store: SyncStore, verb: str) -> None:
    store.documents.store_document("p", "1", manual())
    for bad, rule in BAD_IDS:
        refused(store, f"{verb.split()[0]}: {rule}", lambda bad=bad: VERBS[verb](store, bad))  # type: ignore[misc]


def test_a_version_id_has_at_most_fifty_characters(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual())
    refused(store, "version_id: is 51 characters long", lambda: store.documents.store_document("p", "v" * 51, manual()))


ARGUMENTS: dict[str, Callable[[SyncStore, Any], Any]] = {
    "max_depth of get_subtree": lambda store, bad: store.documents.get_subtree("p", "a", bad),
    "max_depth of get_outline": lambda store, bad: store.documents.get_outline("p", None, bad),
    "limit": lambda store, bad: store.documents.list_documents(limit=bad),
    "page": lambda store, bad: store.documents.get_page_text("p", bad),
    "first": lambda store, bad: store.documents.get_page_texts("p", bad),
    "last": lambda store, bad: store.documents.get_page_texts("p", None, bad),
}


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("bad", [-1, 1.0, True, "1", 2**31, b"1"], ids=repr)
def test_numbers_that_are_asked_for(store: SyncStore, argument: str, bad: Any) -> None:
    store.documents.store_document("p", "1", manual())
    refused(store, f"{argument.split()[0]}: must be ", lambda: ARGUMENTS[argument](store, bad))


def test_limits_and_ranges(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual())
    documents = store.documents
    refused(store, "limit: must be from 1 to 1000000, not 0", lambda: documents.list_documents(limit=0))
    refused(store, "limit: must be from 1 to 1000000, not 1000001", lambda: documents.list_documents(limit=1_000_001))
    assert len(documents.list_documents(limit=1_000_000)) == 1
    refused(store, "first: must not be above last (3 > 2)", lambda: documents.get_page_texts("p", 3, 2))
    refused(store, "node_ids: must be a list of node ids, not 'abc'", lambda: documents.get_nodes("p", "abc"))
    bad: Any = 5
    refused(store, "node_ids: must be a list of node ids, not 5", lambda: documents.get_nodes("p", bad))
    too_many = ("a" for _ in range(1_000_001))
    refused(store, "node_ids: must be at most 1000000 ids", lambda: documents.get_nodes("p", too_many))


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ("2026-01-01", "must be a datetime or a date"),
        (None, "must be a datetime or a date"),
        (1, "must be a datetime or a date"),
        (datetime(1, 1, 1, tzinfo=FAR_EAST), "is out of range"),
    ],
    ids=repr,
)
def test_dates(store: SyncStore, bad: Any, rule: str) -> None:
    store.documents.store_document("p", "1", manual())
    versions = store.versions
    refused(store, f"date: {rule}", lambda: versions.get_version_as_of("p", bad))
    refused(store, f"effective_date: {rule}", lambda: versions.set_effective_date("p", "1", bad))
    if bad is not None:
        refused(store, f"known_at: {rule}", lambda: versions.get_version_as_of("p", date(2026, 1, 1), bad))


def test_the_first_and_the_last_day_can_be_asked_about(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual(), effective_date=date(1, 1, 2))
    assert store.versions.get_version_as_of("p", date.max).version_id == "1"
    assert store.versions.get_version_as_of("p", datetime.max).version_id == "1"
    assert store.versions.get_version_as_of("p", date(1, 1, 2)).effective_date == datetime(1, 1, 2, tzinfo=UTC)
