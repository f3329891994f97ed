"""What versions share in the native store is written once, stays in few runs and layers, and is salvaged with each of them."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

import treestore
from tests.contract.samples import node
from treestore import Corrupted, SyncTreeStore, Unavailable
from treestore.backends.btree import backend as backend_module
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.content import most_runs
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.keyspace import (
    HEADS,
    LAYOUTS,
    MAX_NUMBER,
    NODES,
    Head,
    Layout,
    decode,
    encode,
    number_key,
    two_numbers,
)
from treestore.backends.btree.layers import MOST_LAYERS
from treestore.backends.btree.maintenance import Checkpointer
from treestore.backends.btree.overlay import Overlay
from treestore.search.postings import SEGMENT_NODES

SECTIONS = 500
WORDS = [f"word{at}" for at in range(400)]


def document(count: int = SECTIONS, words: int = 60) -> list[dict[str, Any]]:
    """Sections in a tree of fan-out 8, with pages."""
    choose = random.Random(count)
    return [
        node(
            f"{at:04}",
            f"{(at - 1) // 8:04}" if at else None,
            text=" ".join(choose.choices(WORDS, k=words)),
            page_start=at,
            page_end=at + 1,
        )
        for at in range(count)
    ]


def changed(nodes: list[dict[str, Any]], *places: int) -> list[dict[str, Any]]:
    """The document with other texts at these places."""
    return [{**one, "text": f"{one['text']} revised"} if at in places else one for at, one in enumerate(nodes)]


class Put:
    """What groups put: entries by tree, and bytes, those of linked leaves included."""

    def __init__(self) -> None:
        self.entries: dict[int, int] = {}
        self.bytes = 0
        self.grafts = 0

    def note(self, changes: list[TreeChange]) -> None:
        for change in changes:
            count = len(change.keys) + sum(graft.entries for graft in change.grafts)
            self.entries[change.tree] = self.entries.get(change.tree, 0) + count
            self.bytes += sum(len(key) + len(value or b"") for key, value in zip(change.keys, change.values, strict=True))
            self.bytes += sum(8192 * count for graft in change.grafts for _, count in graft.runs)
            self.grafts += len(change.grafts)

    @property
    def count(self) -> int:
        """All entries."""
        return sum(self.entries.values())


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> list[Put]:
    """What each group has put, in order."""
    noted: list[Put] = []
    plain = Overlay.changes

    def changes(view: Overlay) -> list[TreeChange]:
        found = plain(view)
        noted.append(Put())
        noted[-1].note(found)
        return found

    monkeypatch.setattr(Overlay, "changes", changes)
    return noted


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SyncTreeStore]:
    with treestore.open_sync(f"btree:///{tmp_path / 'store'}") as store:
        yield store
        assert store.check().problems == []


def backend_of(store: SyncTreeStore) -> BtreeBackend:
    return cast(BtreeBackend, store._driver.backend)


def layout_of(store: SyncTreeStore, version: str) -> Layout:
    with backend_of(store)._engine.reading() as state:
        raw = state.get(LAYOUTS, number_key(1, version.encode()))
    assert raw is not None
    layout: Layout = decode(Layout, raw)
    return layout


def write(store: SyncTreeStore, tree: int, key: bytes, value: bytes | None) -> None:
    backend_of(store)._committer.commit(lambda state: [TreeChange(tree, [key], [value])])


# --- how much is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bulk", [False, True], ids=["logged", "large"])
@pytest.mark.parametrize("searchable", [False, True], ids=["plain", "searchable"])
def test_a_second_version_with_few_changes_writes_little(
    store: SyncTreeStore, put: list[Put], monkeypatch: pytest.MonkeyPatch, searchable: bool, bulk: bool
) -> None:
    if bulk:
        monkeypatch.setattr(backend_module, "BULK_BYTES", 100_000)
    store.documents.store_document("p", "1", document(), searchable=searchable)
    store.documents.store_document("p", "2", changed(document(), 120, 377), searchable=searchable)
    first, second = put
    assert bool(first.grafts) == bulk
    assert second.grafts == 0, "little goes through the log, however large the document is"
    assert second.count < 40
    assert second.bytes < first.bytes * 0.05
    for version, given in (("1", document()), ("2", changed(document(), 120, 377))):
        nodes = store.documents.get_document("p", version_id=version).nodes
        assert {one.node_id: one.text for one in nodes} == {one["node_id"]: one["text"] for one in given}


def test_an_unchanged_version_under_a_new_id_writes_almost_nothing(store: SyncTreeStore, put: list[Put]) -> None:
    pages = [{"page": at, "content": f"page {at}"} for at in range(40)]
    store.documents.store_document("p", "1", document(), pages=pages)
    store.documents.store_document("p", "2", document(), pages=pages)
    first, second = put
    assert first.count > 2 * SECTIONS
    assert second.count < 10
    assert second.bytes < 2000


def test_a_version_stored_anew_shares_with_what_it_was(store: SyncTreeStore, put: list[Put]) -> None:
    store.documents.store_document("p", "1", document())
    store.documents.store_document("p", "1", changed(document(), 7))
    assert put[1].count < 30 and put[1].bytes < put[0].bytes * 0.05
    assert store.stats().nodes == SECTIONS


def test_amending_what_is_shared_writes_the_way_to_the_root(store: SyncTreeStore, put: list[Put]) -> None:
    for version in "12":
        store.documents.store_document("p", version, document())
    for turn in range(2):
        store.documents.update_node("p", "0377", version_id="1", title=f"turn {turn}", summary="a word that is new")
        assert put[-1].entries[NODES] == 4, "the node and what is above it"
        assert put[-1].count < 40 and put[-1].bytes < put[0].bytes * 0.05
    assert store.documents.get_node("p", "0377", version_id="2").summary is None
    assert [hit.node.node_id for hit in store.documents.search_nodes("p", "turn new", version_id="1")] == ["0377"]
    assert store.documents.search_nodes("p", "turn new", version_id="2") == []


# --- runs and layers -----------------------------------------------------------------------------------------------------


def test_rows_that_would_lie_in_too_many_runs_are_written_anew(store: SyncTreeStore) -> None:
    store.documents.store_document("p", "1", document())
    store.documents.store_document("p", "2", changed(document(), *range(300, 500, 40)))
    assert 1 < len(layout_of(store, "2").rows) <= most_runs(SECTIONS)
    store.documents.store_document("p", "3", changed(document(), *range(0, 500, 2)))
    assert len(layout_of(store, "3").rows) == 1


def test_runs_and_layers_stay_few_through_any_number_of_amendments(store: SyncTreeStore) -> None:
    for version in "123":
        store.documents.store_document("p", version, document(40))
    most = 0
    for turn in range(3):
        for at in range(1, 40, 2):
            store.documents.update_node("p", f"{at:04}", version_id="1", title=f"turn {turn} of {at}")
            most = max(most, len(layout_of(store, "1").rows))
            assert len(layout_of(store, "1").rows) <= most_runs(40)
        store.documents.store_document("p", f"copy {turn}", store.documents.get_document("p", version_id="1").nodes)
        assert len(layout_of(store, "1").postings) <= MOST_LAYERS
        hits = store.documents.search_nodes("p", f"turn {turn}", version_id="1", limit=40)
        assert len([hit for hit in hits if f"turn {turn} " in hit.node.title]) == 20
    assert most > 1
    assert store.check().problems == []


def test_layers_of_postings_stay_few_through_any_number_of_versions(store: SyncTreeStore, put: list[Put]) -> None:
    depths = set()
    for version in range(12):
        texts = [*document(60)[:59], node("last", "0000", text=f"only here {version}")]
        store.documents.store_document("p", str(version), texts)
        depths.add(len(layout_of(store, str(version)).postings))
    assert depths == set(range(1, MOST_LAYERS + 1))
    assert all(written.bytes < put[0].bytes * 0.2 for written in put[1:]), "few rows, in every one of them"
    for version in range(12):
        for asked in range(12):
            hits = store.documents.search_nodes("p", f"{asked}", version_id=str(version))
            assert [hit.node.node_id for hit in hits] == (["last"] if asked == version else [])
    for version in (5, 0, 11, 1, 3):
        store.documents.delete_version("p", str(version))
        assert store.check().problems == []


def test_words_that_only_another_version_still_says(store: SyncTreeStore) -> None:
    """The rows of postings that are shared have words of this node alone."""
    own = [f"zz{first}{second}k" for first in string.ascii_lowercase for second in string.ascii_lowercase]
    for version in "12":
        store.documents.store_document("p", version, [*document(20), node("own", "0000", text=" ".join(own))])
    store.documents.update_node("p", "own", version_id="1", text="nothing of it")
    for word in (own[0], own[300], own[400], own[-1]):
        assert store.documents.search_nodes("p", word, version_id="1") == []
        assert [hit.node.node_id for hit in store.documents.search_nodes("p", word, version_id="2")] == ["own"]
    assert store.check().problems == []


def test_a_version_with_fewer_segments_of_postings(store: SyncTreeStore) -> None:
    nodes = [node("root"), *(node(f"{at:05}", "root") for at in range(SEGMENT_NODES + 9))]
    store.documents.store_document("p", "1", nodes)
    store.documents.store_document("p", "2", nodes[:SEGMENT_NODES])
    assert store.documents.search_nodes("p", f"{SEGMENT_NODES + 5:05}", version_id="2") == []
    assert store.check().problems == []


# --- what should not be -----------------------------------------------------------------------------------------------------


def test_numbers_of_rows_end(store: SyncTreeStore) -> None:
    for version in "12":
        store.documents.store_document("p", version, document(20))
    with backend_of(store)._engine.reading() as state:
        head: Head = decode(Head, cast(bytes, state.get(HEADS, b"p")))
    write(store, HEADS, b"p", encode(msgspec.structs.replace(head, next_row=MAX_NUMBER - 1)))
    with pytest.raises(Unavailable, match="all its row numbers"):
        store.documents.update_node("p", "0019", version_id="1", title="a path of three")
    with pytest.raises(Unavailable, match="all its row numbers"):
        store.documents.store_document("p", "3", changed(document(20), 19))
    store.documents.store_document("p", "3", document(20))
    store.documents.update_node("p", "0000", version_id="1", title="the last number")
    assert layout_of(store, "1").rows[0].number == MAX_NUMBER - 1


@pytest.mark.parametrize(
    ("number", "problem"), [(20, "row 20 belongs to no version"), (22, "row 22 is still to be given")], ids=["stray", "beyond"]
)
def test_a_row_that_belongs_to_nothing_is_found_by_a_check(store: SyncTreeStore, number: int, problem: str) -> None:
    store.documents.store_document("p", "1", document(20))
    store.documents.store_document("p", "2", changed(document(20), 0))
    store.documents.delete_version("p", "2")
    with backend_of(store)._engine.reading() as state:
        row = cast(bytes, state.get(NODES, two_numbers(1, 0)))
    write(store, NODES, two_numbers(1, number), row)
    assert f"policy 'p': {problem}" in store.check().problems
    write(store, NODES, two_numbers(1, number), None)


def test_a_shared_row_that_is_lost_is_missed_in_every_version(store: SyncTreeStore) -> None:
    store.documents.store_document("p", "1", document(20))
    store.documents.store_document("p", "2", changed(document(20), 19))
    with backend_of(store)._engine.reading() as state:
        row = cast(bytes, state.get(NODES, two_numbers(1, 5)))
    [lost] = [one.node_id for one in store.documents.get_outline("p", version_id="1") if one.ordinal == 5]
    write(store, NODES, two_numbers(1, 5), None)
    for version in "12":
        with pytest.raises(Corrupted, match="has no node at ordinal 5"):
            store.documents.get_node("p", lost, version_id=version)
        with pytest.raises(Corrupted, match="has 19 nodes at ordinals 0 to 19"):
            store.documents.get_document("p", version_id=version)
    assert store.check().problems != []
    store.documents.store_document("p", "3", document(20))
    assert len(store.documents.get_document("p", version_id="3").nodes) == 20, "it is not shared with"
    store.documents.delete_version("p", "3")
    write(store, NODES, two_numbers(1, 5), row)


async def test_after_each_version_of_a_large_document_it_is_seen_whether_a_checkpoint_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a second version little is new, so it goes through the log, which must not grow for ever."""
    looked: list[None] = []
    monkeypatch.setattr(backend_module, "BULK_BYTES", 100_000)
    monkeypatch.setattr(Checkpointer, "look", lambda checkpointer: looked.append(None))
    with treestore.open_sync(f"btree:///{tmp_path / 'store'}") as store:
        for version in "12":
            store.documents.store_document("p", version, document(300))
            assert len(looked) == int(version)
    async with treestore.open(f"btree:///{tmp_path / 'store'}") as opened:
        await opened.documents.store_document("p", "3", changed(document(300), 1))
    assert len(looked) == 3
