"""Storing documents: what is kept, and what the answer says."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from tests.clock import SetClock
from tests.contract.samples import ALL_PLANES, MANUAL_IDS, bushy, deep, manual, nested, node, wide
from tests.stores import SyncStore
from treestore import Envelope, NotFound, PageText


def test_a_new_version_is_created_with_its_counts_and_hashes(store: SyncStore, clock: SetClock) -> None:
    result = store.documents.store_document("p", "1", manual(), pages=[PageText(page=1, content="one")])

    assert (result.outcome, result.policy_id, result.version_id) == ("created", "p", "1")
    assert (result.node_count, result.page_count, len(result.tree_hash)) == (7, 1, 32)
    version = store.versions.get("p", "1")
    assert (version.node_count, version.root_count, version.page_count) == (7, 2, 1)
    assert version.tree_hash == result.tree_hash
    assert version.created_at == version.ingested_at == version.updated_at == clock.now
    assert (version.revision, [fact.kind for fact in version.facts]) == (1, ["ingested"])


def test_nodes_come_back_as_given_in_document_order_with_everything_derived(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual())

    nodes = store.documents.get_document("p").nodes
    assert [one.node_id for one in nodes] == MANUAL_IDS
    assert [one.ordinal for one in nodes] == [0, 1, 2, 3, 4, 5, 6]
    assert [one.last_ordinal for one in nodes] == [4, 3, 2, 3, 4, 6, 6]
    assert [one.parent_ordinal for one in nodes] == [-1, 0, 1, 1, 0, -1, 5]
    assert [one.depth for one in nodes] == [0, 1, 2, 2, 1, 0, 1]
    assert [one.section_path for one in nodes] == ["1", "1.1", "1.1.1", "1.1.2", "1.2", "2", "Part Two > First"]
    for given, kept in zip(manual(), nodes, strict=True):
        for field, value in given.items():
            assert getattr(kept, field) == value, field
        assert (kept.policy_id, kept.version_id, kept.updated_at) == ("p", "1", None)


def test_absent_and_empty_texts_are_kept_apart(store: SyncStore) -> None:
    store.documents.store_document(
        "p", "1", [node("absent"), node("empty", text="", summary="", prefix_summary="", metadata={})]
    )

    absent, empty = store.documents.get_document("p").nodes
    assert (absent.text, absent.summary, absent.prefix_summary, absent.metadata, absent.text_hash) == (None,) * 5
    assert (empty.text, empty.summary, empty.prefix_summary, empty.metadata) == ("", "", "", {})
    assert empty.text_hash is not None


def test_nested_and_flat_input_give_the_same_tree_whatever_the_order_of_the_flat_one(store: SyncStore) -> None:
    flat = store.documents.store_document("p", "flat", manual())
    shuffled = store.documents.store_document("p", "shuffled", [manual()[at] for at in (3, 4, 6, 0, 5, 1, 2)])
    deeper = store.documents.store_document("p", "nested", nested())

    assert flat.tree_hash == deeper.tree_hash
    a1y_first = store.documents.get_children("p", "a1", version_id="shuffled")
    assert [one.node_id for one in a1y_first] == ["a1y", "a1x"], "siblings keep the order in which they are given"
    assert shuffled.tree_hash != flat.tree_hash


def test_what_was_read_can_be_stored_again_unchanged(store: SyncStore) -> None:
    pages = [{"page": 2, "content": "two", "images": []}, {"page": 1, "content": ""}]
    first = store.documents.store_document("p", "1", manual(), pages=pages)
    document = store.documents.get_document("p")

    assert store.documents.store_document("p", "1", document.nodes, pages=document.pages).outcome == "unchanged"
    copy = store.documents.store_document("q", "9", document.nodes, pages=document.pages)
    assert (copy.outcome, copy.tree_hash) == ("created", first.tree_hash)


ENVELOPE = Envelope(shape="pdf", fields={"doc_name": "a.pdf", "n": 1.0}, keys=("doc_name", "structure"), node_keys=("title",))

COLUMNS: dict[str, Any] = {
    "pageindex_doc_id": "pi-1",
    "pdf_sha256": "f" * 64,
    "markdown_ptr": "s3://bucket/a.md",
    "tree_json_ptr": "s3://bucket/a.json",
    "source_url": "https://example.org/a.pdf",
    "effective_date": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "revision_date": datetime(2025, 12, 31, tzinfo=UTC),
    "tree_validated_by": "someone",
    "tree_validated_at": datetime(2026, 2, 1, tzinfo=UTC),
    "metadata": {"payer": "x", "tags": ["a", {"b": None}], "weight": 1.5, "big": 2**64 - 1, "small": -(2**63), "yes": True},
    "description": ALL_PLANES,
    "created_by": "ingest",
    "tags": ("one", "two", "one"),
    "pageindex": ENVELOPE,
}


def test_all_columns_of_a_version_are_kept(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual(), **COLUMNS)

    version = store.versions.get("p", "1")
    for column, value in COLUMNS.items():
        assert getattr(version, column) == value, column
    assert version.metadata is not None
    assert [type(version.metadata[key]) for key in ("weight", "big", "yes")] == [float, int, bool]
    assert version.pageindex is not None and type(version.pageindex.fields["n"]) is float


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "effective_date"])
def test_a_column_not_given_again_is_replaced_by_its_default(store: SyncStore, clock: SetClock, column: str) -> None:
    store.documents.store_document("p", "1", manual(), **COLUMNS)
    before = store.versions.get("p", "1")
    later = clock.advance(hours=1)

    rest = {name: value for name, value in COLUMNS.items() if name != column}
    assert store.documents.store_document("p", "1", manual(), **rest).outcome == "replaced"
    after = store.versions.get("p", "1")
    assert getattr(after, column) != COLUMNS[column]
    assert after.ingested_at == before.ingested_at, "the content is the same, so it was not ingested again"
    assert (after.updated_at, after.facts, after.tree_hash) == (later, before.facts, before.tree_hash)


def test_equal_content_and_columns_change_nothing_at_all(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual(), **COLUMNS)
    before = store.versions.get("p", "1")
    clock.advance(days=1)

    assert store.documents.store_document("p", "1", manual(), **COLUMNS).outcome == "unchanged"
    undated = {**COLUMNS, "effective_date": None}
    assert store.documents.store_document("p", "1", nested(), **undated).outcome == "unchanged", "no date keeps the known one"
    assert store.versions.get("p", "1") == before


@pytest.mark.parametrize(("before", "after"), [(1, 1.0), (1, True), (0, False), (0.0, -0.0)])
@pytest.mark.parametrize("place", ["version", "node", "envelope", "page"])
def test_values_that_python_takes_for_equal_but_json_does_not_are_a_change(
    store: SyncStore, before: Any, after: Any, place: str
) -> None:
    def put(value: Any) -> str:
        return store.documents.store_document(
            "p",
            "1",
            [node("a", metadata={"v": value} if place == "node" else None)],
            metadata={"v": value} if place == "version" else None,
            pageindex=Envelope(shape="pdf", fields={"v": value}, keys=(), node_keys=()) if place == "envelope" else None,
            pages=[{"page": 1, "content": "", "v": value if place == "page" else 0}],
        ).outcome

    assert [put(before), put(after), put(after)] == ["created", "replaced", "unchanged"]


CHANGES: dict[str, Any] = {
    "node_id": "other",
    "title": "other",
    "page_start": 0,
    "page_end": 10,
    "page_index": 5,
    "line_num": 5,
    "summary": "other",
    "prefix_summary": "other",
    "section_path": "other",
    "validation_status": "flagged",
    "metadata": {"tier": 2},
    "extra": {"tier": 2},
    "text": "other",
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_change_of_any_field_replaces(store: SyncStore, clock: SetClock, field: str) -> None:
    store.documents.store_document("p", "1", [node("a", page_start=1, page_end=9), node("b")])
    created = clock.now
    later = clock.advance(hours=1)

    changed = [node("a", page_start=1, page_end=9) | {field: CHANGES[field]}, node("b")]
    assert store.documents.store_document("p", "1", changed).outcome == "replaced"
    assert getattr(store.documents.get_document("p").nodes[0], field) == CHANGES[field]
    version = store.versions.get("p", "1")
    assert (version.created_at, version.ingested_at, version.updated_at, version.revision) == (created, later, later, 2)
    assert [(fact.kind, fact.recorded_at) for fact in version.facts] == [("ingested", created), ("ingested", later)]


def test_a_change_of_the_order_of_siblings_or_pages_replaces(store: SyncStore) -> None:
    pages = [{"page": 1, "content": "one"}, {"page": 2, "content": "two"}]
    store.documents.store_document("p", "1", [node("a"), node("b")], pages=pages)

    assert store.documents.store_document("p", "1", [node("b"), node("a")], pages=pages).outcome == "replaced"
    assert store.documents.store_document("p", "1", [node("b"), node("a")], pages=pages[::-1]).outcome == "replaced"
    document = store.documents.get_document("p")
    assert [one.node_id for one in document.nodes] == ["b", "a"]
    assert [page.page for page in document.pages] == [2, 1]


def test_replacing_by_fewer_nodes_leaves_nothing_of_the_others(store: SyncStore) -> None:
    store.documents.store_document("p", "1", manual(), pages=[{"page": 1, "content": "one"}])
    store.documents.store_document("p", "1", [node("b", text="only")])

    assert [one.node_id for one in store.documents.get_document("p").nodes] == ["b"]
    assert store.documents.get_document("p").pages == []
    for node_id in ("a", "a1x", "b1"):
        with pytest.raises(NotFound):
            store.documents.get_node("p", node_id)
    assert (store.stats().nodes, store.stats().versions) == (1, 1)


def test_versions_of_one_policy_and_equal_names_in_others_do_not_touch_each_other(store: SyncStore) -> None:
    policies = ["p", "p ", "P", "p.1", "p1", "pq", "é", "e\u0301", "\U0010ffff", "￿"]
    for policy_id in policies:
        for version_id in ("1", "1.0", "10"):
            store.documents.store_document(policy_id, version_id, [node("a", text=f"{policy_id}/{version_id}")])

    store.documents.delete_version("p", "1")
    for policy_id in policies:
        for version_id in ("1", "1.0", "10"):
            if (policy_id, version_id) != ("p", "1"):
                text = store.documents.get_node(policy_id, "a", version_id=version_id).text
                assert text == f"{policy_id}/{version_id}"
    assert [summary.policy_id for summary in store.documents.list_documents()] == sorted(policies)


@pytest.mark.parametrize("text", [ALL_PLANES, "x" * 55_000, "é" * 100_000, " ", "\x01\x1b[31m", "[red]bold[/]"])
def test_texts_of_all_kinds_come_back_equal(store: SyncStore, text: str) -> None:
    given = node(
        "id " + text[:90], None, title=text, summary=text, text=text, section_path=text[:500], metadata={text: [text]}
    )
    store.documents.store_document("policy " + text[:90], "v " + text[:45], [given], pages=[{"page": 0, "content": text}])

    kept = store.documents.get_node("policy " + text[:90], "id " + text[:90], version_id="v " + text[:45])
    assert (kept.title, kept.summary, kept.text, kept.section_path) == (text, text, text, text[:500])
    assert kept.metadata == {text: [text]}
    assert store.documents.get_page_text("policy " + text[:90], 0).content == text


def test_page_texts_may_hold_nul_as_pdf_extractors_give_it(store: SyncStore) -> None:
    for content in ("\0", "a\0b\0", "\0" * 20_000):
        store.documents.store_document("p", "1", [], pages=[{"page": 1, "content": content}])
        assert store.documents.get_page_text("p", 1).content == content


def test_a_document_without_nodes_is_a_document(store: SyncStore) -> None:
    assert store.documents.store_document("p", "1", []).outcome == "created"
    assert store.documents.store_document("p", "1", ()).outcome == "unchanged"
    assert store.documents.get_document("p").nodes == []
    assert store.documents.get_children("p") == store.documents.get_outline("p") == []
    assert store.documents.store_document("p", "1", [node("a")]).outcome == "replaced"
    assert store.documents.store_document("p", "1", []).outcome == "replaced"
    assert store.versions.get("p", "1").node_count == 0


def test_a_wide_a_deep_and_a_large_tree(store: SyncStore) -> None:
    for policy_id, tree, count in (("wide", wide(5000), 5001), ("deep", deep(200), 200), ("bushy", bushy(5000), 5000)):
        given = list(tree)
        assert store.documents.store_document(policy_id, "1", given).node_count == count
        nodes = store.documents.get_document(policy_id).nodes
        assert {one.node_id: one.text for one in nodes} == {one["node_id"]: one.get("text") for one in given}
        assert [one.ordinal for one in nodes] == list(range(count))

    assert [one.ordinal for one in store.documents.get_children("wide", "root")] == list(range(1, 5001))
    path = store.documents.get_ancestor_path("deep", "level 199")
    assert [one.depth for one in path] == list(range(200))
    assert len(store.documents.get_subtree("bushy", "00000", 3)) == 1 + 8 + 64 + 512


def test_nodes_may_come_from_a_generator_and_numbers_reach_their_limits(store: SyncStore) -> None:
    top = 2**31 - 1
    given = (node(name, page_start=0, page_end=top, page_index=top, line_num=0) for name in "ab")
    store.documents.store_document("p" * 100, "v" * 50, given, pages=iter([{"page": top, "content": ""}]))

    kept = store.documents.get_node("p" * 100, "a")
    assert (kept.page_start, kept.page_end, kept.page_index, kept.line_num) == (0, top, top, 0)
    assert store.documents.get_page_text("p" * 100, top).content == ""


def test_who_changes_what_was_given_or_returned_does_not_change_the_store(store: SyncStore) -> None:
    metadata = {"list": [1], "dict": {"a": 1}}
    given = node("a", metadata=metadata, extra={"list": [1]})
    envelope = Envelope(shape="pdf", fields={"list": [1]}, keys=(), node_keys=())
    page = PageText(page=1, content="", extra={"list": [1]})
    store.documents.store_document("p", "1", [given], metadata=metadata, pageindex=envelope, pages=[page])

    def spoil(value: dict[str, Any] | None) -> None:
        assert value is not None
        value["list"].append(2)
        value["new"] = True

    def spoil_all() -> None:
        document = store.documents.get_document("p")
        assert document.version.pageindex is not None
        for value in (document.version.metadata, document.version.pageindex.fields, document.pages[0].extra):
            spoil(value)
        summary = store.documents.list_documents()[0]
        read = [*document.nodes, *store.documents.get_outline("p"), *store.documents.get_children("p")]
        read += [store.documents.get_node("p", "a"), *store.documents.get_ancestor_path("p", "a")]
        for one in read:
            spoil(one.metadata)
            spoil(one.extra)
        for version in (summary.version, store.versions.get("p", "1"), *store.versions.list("p")):
            spoil(version.metadata)

    spoil(metadata)
    spoil(given["extra"])
    spoil(envelope.fields)
    spoil(page.extra)
    spoil_all()

    document = store.documents.get_document("p")
    assert document.nodes[0].metadata == document.version.metadata == {"list": [1], "dict": {"a": 1}}
    assert document.version.pageindex is not None
    assert document.nodes[0].extra == document.version.pageindex.fields == document.pages[0].extra == {"list": [1]}
    changed = store.documents.update_node("p", "a", title="amended", metadata={"list": [1]})
    spoil(changed.metadata)
    assert store.documents.get_node("p", "a").metadata == {"list": [1]}


def test_an_effective_date_is_a_fact_beside_the_ingestion(store: SyncStore, clock: SetClock) -> None:
    store.documents.store_document("p", "1", manual(), effective_date=date(2026, 5, 1))
    first = clock.now
    may, june = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    facts = store.versions.get("p", "1").facts
    assert [(f.kind, f.recorded_at, f.effective_date) for f in facts] == [
        ("ingested", first, None),
        ("effective", first, may),
    ]

    later = clock.advance(days=1)
    store.documents.store_document("p", "1", manual(), effective_date=june)
    version = store.versions.get("p", "1")
    assert (version.effective_date, version.ingested_at) == (june, first), "only a fact changed, the content did not"
    assert [(f.kind, f.recorded_at, f.effective_date) for f in version.facts[2:]] == [("effective", later, june)]

    latest = clock.advance(days=1)
    store.documents.store_document("p", "1", [node("new")])
    version = store.versions.get("p", "1")
    assert (version.effective_date, version.ingested_at) == (june, latest), "no date given keeps the one known"
    assert [(f.kind, f.recorded_at) for f in version.facts[3:]] == [("ingested", latest)]
