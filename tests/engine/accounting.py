"""Every page of an open store by what it is used for now, fast enough to be asked after every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.format import Overflow
from treestore.backends.btree.engine.freelist import Run, coalesce
from treestore.backends.btree.engine.node import Branch, Child, Root
from treestore.backends.btree.engine.pager import Pager


def reachable(roots: Iterable[Root], pager: Pager) -> Iterator[Run]:
    """The pages of all nodes and values below these roots that have one."""
    waiting: list[tuple[Child, int]] = [(root.child, root.level) for root in roots]
    while waiting:
        child, level = waiting.pop()
        node = pager.node(child, level)
        if node.page:
            yield node.page, 1
        if isinstance(node, Branch):
            waiting += [(below, level - 1) for below in node.children]
        else:
            yield from ((value.page, value.pages) for value in node.values if isinstance(value, Overflow))


def account(engine: Engine, elsewhere: Iterable[Run] = ()) -> None:
    """Each page is reachable from the newest state, free, pending, staged for a bulk load or the free list's: exactly once.
    None that the last checkpoint needs is free or staged. ``elsewhere`` are pages that the caller answers for."""
    freelist = engine._freelist
    chain = engine._chain if engine._checkpoint is None else engine._checkpoint.chain
    writable = [*freelist._runs, *freelist._staged.items()]
    waiting = [run for _, runs in freelist._pending + freelist._released for run in runs]
    state = engine.state
    used = coalesce([*reachable(state.roots.values(), state.pager), *writable, *waiting, *chain, *elsewhere])
    assert used == ([(1, freelist.page_count - 1)] if freelist.page_count > 1 else [])
    durable = [Root(reference, level, entries) for level, entries, reference in engine._meta.roots.values()]
    coalesce([*reachable(durable, state.pager), *engine._chain, *writable])  # a page of both would be an AssertionError
