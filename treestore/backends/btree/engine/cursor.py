"""Looking up and scanning keys of a B+Tree. Everything here reads one committed tree, which does not change."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from treestore.backends.btree.engine.format import MAX_KEY, Value
from treestore.backends.btree.engine.node import Branch, Child, Leaf, Page, Root
from treestore.backends.btree.engine.pager import Pager


def leaf_of(root: Root, key: bytes, pager: Pager) -> Leaf | Page:
    """The leaf that holds a key, if any does; one that nobody has read yet as its page."""
    child = root.child
    level = root.level
    while True:
        node = pager.nodes.get(child) if type(child) is int else child  # the cache, without a call
        if type(node) is not Branch and type(node) is not Leaf:
            node = pager.glance(child, level)
        node.hot = True
        if not isinstance(node, Branch):
            return node
        child = node.children[bisect_right(node.keys, key)]
        level -= 1


def get(root: Root | None, key: bytes, pager: Pager) -> Value | None:
    """The value of a key."""
    if root is None:
        return None
    leaf = leaf_of(root, key, pager)
    if isinstance(leaf, Page):
        return leaf.get(key)
    keys = leaf.keys
    i = bisect_left(keys, key)
    if i < len(keys) and keys[i] == key:
        return leaf.values[i]
    return None


def floor(root: Root | None, key: bytes, pager: Pager) -> tuple[bytes, Value] | None:
    """The entry with the greatest key that is not above ``key``."""
    if root is None:
        return None
    leaf = leaf_of(root, key, pager)
    if isinstance(leaf, Page):
        leaf = leaf.decoded()
    i = bisect_right(leaf.keys, key)
    return (leaf.keys[i - 1], leaf.values[i - 1]) if i else next(scan_back(root, b"", key, pager), None)


_ABOVE_ALL = b"\xff" * (MAX_KEY + 1)


class Cursor:
    """Looks up keys that are likely to lie in the same leaf as the one before, or in one beside it.

    The branch above that leaf is remembered with the range of keys that it leads to (``_low`` inclusive, ``_high`` exclusive),
    so most look-ups need not begin at the root.
    """

    __slots__ = ("_children", "_high", "_keys", "_low", "_nodes", "_pager", "_root", "_separators", "_values")

    def __init__(self, root: Root | None, pager: Pager) -> None:
        self._root = root
        self._pager = pager
        self._nodes = pager.nodes
        self._keys: Sequence[bytes] = ()
        self._values: Sequence[Value] = ()
        self._separators: Sequence[bytes] = ()
        self._children: Sequence[Child] = ()
        self._low = self._high = b""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key. Raises Corrupted, Unavailable."""
        keys = self._keys
        if not keys or key < keys[0] or key > keys[-1]:
            if self._low <= key < self._high:
                child = self._children[bisect_right(self._separators, key)]
                leaf = self._nodes.get(child) if type(child) is int else child  # the cache, without a call
                if type(leaf) is not Leaf:
                    leaf = self._pager.node(child, 0)
                    assert type(leaf) is Leaf
                leaf.hot = True
            elif self._root is None:
                return None
            else:
                leaf = self._descend(self._root, key)
                if isinstance(leaf, Page):
                    return leaf.get(key)
            keys = self._keys = leaf.keys
            self._values = leaf.values
        i = bisect_left(keys, key)
        if i == len(keys) or keys[i] != key:
            return None
        value = self._values[i]
        return value if type(value) is bytes else self._pager.value(value)

    def _descend(self, root: Root, key: bytes) -> Leaf | Page:
        """The leaf that holds a key, if any does, from the root, or its page if nobody has read it yet; the branch above it is
        remembered."""
        low, high = b"", _ABOVE_ALL
        child, level = root.child, root.level
        while True:
            node = self._nodes.get(child) if type(child) is int else child  # the cache, without a call
            if type(node) is not Branch and type(node) is not Leaf:
                node = self._pager.glance(child, level)
            node.hot = True
            if not isinstance(node, Branch):
                return node
            if level == 1:
                self._separators, self._children, self._low, self._high = node.keys, node.children, low, high
            i = bisect_right(node.keys, key)
            low = node.keys[i - 1] if i else low
            high = node.keys[i] if i < len(node.keys) else high
            child = node.children[i]
            level -= 1


def _path(root: Root, key: bytes | None, pager: Pager, *, last: bool = False) -> tuple[Leaf, list[tuple[Branch, int]]]:
    """The leaf that may hold a key (the first or last leaf for None), with the branches above it and the way taken."""
    above: list[tuple[Branch, int]] = []
    node = pager.node(root.child, root.level)
    while isinstance(node, Branch):
        if key is None:
            i = len(node.children) - 1 if last else 0
        else:
            i = bisect_right(node.keys, key)
        above.append((node, i))
        node = pager.node(node.children[i], node.level - 1)
    return node, above


def _neighbour(above: list[tuple[Branch, int]], step: int, pager: Pager) -> Leaf | None:
    """The leaf after (step 1) or before (-1) the one that ``above`` leads to; ``above`` then leads to it."""
    while above:
        branch, i = above.pop()
        i += step
        if 0 <= i < len(branch.children):
            above.append((branch, i))
            node = pager.node(branch.children[i], branch.level - 1)
            while isinstance(node, Branch):
                i = 0 if step > 0 else len(node.children) - 1
                above.append((node, i))
                node = pager.node(node.children[i], node.level - 1)
            return node
    return None


def pieces(
    root: Root | None, low: bytes, high: bytes | None, pager: Pager
) -> Iterator[tuple[Sequence[bytes], Sequence[Value]]]:
    """Entries with ``low <= key < high`` (no upper end: None) in key order, as keys and values, leaf by leaf."""
    if root is None:
        return
    leaf: Leaf | None
    leaf, above = _path(root, low, pager)
    i = bisect_left(leaf.keys, low)
    while leaf is not None:
        keys = leaf.keys
        if high is not None and keys and keys[-1] >= high:
            end = bisect_left(keys, high)
            yield keys[i:end], leaf.values[i:end]
            return
        yield keys[i:], leaf.values[i:]
        leaf = _neighbour(above, 1, pager)
        i = 0


def scan_back(root: Root | None, low: bytes, high: bytes | None, pager: Pager) -> Iterator[tuple[bytes, Value]]:
    """The entries of :func:`pieces` one by one, in reverse order."""
    if root is None:
        return
    leaf: Leaf | None
    leaf, above = _path(root, high, pager, last=True)
    while leaf is not None:
        keys = leaf.keys
        end = len(keys) if high is None else bisect_left(keys, high)
        start = bisect_left(keys, low)
        for i in range(end - 1, start - 1, -1):
            yield keys[i], leaf.values[i]
        if start > 0:
            return
        leaf = _neighbour(above, -1, pager)
