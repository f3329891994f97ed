"""Opening a store: make a new one, or find the last checkpoint and replay the log on it.

What a killed process wrote may lie in the system's memory only; it is synced before anything is built on it. And after a
sync that failed, what is read may not be on the disk although the system believes so: whatever may be in that case, the meta
page, the header of the newest log file and its last batch, is written again as it was read.
Groups are replayed whole and in order, each once: the meta page holds the LSN of the last one that is in its trees. Pages
that replayed bulk loads link are reserved before anything is allocated; replaying itself allocates nothing.
"""

from __future__ import annotations

import contextlib
import os
from itertools import pairwise
from typing import NamedTuple

import msgspec

from treestore.backends.btree.engine import tree
from treestore.backends.btree.engine.file import File, FileSystem, write_again
from treestore.backends.btree.engine.format import (
    META_SIZE,
    META_SLOTS,
    PAGE_SIZE,
    Meta,
    damaged,
    decode_freelist,
    decode_meta,
    encode_meta,
)
from treestore.backends.btree.engine.freelist import FreeList, Run, coalesce
from treestore.backends.btree.engine.mvcc import State, state_of
from treestore.backends.btree.engine.pager import Pager
from treestore.backends.btree.engine.tree import Edit, Graft
from treestore.backends.btree.engine.wal import begun_files, read_log
from treestore.errors import Corrupted, NoStore, NotAStore, ReadOnly, Unavailable

DATA, NEW_DATA, LOG_FOLDER, LOCK = "data", "data.new", "wal", "LOCK"


class TreeChange(msgspec.Struct, frozen=True, array_like=True):
    """What one group does to one tree, in this order: ranges are deleted (low inclusive, high exclusive or None), leaves
    that a bulk load wrote are linked, and the sorted ``keys`` get their values (None: are deleted)."""

    tree: int
    keys: list[bytes] = []
    values: list[bytes | None] = []
    ranges: list[tuple[bytes, bytes | None]] = []
    grafts: list[Graft] = []


encode_changes = msgspec.msgpack.Encoder().encode
decode_changes = msgspec.msgpack.Decoder(list[TreeChange]).decode


def apply(state: State, changes: list[TreeChange], lsn: int, edit: Edit) -> State:
    """The next state, as a step of the edit that made this one or a new edit's."""
    roots = dict(state.roots)
    for change in changes:
        root = roots.pop(change.tree, None)
        for low, high in change.ranges:
            root = tree.remove_range(root, low, high, edit)
        for new in change.grafts:
            root = tree.graft(root, new, edit)
        root = tree.update(root, change.keys, change.values, edit)
        if root is not None:
            roots[change.tree] = root
    return State(state.epoch + 1, lsn, roots, state.pager)


class Recovered(NamedTuple):
    """What an opened store begins with. ``chain`` are the pages of the free list, ``free`` its runs, ``log_number`` the last
    log file begun, ``log_end`` the byte behind the last record in the file that has it (0: not known), ``replayed`` and
    ``replayed_bytes`` the number and size of the groups replayed and ``dirty`` the bytes of nodes that they made."""

    data: File
    meta: Meta
    slot: int
    state: State
    freelist: FreeList
    chain: list[Run]
    free: list[Run]
    log_number: int
    log_end: int
    replayed: int
    replayed_bytes: int
    dirty: int


def empty_meta() -> Meta:
    """The meta page of a new, empty store, with an id of its own."""
    return Meta(store_id=os.urandom(16), generation=1, lsn=0, epoch=0, page_count=1, freelist=0, log=0, roots={})


def create(fs: FileSystem, folder: str) -> None:
    """Make the files of a new, empty store in a folder that exists. A crash leaves either no store or a whole one."""
    logs = os.path.join(folder, LOG_FOLDER)
    if not fs.exists(logs):
        fs.make_folder(logs)
    fs.sync_folder(folder)  # a store without its log folder would be no store
    sync_parent(fs, folder)
    meta = empty_meta()
    file = fs.open(os.path.join(folder, NEW_DATA), create=True)
    try:
        file.reserve(0, PAGE_SIZE)
        for slot in META_SLOTS:
            file.write(slot, encode_meta(meta))
        file.sync()
    finally:
        file.close()
    fs.rename(os.path.join(folder, NEW_DATA), os.path.join(folder, DATA))
    fs.sync_folder(folder)


def sync_parent(fs: FileSystem, folder: str) -> None:
    """Make the name of a folder durable, which may have been made just before: by somebody else or by a process that died.
    One whose parent may not be read was made by somebody else."""
    with contextlib.suppress(ReadOnly):
        fs.sync_folder(os.path.dirname(os.path.abspath(folder)))


def prepare_folder(fs: FileSystem, folder: str, *, create_new: bool) -> bool:
    """Whether a store lies in the folder, after looking whether one does or may be made there. Nothing of somebody else's is
    touched, not even to lock it. Raises NoStore, NotAStore, MigrationError."""
    if not fs.exists(folder):
        if not create_new:
            raise NoStore(f"there is no store at {folder}")
        _make_folder(fs, folder)
    data = os.path.join(folder, DATA)
    names = set(fs.list(folder))  # one look: somebody may be making a store there at this moment
    if DATA in names:
        _look_at(fs, data)
        return True
    others = names - {NEW_DATA, LOG_FOLDER, LOCK}
    if others:
        raise NotAStore(f"{folder} holds other files ({min(others)!r}) and no treestore; name an empty or a new folder")
    if LOG_FOLDER in names and fs.list(os.path.join(folder, LOG_FOLDER)) and not fs.exists(data):
        raise Corrupted(f"{data} is missing although the store has a log")
    if not create_new:
        raise NoStore(f"there is no store at {folder}")
    return False


def _make_folder(fs: FileSystem, folder: str) -> None:
    """Make the folder, unless somebody else does so at this moment."""
    try:
        fs.make_folder(folder)
    except Unavailable:
        if not fs.exists(folder):
            raise


def _look_at(fs: FileSystem, path: str) -> None:
    """Raise NotAStore or MigrationError for a data file that is not ours to use."""
    data = fs.open(path)
    try:
        read_meta(data, path)
    except Corrupted:
        pass  # who holds the lock may be writing a meta page; damage is told under the lock
    finally:
        data.close()


def read_meta(data: File, path: str) -> tuple[Meta, int]:
    """The newest valid meta page and the number of its slot. Raises Corrupted, NotAStore, MigrationError."""
    found = []
    raws = [data.read(offset, META_SIZE) for offset in META_SLOTS]
    for slot, raw in enumerate(raws):
        meta = decode_meta(raw)
        if meta is not None:
            found.append((meta.generation, slot, meta))
    if not found:
        if not any(raw.startswith(b"treestore") for raw in raws) and any(map(any, raws)):
            raise NotAStore(f"{path} is not a treestore data file")
        raise Corrupted(f"data file {path}, byte 0: neither of the two meta pages is valid")
    _, slot, meta = max(found, key=lambda entry: entry[:2])
    return meta, slot


def read_freelist(data: File, meta: Meta) -> tuple[list[Run], list[Run]]:
    """The free runs of a checkpoint and the pages of the list itself. Raises Corrupted."""
    free: list[Run] = []
    chain: list[Run] = []
    reference = meta.freelist
    while reference:
        if len(chain) >= meta.page_count:
            raise damaged(reference >> 32, "the free list does not end")
        chain.append((reference >> 32, 1))
        reference, runs = decode_freelist(reference, data.read((reference >> 32) * PAGE_SIZE, PAGE_SIZE))
        free += runs
    if any(start < 1 or count < 1 or start + count > meta.page_count for start, count in free):
        raise Corrupted("data file: the free list names pages outside the file")
    free.sort()
    if any(start + count > following for (start, count), (following, _) in pairwise(free)):
        raise Corrupted("data file: the free list names a page twice")
    return coalesce(free), chain


def _reserve(freelist: FreeList, changes: list[TreeChange], lsn: int, logs: str) -> None:
    """Take the pages of a record's grafts. They were free when it was written, so a meta page in which they are not is an
    older one that cannot be gone back to: what it refers to was written over."""
    try:
        freelist.reserve(coalesce(run for change in changes for new in change.grafts for run in new.runs))
    except AssertionError as error:
        raise Corrupted(
            f"log record {lsn} in {logs} links pages that are in use ({error}): the newest meta page that is valid in the"
            " data file is not the newest that was written"
        ) from error


def recover(fs: FileSystem, folder: str, cache_bytes: int) -> Recovered:
    """The state after the last acknowledged group. Raises Corrupted (saying where), NotAStore, MigrationError."""
    path, logs = os.path.join(folder, DATA), os.path.join(folder, LOG_FOLDER)
    if not fs.exists(logs):
        raise Corrupted(f"the log folder {logs} is missing")
    fs.sync_folder(folder)
    fs.sync_folder(logs)
    data = fs.open(path)
    try:
        meta, slot = read_meta(data, path)
        write_again(data, META_SLOTS[slot], META_SIZE)
        data.sync()
        free, chain = read_freelist(data, meta)
        freelist = FreeList(free.copy(), meta.page_count)
        state = state_of(meta, Pager(data, cache_bytes))
        edit = Edit(state.pager)
        replayed = replayed_bytes = 0
        log_end = meta.log_end
        for record in read_log(fs, logs, meta.store_id, meta.lsn, meta.log, meta.log_end):
            try:
                changes = decode_changes(record.payload)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Corrupted(f"log record {record.lsn} in {logs} makes no sense: {error}") from error
            _reserve(freelist, changes, record.lsn, logs)
            state = apply(state, changes, record.lsn, edit)
            log_end = record.end
            replayed += 1
            replayed_bytes += len(record.payload)
        freelist.give_up(state.epoch, edit.freed)
        files = begun_files(fs, logs, meta.store_id, meta.log)
        number = files[-1].number if files else meta.log
        log = number, log_end, replayed, replayed_bytes
        return Recovered(data, meta, slot, state, freelist, chain, free, *log, edit.dirty)
    except BaseException:
        data.close()
        raise
