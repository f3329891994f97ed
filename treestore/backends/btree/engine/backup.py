"""Copies of one committed moment, made while the store is in use.

The entries of the moment, which readers of it see too, are written to a new data file without free space. The copy is a
store of its own, with an id of its own, so that the original's log can never be replayed on it. Nothing is written to the
original, so it works where that one's disk is full. The copy gets its name when it is whole and synced, as the last step:
whatever ends it before leaves nothing that can be opened, and the same folder may be named again.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable

import msgspec

from treestore.backends.btree.engine.compact import Rewritten, rewrite
from treestore.backends.btree.engine.file import FileSystem
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import DATA, LOCK, LOG_FOLDER, NEW_DATA, empty_meta, sync_parent
from treestore.errors import InvalidInput, TreestoreError

_CACHE_BYTES = 8 * 1024 * 1024  # for the branches of the copy; its leaves are written once and not kept


def backup(fs: FileSystem, folder: str, state: State, prove: Callable[[Rewritten], None] | None = None) -> int:
    """Copy a state, which somebody reads meanwhile, to a new (or empty) folder; gives the copy's size in bytes. ``prove`` is
    given the copy before it counts, and may refuse it by raising.

    Raises InvalidInput where the folder holds something, Locked where another copy is being made there, Corrupted for a
    damaged page, DiskFull, Unavailable, and what ``prove`` raises; then the folder holds no store.
    """
    if not fs.exists(folder):
        fs.make_folder(folder)
    _refuse_others(fs, folder)
    sync_parent(fs, folder)
    lock = fs.lock(os.path.join(folder, LOCK), f"pid {os.getpid()} on {socket.gethostname()}\n")
    try:
        _refuse_others(fs, folder)  # now that nobody else can put something there
        return _copied(fs, folder, state, prove)
    finally:
        lock.close()


def _refuse_others(fs: FileSystem, folder: str) -> None:
    """Raise InvalidInput unless there is nothing, or what is left of a copy that did not come to its end."""
    names = set(fs.list(folder)) - {LOCK, NEW_DATA}
    logs = os.path.join(folder, LOG_FOLDER)
    if names - {LOG_FOLDER} or (names and fs.list(logs)):
        raise InvalidInput(f"{folder} is not empty; name a new folder", field="folder")


def _copied(fs: FileSystem, folder: str, state: State, prove: Callable[[Rewritten], None] | None) -> int:
    path, logs = os.path.join(folder, NEW_DATA), os.path.join(folder, LOG_FOLDER)
    if fs.exists(path):
        fs.remove(path)
    if not fs.exists(logs):
        fs.make_folder(logs)
    fs.sync_folder(folder)
    meta = msgspec.structs.replace(empty_meta(), generation=0, lsn=state.lsn)
    copy = rewrite(fs, path, state, meta, _CACHE_BYTES)
    try:
        if prove is not None:
            prove(copy)
        size = copy.state.pager.file.size()
    except BaseException:
        with contextlib.suppress(TreestoreError):
            fs.remove(path)
        raise
    finally:
        copy.state.pager.file.close()
    fs.rename(path, os.path.join(folder, DATA))
    fs.sync_folder(folder)
    return size
