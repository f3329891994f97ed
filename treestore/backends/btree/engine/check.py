"""Proof that the data file is sound: every page is reachable, free or the free list's, exactly once; every tree is in order.

Checked of each page: its own checksum and the one that its parent knows, type, level and size, the order of its keys and
that they lie within the bounds that the branches above set; of each overflow value its checksum; of each tree its number of
entries.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise

from treestore.backends.btree.engine.format import PAGE_SIZE, Meta, Overflow
from treestore.backends.btree.engine.freelist import Run
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.node import Leaf, Node, decode
from treestore.errors import TreestoreError

_MOST_PROBLEMS = 100  # a store with more is described well enough


class Checked:
    """What a check found: one line for each problem, and counts."""

    def __init__(self, page_count: int) -> None:
        self.problems: list[str] = []
        self.entries: dict[int, int] = {}
        self.branch_pages = self.leaf_pages = self.overflow_pages = self.free_pages = 0
        self._seen = bytearray(page_count)

    def problem(self, line: str) -> None:
        """Note a problem."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(line)

    def take(self, run: Run, what: str) -> bool:
        """Note that pages are used for something; False where that can't be, so that nobody looks into them again."""
        first, count = run
        if first < 1 or first + count > len(self._seen):
            self.problem(f"page {first} ({what}, {count} pages) lies outside the store of {len(self._seen)} pages")
            return False
        used = self._seen.find(1, first, first + count)
        if used >= 0:
            self.problem(f"page {used} is used twice, the second time as {what}")
            return False
        self._seen[first : first + count] = b"\1" * count
        return True

    def leaked(self) -> None:
        """Note pages that are used for nothing."""
        page = self._seen.find(0, 1)
        while page >= 0:
            self.problem(f"page {page} is neither reachable nor free")
            page = self._seen.find(0, page + 1)


def check(state: State, meta: Meta, free: list[Run], chain: list[Run]) -> Generator[None, None, Checked]:
    """Check a state that lies wholly in the data file; pauses after each page. Reads pages from the file, not the cache.
    Never raises for damage: it is listed."""
    found = Checked(meta.page_count)
    for run in chain:
        found.take(run, "free list")
    for run in free:
        found.take(run, "free")
        found.free_pages += run[1]
    for number, root in sorted(state.roots.items()):
        assert isinstance(root.child, int)
        entries = yield from _check_node(found, state, root.child, root.level, b"", None)
        found.entries[number] = entries
        if entries != root.entries:
            found.problem(f"tree {number} has {entries} entries where {root.entries} are noted")
    if not found.problems:
        found.leaked()
    return found


def _check_node(
    found: Checked, state: State, reference: int, level: int, low: bytes, high: bytes | None
) -> Generator[None, None, int]:
    """Check the subtree at a reference, with keys of ``low <= key < high``; gives its number of entries."""
    page = reference >> 32
    try:
        node = decode(reference, state.pager.file.read(page * PAGE_SIZE, PAGE_SIZE), level)
    except TreestoreError as error:
        found.problem(str(error))
        found.take((page, 1), "a damaged page")
        return 0
    if not found.take((page, 1), "leaf" if level == 0 else "branch"):
        return 0
    _check_keys(found, node, page, low, high)
    yield
    if isinstance(node, Leaf):
        found.leaf_pages += 1
        for value in node.values:
            if isinstance(value, Overflow):
                if not found.take((value.page, value.pages), "overflow"):
                    continue
                found.overflow_pages += value.pages
                try:
                    state.pager.value(value)
                except TreestoreError as error:
                    found.problem(str(error))
        return len(node.keys)
    found.branch_pages += 1
    bounds = [low, *node.keys, high]
    entries = 0
    for i, child in enumerate(node.children):
        assert isinstance(child, int)
        below, above = bounds[i], bounds[i + 1]
        assert below is not None
        entries += yield from _check_node(found, state, child, level - 1, below, above)
    return entries


def _check_keys(found: Checked, node: Node, page: int, low: bytes, high: bytes | None) -> None:
    keys = node.keys
    if any(a >= b for a, b in pairwise(keys)):
        found.problem(f"page {page}: its keys are out of order")
    if keys and (keys[0] < low or (high is not None and keys[-1] >= high)):
        found.problem(f"page {page}: a key lies outside the bounds that the pages above set")
    if not keys and isinstance(node, Leaf):
        found.problem(f"page {page}: an empty leaf")
