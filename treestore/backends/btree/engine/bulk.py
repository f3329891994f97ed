"""Bulk loads: many entries in key order, written straight to free pages of the data file.

The leaves are streamed to disk and synced; then one log record links them into the tree (:func:`tree.graft`), so a whole
document is written once and not twice. Until that record is durable nothing refers to the pages: after a crash they are
free.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from operator import lt
from typing import TypeVar

from treestore.backends.btree.engine.file import File
from treestore.backends.btree.engine.format import (
    CELL,
    MAX_INLINE,
    PAGE_HEADER,
    PAGE_SIZE,
    POINTER,
    Overflow,
    Value,
    encode_leaf,
    encode_overflow,
)
from treestore.backends.btree.engine.freelist import FreeList, Run, coalesce
from treestore.backends.btree.engine.pager import Pager, PageWriter
from treestore.backends.btree.engine.tree import Graft, separator

R = TypeVar("R")

_ASCENDING = "a bulk load's keys must ascend"


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
        size, count, bound = PAGE_HEADER, 0, b""
        leaves: list[tuple[bytes, int]] = []
        before = len(self._runs)
        for key, content in entries:
            value: Value = content
            length = len(content)
            if length > MAX_INLINE:
                value, length = self._overflow(content), POINTER
            size += CELL + len(key) + length
            if size > PAGE_SIZE:
                leaves.append((bound or keys[0], self._leaf(keys, values)))
                count += len(keys)
                assert keys[-1] < key, _ASCENDING
                bound = separator(keys[-1], key)
                keys, values, size = [], [], PAGE_HEADER + CELL + len(key) + length
                yield
            keys.append(key)
            values.append(value)
        if not keys:
            return None
        leaves.append((bound or keys[0], self._leaf(keys, values)))
        return Graft(leaves, keys[-1], count + len(keys), coalesce(self._runs[before:]))

    def _overflow(self, content: bytes) -> Overflow:
        value = Overflow(0, 0, len(content))
        value.page = self._stage(value.pages)
        value.checksum, raw = encode_overflow(value.page, content)
        self._writer.write(value.page, raw)
        return value

    def _leaf(self, keys: list[bytes], values: list[Value]) -> int:
        assert all(map(lt, keys, keys[1:])), _ASCENDING
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
