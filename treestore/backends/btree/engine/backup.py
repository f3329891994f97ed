"""Copies of one committed moment, made while the store is in use.

Every page that the moment needs is read, verified and written to the same place in a new data file; free pages are left
out. The copy is a store of its own, with an id of its own, so that the original's log can never be replayed on it.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import msgspec

from treestore.backends.btree.engine.file import FileSystem
from treestore.backends.btree.engine.format import (
    META_SLOTS,
    PAGE_SIZE,
    RUNS_PER_PAGE,
    Meta,
    Overflow,
    encode_freelist,
    encode_meta,
    encode_overflow,
)
from treestore.backends.btree.engine.freelist import Run
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.node import Leaf, decode
from treestore.backends.btree.engine.pager import PageWriter
from treestore.backends.btree.engine.recovery import DATA, LOG_FOLDER, NEW_DATA
from treestore.errors import InvalidInput


def backup(
    fs: FileSystem, folder: str, state: State, meta: Meta, free: list[Run], chain: list[Run]
) -> Generator[None, None, int]:
    """Copy a state that lies wholly in the data file to a new (or empty) folder; the result is the copy's size in bytes.
    Pauses after each page. Raises InvalidInput where the folder holds something, Corrupted for a damaged page."""
    if fs.exists(folder):
        if fs.list(folder):
            raise InvalidInput(f"{folder} is not empty; name a new folder", field="folder")
    else:
        fs.make_folder(folder)
        fs.sync_folder(os.path.dirname(os.path.abspath(folder)))
    fs.make_folder(os.path.join(folder, LOG_FOLDER))
    fs.sync_folder(folder)
    path = os.path.join(folder, NEW_DATA)
    file = fs.open(path, create=True)
    try:
        writer = PageWriter(file)
        writer.write(0, bytes(PAGE_SIZE))
        for _, root in sorted(state.roots.items()):
            assert isinstance(root.child, int)
            yield from _copy(state, root.child, root.level, writer)
        following = 0
        for i in range(len(chain) - 1, -1, -1):
            runs = free[i * RUNS_PER_PAGE : (i + 1) * RUNS_PER_PAGE]
            following, raw = encode_freelist(chain[i][0], following, runs)
            writer.write(chain[i][0], raw)
        writer.flush()
        copied = msgspec.structs.replace(meta, store_id=os.urandom(16), log=0, freelist=following)
        for slot in META_SLOTS:
            file.write(slot, encode_meta(copied))
        file.sync()
        size = file.size()
    finally:
        file.close()
    fs.rename(path, os.path.join(folder, DATA))
    fs.sync_folder(folder)
    return size


def _copy(state: State, reference: int, level: int, writer: PageWriter) -> Generator[None, None, None]:
    page = reference >> 32
    raw = state.pager.file.read(page * PAGE_SIZE, PAGE_SIZE)
    node = decode(reference, raw, level)
    writer.write(page, raw)
    yield
    if isinstance(node, Leaf):
        for value in node.values:
            if isinstance(value, Overflow):
                writer.write(value.page, encode_overflow(value.page, state.pager.value(value))[1])
    else:
        for child in node.children:
            assert isinstance(child, int)
            yield from _copy(state, child, level - 1, writer)
