"""The rows of postings in the native store: damage is noticed and never read as an answer, and no change loses one."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

import treestore
from tests.contract.samples import node
from treestore import Corrupted, SyncTreeStore
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.keyspace import ANALYZER, COUNTERS, LENGTHS, POSTINGS, posting_key, two_numbers
from treestore.operations import Operation, WriteGroup
from treestore.search import analyzer

ROW = posting_key(1, 0, "")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SyncTreeStore]:
    with treestore.open_sync(f"btree:///{tmp_path / 'store'}") as store:
        store.documents.store_document("p", "1", [node(name, text="word other") for name in "abc"])
        yield store


def put(store: SyncTreeStore, tree: int, key: bytes, value: bytes | None) -> None:
    backend = cast(BtreeBackend, store._driver.backend)
    backend._committer.commit(lambda state: [TreeChange(tree, [key], [value])])


def row(store: SyncTreeStore) -> dict[str, Any]:
    with cast(BtreeBackend, store._driver.backend)._engine.reading() as state:
        stored = state.get(POSTINGS, ROW)
    assert stored is not None
    return dict(zip(*msgspec.msgpack.decode(stored), strict=True))


def places(*numbers: int) -> bytes:
    return array("H", numbers).tobytes()


HOSTILE_BLOCKS: dict[str, Any] = {
    "a place beyond the last node": [[4, 1, 3]],
    "a place beyond, and not at the end": [[4, 1, b"\0\0\x63\0\1\0"]],
    "a place far beyond": [[4, 1, 2**64 - 1]],
    "a place below 0": [[4, 1, -1]],
    "a frequency of 0": [[4, 0, 1]],
    "a length of 0": [[0, 1, 1]],
    "no place": [[4, 1, b""]],
    "half a place": [[4, 1, b"\0\0\0"]],
    "two groups of one kind": [[4, 1, 0], [5, 1, places(1, 2)]],
    "groups out of order": [[4, 2, 0], [4, 1, places(1, 2)]],
    "a string": [[4, 1, "x"]],
    "no block": 7,
}


@pytest.mark.parametrize("block", HOSTILE_BLOCKS.values(), ids=HOSTILE_BLOCKS)
def test_a_block_that_says_what_cannot_be(store: SyncTreeStore, block: Any) -> None:
    terms = {**row(store), "word": block}
    put(store, POSTINGS, ROW, msgspec.msgpack.encode((list(terms), list(terms.values()))))
    with pytest.raises(Corrupted):
        store.documents.search_nodes("p", "word other")
    assert [hit.node.node_id for hit in store.documents.search_nodes("p", "other")] == ["a", "b", "c"]
    assert store.check().problems != []


@pytest.mark.parametrize("block", [[[4, 1, places(2, 1, 0)]], [[4, 1, places(1, 1, 2)]], [[5, 1, places(0, 1, 2)]]])
def test_what_only_reading_all_of_it_can_tell_is_found_by_a_check(store: SyncTreeStore, block: Any) -> None:
    terms = {**row(store), "word": block}
    put(store, POSTINGS, ROW, msgspec.msgpack.encode((list(terms), list(terms.values()))))
    assert store.check().problems != []


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xc1", msgspec.msgpack.encode((["word"], [])), msgspec.msgpack.encode(([7], [7])), b"\x92\x90" + b"\x91" * 99_999],
    ids=["nothing", "no MessagePack", "a block too few", "wrong types", "deep"],
)
def test_a_row_that_is_none(store: SyncTreeStore, raw: bytes) -> None:
    put(store, POSTINGS, ROW, raw)
    with pytest.raises(Corrupted):
        store.documents.search_nodes("p", "word")
    with pytest.raises(Corrupted):
        store.documents.update_node("p", "a", text="amended")
    assert store.check().problems != []


def test_rows_and_lengths_that_are_missing_or_left_over(store: SyncTreeStore) -> None:
    put(store, LENGTHS, two_numbers(1, 0), places(4, 4))
    with pytest.raises(Corrupted, match="the lengths of 3 nodes take 4 bytes"):
        store.documents.search_nodes("p", "word")
    put(store, LENGTHS, two_numbers(1, 0), None)
    with pytest.raises(Corrupted, match="has no lengths of nodes"):
        store.documents.search_nodes("p", "word")
    put(store, POSTINGS, ROW, None)
    with pytest.raises(Corrupted, match="has no postings"):
        store.documents.search_nodes("p", "other")  # what was read of "word" is kept
    assert store.check().problems != []


@pytest.mark.parametrize("key", [posting_key(1, 1, ""), posting_key(1, 0, "") + b"\xff", b"\0\0\0\1", posting_key(9, 0, "")])
def test_a_row_that_belongs_to_nothing_is_found_by_a_check(store: SyncTreeStore, key: bytes) -> None:
    put(store, POSTINGS, key, msgspec.msgpack.encode(([], [])))
    assert store.check().problems != []


def test_a_counter_of_analyzers_that_is_lost_stops_nothing(store: SyncTreeStore) -> None:
    put(store, COUNTERS, ANALYZER + analyzer.VERSION.encode(), None)
    assert "the counters of versions by analyzer" in store.check().problems[0]
    store.documents.update_node("p", "a", text="amended")
    store.documents.delete_version("p", "1")


def test_amendments_under_another_analyzer_stay_to_be_made_anew(store: SyncTreeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(analyzer, "VERSION", "2 newer")
        store.documents.update_node("p", "a", text="fresh wording")
        store.documents.update_node("p", "b", text="fresh again")
        assert store.check().problems == []
    with pytest.raises(treestore.NotSearchable, match="amended since"):  # this analyzer did not see the amendments
        store.documents.search_nodes("p", "fresh")
    assert store.documents.reindex() == 1
    assert [hit.node.node_id for hit in store.documents.search_nodes("p", "fresh")] == ["a", "b"]
    assert store.check().problems == []


def test_a_version_stored_anew_during_a_reindex_stays_as_it_was_stored(
    store: SyncTreeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(analyzer, "VERSION", "0 older")
        for policy in ("x", "y"):
            store.documents.store_document(policy, "1", [node("a", text="word")])
    plan = type(store.documents).reindex.plan(store.documents)  # step by step, with another writer between two steps
    answer: Any = None
    backend = cast(BtreeBackend, store._driver.backend)
    try:
        while True:
            request = plan.send(answer)
            if isinstance(request, WriteGroup):
                answer = backend.write_now(request)
                store.documents.store_document("y", "1", [node("a", text="word")], searchable=False)
            elif isinstance(request, Operation):
                answer = backend.read_one_now(request)
            else:
                answer = None if request is None or not isinstance(request, tuple) else backend.read_now(request)
    except StopIteration as end:
        assert end.value == 1
    assert store.versions.get("y", "1").analyzer == ""
    assert store.check().problems == []
