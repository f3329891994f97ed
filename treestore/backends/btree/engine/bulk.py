"""Bulk loads: many entries in key order, written straight to free pages of the data file.

The leaves are streamed to disk and synced; then one log record links them into the tree (:func:`tree.graft`), so a whole
document is written once and not twice. Until that record is durable nothing refers to the pages: after a crash they are
free.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from treestore.backends.btree.engine.file import File
from treestore.backends.btree.engine.format import (
    MAX_INLINE,
    PAGE_HEADER,
    PAGE_SIZE,
    Overflow,
    Value,
    encode_leaf,
    encode_overflow,
)
from treestore.backends.btree.engine.freelist import FreeList, Run, coalesce
from treestore.backends.btree.engine.node import cell_size
from treestore.backends.btree.engine.pager import Pager, PageWriter
from treestore.backends.btree.engine.tree import Graft, separator

R = TypeVar("R")


def finished(steps: Generator[None, None, R]) -> R:
    """Run a generator to its end without pauses and give its result."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: R = end.value
        return result


class Bulk:
    """One bulk load, of any number of trees. ``pager`` is that of the data file it writes to; ``sync`` syncs it, where others
    write to the same file."""

    def __init__(self, pager: Pager, freelist: FreeList, sync: Callable[[File], None] | None = None) -> None:
        self.pager = pager
        self._sync = sync
        self._freelist = freelist
        self._writer = PageWriter(pager.file)
        self._runs: list[Run] = []

    def load(self, entries: Iterable[tuple[bytes, bytes]]) -> Generator[None, None, Graft | None]:
        """Write entries with ascending keys as full leaves; what they make is the generator's result (None: no entries).
        Pauses after each leaf. Raises DiskFull, Unavailable."""
        keys: list[bytes] = []
        values: list[Value] = []
        size, count, last, bound = PAGE_HEADER, 0, b"", b""
        leaves: list[tuple[bytes, int]] = []
        before = len(self._runs)
        for key, content in entries:
            value = self._value(content)
            added = len(key) + cell_size(value)
            if size + added > PAGE_SIZE:
                leaves.append((bound, self._leaf(keys, values)))
                bound = separator(last, key)
                keys, values, size = [], [], PAGE_HEADER
                yield
            elif not count:
                bound = key
            assert not count or key > last, "a bulk load's keys must ascend"
            keys.append(key)
            values.append(value)
            size, count, last = size + added, count + 1, key
        if not count:
            return None
        leaves.append((bound, self._leaf(keys, values)))
        return Graft(leaves, last, count, coalesce(self._runs[before:]))

    def _value(self, content: bytes) -> Value:
        if len(content) <= MAX_INLINE:
            return content
        value = Overflow(0, 0, len(content))
        value.page = self._stage(value.pages)
        value.checksum, raw = encode_overflow(value.page, content)
        self._writer.write(value.page, raw)
        return value

    def _leaf(self, keys: list[bytes], values: list[Value]) -> int:
        page = self._stage(1)
        reference, raw = encode_leaf(page, keys, values)
        self.pager.discard(reference)
        self._writer.write(page, raw)
        return reference

    def _stage(self, count: int) -> int:
        page = self._freelist.stage(count)
        self._runs.append((page, count))
        return page

    def sync(self) -> int:
        """Make all that was loaded durable; gives the bytes written."""
        self._writer.flush()
        if self._sync is None:
            self.pager.file.sync()
        else:
            self._sync(self.pager.file)
        return self._writer.bytes_written

    def abandon(self) -> None:
        """Give the pages back; nothing may refer to them."""
        self._freelist.unstage(self._runs)
        self._runs = []
