"""The rows of page intervals in the native store: damage is noticed and never read as an answer, and none is left over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

import treestore
from tests.contract.samples import bushy, node
from treestore import Corrupted, SyncTreeStore
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.keyspace import INTERVALS, interval_key

COUNT = 300  # a root and three leaf rows


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SyncTreeStore]:
    with treestore.open_sync(f"btree:///{tmp_path / 'store'}") as store:
        store.documents.store_document("p", "1", bushy(COUNT))
        yield store


def backend_of(store: SyncTreeStore) -> BtreeBackend:
    return cast(BtreeBackend, store._driver.backend)


def rows_of(store: SyncTreeStore) -> dict[bytes, bytes]:
    with backend_of(store)._engine.reading() as state:
        return dict(state.scan(INTERVALS, b"", None))


def put(store: SyncTreeStore, key: bytes, value: bytes | None) -> None:
    backend_of(store)._committer.commit(lambda state: [TreeChange(INTERVALS, [key], [value])])


CONTENT = 1
SECOND_LEAF = interval_key(CONTENT, 1, 1)


def test_rows_lie_under_content_depth_and_index(store: SyncTreeStore) -> None:
    assert list(rows_of(store)) == [
        interval_key(CONTENT, 0, 0),
        interval_key(CONTENT, 1, 0),
        SECOND_LEAF,
        interval_key(CONTENT, 1, 2),
    ]


def test_a_row_that_is_missing(store: SyncTreeStore) -> None:
    put(store, SECOND_LEAF, None)
    assert len(store.documents.get_nodes_by_page("p", 5)) == 2, "on another row"
    with pytest.raises(Corrupted, match="has no row 1 of page intervals at depth 1"):
        store.documents.get_nodes_by_page("p", 200)
    assert "policy 'p' version '1': the page intervals do not fit the nodes" in store.check().problems


def test_a_row_that_is_wrong(store: SyncTreeStore) -> None:
    row = rows_of(store)[SECOND_LEAF]
    put(store, SECOND_LEAF, row[:-1] + b"\1")  # an ordinal above 2**24
    with pytest.raises(Corrupted, match="has no node at ordinal"):
        store.documents.get_nodes_by_page("p", 255)
    assert store.check().problems == ["policy 'p' version '1': the page intervals do not fit the nodes"]


def test_a_row_that_belongs_to_no_version(store: SyncTreeStore) -> None:
    put(store, interval_key(7, 0, 0), b"\0")
    assert store.check().problems == ["page intervals: 5 entries, of which 4 belong to a version"]


def test_rows_go_with_their_content(store: SyncTreeStore) -> None:
    store.documents.store_document("p", "1", [node("a", page_start=1, page_end=1)])
    assert list(rows_of(store)) == [interval_key(2, 0, 0)]
    store.documents.store_document("p", "2", bushy(12_000))
    assert len(rows_of(store)) == 1 + 1 + 94
    store.documents.delete_document("p")
    assert rows_of(store) == {}
