"""Edits of a B+Tree, as functions on nodes: they make a new tree and leave the old one as it was.

A tree is a :class:`.node.Root` (or None, the empty tree). An edit copies the nodes on its way (copy-on-write) and notes in an
:class:`Edit` which pages the new tree no longer needs. Edits take sorted runs of changes and descend once for each leaf they
touch, so one put and a bulk load are the same code. Recursion is over the tree's levels, of which there are at most eight
or so.

Leaves split evenly, but at the end where entries are appended in order; a node that shrinks below a quarter of a page is
joined with a neighbour if both fit one page with room to spare.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import NamedTuple, TypeVar

from treestore.backends.btree.engine.format import (
    BRANCH_CELL,
    LEAF,
    MAX_INLINE,
    PAGE_HEADER,
    PAGE_SIZE,
    Overflow,
    Value,
)
from treestore.backends.btree.engine.freelist import Run
from treestore.backends.btree.engine.node import ENTRY_COST, Branch, Child, Leaf, Node, Root, cell_size
from treestore.backends.btree.engine.pager import Pager

N = TypeVar("N", Leaf, Branch)

_SPARSE = PAGE_SIZE // 4  # a node below this looks for a neighbour to join
_JOINED = PAGE_SIZE * 3 // 4  # what the two may fill, so that the next insert does not split them again


class Piece(NamedTuple):
    """A child on an edited level and the least key that it may hold; where the child takes another's place, the other's bound
    stays."""

    bound: bytes
    child: Child


_numbers = itertools.count(1)


class Edit:
    """What one edit, of any number of trees in any number of steps, gives up and makes. ``freed`` are runs of pages;
    ``entries`` and ``dirty`` are the changes of the number of entries and of the bytes of nodes that are not on disk.

    A node that an edit made is changed in place by its later steps: nobody else has seen it yet. So what a step began from is
    gone with it, and a step that fails (Corrupted, Unavailable) spoils the edit.
    """

    def __init__(self, pager: Pager) -> None:
        self.number = next(_numbers)
        self.pager = pager
        self.freed: list[Run] = []
        self.entries = 0
        self.dirty = 0

    def made(self, node: N) -> N:
        """A new node."""
        node.maker = self.number
        self.dirty += node.cost
        return node

    def own(self, node: N) -> N:
        """A node to be changed in the place of this one: itself, if this edit made it, else a copy."""
        if node.maker == self.number:
            return node
        own = node.copy()
        own.maker = self.number
        if node.page:
            self.retire(node)
            self.dirty += own.cost
        return own

    def retire(self, node: Node) -> None:
        """The new tree does not hold this node."""
        if node.page:
            self.freed.append((node.page, 1))
            self.pager.discard(node.reference)
        else:
            self.dirty -= node.cost

    def retire_value(self, value: Value) -> None:
        """The new tree does not hold this value."""
        if isinstance(value, Overflow):
            self.freed.append((value.page, value.pages))
        elif len(value) > MAX_INLINE:
            self.dirty -= len(value)


# --- building levels -----------------------------------------------------------------------------------------------------


def separator(left: bytes, right: bytes) -> bytes:
    """The shortest bytes that are greater than ``left`` and not greater than ``right``."""
    for i, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return right[: i + 1]
    return right[: len(left) + 1]


def _cuts(sizes: list[int], fill: bool) -> list[int]:
    """Where to cut a sequence of entries so that each part fits a page: full pages, or parts of about equal size."""
    room = PAGE_SIZE - PAGE_HEADER
    total = sum(sizes)
    target = room if fill else -(-total // -(-total // room))
    cuts: list[int] = []
    used = 0
    for i, size in enumerate(sizes):
        if used and (used + size > room or used >= target):
            cuts.append(i)
            used = 0
        used += size
    return cuts


def _leaves(keys: list[bytes], values: list[Value], fill: bool, edit: Edit) -> list[Piece]:
    """The entries as leaves."""
    sizes = [len(key) + cell_size(value) for key, value in zip(keys, values, strict=True)]
    total = sum(sizes)
    if total <= PAGE_SIZE - PAGE_HEADER:
        return [Piece(b"", edit.made(Leaf(keys, values, PAGE_HEADER + total)))] if keys else []
    cuts = [0, *_cuts(sizes, fill), len(keys)]
    pieces = []
    for a, b in pairwise(cuts):
        bound = separator(keys[a - 1], keys[a]) if a else b""
        leaf = Leaf(keys[a:b], values[a:b], PAGE_HEADER + sum(sizes[a:b]))
        pieces.append(Piece(bound, edit.made(leaf)))
    return pieces


def _branches(level: int, bounds: list[bytes], children: list[Child], fill: bool, edit: Edit) -> list[Piece]:
    """Children with their bounds as branches of one level; the first bound stays the bound of the first branch."""
    if not children:
        return []
    if BRANCH_CELL * len(children) + sum(map(len, bounds)) <= PAGE_SIZE - PAGE_HEADER:
        cuts = [0, len(children)]
    else:
        cuts = [0, *_cuts([BRANCH_CELL + len(bound) for bound in bounds], fill), len(children)]
    made = []
    for a, b in pairwise(cuts):
        keys = bounds[a + 1 : b]
        size = PAGE_HEADER + BRANCH_CELL * (b - a) + sum(map(len, keys))
        made.append(Piece(bounds[a], edit.made(Branch(level, keys, children[a:b], size))))
    return made


def _grown(level: int, pieces: list[Piece], count: int, edit: Edit) -> Root | None:
    """A tree of the pieces of its topmost level: grown by levels, or shrunk where a branch has one child only."""
    while len(pieces) > 1:
        level += 1
        pieces = _branches(level, [piece.bound for piece in pieces], [piece.child for piece in pieces], False, edit)
    if not pieces:
        return None
    child = pieces[0].child
    while level:
        node = edit.pager.node(child, level)
        assert isinstance(node, Branch)
        if len(node.children) > 1:
            break
        edit.retire(node)
        child = node.children[0]
        level -= 1
    return Root(child, level, count)


Change = tuple[int, int, list[Piece]]
"""Children ``first``…``last`` of a branch and what takes their place."""


def _rebuilt(branch: Branch, changes: list[Change], edit: Edit) -> list[Piece]:
    """A branch after changes of its children, in order, as one or more branches (none, if it is empty)."""
    old = [b"", *branch.keys]
    bounds: list[bytes] = []
    children: list[Child] = []
    at = 0
    for first, last, pieces in changes:
        bounds += old[at:first]
        children += branch.children[at:first]
        if pieces:
            bounds.append(old[first])
            bounds += [piece.bound for piece in pieces[1:]]
            children += [piece.child for piece in pieces]
        at = last + 1
    end = len(children)
    bounds += old[at:]
    children += branch.children[at:]
    _join(bounds, children, changes[0][0], end, branch.level - 1, edit)
    edit.retire(branch)
    return _branches(branch.level, bounds, children, at == len(old), edit)


def _join(bounds: list[bytes], children: list[Child], first: int, last: int, level: int, edit: Edit) -> None:
    """Join those of the children ``first``…``last - 1`` that are sparse with a neighbour."""
    i = max(0, first - 1)
    while i + 1 < len(children) and i < last:
        left, right = children[i], children[i + 1]
        if not any(not isinstance(side, int) and not side.page and side.size < _SPARSE for side in (left, right)):
            i += 1
            continue
        one, two = edit.pager.node(left, level), edit.pager.node(right, level)
        if one.size + two.size > _JOINED:
            i += 1
            continue
        joined: Node
        if isinstance(one, Leaf) and isinstance(two, Leaf):
            size = one.size + two.size - PAGE_HEADER
            joined = edit.made(Leaf([*one.keys, *two.keys], [*one.values, *two.values], size))
        else:
            assert isinstance(one, Branch) and isinstance(two, Branch)
            bound = bounds[i + 1]
            size = one.size + two.size - PAGE_HEADER + len(bound)
            joined = edit.made(Branch(level, [*one.keys, bound, *two.keys], [*one.children, *two.children], size))
        edit.retire(one)
        edit.retire(two)
        children[i : i + 2] = [joined]
        del bounds[i + 1]
        last -= 1


# --- putting and deleting ------------------------------------------------------------------------------------------------


def update(root: Root | None, keys: list[bytes], values: list[bytes | None], edit: Edit) -> Root | None:
    """The tree with the values of sorted, unique keys put, or (None) deleted."""
    before = edit.entries
    if root is None:  # nothing to delete
        present = [i for i, value in enumerate(values) if value is not None]
        keys, values = [keys[i] for i in present], [values[i] for i in present]
    if not keys:
        return root
    edit.dirty += sum([len(value) for value in values if value is not None and len(value) > MAX_INLINE])
    if root is None:
        root = Root(edit.made(Leaf([], [], PAGE_HEADER)), 0, 0)
    elif len(keys) == 1:
        updated = _updated_one(root, keys[0], values[0], edit)
        if updated is not None:
            return updated
    pieces = _updated(edit.pager.node(root.child, root.level), keys, values, edit)
    return _grown(root.level, pieces, root.entries + edit.entries - before, edit)


def _updated_one(root: Root, key: bytes, value: bytes | None, edit: Edit) -> Root | None:
    """The tree with one value put or deleted where no leaf comes or goes by that, as nearly always; else None, and nothing is
    done. What :func:`_updated` does for any number of keys, in half the time."""
    above: list[tuple[Branch, int]] = []
    node = edit.pager.node(root.child, root.level)
    while isinstance(node, Branch):
        i = bisect_right(node.keys, key)
        above.append((node, i))
        node = edit.pager.node(node.children[i], node.level - 1)
    before = edit.entries
    changed = _changed(node, key, value, edit)
    if changed is None:
        return None
    child: Child = root.child
    if changed is not node:
        child = changed
        for branch, i in reversed(above):
            own = edit.own(branch)
            own.put(i, child)
            child = own
    return Root(child, root.level, root.entries + edit.entries - before)


def _updated(node: Node, keys: list[bytes], values: list[bytes | None], edit: Edit) -> list[Piece]:
    if isinstance(node, Leaf):
        return _updated_leaf(node, keys, values, edit)
    changes: list[Change] = []
    start, count = 0, len(keys)
    while start < count:
        i = bisect_right(node.keys, keys[start])
        end = bisect_left(keys, node.keys[i], start) if i < len(node.keys) else count
        child = edit.pager.node(node.children[i], node.level - 1)
        part = slice(start, end)
        changes.append((i, i, _updated(child, keys[part], values[part], edit)))
        start = end
    if len(changes) == 1 and len(changes[0][2]) == 1:  # by far the most frequent: no child came or went
        i, _, [piece] = changes[0]
        if isinstance(piece.child, int) or piece.child.size >= _SPARSE or len(node.children) == 1:
            node = edit.own(node)
            node.put(i, piece.child)
            return [Piece(b"", node)]
    return _rebuilt(node, changes, edit)


def _updated_leaf(leaf: Leaf, keys: list[bytes], values: list[bytes | None], edit: Edit) -> list[Piece]:
    """The leaf with a sorted run of changes, as any number of leaves."""
    if len(keys) == 1:
        changed = _changed(leaf, keys[0], values[0], edit)
        if changed is not None:
            return [Piece(b"", _kept(changed))]
    merged_keys: list[bytes] = []
    merged: list[Value] = []
    at = 0
    for key, value in zip(keys, values, strict=True):
        i = bisect_left(leaf.keys, key, at)
        if i > at:
            merged_keys += leaf.keys[at:i]
            merged += leaf.values[at:i]
        at = i
        if i < len(leaf.keys) and leaf.keys[i] == key:
            edit.retire_value(leaf.values[i])
            edit.entries -= 1
            at += 1
        if value is not None:
            merged_keys.append(key)
            merged.append(value)
            edit.entries += 1
    appended = at == len(leaf.keys) and bool(leaf.keys) and keys[0] > leaf.keys[-1]
    merged_keys += leaf.keys[at:]
    merged += leaf.values[at:]
    edit.retire(leaf)
    return _leaves(merged_keys, merged, appended or not leaf.keys, edit)


def _changed(leaf: Leaf, key: bytes, value: bytes | None, edit: Edit) -> Leaf | None:
    """The leaf with one value put or deleted; None, and nothing is done, if it would be too large for a page, or shrink so far
    that it should be joined with a neighbour."""
    size = leaf.size
    i = bisect_left(leaf.keys, key)
    found = i < len(leaf.keys) and leaf.keys[i] == key
    if found:
        size -= cell_size(leaf.values[i])
    if value is not None:
        size += cell_size(value) + (0 if found else len(key))
    elif found:
        size -= len(key)
    else:
        return leaf
    if size > PAGE_SIZE or (size < leaf.size and size < _SPARSE):
        return None
    leaf = edit.own(leaf)
    keys, values = leaf.lists()
    edit.dirty += size - leaf.size
    if found:
        edit.retire_value(values[i])
    if value is None:
        del keys[i], values[i]
        edit.entries -= 1
        edit.dirty -= ENTRY_COST
    elif found:
        values[i] = value
    else:
        keys.insert(i, key)
        values.insert(i, value)
        edit.entries += 1
        edit.dirty += ENTRY_COST
    leaf.size = size
    return leaf


def _kept(node: Node) -> Child:
    """An unchanged node as a child: by its reference if it is on disk."""
    return node.reference or node


# --- deleting a range ----------------------------------------------------------------------------------------------------


def remove_range(root: Root | None, low: bytes, high: bytes | None, edit: Edit) -> Root | None:
    """The tree without the entries ``low <= key < high`` (no upper end: None). Pages wholly inside are read but not
    decoded."""
    if root is None or (high is not None and high <= low):
        return root
    before = edit.entries
    pieces = _removed(edit.pager.node(root.child, root.level), low, high, edit)
    return _grown(root.level, pieces, root.entries + edit.entries - before, edit)


def _removed(node: Node, low: bytes, high: bytes | None, edit: Edit) -> list[Piece]:
    if isinstance(node, Leaf):
        i = bisect_left(node.keys, low)
        j = len(node.keys) if high is None else bisect_left(node.keys, high)
        if i >= j:
            return [Piece(b"", _kept(node))]
        for value in node.values[i:j]:
            edit.retire_value(value)
        edit.entries -= j - i
        edit.retire(node)
        return _leaves([*node.keys[:i], *node.keys[j:]], [*node.values[:i], *node.values[j:]], False, edit)
    first = bisect_right(node.keys, low)
    last = len(node.keys) if high is None else bisect_left(node.keys, high)
    below = node.level - 1
    pieces = _removed(edit.pager.node(node.children[first], below), low, high, edit)
    for child in node.children[first + 1 : last]:
        _dropped(child, below, edit)
    if last > first:
        more = _removed(edit.pager.node(node.children[last], below), low, high, edit)
        if more:
            pieces = [*pieces, Piece(node.keys[last - 1], more[0].child), *more[1:]]
    return _rebuilt(node, [(first, max(first, last), pieces)], edit)


def _dropped(child: Child, level: int, edit: Edit) -> None:
    """Give up a child and all below it."""
    if isinstance(child, int) and level == 0:
        kind, _, count = edit.pager.raw(child)
        if kind == LEAF:  # no value of it lies elsewhere
            edit.entries -= count
            edit.freed.append((child >> 32, 1))
            return
    node = edit.pager.node(child, level)
    if isinstance(node, Leaf):
        edit.entries -= len(node.keys)
        for value in node.values:
            edit.retire_value(value)
    else:
        for below in node.children:
            _dropped(below, level - 1, edit)
    edit.retire(node)


# --- linking pages that were written before ------------------------------------------------------------------------------


class Graft(NamedTuple):
    """Leaves on disk that continue each other: their bounds (the first one: the least key) and references, their greatest
    key, their number of entries, and all pages, in order, that they and their values take."""

    leaves: list[tuple[bytes, int]]
    last_key: bytes
    entries: int
    runs: list[Run]


def graft(root: Root | None, new: Graft, edit: Edit) -> Root | None:
    """The tree with the leaves linked in. No key of the tree may lie among theirs, nor a separator that a key which is gone
    has left behind (AssertionError): they are keys of numbers that were never used."""
    edit.entries += new.entries
    if root is None:
        return _grown(0, [Piece(bound, reference) for bound, reference in new.leaves], new.entries, edit)
    pieces = _grafted(edit.pager.node(root.child, root.level), new, edit)
    return _grown(root.level, pieces, root.entries + new.entries, edit)


def _grafted(node: Node, new: Graft, edit: Edit) -> list[Piece]:
    first_key = new.leaves[0][0]
    if isinstance(node, Branch):
        i = bisect_right(node.keys, first_key)
        assert i == len(node.keys) or new.last_key < node.keys[i], "grafted keys overlap the tree"
        pieces = _grafted(edit.pager.node(node.children[i], node.level - 1), new, edit)
        return _rebuilt(node, [(i, i, pieces)], edit)
    i = bisect_left(node.keys, first_key)
    assert i == len(node.keys) or new.last_key < node.keys[i], "grafted keys overlap the tree"
    grafted = [Piece(bound, reference) for bound, reference in new.leaves]
    if i == len(node.keys):
        return [Piece(b"", _kept(node)), *grafted]
    right = Piece(separator(new.last_key, node.keys[i]), _kept(node))
    if i > 0:
        edit.retire(node)
        [left] = _leaves([*node.keys[:i]], [*node.values[:i]], False, edit)
        [after] = _leaves([*node.keys[i:]], [*node.values[i:]], False, edit)
        return [left, *grafted, Piece(right.bound, after.child)]
    return [*grafted, right]
