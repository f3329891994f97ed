"""Rewriting a store to a new data file without free space."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from treestore.backends.btree.engine import tree
from treestore.backends.btree.engine.bulk import Bulk, finished
from treestore.backends.btree.engine.checkpoint import Checkpoint
from treestore.backends.btree.engine.file import FileSystem
from treestore.backends.btree.engine.format import META_SLOTS, Meta, encode_meta
from treestore.backends.btree.engine.freelist import FreeList, Run
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.node import Root
from treestore.backends.btree.engine.pager import Pager, PageWriter
from treestore.errors import TreestoreError


class Rewritten(NamedTuple):
    """The new file's state, one epoch later, its meta page and slot, and its free pages."""

    state: State
    meta: Meta
    slot: int
    freelist: FreeList
    chain: list[Run]
    free: list[Run]


def rewrite(fs: FileSystem, path: str, old: State, meta: Meta, cache_bytes: int, log_end: int = 0) -> Rewritten:
    """Write the entries of a state to a new file, synced but under its own name. It has the store id of ``meta`` and the
    state's LSN, whose record ends at byte ``log_end`` of the log (0: not known), so the log goes on fitting when it takes the
    place of that store's file. Raises DiskFull, Corrupted."""
    file = fs.open(path, create=True)
    try:
        pager = Pager(file, cache_bytes)
        freelist = FreeList([], 1)
        state = _copied(old, pager, freelist)
        checkpoint = Checkpoint(state, freelist, [], 0, log_end)
        for _ in checkpoint.write(PageWriter(file)):
            pass
        file.sync()
        written = checkpoint.meta(meta.store_id, meta.generation + 1, meta.log)
        for slot in META_SLOTS:
            file.write(slot, encode_meta(written))
        file.sync()
    except BaseException:
        file.close()
        with contextlib.suppress(TreestoreError):
            fs.remove(path)
        raise
    for _ in checkpoint.settle():
        pass
    return Rewritten(state, written, 0, freelist, checkpoint.chain, checkpoint.free)


def _copied(old: State, pager: Pager, freelist: FreeList) -> State:
    """The same entries in new leaves of another file."""
    roots: dict[int, Root] = {}
    bulk = Bulk(pager, freelist)
    edit = tree.Edit(pager)
    for number in sorted(old.roots):
        new = finished(bulk.load(old.scan(number, b"", None)))
        root = None if new is None else tree.graft(None, new, edit)
        if new is not None and root is not None:
            freelist.commit_staged(new.runs)
            roots[number] = root
    bulk.sync()
    return State(old.epoch + 1, old.lsn, roots, pager)
