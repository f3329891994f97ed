"""What can still be read of a damaged store: every entry of every page and log record that is whole.

Nothing of the store is changed. The trees of the newest valid meta page are gone through; a page that can't be read leaves a
:class:`Gap`, the range of keys that lay below it, and an empty node in its place, so that the log can be applied as always: to
its end, or up to the first record that is damaged or missing. Then every entry of the state is true. What lies in the gaps may
stand elsewhere in the file, on pages that nothing refers to (:meth:`Remains.leaves`); whether what they say is still so, they
don't say.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import msgspec

from treestore.backends.btree.engine.file import File, FileSystem
from treestore.backends.btree.engine.format import (
    BRANCH_CELL,
    LEAF,
    LOG_HEADER,
    LOG_START,
    META_SIZE,
    META_SLOTS,
    PAGE_HEADER,
    PAGE_SIZE,
    POINTING_LEAF,
    Meta,
    Overflow,
    decode_log_header,
    decode_meta,
    log_salt,
)
from treestore.backends.btree.engine.mvcc import State, state_of
from treestore.backends.btree.engine.node import Branch, Child, Leaf, Node, Root, cell_size, decode
from treestore.backends.btree.engine.pager import Pager
from treestore.backends.btree.engine.recovery import DATA, LOG_FOLDER, TreeChange, apply, decode_changes
from treestore.backends.btree.engine.tree import Edit, Graft
from treestore.backends.btree.engine.wal import file_name, log_numbers, record_at, whole_records
from treestore.errors import Corrupted, NotAStore, TreestoreError, Unavailable

UNREADABLE = (Corrupted, NotAStore, Unavailable)
"""What reading a damaged page or file raises: its bytes make no sense, it is something else, or the disk fails to read it."""

_ANY_TREE = range(256)


class Gap(NamedTuple):
    """Keys of a tree, ``low`` inclusive, ``high`` exclusive (None: no end), whose entries can't be read, and why."""

    tree: int
    low: bytes
    high: bytes | None
    where: str

    def holds(self, key: bytes) -> bool:
        """Whether a key lies in it."""
        return self.low <= key and (self.high is None or key < self.high)

    def meets(self, first: bytes, last: bytes) -> bool:
        """Whether any key from ``first`` to ``last`` could lie in it."""
        return self.low <= last and (self.high is None or first < self.high)


class Remains:
    """What is left of a store. ``state`` holds the entries that are true, ``gaps`` what could not be read of them, ``damage``
    one line for each place. ``certain``: the state is that of the last acknowledged group, as far as the files say; ``later``
    are the changes of groups that were found behind damage of the log and can't be applied. ``based``: there is a meta page;
    without one the state is what the log's last records say, and all else lies in the gaps."""

    def __init__(self, state: State, gaps: list[Gap], damage: list[str], *, based: bool) -> None:
        self.state = state
        self.gaps = gaps
        self.damage = damage
        self.certain = self.based = based
        self.later: list[list[TreeChange]] = []

    def leaves(self) -> Iterator[Leaf]:
        """All leaves that are whole, whether anything refers to them or not; some are of earlier times."""
        for page in range(1, self.state.pager.file.size() // PAGE_SIZE):
            try:
                raw = self.state.pager.file.read(page * PAGE_SIZE, PAGE_SIZE)
                if raw[4] not in (LEAF, POINTING_LEAF):
                    continue
                leaf = decode(page << 32 | int.from_bytes(raw[:4], "little"), raw, 0)
            except UNREADABLE:
                continue
            assert isinstance(leaf, Leaf)
            yield leaf

    def close(self) -> None:
        """Let go of the data file."""
        self.state.pager.file.close()


def find_remains(fs: FileSystem, folder: str, cache_bytes: int) -> Remains:
    """Read what is left of the store in a folder. Raises NotAStore where nothing of one is found, MigrationError for another
    format."""
    damage: list[str] = []
    data = _opened(fs, os.path.join(folder, DATA), damage)
    try:
        pager = Pager(data, cache_bytes)
        meta = _newest_meta(data, damage)
        gaps: list[Gap] = []
        if meta is None:
            state = State(0, 0, {}, pager)
            gaps += [Gap(tree, b"", None, "no meta page says where the trees begin") for tree in _ANY_TREE]
        else:
            state = state_of(meta, pager)
            mender = _Mender(pager, gaps, damage)
            mended = {tree: root._replace(child=mender.root(tree, root)) for tree, root in state.roots.items()}
            state = state._replace(roots=mended)
        remains = Remains(state, gaps, damage, based=meta is not None)
        _Log(fs, os.path.join(folder, LOG_FOLDER), meta, damage).replay(remains)
        if meta is None and not remains.state.lsn and next(remains.leaves(), None) is None:
            raise NotAStore(f"nothing in {folder} is of a treestore")
    except BaseException:
        data.close()
        raise
    return remains


class _NoFile:
    """In the place of a data file that is not there."""

    def read(self, offset: int, length: int) -> bytes:
        return b""

    def write(self, offset: int, data: bytes | bytearray) -> None:
        raise AssertionError("nothing is written to a damaged store")

    def reserve(self, offset: int, length: int) -> None:
        raise AssertionError("nothing is written to a damaged store")

    def sync(self) -> None:
        pass

    def size(self) -> int:
        return 0

    def close(self) -> None:
        pass


def _opened(fs: FileSystem, path: str, damage: list[str]) -> File:
    try:
        return fs.open(path)
    except UNREADABLE as error:
        damage.append(str(error))
        return _NoFile()


def _read(file: File, offset: int, length: int) -> bytes:
    """As the file's, but nothing where the disk fails to read it."""
    try:
        return file.read(offset, length)
    except UNREADABLE:
        return b""


def _newest_meta(data: File, damage: list[str]) -> Meta | None:
    metas = []
    for slot in META_SLOTS:
        meta = decode_meta(_read(data, slot, META_SIZE))
        if meta is None:
            damage.append(f"data file, meta page at byte {slot}: it is not valid")
        else:
            metas.append(meta)
    return max(metas, key=lambda meta: meta.generation, default=None)


# --- the trees -----------------------------------------------------------------------------------------------------------


class _Mender:
    """Goes through trees and puts empty nodes in the place of what can't be read."""

    def __init__(self, pager: Pager, gaps: list[Gap], damage: list[str]) -> None:
        self._pager = pager
        self._gaps = gaps
        self._damage = damage
        self._seen: set[int] = set()

    def root(self, tree: int, root: Root) -> Child:
        """The topmost node of a tree, or what takes its place."""
        return self.child(tree, root.child, root.level, b"", None)

    def child(self, tree: int, child: Child, level: int, low: bytes, high: bytes | None) -> Child:
        """A child as it is, if all below it can be read, or what takes its place."""
        if not isinstance(child, int):
            return child
        try:
            if child >> 32 in self._seen:
                raise Corrupted(f"data file, page {child >> 32} (byte {(child >> 32) * PAGE_SIZE}): it is used twice")
            self._seen.add(child >> 32)
            node = self._pager.node(child, level)
        except UNREADABLE as error:
            self._gap(Gap(tree, low, high, str(error)))
            return _nothing(level)
        return self._leaf(tree, node, child) if isinstance(node, Leaf) else self._branch(tree, node, child, low, high)

    def _gap(self, gap: Gap) -> None:
        self._gaps.append(gap)
        if gap.where not in self._damage:
            self._damage.append(gap.where)

    def _branch(self, tree: int, node: Branch, child: int, low: bytes, high: bytes | None) -> Child:
        bounds = [low, *node.keys, high]
        below = [
            self.child(tree, one, node.level - 1, cast(bytes, bounds[i]), bounds[i + 1])
            for i, one in enumerate(node.children)
        ]
        return child if below == [*node.children] else Branch(node.level, node.keys, below, node.size)

    def _leaf(self, tree: int, node: Leaf, child: int) -> Child:
        lost: set[int] = set()
        for i, value in enumerate(node.values):
            if isinstance(value, Overflow):
                try:
                    self._pager.value(value)
                except UNREADABLE as error:
                    lost.add(i)
                    self._gap(Gap(tree, node.keys[i], node.keys[i] + b"\0", str(error)))
        if not lost:
            return child
        kept = [i for i in range(len(node.keys)) if i not in lost]
        keys, values = [node.keys[i] for i in kept], [node.values[i] for i in kept]
        size = sum(len(key) + cell_size(value) for key, value in zip(keys, values, strict=True))
        return Leaf(keys, values, PAGE_HEADER + size)

    def graft(self, tree: int, new: Graft) -> Graft:
        """Leaves that a log record links, those that can't be read replaced."""
        ends = [bound for bound, _ in new.leaves[1:]] + [new.last_key + b"\0"]
        pairs = zip(new.leaves, ends, strict=True)
        leaves = [(bound, self.child(tree, reference, 0, bound, end)) for (bound, reference), end in pairs]
        return new._replace(leaves=cast(Any, leaves))  # nodes are as good as references to whoever links them


def _nothing(level: int) -> Node:
    """A node of a level without entries."""
    if not level:
        return Leaf([], [], PAGE_HEADER)
    return Branch(level, [], [_nothing(level - 1)], PAGE_HEADER + BRANCH_CELL)


# --- the log -------------------------------------------------------------------------------------------------------------


class _Record(NamedTuple):
    path: str
    offset: int
    end: int
    salt: int
    batch: int


class _Log:
    """All records of the log that are whole, wherever they lie: a damaged header of a file or a damaged record hides none of
    the others."""

    def __init__(self, fs: FileSystem, folder: str, meta: Meta | None, damage: list[str]) -> None:
        self._fs = fs
        self._folder = folder
        self._meta = meta
        self._damage = damage
        self._records: dict[int, _Record] = {}
        self._numbers: list[int] = []
        self._starts: dict[int, str] = {}  # by the first record's number, the file that begins with it
        self._find()

    def _find(self) -> None:
        try:
            self._numbers = log_numbers(self._fs, self._folder) if self._fs.exists(self._folder) else []
        except NotAStore:
            self._damage.append(f"{self._folder} is a file where a folder must be")
        headers: dict[int, tuple[File, tuple[bytes, int, int] | None]] = {}
        for number in self._numbers:
            file = _opened(self._fs, os.path.join(self._folder, file_name(number)), self._damage)
            headers[number] = file, decode_log_header(_read(file, 0, LOG_HEADER))
        ids = Counter(header[0] for _, header in headers.values() if header is not None)
        store_id = self._meta.store_id if self._meta is not None else max(ids, key=lambda one: ids[one], default=b"")
        for number, (file, header) in headers.items():
            try:
                self._find_in(number, file, header, store_id)
            finally:
                file.close()

    def _find_in(self, number: int, file: File, header: tuple[bytes, int, int] | None, store_id: bytes) -> None:
        path, salt = os.path.join(self._folder, file_name(number)), log_salt(store_id, number)
        before = len(self._records)
        try:
            for offset, head in whole_records(file, salt, LOG_START, path):
                self._records.setdefault(head.lsn, _Record(path, offset, offset + head.size, salt, head.batch))
        except UNREADABLE as error:
            self._damage.append(str(error))
        begun = len(self._records) > before or (self._meta is not None and number <= self._meta.log)
        if header is not None and header[:2] == (store_id, number):
            self._starts[header[2]] = path
        if header is not None and header[0] != store_id:
            self._damage.append(f"log file {path} belongs to another store")
        elif (header is None or header[1] != number) and begun:
            self._damage.append(f"log file {path}, byte 0: its header is damaged or another file's")

    def replay(self, remains: Remains) -> None:
        """Apply the records that follow the state, in order, as far as there are any."""
        state, lsn = remains.state, remains.state.lsn
        if self._meta is None and self._records:
            lsn = max(self._records)
            while lsn - 1 in self._records:
                lsn -= 1
            lsn -= 1
            state = state._replace(lsn=lsn)
        mender = _Mender(state.pager, remains.gaps, self._damage)
        while (changes := self._changes(lsn + 1)) is not None:
            lsn += 1
            state = apply(state, [_mended(change, mender) for change in changes], lsn, Edit(state.pager))
        remains.state = state
        self._note_end(remains, lsn)

    def _changes(self, lsn: int) -> list[TreeChange] | None:
        record = self._records.get(lsn)
        if record is None:
            return None
        file = self._fs.open(record.path)
        try:
            payload = record_at(file, record.salt, record.offset)[1]
            return decode_changes(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, TreestoreError):
            return None
        finally:
            file.close()

    def _note_end(self, remains: Remains, lsn: int) -> None:
        """Say whether the log ends where it was read to, and what lies behind."""
        newest = self._meta.log if self._meta is not None else 0
        if newest and newest not in self._numbers:
            self._damage.append(f"log file {os.path.join(self._folder, file_name(newest))} is missing")
            remains.certain = False
        later = sorted(number for number in self._records if number > lsn)
        if not any(self._records[number].batch > lsn + 1 for number in later):
            return  # nothing, or the torn end of a batch that was never acknowledged
        remains.certain = False
        where = f"the log in {self._folder}"
        if lsn + 1 in self._starts:
            where = f"log file {self._starts[lsn + 1]}, byte {LOG_START}"
        elif lsn in self._records:
            where = f"log file {self._records[lsn].path}, byte {self._records[lsn].end}"
        lost = [number for number in range(lsn + 1, later[0]) if number not in self._records][:2]
        what = f"records {lsn + 1} to {later[0] - 1} are" if len(lost) > 1 else f"record {lsn + 1} is"
        self._damage.append(f"{where}: {what} damaged or missing; of the log behind it {len(later)} records are whole")
        remains.later = [changes for number in later if (changes := self._changes(number)) is not None]


def _mended(change: TreeChange, mender: _Mender) -> TreeChange:
    grafts = [mender.graft(change.tree, new) for new in change.grafts]
    return msgspec.structs.replace(change, grafts=grafts) if grafts else change


