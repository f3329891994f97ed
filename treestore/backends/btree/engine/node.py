"""Pages decoded into nodes of the tree: sorted sequences that ``bisect`` searches in C. Those of a node that an edit makes are
lists, which it may change; those of one on disk are tuples of bytes and integers, which the garbage collector does not look
into: a cache holds millions of them.

A node is never changed once it can be seen from a published root; an edit makes a new one, which it alone may change. What a
checkpoint fills in later means the same to every reader: the node's page number and, once it is durable there, its reference;
in a branch, a child's reference in place of the child itself; in a leaf, an overflow value in place of a long one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from treestore.backends.btree.engine.format import (
    BRANCH,
    CELL,
    LEAF,
    MAX_INLINE,
    PAGE_HEADER,
    POINTER,
    POINTING_LEAF,
    Value,
    damaged,
    decode_branch,
    decode_leaf,
    encode_branch,
    encode_leaf,
    find_in_leaf,
    verify,
)

ENTRY_COST = 2 * 41  # bytes that CPython adds to key and value, with the lists' pointers
_NODE = 300  # the node itself with its two lists
_MANY = 64  # entries of a leaf; fewer are decoded in the time that it takes to look among them twice
_PAGE = 150  # a page that is not decoded, beside its bytes


class Leaf:
    """Entries in key order; ``size`` is the bytes that they take on a page. ``page`` is 0 until a checkpoint gives it one,
    ``reference`` until it is encoded; ``maker`` is the number of the edit that made it, 0 for one from disk; ``hot`` is the
    cache's mark."""

    __slots__ = ("hot", "keys", "maker", "page", "reference", "size", "values")
    level = 0

    def __init__(self, keys: Sequence[bytes], values: Sequence[Value], size: int, reference: int = 0) -> None:
        self.keys = keys
        self.values = values
        self.size = size
        self.reference = reference
        self.page = reference >> 32
        self.maker = 0
        self.hot = False

    @property
    def cost(self) -> int:
        """About how many bytes of memory it takes, without values that lie (or will lie) on overflow pages."""
        return _NODE + self.size + ENTRY_COST * len(self.keys)

    def copy(self) -> Leaf:
        """The same entries in lists of its own."""
        return Leaf([*self.keys], [*self.values], self.size)

    def lists(self) -> tuple[list[bytes], list[Value]]:
        """Its keys and values, to be changed by the edit that made it."""
        assert isinstance(self.keys, list) and isinstance(self.values, list), "it is on disk"
        return self.keys, self.values

    def settle(self, reference: int) -> None:
        """It is durable under this reference, and no edit changes it any more."""
        self.reference = reference
        self.keys, self.values = tuple(self.keys), tuple(self.values)

    def encode(self) -> tuple[int, bytes]:
        """Its reference, and the bytes of its page."""
        return encode_leaf(self.page, self.keys, self.values)


class Branch:
    """Children in key order: ``children[i]`` holds the keys from ``keys[i - 1]`` (inclusive) to ``keys[i]`` (exclusive). A
    child is a node, or the reference of one on disk."""

    __slots__ = ("children", "hot", "keys", "level", "maker", "page", "reference", "size")

    def __init__(self, level: int, keys: Sequence[bytes], children: Sequence[Child], size: int, reference: int = 0) -> None:
        self.level = level
        self.keys = keys
        self.children = children
        self.size = size
        self.reference = reference
        self.page = reference >> 32
        self.maker = 0
        self.hot = False

    @property
    def cost(self) -> int:
        """About how many bytes of memory it takes, without its children."""
        return _NODE + self.size + ENTRY_COST * len(self.children)

    def copy(self) -> Branch:
        """The same children in a list of its own; the keys, which no edit changes in place, are shared."""
        return Branch(self.level, self.keys, [*self.children], self.size)

    def put(self, i: int, child: Child) -> None:
        """Another child in the place of one, by the edit that made this branch."""
        assert isinstance(self.children, list), "it is on disk"
        self.children[i] = child

    def settle(self, reference: int) -> None:
        """As a leaf's; its children are on disk already."""
        self.reference = reference
        self.keys = tuple(self.keys)
        self.children = tuple([child if isinstance(child, int) else child.reference for child in self.children])

    def encode(self, references: list[int]) -> tuple[int, bytes]:
        """Its reference, and the bytes of its page, given its children's references."""
        assert len(references) == len(self.children) and all(references), "a child without a reference"
        return encode_branch(self.page, self.level, self.keys, references)


class Page:
    """A leaf as it is on its page, verified and not decoded: where one entry of it is asked for, to decode all of them takes
    most of the time."""

    __slots__ = ("_count", "_raw", "_used", "hot", "reference")

    def __init__(self, reference: int, raw: bytes, count: int, used: int) -> None:
        self.reference = reference
        self.hot = False
        self._raw = raw
        self._count = count
        self._used = used

    @property
    def cost(self) -> int:
        """About how many bytes of memory it takes."""
        return _PAGE + len(self._raw)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key. Raises Corrupted."""
        return find_in_leaf(self.reference >> 32, self._raw, self._count, self._used, key)

    def decoded(self) -> Leaf:
        """All entries. Raises Corrupted."""
        keys, values = decode_leaf(self.reference >> 32, self._raw, self._count, self._used)
        return Leaf(keys, values, PAGE_HEADER + self._used, self.reference)


Node = Leaf | Branch
Child = int | Leaf | Branch


class Root(NamedTuple):
    """A tree: its topmost node or that node's reference, its level (0: a leaf) and its number of entries."""

    child: Child
    level: int
    entries: int


def cell_size(value: Value) -> int:
    """Bytes that a value takes in its leaf, with the bookkeeping of the entry but without the key."""
    if type(value) is bytes and len(value) <= MAX_INLINE:
        return CELL + len(value)
    return CELL + POINTER


def decode(reference: int, raw: bytes, level: int) -> Node:
    """The node on a page, verified to be the referenced one and of the expected level. Raises Corrupted."""
    return _decoded(reference, raw, level, *verify(reference, raw))


def glance(reference: int, raw: bytes) -> Leaf | Page:
    """As :func:`decode` of a leaf; one of many entries, none of which lies elsewhere, as its page."""
    kind, found, count, used = verify(reference, raw)
    if kind == LEAF and found == 0 and count >= _MANY:
        return Page(reference, raw, count, used)
    node = _decoded(reference, raw, 0, kind, found, count, used)
    assert isinstance(node, Leaf)
    return node


def _decoded(reference: int, raw: bytes, level: int, kind: int, found: int, count: int, used: int) -> Node:
    page = reference >> 32
    if kind not in ((BRANCH,) if level else (LEAF, POINTING_LEAF)) or found != level:
        raise damaged(page, f"it has type {kind} and level {found} where its parent says level {level}")
    if level:
        keys, references = decode_branch(page, raw, count, used)
        return Branch(level, keys, references, PAGE_HEADER + used, reference)
    leaf_keys, values = decode_leaf(page, raw, count, used)
    return Leaf(leaf_keys, values, PAGE_HEADER + used, reference)
