"""Nodes that are kept after they were read: never too many, never old ones, and no proof of what lies in the store."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import treestore
from tests.contract.samples import bushy
from treestore import Node, Settings, SyncTreeStore
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.kept import Kept, NodeCache
from treestore.backends.btree.keyspace import NODES, TEXTS, encode, two_numbers
from treestore.trees.derive import derive_now

BUDGET = 60_000
COUNT = 40

SAMPLES = [
    msgspec.structs.replace(one, metadata={"n": one.ordinal} if one.ordinal % 5 == 0 else None)
    for one in derive_now("p", "1", bushy(COUNT))
]


class Machine(RuleBasedStateMachine):
    """A cache beside a dict of what was given to it: what it keeps is what was given, and its account is right."""

    def __init__(self) -> None:
        super().__init__()
        self.reported = 0
        self.cache = NodeCache(BUDGET, self.report)
        self.live: list[Kept[Node]] = []

    def report(self, used: int) -> None:
        self.reported = used

    @rule()
    def begin(self) -> None:
        self.live.append(self.cache.begin(COUNT))

    @rule(at=st.integers(0, 5), ordinals=st.lists(st.integers(0, COUNT - 1), max_size=30), ask=st.booleans())
    def keep(self, at: int, ordinals: list[int], ask: bool) -> None:
        if at < len(self.live):
            self.live[at].hot |= ask
            for ordinal in ordinals:
                self.cache.keep(self.live[at], SAMPLES[ordinal])

    @rule(at=st.integers(0, 5))
    def drop(self, at: int) -> None:
        if at < len(self.live):
            self.cache.drop(self.live.pop(at))

    @invariant()
    def right(self) -> None:
        used = 0
        for kept in self.live:
            found = {node.ordinal: node for node in kept.nodes if node is not None}
            found |= {ordinal: pattern.copy() for ordinal, pattern in kept.patterns.items()}
            assert all(node == SAMPLES[ordinal] for ordinal, node in found.items())
            assert {node.node_id: ordinal for ordinal, node in found.items()} == kept.ordinals
            used += 0 if kept.dropped else kept.size
            assert kept.size > 0 or kept.dropped
        assert used == self.cache.used <= BUDGET


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SyncTreeStore]:
    with treestore.open_sync(f"btree:///{tmp_path / 'store'}", settings=Settings(cache_size_mb=2)) as store:
        yield store


def backend_of(store: SyncTreeStore) -> BtreeBackend:
    return cast(BtreeBackend, store._driver.backend)


def test_pages_and_nodes_share_one_budget_and_every_answer_is_right(store: SyncTreeStore) -> None:
    for number in range(4):
        store.documents.store_document(f"p{number}", "1", bushy(1500), searchable=False)
    expected = {f"p{number}": store.documents.get_document(f"p{number}").nodes for number in range(4)}
    engine, cache = backend_of(store)._engine, backend_of(store)._reads.cache
    engine.checkpoint()
    engine.tidy()
    choose = random.Random(5)
    most = 0
    for turn in range(6000):
        policy, ordinal = f"p{choose.randrange(4)}", choose.randrange(1500)
        node = expected[policy][ordinal]
        if turn % 10 == 0:
            below = [one for one in expected[policy][ordinal : node.last_ordinal + 1] if one.depth <= node.depth + 2]
            assert store.documents.get_subtree(policy, node.node_id, 2) == below
        assert store.documents.get_node(policy, node.node_id) == node
        most = max(most, cache.used)
        assert cache.used <= cache.budget == (2 << 20) * 3 // 8
        assert cache.used + engine.state.pager.cached_bytes <= (3 << 20), "reported in steps of a megabyte"
    assert most > cache.budget // 2, "it does keep nodes"
    assert store.stats().backend["kept_bytes"] == cache.used


def test_a_version_that_changes_lets_go_of_its_nodes(store: SyncTreeStore) -> None:
    store.documents.store_document("p", "1", bushy(300))
    cache = backend_of(store)._reads.cache
    for _ in range(20):
        store.documents.get_subtree("p")
        store.documents.get_outline("p")
        kept = cache.used
        store.documents.update_node("p", "00000", title="another")
    assert cache.used <= kept, "nothing is left of those before"


def test_a_check_does_not_take_a_kept_node_for_what_lies_in_the_store(store: SyncTreeStore) -> None:
    store.documents.store_document("p", "1", bushy(300))
    before = store.documents.get_subtree("p")
    assert store.documents.get_subtree("p") == before
    committer = backend_of(store)._committer
    committer.commit(lambda state: [TreeChange(TEXTS, [two_numbers(1, 7)], [encode("another text")])])
    assert any("text" in problem for problem in store.check().problems)
    committer.commit(lambda state: [TreeChange(NODES, [two_numbers(1, 8)], [None])])
    assert store.check().problems == ["content 1 has 299 nodes at ordinals 0 to 299"]
