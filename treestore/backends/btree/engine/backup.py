"""Copies of one committed moment, made while the store is in use.

The entries of the moment, which readers of it see too, are written to a new data file without free space. The copy is a
store of its own, with an id of its own, so that the original's log can never be replayed on it. Nothing is written to the
original, so it works where that one's disk is full.
"""

from __future__ import annotations

import os

import msgspec

from treestore.backends.btree.engine.compact import rewrite
from treestore.backends.btree.engine.file import FileSystem
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import DATA, LOG_FOLDER, NEW_DATA, empty_meta, sync_parent
from treestore.errors import InvalidInput

_CACHE_BYTES = 8 * 1024 * 1024  # for the branches of the copy; its leaves are written once and not kept


def backup(fs: FileSystem, folder: str, state: State) -> int:
    """Copy a state, which somebody reads meanwhile, to a new (or empty) folder; gives the copy's size in bytes.

    Raises InvalidInput where the folder holds something, Corrupted for a damaged page, DiskFull, Unavailable; then the
    folder holds no store.
    """
    if fs.exists(folder):
        if fs.list(folder):
            raise InvalidInput(f"{folder} is not empty; name a new folder", field="folder")
    else:
        fs.make_folder(folder)
    sync_parent(fs, folder)
    fs.make_folder(os.path.join(folder, LOG_FOLDER))
    fs.sync_folder(folder)
    path = os.path.join(folder, NEW_DATA)
    meta = msgspec.structs.replace(empty_meta(), generation=0, lsn=state.lsn)
    file = rewrite(fs, path, state, meta, _CACHE_BYTES).state.pager.file
    try:
        size = file.size()
    finally:
        file.close()
    fs.rename(path, os.path.join(folder, DATA))
    fs.sync_folder(folder)
    return size
