"""The entries of a damaged store's trees, and beside them those of pages that nothing refers to any more.

Where a page can't be read, copies of its entries may stand elsewhere: below a branch that is damaged all leaves are still
whole, and pages that were given up keep what they held until they are used again. Such entries are *strays*: somebody wrote
them, but they may be of an earlier time, so whoever uses one must prove it by a hash. Which tree a stray leaf is of, its
entries show.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from hashlib import sha256

import msgspec

from treestore.backends.btree.engine import keycode
from treestore.backends.btree.engine.format import Value
from treestore.backends.btree.engine.node import Leaf
from treestore.backends.btree.engine.salvage import UNREADABLE, Gap, Remains
from treestore.backends.btree.keyspace import (
    HEADS,
    LAYOUTS,
    NODES,
    PAGES,
    TEXTS,
    VERSIONS,
    Head,
    Layout,
    PageRow,
    decode,
    decode_outline,
    decode_text,
    row_prefix,
)
from treestore.errors import Corrupted
from treestore.records import Version

GIVEN = (VERSIONS, HEADS, LAYOUTS, NODES, TEXTS, PAGES)
"""The trees of what was given; all others are derived from them."""

_ANY = row_prefix("", "")  # any policy will do for looking at a node's row


class Entries:
    """Looks up entries, by all values that a key may have: the one of the state or, where that can't be read, of strays."""

    def __init__(self, remains: Remains) -> None:
        self._state = remains.state
        self._cursors = {tree: remains.state.cursor(tree) for tree in GIVEN}
        self._gaps: dict[int, list[Gap]] = {}
        for gap in remains.gaps:
            self._gaps.setdefault(gap.tree, []).append(gap)
        self._strays: dict[int, dict[bytes, list[tuple[int, int]]]] = {tree: {} for tree in GIVEN}
        if any(self.lacks(tree) for tree in GIVEN):
            for leaf in remains.leaves():
                self._note(leaf)
        self._stray_keys = {tree: sorted(strays) for tree, strays in self._strays.items()}
        self._by_hash: dict[bytes, bytes] | None = None

    def lacks(self, tree: int) -> bool:
        """Whether not all of a tree can be read."""
        return tree in self._gaps

    def gap(self, tree: int, key: bytes) -> str | None:
        """Why the entry of a key can't be read; None where nothing hinders it."""
        return next((gap.where for gap in self._gaps.get(tree, ()) if gap.holds(key)), None)

    def _note(self, leaf: Leaf) -> None:
        if not leaf.keys:
            return
        gaps = [gap for tree in GIVEN for gap in self._gaps.get(tree, ()) if gap.meets(leaf.keys[0], leaf.keys[-1])]
        tree = self._tree_of(leaf) if gaps else None
        gaps = [gap for gap in gaps if gap.tree == tree]
        if tree is None or not gaps:
            return
        strays = self._strays[tree]
        for i, key in enumerate(leaf.keys):
            raw = self._value(leaf.values[i]) if any(gap.holds(key) for gap in gaps) else None
            if raw is not None and _is_of(tree, key, raw):
                strays.setdefault(key, []).append((leaf.reference, i))

    def _tree_of(self, leaf: Leaf) -> int | None:
        key, raw = leaf.keys[0], self._value(leaf.values[0])
        return None if raw is None else next((tree for tree in GIVEN if _is_of(tree, key, raw)), None)

    def _value(self, value: Value) -> bytes | None:
        try:
            return self._state.pager.value(value)
        except UNREADABLE:
            return None

    def values(self, tree: int, key: bytes) -> list[bytes]:
        """All that a key may have had; one value, if it can be read where it belongs."""
        raw = self._cursors[tree].get(key)
        return self.strays(tree, key) if raw is None else [raw]

    def strays(self, tree: int, key: bytes) -> list[bytes]:
        """What strays say that a key had at some time."""
        found: dict[bytes, None] = {}
        for reference, i in self._strays[tree].get(key, ()):
            leaf = self._state.pager.node(reference, 0)
            assert isinstance(leaf, Leaf)
            raw = self._value(leaf.values[i])
            if raw is not None:
                found[raw] = None
        return list(found)

    def is_stray(self, tree: int, key: bytes) -> bool:
        """Whether only strays say what a key has."""
        return self._cursors[tree].get(key) is None

    def keys(self, tree: int, low: bytes = b"", high: bytes | None = None) -> list[bytes]:
        """All keys of a range that are found in a tree, strays too, in order."""
        keys = self._stray_keys[tree]
        start = bisect_left(keys, low)
        end = len(keys) if high is None else bisect_left(keys, high)
        stored = [key for key, _ in self._state.scan(tree, low, high)]
        return stored if start == end else sorted({*stored, *keys[start:end]})

    def all_keys(self, tree: int) -> Iterator[bytes]:
        """As :meth:`keys`, over a whole tree, in no order."""
        for key, _ in self._state.scan(tree, b"", None):
            yield key
        yield from self._stray_keys.get(tree, ())

    def text(self, key: bytes | None, digest: bytes) -> str | None:
        """The text with this hash: the one under ``key`` or, where that is lost, any that is equal."""
        found = self._equal(key, digest)
        if found is not None or not (self.lacks(TEXTS) or self.lacks(LAYOUTS)):
            return found
        if self._by_hash is None:
            self._by_hash = {}
            for name in self.all_keys(TEXTS):
                for text in (found for raw in self.values(TEXTS, name) if (found := _text(raw)) is not None):
                    self._by_hash.setdefault(sha256(text.encode()).digest(), name)
        return self._equal(self._by_hash.get(digest), digest)

    def _equal(self, key: bytes | None, digest: bytes) -> str | None:
        for raw in self.values(TEXTS, key) if key is not None else ():
            text = _text(raw)
            if text is not None and sha256(text.encode()).digest() == digest:
                return text
        return None


def _text(raw: bytes) -> str | None:
    try:
        return decode_text(raw)
    except Corrupted:
        return None


def _is_of(tree: int, key: bytes, raw: bytes) -> bool:
    """Whether an entry is one of this tree."""
    try:
        if tree == VERSIONS:
            version: Version = decode(Version, raw)
            return keycode.encode((version.policy_id, version.version_id)) == key
        if tree == HEADS:
            head: Head = decode(Head, raw)
            return raw[:1] == b"\x94" and key.decode() != "" and head.number > 0
        if tree == LAYOUTS:
            layout: Layout = decode(Layout, raw)
            return raw[:1] == b"\x97" and len(key) > 4 and key[4:].decode() != "" and layout.content > 0
        if len(key) != 8:
            return False
        if tree == NODES:
            return decode_outline(_ANY, raw).ordinal >= 0
        if tree == PAGES:
            row: PageRow = decode(PageRow, raw)
            return len(row.content_hash) == 32
        return _text(raw) is not None
    except (Corrupted, UnicodeDecodeError, msgspec.MsgspecError):
        return False
