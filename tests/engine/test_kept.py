"""Nodes that are kept after they were read: never too many, never old ones, and no proof of what lies in the store."""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import treestore
from tests.contract.samples import bushy
from treestore import Node, NotFound, Settings, SyncTreeStore
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.kept import Kept, KeptFindings, NodeCache
from treestore.backends.btree.keyspace import NODES, TEXTS, encode, two_numbers
from treestore.backends.btree.policies import Policies
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
        self.searched: list[KeptFindings] = []

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

    @rule(at=st.integers(0, 5), first=st.integers(0, COUNT - 1), count=st.integers(0, COUNT))
    def keep_all(self, at: int, first: int, count: int) -> None:
        if at < len(self.live):
            self.cache.keep_all(self.live[at], SAMPLES[first : first + count])

    @rule(at=st.integers(0, 5), ordinals=st.sets(st.integers(0, COUNT - 1), max_size=5))
    def amend(self, at: int, ordinals: set[int]) -> None:
        if at < len(self.live):
            self.cache.amend(self.live[at], ordinals)

    @rule(at=st.integers(0, 5))
    def drop(self, at: int) -> None:
        if at < len(self.live):
            self.cache.drop(self.live.pop(at))

    @rule()
    def search(self) -> None:
        self.searched.append(self.cache.begin_findings())

    @rule(at=st.integers(0, 3), term=st.integers(0, 9), ask=st.booleans())
    def decode(self, at: int, term: int, ask: bool) -> None:
        if at < len(self.searched):
            self.searched[at].hot |= ask
            self.cache.keep_groups(self.searched[at], str(term), [[(1, 1, array("H", range(100 * term)))]])
            self.cache.keep_lengths(self.searched[at], term, array("H", range(1000)))
            self.cache.keep_pages(self.searched[at], (term, term), range(term))
            self.cache.keep_amended(self.searched[at], SAMPLES[term])

    @rule(at=st.integers(0, 3))
    def forget(self, at: int) -> None:
        if at < len(self.searched):
            self.cache.drop(self.searched.pop(at))

    @invariant()
    def right(self) -> None:
        used = 0
        for searched in self.searched:
            assert all(len(groups[0][0][2]) == 100 * int(term) for term, groups in searched.groups.items())
            kinds = {key for key in searched.amended if searched.node(*key) == SAMPLES[key[1]]}
            assert kinds == searched.amended.keys()
            assert all(len(ordinals) == pages[0] for pages, ordinals in searched.on_pages.items())
            used += 0 if searched.dropped else searched.size
            least = 200 * len(searched.on_pages) + 1000 * len(searched.amended)
            assert searched.size > 200 * sum(map(int, searched.groups)) + 2000 * len(searched.lengths) + least
        for kept in self.live:
            found = {node.ordinal: node for node in kept.nodes if node is not None}
            found |= {ordinal: pattern.copy() for ordinal, pattern in kept.patterns.items()}
            assert all(node == SAMPLES[ordinal] for ordinal, node in found.items())
            assert {node.node_id: ordinal for ordinal, node in found.items()} == kept.ordinals
            assert not found.keys() & kept.amended
            used += 0 if kept.dropped else kept.size
            assert kept.size > 0 or kept.dropped
        assert used == self.cache.used <= BUDGET


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_questions_about_more_than_there_is_room_for_find_most_of_it_kept() -> None:
    cache = NodeCache(20 * 1400)
    kept: Kept[Node] = cache.begin(COUNT)
    found = 0
    for _ in range(20):
        for node in SAMPLES:
            if kept.nodes[node.ordinal] is None and node.ordinal not in kept.patterns:
                cache.keep(kept, node)
            else:
                found += 1
    assert len(kept.ordinals) < 0.7 * COUNT, "it is more than there is room for"
    assert found / (20 * COUNT) > 0.7 * len(kept.ordinals) / COUNT


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


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[SyncTreeStore]:
    with treestore.open_sync(f"btree:///{tmp_path / 'roomy'}", settings=Settings(cache_size_mb=32)) as store:
        yield store


def test_what_is_kept_outlives_amendments_of_others_and_other_versions(roomy: SyncTreeStore) -> None:
    documents, cache = roomy.documents, backend_of(roomy)._reads.cache
    documents.store_document("p", "1", bushy(300))
    for _ in range(3):
        documents.get_subtree("p")
        documents.get_outline("p")
    kept = cache.used
    documents.store_document("p", "2", bushy(30), effective_date=date(2000, 1, 1))
    documents.update_node("p", "00299", version_id="1", title="another")
    assert documents.get_node("p", "00299", version_id="1").title == "another"
    assert documents.get_node("p", "00298", version_id="1").title == "title of 00298"
    assert kept * 0.95 < cache.used < kept, "the amended one is gone, with those above it"


def test_nodes_that_were_amended_are_kept_again_each_at_its_moment(roomy: SyncTreeStore) -> None:
    documents = roomy.documents
    nodes = [{**one, "metadata": {"a": 1} if one["node_id"] == "00020" else None} for one in bushy(300)]
    documents.store_document("p", "1", nodes)

    def read() -> list[list[Node]]:
        return [documents.get_subtree("p") for _ in range(3)]

    for title in ("another", "one more"):
        with roomy.snapshot() as before:
            then = read()[-1]
            documents.update_node("p", "00020", title=title)
            for _ in range(2):
                assert before.documents.get_subtree("p") == then
                *_, second, third = read()
                assert [node.title for node in third if node.node_id == "00020"] == [title]
                assert second == third != then
    alike = [node.node_id for node, again in zip(second, third, strict=True) if node is not again]
    assert alike == ["00020"], "the one with JSON, which each caller gets a copy of; those above it are shared again"
    documents.update_node("p", "00020", title="the last one")
    other = [node.node_id for node, again in zip(third, read()[-1], strict=True) if node is not again]
    assert other == ["00000", "00002", "00020"], "it and those above it"
    assert documents.get_ancestor_path("p", "00020")[0] is documents.get_node("p", "00000")


@pytest.mark.parametrize(
    ("count", "others", "kept"), [(60, 0, True), (200, 0, True), (200, 20, True), (200, 300, False), (400, 0, False)]
)
def test_a_large_answer_is_kept_where_it_leaves_room_for_others(
    store: SyncTreeStore, count: int, others: int, kept: bool
) -> None:
    documents, cache = store.documents, backend_of(store)._reads.cache
    documents.store_document("others", "1", bushy(max(others, 1)), searchable=False)
    documents.store_document("p", "1", bushy(count), searchable=False)
    for _ in range(2):
        documents.get_subtree("others")
    whole = [documents.get_subtree("p") for _ in range(2)]
    before = cache.used
    assert [documents.get_subtree("p") for _ in range(2)] == whole
    assert cache.used == before <= cache.budget, "it was kept at the second reading, or is not at any"
    content = backend_of(store)._reads.policies.find(backend_of(store)._engine.state, "p", "1")
    assert (len(content.kept(Node).ordinals) == count) is kept
    assert kept or not content.kept(Node).ordinals


def test_what_searches_decoded_is_kept_until_the_version_is_amended(roomy: SyncTreeStore) -> None:
    documents, cache = roomy.documents, backend_of(roomy)._reads.cache
    nodes = [{**one, "text": "sought" if one["node_id"] < "00003" else "other"} for one in bushy(300)]
    documents.store_document("p", "1", nodes)
    documents.store_document("p", "2", nodes, effective_date=date(2000, 1, 1))

    def found(query: str, version_id: str, documents: Any = documents) -> list[str]:
        return sorted(hit.node.node_id for hit in documents.search_nodes("p", query, version_id=version_id))

    def sought(version_id: str) -> list[str]:
        return found("sought", version_id)

    first = sought("1"), sought("2")
    assert first == (["00000", "00001", "00002"],) * 2
    on_page = documents.get_nodes_by_page("p", 2, version_id="1")
    assert documents.get_nodes_by_page("p", 2, version_id="1") == on_page
    assert cache.used > 0
    with roomy.snapshot() as before:
        documents.update_node("p", "00001", version_id="1", text="amended")
        assert (sought("1"), sought("2")) == (["00000", "00002"], first[1])
        assert found("amended", "1") == ["00001"]
        ids = [node.node_id for node in on_page]
        assert "00001" in ids
        assert [node.node_id for node in documents.get_nodes_by_page("p", 2, version_id="1")] == ids
        assert found("sought", "1", before.documents) == first[0]
        assert found("amended", "1", before.documents) == []
        assert (sought("1"), sought("2")) == (["00000", "00002"], first[1])
    documents.delete_document("p")
    with pytest.raises(NotFound):
        sought("1")
    assert cache.used == 0


def test_nothing_is_left_of_a_tree_that_was_replaced_deleted_or_amended_all_over(roomy: SyncTreeStore) -> None:
    documents, cache = roomy.documents, backend_of(roomy)._reads.cache

    def read() -> None:
        for _ in range(3):
            documents.get_subtree("p")
            documents.get_outline("p")

    documents.store_document("p", "1", bushy(300))
    read()
    most = cache.used
    for turn in range(4):
        documents.store_document("p", "1", bushy(300 + turn))
        read()
        assert most * 0.9 < cache.used < most * 1.1
    sizes = []
    for at in range(100):
        documents.update_node("p", f"{at + 200:05}", title="another")
        read()
        sizes.append(cache.used)
    assert sizes[0] > sizes[10] > sizes[20], "what was amended is not kept"
    assert max(sizes[40:]) > most * 0.95, "so many were amended that all was read anew"
    assert max(sizes) < most * 1.1
    documents.delete_document("p")
    with pytest.raises(NotFound):
        documents.get_subtree("p")
    assert cache.used == 0


class Model:
    """What one policy says at one moment: by version its nodes, by id, in document order."""

    def __init__(self, reader: Any, versions: dict[str, dict[str, Node]]) -> None:
        self.documents = reader.documents
        self.versions = {version: nodes.copy() for version, nodes in versions.items()}

    def compare(self, choose: random.Random) -> None:
        version_id = choose.choice(list(self.versions))
        nodes = self.versions[version_id]
        node = choose.choice(list(nodes.values()))
        end = node.last_ordinal + 1
        expected = list(nodes.values())
        documents = self.documents
        match choose.randrange(4):
            case 0:
                assert documents.get_node("p", node.node_id, version_id=version_id) == node
            case 1:
                assert documents.get_subtree("p", node.node_id, version_id=version_id) == expected[node.ordinal : end]
            case 2:
                near = [one for one in expected[node.ordinal : end] if one.depth <= node.depth + 1]
                assert documents.get_subtree("p", node.node_id, 1, version_id=version_id) == near
            case _:
                way = [one for one in expected if one.ordinal <= node.ordinal <= one.last_ordinal]
                assert documents.get_ancestor_path("p", node.node_id, version_id=version_id) == way


@pytest.mark.parametrize("seed", range(6))
def test_snapshots_and_the_present_each_read_their_own_moment(store: SyncTreeStore, seed: int) -> None:
    choose = random.Random(seed)
    versions: dict[str, dict[str, Node]] = {}
    snapshots: list[tuple[Any, Model]] = []

    def stored(version_id: str) -> None:
        store.documents.store_document("p", version_id, bushy(choose.randint(20, 90)))
        changed(version_id)

    def changed(version_id: str) -> None:
        with treestore_without_kept(store) as documents:
            versions[version_id] = {one.node_id: one for one in documents.get_document("p", version_id=version_id).nodes}

    stored("1")
    for turn in range(250):
        version_id = choose.choice(list(versions))
        match choose.randrange(12):
            case 0 | 1 | 2:
                node_id = choose.choice(list(versions[version_id]))
                store.documents.update_node("p", node_id, version_id=version_id, title=f"turn {turn}", metadata={"turn": turn})
                changed(version_id)
            case 3:
                stored(choose.choice(("1", "2", "3")))
            case 4:
                view = store.snapshot()
                snapshots.append((view, Model(view, versions)))
            case 5 if snapshots:
                snapshots.pop(choose.randrange(len(snapshots)))[0].close()
        for model in (Model(store, versions), *(model for _, model in snapshots)):
            for _ in range(3):
                model.compare(choose)
    for view, _ in snapshots:
        view.close()


def test_an_earlier_snapshot_does_not_go_on_with_what_was_kept_later(roomy: SyncTreeStore) -> None:
    """So many nodes are amended that all is kept anew, and then what was amended before that too."""
    documents = roomy.documents
    documents.store_document("p", "1", bushy(100))
    with roomy.snapshot() as view:
        for at in range(10, 100):
            documents.update_node("p", f"{at:05}", title="later")
        for _ in range(3):
            assert documents.get_node("p", "00020").title == "later"
        assert "00020" in kept_of(roomy).ordinals
        for _ in range(3):
            assert view.documents.get_node("p", "00020").title == "title of 00020"
        assert documents.get_node("p", "00020").title == "later"


def kept_of(store: SyncTreeStore) -> Kept[Node]:
    """What is kept of the whole nodes of a store with one version."""
    [known] = backend_of(store)._reads.policies._known.values()
    [content] = known.policy.contents.values()
    return content.kept(Node)


@contextmanager
def treestore_without_kept(store: SyncTreeStore) -> Iterator[Any]:
    """The documents of a store whose nodes are all read from its pages."""
    reads = backend_of(store)._reads
    policies, reads.policies = reads.policies, Policies(NodeCache(0))
    try:
        yield store.documents
    finally:
        reads.policies = policies


GIVEN = ("node_id", "parent_id", "title", "text", "page_start", "page_end")


def test_threads_that_read_while_nodes_are_amended_see_whole_moments(store: SyncTreeStore) -> None:
    documents = store.documents
    documents.store_document("p", "1", bushy(120))
    done = threading.Event()
    failures: list[BaseException] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        try:
            while not done.is_set():
                nodes = documents.get_subtree("p")
                given = [{field: getattr(one, field) for field in GIVEN} for one in nodes]
                assert [one.tree_hash for one in derive_now("p", "1", given)] == [one.tree_hash for one in nodes]
                reads += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    choose = random.Random(9)
    for turn in range(60):
        documents.update_node("p", f"{choose.randrange(120):05}", title=f"turn {turn}")
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert reads > 10


def test_a_check_does_not_take_a_kept_node_for_what_lies_in_the_store(store: SyncTreeStore) -> None:
    store.documents.store_document("p", "1", bushy(300))
    before = store.documents.get_subtree("p")
    assert store.documents.get_subtree("p") == before
    committer = backend_of(store)._committer
    committer.commit(lambda state: [TreeChange(TEXTS, [two_numbers(1, 7)], [encode("another text")])])
    assert any("text" in problem for problem in store.check().problems)
    committer.commit(lambda state: [TreeChange(NODES, [two_numbers(1, 8)], [None])])
    assert store.check().problems == ["content 1 has 299 nodes at ordinals 0 to 299"]
