"""Checkpoints: what is in memory only is written to free pages, synced, and then one meta page says so.

Planning a checkpoint gives page numbers to all new nodes of one committed moment at once; it is short and nothing else may
commit meanwhile. Writing them takes its time, in small steps, while commits go on: they copy what they change, and a node
that has a page number is given up like any other. A checkpoint whose writing failed (a full disk) is begun again where it
stood, to the same pages.
"""

from __future__ import annotations

from collections.abc import Iterator

from treestore.backends.btree.engine.format import (
    MAX_INLINE,
    RUNS_PER_PAGE,
    Meta,
    Overflow,
    Value,
    encode_freelist,
    encode_overflow,
)
from treestore.backends.btree.engine.freelist import FreeList, Run
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.node import Branch, Child, Leaf, Node
from treestore.backends.btree.engine.pager import PageWriter
from treestore.errors import DiskFull

_STEP = 16  # pages encoded between two pauses: about a millisecond


class Checkpoint:
    """One checkpoint of one committed moment, planned when it is made. ``chain`` are the pages that its free list takes,
    ``free`` the runs that will be free and ``page_count`` the size of the store, once it is durable."""

    def __init__(self, state: State, freelist: FreeList, old_chain: list[Run], dirty: int, log_end: int) -> None:
        """``log_end`` is the byte behind the state's record in the log (0: not known). Raises DiskFull where the store can't
        have as many pages; nothing is changed then."""
        self.state = state
        self._log_end = log_end
        self.dirty = dirty
        self._nodes: list[Node] = []
        self._values: list[Overflow] = []
        self.chain: list[Run] = []
        self._references: dict[int, int] = {}
        long: list[tuple[Leaf, int]] = []
        for root in state.roots.values():
            self._collect(root.child, long)
        self._values = [_on_pages(leaf.values[i]) for leaf, i in long]
        taken: list[Run] = []

        def take(count: int = 1) -> int:
            taken.append((freelist.allocate(count), count))
            return taken[-1][0]

        try:
            for value in self._values:
                value.page = take(value.pages)
            pages = [take() for _ in self._nodes]
            self.free, self.page_count = freelist.at_checkpoint(old_chain)
            while missing := -(-len(self.free) // RUNS_PER_PAGE) - len(self.chain):
                if missing < 0:  # taking the pages has used up runs: the last pages of the chain stay empty
                    break
                self.chain += [(take(), 1) for _ in range(missing)]
                self.free, self.page_count = freelist.at_checkpoint(old_chain)
        except DiskFull:
            freelist.give_back(taken)
            raise
        freelist.give_up(state.epoch, old_chain)
        for (leaf, i), value in zip(long, self._values, strict=True):
            leaf.lists()[1][i] = value
        for node, page in zip(self._nodes, pages, strict=True):
            node.page = page

    def _collect(self, child: Child, long: list[tuple[Leaf, int]]) -> None:
        """Note the nodes that have no page yet, children first, and the places of their long values."""
        if isinstance(child, int) or child.page:
            return
        if isinstance(child, Branch):
            for below in child.children:
                self._collect(below, long)
        else:
            long += [(child, i) for i, value in enumerate(child.values) if type(value) is bytes and len(value) > MAX_INLINE]
        self._nodes.append(child)

    def write(self, writer: PageWriter) -> Iterator[None]:
        """Write all pages, in small steps. May be begun again after an error."""
        for i, value in enumerate(self._values):
            assert value.content is not None
            value.checksum, raw = encode_overflow(value.page, value.content)
            writer.write(value.page, raw)
            if i % _STEP == 0:
                yield
        for i, node in enumerate(self._nodes):
            if isinstance(node, Leaf):
                reference, raw = node.encode()
            else:
                reference, raw = node.encode([self._reference(child) for child in node.children])
            self._references[id(node)] = reference
            writer.write(node.page, raw)
            if i % _STEP == 0:
                yield
        self._freelist_reference = 0
        for i in range(len(self.chain) - 1, -1, -1):
            runs = self.free[i * RUNS_PER_PAGE : (i + 1) * RUNS_PER_PAGE]
            page = self.chain[i][0]
            self._freelist_reference, raw = encode_freelist(page, self._freelist_reference, runs)
            writer.write(page, raw)
        writer.flush()

    def _reference(self, child: Child) -> int:
        if isinstance(child, int):
            return child
        return child.reference or self._references[id(child)]

    def meta(self, store_id: bytes, generation: int, log: int) -> Meta:
        """The meta page that makes this checkpoint count, once its pages are durable."""
        return Meta(
            store_id=store_id,
            generation=generation,
            lsn=self.state.lsn,
            epoch=self.state.epoch,
            page_count=self.page_count,
            freelist=self._freelist_reference,
            log=log,
            log_end=self._log_end,
            roots={
                tree: (root.level, root.entries, self._reference(root.child)) for tree, root in self.state.roots.items()
            },
        )

    def settle(self) -> Iterator[None]:
        """The pages are durable: refer to nodes by reference and let the cache decide which stay in memory."""
        pager = self.state.pager
        for value in self._values:
            value.content = None
        for i, node in enumerate(self._nodes):
            node.settle(self._references[id(node)])
            pager.keep(node)
            if i % _STEP == 0:
                yield


def _on_pages(content: Value) -> Overflow:
    assert type(content) is bytes
    return Overflow(0, 0, len(content), content)
