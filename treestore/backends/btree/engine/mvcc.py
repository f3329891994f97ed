"""Committed moments of the store and who still reads them.

A :class:`State` is one committed moment: immutable, so any number of threads read it without locks. :class:`Readers` knows
the oldest moment that somebody still reads, so that its pages are not written over.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from treestore.backends.btree.engine import cursor
from treestore.backends.btree.engine.format import Meta
from treestore.backends.btree.engine.node import Root
from treestore.backends.btree.engine.pager import Pager


class State(NamedTuple):
    """One committed moment. ``epoch`` numbers commits, ``lsn`` is the last log record in it, ``roots`` maps a tree's number
    to its root (trees without entries are not there)."""

    epoch: int
    lsn: int
    roots: dict[int, Root]
    pager: Pager

    def get(self, number: int, key: bytes) -> bytes | None:
        """The value of a key in a tree. Raises Corrupted, Unavailable."""
        value = cursor.get(self.roots.get(number), key, self.pager)
        return value if value is None or type(value) is bytes else self.pager.value(value)

    def floor(self, number: int, key: bytes) -> tuple[bytes, bytes] | None:
        """The entry of a tree with the greatest key that is not above ``key``."""
        found = cursor.floor(self.roots.get(number), key, self.pager)
        if found is None:
            return None
        at, value = found
        return at, value if type(value) is bytes else self.pager.value(value)

    def cursor(self, number: int) -> cursor.Cursor:
        """Look-ups in a tree whose keys are likely to lie close together."""
        return cursor.Cursor(self.roots.get(number), self.pager)

    def scan(self, number: int, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Entries with ``low <= key < high`` in key order. A long value is read when it is reached."""
        pager = self.pager
        for keys, values in cursor.pieces(self.roots.get(number), low, high, pager):
            for key, value in zip(keys, values, strict=True):
                yield key, value if type(value) is bytes else pager.value(value)

    def pieces(self, number: int, low: bytes, high: bytes | None) -> Iterator[tuple[Sequence[bytes], list[bytes]]]:
        """The entries of :meth:`scan` as keys and values, leaf by leaf; long values are read with their leaf."""
        pager = self.pager
        for keys, values in cursor.pieces(self.roots.get(number), low, high, pager):
            yield keys, [value if type(value) is bytes else pager.value(value) for value in values]

    def scan_back(self, number: int, low: bytes, high: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """The entries of :meth:`scan` in reverse order."""
        pager = self.pager
        for key, value in cursor.scan_back(self.roots.get(number), low, high, pager):
            yield key, value if type(value) is bytes else pager.value(value)

    def count(self, number: int) -> int:
        """Entries in a tree."""
        root = self.roots.get(number)
        return root.entries if root is not None else 0


def state_of(meta: Meta, pager: Pager) -> State:
    """The moment of a checkpoint, wholly in its data file."""
    roots = {number: Root(reference, level, count) for number, (level, count, reference) in meta.roots.items()}
    return State(meta.epoch, meta.lsn, roots, pager)


class Readers:
    """The moments that are being read, each by a token. No lock: single dict operations are atomic."""

    def __init__(self) -> None:
        self._tokens = itertools.count()
        self._epochs: dict[int, int] = {}

    def enter(self, epoch: int) -> int:
        """Note a reader of this epoch. The caller must look afterwards whether the epoch is still the published one, and
        enter again where it is not: a writer may have looked for readers just before."""
        token = next(self._tokens)
        self._epochs[token] = epoch
        return token

    def leave(self, token: int) -> None:
        """The reader is done."""
        self._epochs.pop(token, None)

    def oldest(self) -> int | None:
        """The oldest epoch that is being read."""
        return min(self._epochs.copy().values(), default=None)

    def __len__(self) -> int:
        return len(self._epochs)
