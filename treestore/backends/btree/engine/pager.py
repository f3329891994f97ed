"""Pages of the data file as nodes: verified, decoded, and kept in a cache bounded by their decoded size. A leaf of which one
entry is asked for is kept as its bytes until it is asked for again.

Any thread may read. Eviction is second-chance: a page that was looked up again since it came in gets another round. Once the
cache is full only some of the leaves that are read are let in: if all were, a scan of a little more than there is room for,
again and again, would find none of them, and drive out all others.
"""

from __future__ import annotations

import threading
from typing import TypeVar

from treestore.backends.btree.engine.file import File
from treestore.backends.btree.engine.format import (
    PAGE_SIZE,
    RUN_HEADER,
    Overflow,
    Value,
    damaged,
    decode_overflow,
    verify,
)
from treestore.backends.btree.engine.node import Branch, Child, Node, Page, decode, glance

P = TypeVar("P", bound=Node | Page)

_ADMITTED = 8  # one leaf of so many is kept where another has to go for it
_TOGETHER = 1024 * 1024  # bytes of adjacent pages that are written by one call


class Pager:
    """Reads nodes of one data file. ``budget`` bounds the bytes of decoded pages kept."""

    def __init__(self, file: File, budget: int) -> None:
        self.file = file
        self.budget = budget
        self.cached_bytes = 0
        self.reads = 0
        self.decoded = 0
        self.nodes: dict[Child, Node | Page] = {}  # by reference; those who look here themselves set ``hot``
        self._lock = threading.Lock()

    def node(self, child: Child, level: int) -> Node:
        """A child of a branch: itself if it is a node, else the node at its reference. Raises Corrupted, Unavailable."""
        if not isinstance(child, int):
            return child
        found = self.nodes.get(child)
        if found is None:
            return self._admitted(decode(child, self._read(child), level))
        if isinstance(found, Page):
            found = found.decoded()
            self.decoded += 1
            self.keep(found)
        found.hot = True
        return found

    def glance(self, child: Child, level: int) -> Node | Page:
        """As :meth:`node`, for one look-up: a leaf of many entries that nobody has read yet comes as its page, and is decoded
        when it is asked for again. In a large store most look-ups meet one for the first time."""
        if level or not isinstance(child, int) or child in self.nodes:
            return self.node(child, level)
        return self._admitted(glance(child, self._read(child)))

    def _read(self, reference: int) -> bytes:
        self.reads += 1
        return self.file.read((reference >> 32) * PAGE_SIZE, PAGE_SIZE)

    def _admitted(self, node: P) -> P:
        """What was read, kept if there is room for it."""
        self.decoded += not isinstance(node, Page)
        if isinstance(node, Branch) or self.cached_bytes + node.cost <= self.budget or self.reads % _ADMITTED == 0:
            self.keep(node)
        return node

    def raw(self, reference: int) -> tuple[int, int, int]:
        """Type, level and count of a page, verified but not decoded or cached."""
        kind, level, count, _ = verify(reference, self.file.read((reference >> 32) * PAGE_SIZE, PAGE_SIZE))
        return kind, level, count

    def keep(self, node: Node | Page) -> None:
        """Put a node that is on disk into the cache and evict others as the budget demands. It takes the place of a node
        of the same reference: pages are reused, and checksums can be equal by chance."""
        with self._lock:
            known = self.nodes.pop(node.reference, None)
            if known is not None:
                self.cached_bytes -= known.cost
            self.nodes[node.reference] = node
            self.cached_bytes += node.cost
            self._evict()

    def _evict(self) -> None:
        while self.cached_bytes > self.budget and len(self.nodes) > 1:
            reference = next(iter(self.nodes))
            node = self.nodes.pop(reference)
            if node.hot:
                node.hot = False
                self.nodes[reference] = node
            else:
                self.cached_bytes -= node.cost

    def set_budget(self, budget: int) -> None:
        """Room for pages that are on disk; those that are not take from it."""
        with self._lock:
            self.budget = budget
            self._evict()

    def discard(self, reference: int) -> None:
        """Drop the node of this reference, if it is kept: its page was given up, or gets new content, whose checksum could
        by chance be the same. Readers that hold the node are not disturbed."""
        with self._lock:
            node = self.nodes.pop(reference, None)
            if node is not None:
                self.cached_bytes -= node.cost

    def value(self, value: Value) -> bytes:
        """The bytes of an entry's value. Raises Corrupted, Unavailable."""
        if type(value) is bytes:
            return value
        assert isinstance(value, Overflow)
        content = value.content
        if content is None:
            if value.length > self.file.size():
                raise damaged(value.page, "the length of its overflow value makes no sense")
            content = decode_overflow(value, self.file.read(value.page * PAGE_SIZE, RUN_HEADER + value.length))
        return content


class PageWriter:
    """Writes pages to the data file, adjacent ones together. Nothing is durable before the file is synced."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._room = file.size()
        self._first = 0
        self._buffer = bytearray()
        self.bytes_written = 0

    def write(self, page: int, raw: bytes) -> None:
        """Write whole pages from ``page`` on. Raises DiskFull before anything of them is written."""
        if len(self._buffer) >= _TOGETHER or self._first * PAGE_SIZE + len(self._buffer) != page * PAGE_SIZE:
            self.flush()
        if not self._buffer:
            self._first = page
        self._buffer += raw

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        if not self._buffer:
            return
        offset = self._first * PAGE_SIZE
        end = offset + len(self._buffer)
        if end > self._room:
            self._file.reserve(self._room, end - self._room)
            self._room = end
        self._file.write(offset, self._buffer)
        self.bytes_written += len(self._buffer)
        self._buffer = bytearray()
