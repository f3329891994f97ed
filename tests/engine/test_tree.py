"""The tree against a dict: any edits, any sizes of keys and values, sound after each step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.engine.simulated import SimulatedDisk
from treestore.backends.btree.engine import cursor, tree
from treestore.backends.btree.engine.bulk import Bulk, finished
from treestore.backends.btree.engine.check import check
from treestore.backends.btree.engine.checkpoint import Checkpoint
from treestore.backends.btree.engine.format import MAX_INLINE, MAX_KEY, PAGE_HEADER, PAGE_SIZE, Value
from treestore.backends.btree.engine.freelist import FreeList, Run
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.node import Branch, Child, Leaf, Root, cell_size
from treestore.backends.btree.engine.pager import Pager, PageWriter
from treestore.backends.btree.engine.tree import Edit


def scanned(root: Root | None, low: bytes, high: bytes | None, pager: Pager) -> Iterator[tuple[bytes, Value]]:
    for keys, values in cursor.pieces(root, low, high, pager):
        yield from zip(keys, values, strict=True)


class Tree:
    """One tree with its pages, its checkpoints, and a dict that says what must be in it."""

    def __init__(self) -> None:
        file = SimulatedDisk().open("/disk/data", create=True)
        file.write(0, bytes(PAGE_SIZE))
        self.pager = Pager(file, 64 * 1024)
        self.freelist = FreeList([], 1)
        self.root: Root | None = None
        self.model: dict[bytes, bytes] = {}
        self.epoch = 0
        self.dirty = 0
        self.chain: list[Run] = []
        self.edit = Edit(self.pager)
        self.together = False  # whether the next edits are steps of one
        self.published: list[tuple[Root | None, dict[bytes, bytes]]] = []

    def edited(self, root: Root | None) -> None:
        self.root = root
        assert (0 if root is None else root.entries) == len(self.model)
        if not self.together:
            self.publish()

    def publish(self) -> None:
        """The edit ends; what it made is not to be changed any more."""
        self.epoch += 1
        self.freelist.give_up(self.epoch, self.edit.freed)
        self.dirty += self.edit.dirty
        self.edit = Edit(self.pager)
        self.together = False

    def keep(self) -> None:
        """Look at the present tree again after each later step."""
        if not self.together:
            self.published = [*self.published[-2:], (self.root, dict(self.model))]

    def update(self, changes: dict[bytes, bytes | None]) -> None:
        for key, value in changes.items():
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value
        keys = sorted(changes)
        self.edited(tree.update(self.root, keys, [changes[key] for key in keys], self.edit))

    def remove_range(self, low: bytes, high: bytes | None) -> None:
        for key in [key for key in self.model if low <= key and (high is None or key < high)]:
            del self.model[key]
        self.edited(tree.remove_range(self.root, low, high, self.edit))

    def graft(self, entries: dict[bytes, bytes]) -> None:
        bulk = Bulk(self.pager, self.freelist)
        new = finished(bulk.load(sorted(entries.items())))
        assert new is not None
        bulk.sync()
        self.model.update(entries)
        root = tree.graft(self.root, new, self.edit)
        self.freelist.commit_staged(new.runs)
        self.edited(root)

    def checkpoint(self) -> None:
        """Write the tree, and prove the file: each page used once, in order, within bounds."""
        self.publish()
        self.published = []  # their pages may be written over
        state = State(self.epoch, self.epoch, {} if self.root is None else {1: self.root}, self.pager)
        written = Checkpoint(state, self.freelist, self.chain, 0, 0)
        for _ in written.write(PageWriter(self.pager.file)):
            pass
        meta = written.meta(b"s" * 16, 1, 0)
        for _ in written.settle():
            pass
        self.chain, self.dirty = written.chain, 0
        self.freelist.checkpointed(self.epoch, None)
        roots = {number: Root(reference, level, count) for number, (level, count, reference) in meta.roots.items()}
        found = finished(check(State(0, 0, roots, self.pager), meta, written.free, written.chain))
        assert found.problems == []

    def sound(self) -> None:
        """In memory: order, bounds, sizes, levels, the bytes that are counted; and the entries are those of the dict, as are
        those of the trees that were published before."""
        dirty = 0
        if self.root is not None:
            dirty = self._sound(self.root.child, self.root.level, b"", None)
        assert dirty == self.dirty + self.edit.dirty
        for root, model in self.published:
            assert {key: self.pager.value(value) for key, value in scanned(root, b"", None, self.pager)} == model
        entries = [(key, self.pager.value(value)) for key, value in scanned(self.root, b"", None, self.pager)]
        assert entries == sorted(self.model.items())
        back = [(key, self.pager.value(value)) for key, value in cursor.scan_back(self.root, b"", None, self.pager)]
        assert back == entries[::-1]

    def _sound(self, child: Child, level: int, low: bytes, high: bytes | None) -> int:
        """The bytes of nodes without a page."""
        node = self.pager.node(child, level)
        assert node.level == level
        assert node.size <= PAGE_SIZE
        assert [*node.keys] == sorted(set(node.keys))
        assert all(low <= key and (high is None or key < high) for key in node.keys)
        if isinstance(node, Leaf):
            assert node.keys
            entries = zip(node.keys, node.values, strict=True)
            assert node.size == PAGE_HEADER + sum(len(key) + cell_size(value) for key, value in entries)
            long = sum(len(value) for value in node.values if isinstance(value, bytes) and len(value) > MAX_INLINE)
            return 0 if node.page else node.cost + long
        assert isinstance(node, Branch)
        assert len(node.encode([1] * len(node.children))[1]) == PAGE_SIZE
        assert len(node.children) == len(node.keys) + 1
        bounds = [low, *node.keys, high]
        dirty = 0 if node.page else node.cost
        for i, below in enumerate(node.children):
            lower = bounds[i]
            assert lower is not None
            dirty += self._sound(below, level - 1, lower, bounds[i + 1])
        return dirty


LONG_KEYS = st.integers(0, 30).map(lambda n: b"%04d" % n + b"x" * (MAX_KEY - 4))
KEYS = st.integers(0, 400).map(b"%04d".__mod__) | LONG_KEYS | st.just(b"")
EDGES = [MAX_INLINE - 1, MAX_INLINE, MAX_INLINE + 1, PAGE_SIZE - 16, PAGE_SIZE - 15, PAGE_SIZE]
SIZES = st.sampled_from([0, 1, 30, 300, 1000, *EDGES, 40_000])
VALUES = st.builds(lambda size, byte: bytes([byte]) * size, SIZES, st.integers(0, 255))


class Edits(RuleBasedStateMachine):
    """Any sequence of edits and checkpoints."""

    @initialize()
    def begin(self) -> None:
        self.tree = Tree()

    @rule(key=KEYS, value=VALUES | st.none())
    def one(self, key: bytes, value: bytes | None) -> None:
        self.tree.update({key: value})

    @rule(changes=st.dictionaries(KEYS, VALUES | st.none(), max_size=40))
    def many(self, changes: dict[bytes, bytes | None]) -> None:
        self.tree.update(changes)

    @rule(first=st.integers(0, 400), count=st.integers(1, 300), size=SIZES.filter(lambda size: size <= 1000))
    def run(self, first: int, count: int, size: int) -> None:
        self.tree.update({b"%04d" % n: bytes(size) for n in range(first, first + count)})

    @rule(low=KEYS, high=KEYS | st.none())
    def remove_range(self, low: bytes, high: bytes | None) -> None:
        self.tree.remove_range(low, high)

    @rule(place=st.integers(0, 400), count=st.integers(1, 60), size=SIZES)
    def graft(self, place: int, count: int, size: int) -> None:
        low, high = b"%04d~" % place, b"%04d" % (place + 1)
        self.tree.remove_range(low, high)
        self.tree.graft({low + b"%03d" % n: b"g" * size for n in range(count)})

    @rule(low=KEYS, high=KEYS | st.none())
    def scans(self, low: bytes, high: bytes | None) -> None:
        expected = [key for key in sorted(self.tree.model) if low <= key and (high is None or key < high)]
        assert [key for key, _ in scanned(self.tree.root, low, high, self.tree.pager)] == expected
        assert [key for key, _ in cursor.scan_back(self.tree.root, low, high, self.tree.pager)] == expected[::-1]

    @rule(keys=st.lists(KEYS, max_size=20))
    def gets(self, keys: list[bytes]) -> None:
        looking = cursor.Cursor(self.tree.root, self.tree.pager)
        for key in keys:
            assert looking.get(key) == self.tree.model.get(key)
            value = cursor.get(self.tree.root, key, self.tree.pager)
            assert (None if value is None else self.tree.pager.value(value)) == self.tree.model.get(key)

    @rule()
    def checkpoint(self) -> None:
        self.tree.checkpoint()

    @rule()
    def steps(self) -> None:
        """What follows is one edit of several steps, which must leave what was published alone."""
        self.tree.publish()
        self.tree.keep()
        self.tree.together = True

    @invariant()
    def sound(self) -> None:
        if hasattr(self, "tree"):
            self.tree.sound()


TestEdits: Any = Edits.TestCase
TestEdits.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


def test_deleting_all_in_random_order_leaves_no_page() -> None:
    for seed in range(3):
        choose = random.Random(seed)
        one = Tree()
        keys = [b"%05d" % n for n in range(3000)]
        one.update({key: choose.randbytes(choose.choice((10, 200, 3000 if len(key) % 7 else 9))) for key in keys})
        one.checkpoint()
        choose.shuffle(keys)
        for start in range(0, 3000, 100):
            one.update(dict.fromkeys(keys[start : start + 100]))
            if start % 600 == 0:
                one.checkpoint()
                one.sound()
        assert one.root is None
        one.checkpoint()
        assert one.freelist.free_pages + one.freelist.pending_pages + len(one.chain) == one.freelist.page_count - 1


def test_entries_appended_in_order_fill_their_pages() -> None:
    one = Tree()
    for n in range(4000):
        one.update({b"%06d" % n: bytes(100)})
    one.sound()
    assert one.root is not None
    one.checkpoint()
    leaves = 4000 * 110 // PAGE_SIZE
    assert one.freelist.page_count - 1 - one.freelist.free_pages < leaves * 1.15


def test_an_edit_leaves_the_tree_before_it_as_it_was() -> None:
    choose = random.Random(5)
    one = Tree()
    one.update({b"%04d" % n: bytes(choose.choice((10, 500, 2500))) for n in range(500)})
    one.checkpoint()
    before, model = one.root, dict(one.model)
    for _ in range(30):
        start = choose.randrange(500)
        one.update({b"%04d" % n: choose.choice((None, b"new" * 100)) for n in range(start, start + 20)})
        one.remove_range(b"%04d" % choose.randrange(500), b"%04d" % choose.randrange(500))
        one.update({b"%04d" % choose.randrange(500): choose.choice((None, b"one"))})
        one.together = not one.together  # or several steps of one edit
        assert {k: one.pager.value(v) for k, v in scanned(before, b"", None, one.pager)} == model


def test_a_separator_lies_between_its_neighbours() -> None:
    choose = random.Random(6)
    for _ in range(2000):
        left, right = sorted(bytes(choose.choices(b"\0ab\xff", k=choose.randrange(6))) for _ in range(2))
        if left < right:
            between = tree.separator(left, right)
            assert left < between <= right
            assert right.startswith(between)


def test_a_cursor_finds_every_key_whatever_was_looked_up_before() -> None:
    """It remembers the branch above the last leaf: near and far keys, on both sides of a branch's ends, present and absent."""
    one = Tree()
    keys = [f"{at:06}".encode() for at in range(0, 24_000, 2)]
    for start in range(0, len(keys), 3000):
        one.update(dict.fromkeys(keys[start : start + 3000], b"value" * 150))
    one.checkpoint()
    assert one.root is not None
    assert one.root.level >= 2
    chosen = random.Random(11)
    looking = cursor.Cursor(one.root, one.pager)
    at = 0
    for _ in range(30_000):
        at = chosen.choice([at + 1, at - 1, at + chosen.randrange(-80, 80), at + chosen.randrange(-3000, 3000)]) % 24_000
        key = f"{at:06}".encode()
        assert looking.get(key) == one.model.get(key)
    for key in (b"", b"\xff" * 8, keys[0], keys[-1], b"0"):
        assert looking.get(key) == one.model.get(key)
