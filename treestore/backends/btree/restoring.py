"""Restoring a backup: a proven copy of it in a new place.

A backup is a store, so it could be opened where it lies; restoring leaves it as it is, also on a disk that can't be written
to, and shows that it is whole before anything has the name of a store.
"""

from __future__ import annotations

import os

from treestore.backends.btree.checking import check_moment
from treestore.backends.btree.engine.backup import backup
from treestore.backends.btree.engine.bulk import finished
from treestore.backends.btree.engine.compact import Rewritten
from treestore.backends.btree.engine.file import FileSystem, OsFileSystem, UnchangedFileSystem
from treestore.backends.btree.engine.mvcc import state_of
from treestore.backends.btree.engine.recovery import LOCK, prepare_folder, recover
from treestore.errors import Corrupted, MigrationError

_CACHE_BYTES = 32 * 1024 * 1024


def restore(source: str, folder: str, *, fs: FileSystem | None = None, source_fs: FileSystem | None = None) -> int:
    """Copy the store in the folder ``source``, which is not changed and must not be open, to a new (or empty) folder, checked
    there as a whole before it counts. Gives the copy's size in bytes.

    Raises NoStore, NotAStore, MigrationError, Locked or Corrupted for what is no sound store, InvalidInput where the folder
    holds something, DiskFull, ReadOnly, Unavailable; then the folder holds no store.
    """
    reading = source_fs or UnchangedFileSystem()
    prepare_folder(reading, source, create_new=False)
    lock = reading.lock(os.path.join(source, LOCK), "")
    try:
        recovered = recover(reading, source, _CACHE_BYTES)
        try:
            return backup(fs or OsFileSystem(), folder, recovered.state, _prove)
        finally:
            recovered.data.close()
    except (Corrupted, MigrationError) as error:
        raise type(error)(f"{source}: {error}") from error
    finally:
        lock.close()


def _prove(copy: Rewritten) -> None:
    """Raise Corrupted unless the copy is sound."""
    report = finished(check_moment(state_of(copy.meta, copy.state.pager), copy.meta, copy.free, copy.chain))
    if not report.ok:
        raise Corrupted(f"it is not sound, so nothing was restored: {report.problems[0]}")
