"""How large a store gets: updates do not make it grow for ever, and a compaction brings it to what a fresh store takes."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

import treestore
from treestore import Settings, SyncTreeStore, pageindex
from treestore.backends.btree.backend import BtreeBackend

SETTINGS = Settings(cache_size_mb=2, wal_file_size_mb=1, checkpoint_interval_seconds=3600)
REAL = Path(__file__).resolve().parents[1] / "data" / "pageindex"

Tree = list[dict[str, Any]]


def opened(path: Path) -> SyncTreeStore:
    return treestore.open_sync(f"btree:///{path}", settings=SETTINGS)


def checkpointed(store: SyncTreeStore) -> None:
    backend: Any = store._driver.backend
    assert isinstance(backend, BtreeBackend)
    backend._engine.checkpoint()
    backend._engine.tidy()


SMALL = [20] * 10 + [200] * 10 + [1500] * 8 + [2500] * 4 + [9000] * 2
"""Lengths of texts of a document that is written to the log: some of them a page or two."""

LARGE = [100] * 10 + [1000] * 6 + [5000] * 6 + [40_000] * 3 + [400_000] * 2
"""Of one that is loaded in bulk, with texts of many pages."""


def tree_of(lengths: list[int], choose: random.Random, name: str) -> Tree:
    """Nodes with texts of these lengths, in any order."""
    shuffled = choose.sample(lengths, len(lengths))
    return [
        {"node_id": str(n), "title": f"{name} {n}", "text": (f"{n} {name} " * length)[:length]}
        for n, length in enumerate(shuffled)
    ]


def fresh_size(path: Path, content: dict[tuple[str, str], Tree]) -> int:
    """Bytes of the data file of a new store that was given this once."""
    with opened(path) as store:
        for (policy, version), tree in content.items():
            store.documents.store_document(policy, version, tree, searchable=len(tree) > 30)
    return os.path.getsize(path / "data")


def churned(store: SyncTreeStore, lengths: list[int], rounds: int, seen: list[int]) -> dict[tuple[str, str], Tree]:
    """Eight documents are replaced and amended again and again, and now and then one is deleted and comes back."""
    choose = random.Random(5)
    content: dict[tuple[str, str], Tree] = {}
    for turn in range(rounds):
        for number in range(8):
            policy, version = f"p{number}", str(choose.randrange(2))
            tree = tree_of(lengths, choose, f"{turn} {number}")
            if choose.random() < 0.5 or (policy, version) not in content:
                store.documents.store_document(policy, version, tree, searchable=len(tree) > 30)
                content[policy, version] = tree
            elif choose.random() < 0.7:
                node = choose.choice(content[policy, version])
                node["text"] = tree[0]["text"]
                store.documents.update_node(policy, node["node_id"], version_id=version, text=node["text"])
            else:
                store.documents.delete_version(policy, version)
                del content[policy, version]
        checkpointed(store)
        seen.append(int(store.stats().backend["data_bytes"]))
    return content


@pytest.mark.parametrize(("lengths", "rounds"), [(SMALL, 30), (LARGE, 16)])
def test_updates_do_not_grow_the_file_and_a_compaction_makes_it_as_small_as_new(
    tmp_path: Path, lengths: list[int], rounds: int
) -> None:
    sizes: list[int] = []
    with opened(tmp_path / "store") as store:
        content = churned(store, lengths, rounds, sizes)
        fresh = fresh_size(tmp_path / "fresh", content)
        print("peak / fresh:", max(sizes) / fresh, [round(size / fresh, 2) for size in sizes])
        assert max(sizes) < 3 * fresh
        assert max(sizes[rounds // 2 :]) <= 1.3 * max(sizes[: rounds // 2])
        store.compact()
        print("compacted / fresh", os.path.getsize(tmp_path / "store" / "data") / fresh)
        assert os.path.getsize(tmp_path / "store" / "data") <= 1.3 * fresh
        assert store.check().problems == []
        for (policy, version), tree in content.items():
            found = store.documents.get_document(policy, version_id=version).nodes
            assert {node.node_id: node.text for node in found} == {node["node_id"]: node["text"] for node in tree}


def test_a_compaction_of_real_documents(tmp_path: Path) -> None:
    """Each in three versions of which one is deleted, over and over; then as a fresh store has them."""
    trees = {path.stem: pageindex.read(path).nodes for path in sorted(REAL.glob("*.json"))}
    with opened(tmp_path / "store") as store:
        for turn in range(4):
            for name, nodes in trees.items():
                for version in ("1", "2", "3"):
                    store.documents.store_document(name, version, nodes[: max(1, len(nodes) - turn)] if turn < 3 else nodes)
                store.documents.delete_version(name, "2")
        store.compact()
        compacted = os.path.getsize(tmp_path / "store" / "data")
        assert store.check().problems == []
    with opened(tmp_path / "fresh") as store:
        for name, nodes in trees.items():
            for version in ("1", "3"):
                store.documents.store_document(name, version, nodes)
    fresh = os.path.getsize(tmp_path / "fresh" / "data")
    print("compacted / fresh", compacted / fresh)
    assert compacted <= 1.3 * fresh
