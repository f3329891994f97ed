"""A disk in memory that forgets: a FileSystem whose unsynced writes and names may be lost, kept, reordered or torn.

Of each file it keeps what is durable and, for each sector of 512 bytes, every version that was written since the last sync;
of the folders it keeps the durable names and, in order, every change of names since. :meth:`SimulatedDisk.after_cut` is the
disk as a power cut may leave it: any version of each sector, any size the file had, any of the changed names.
:meth:`SimulatedDisk.after_kill` is what the death of the process alone leaves: all is there and can be read, but what was not
synced is still not durable.

A sync makes durable what was written before it began. One that fails may have lost any of it: what is read afterwards is
still what was written, but the system believes that it is on the disk, and no later sync writes it.

``fault`` is asked before each operation for an error to raise in its place; ``hook`` is called when an operation is under
way: after a write or a change of names was done (and is not durable), before a sync is. ``turn`` is called at the same
moments and before an operation begins: others may use the disk in it. ``told`` is called with the path when somebody is told
that a sync failed.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator

from treestore.backends.btree.engine.file import SyncFailed
from treestore.errors import Corrupted, DiskFull, Locked, TreestoreError, Unavailable

SECTOR = 512
ROOT = "/disk"

SPARED = 8
"""Bytes at the end that a write which fails has not written: as much as a log record has padding, which is zeros anyway."""

SYNCS = frozenset({"sync", "sync_folder"})
GROWTH = frozenset({"write", "reserve", "open", "make_folder"})
"""What needs room, and fails on a full disk."""
WRITES = GROWTH | SYNCS | {"lock", "rename", "remove"}
ALL = WRITES | {"read"}

Fault = Callable[[int, str, str], TreestoreError | None]
"""Given the number, the kind and the path of an operation, the error that it ends in."""

_devices = itertools.count(1)


Versions = list[tuple[int, bytes]]
"""What a sector held since it was last durable, each with the number of the write that made it, ascending."""


class _Inode:
    """A file: its present bytes, its durable ones, and the versions of sectors and sizes in between."""

    def __init__(self, content: bytes = b"") -> None:
        self.current = bytearray(content)
        self.durable = bytearray(content)
        self.sectors: dict[int, Versions] = {}
        self.sizes: list[tuple[int, int]] = []  # with the number of the write, as in the sectors
        self.writes = 0

    def write(self, offset: int, raw: bytes | bytearray) -> None:
        self.grow(offset + len(raw))
        self.current[offset : offset + len(raw)] = raw
        first, end = offset // SECTOR, -(-(offset + len(raw)) // SECTOR)
        written = bytes(self.current[first * SECTOR : end * SECTOR])
        for at, sector in enumerate(range(first, end)):
            version = self.writes, written[at * SECTOR : (at + 1) * SECTOR]
            known = self.sectors.get(sector)
            if known is None:
                self.sectors[sector] = [version]
            else:
                known.append(version)

    def grow(self, size: int) -> None:
        self.writes += 1
        if size > len(self.current):
            self.current.extend(bytes(size - len(self.current)))
            self.sizes.append((self.writes, size))

    def sync(self, writes: int) -> None:
        """The first so many writes are durable."""
        for number, size in self.sizes:
            if number <= writes:
                self.durable.extend(bytes(size - len(self.durable)))
        self.sizes = [entry for entry in self.sizes if entry[0] > writes]
        later: dict[int, Versions] = {}
        for sector, versions in self.sectors.items():
            if versions[-1][0] > writes:
                later[sector] = [version for version in versions if version[0] > writes]
                versions = [version for version in versions if version[0] <= writes]
            if versions:
                raw = versions[-1][1]
                self.durable[sector * SECTOR : sector * SECTOR + len(raw)] = raw
        self.sectors = later

    def lose(self, choose: random.Random) -> None:
        """A sync failed: of each sector any version may be on the disk, and the newest one passes for it."""
        self.durable[:] = self.torn(choose, None)
        self.durable.extend(bytes(len(self.current) - len(self.durable)))
        self.sectors.clear()
        self.sizes.clear()

    def copy(self) -> _Inode:
        other = _Inode()
        other.current = bytearray(self.current)
        other.durable = bytearray(self.durable)
        other.sectors = {sector: versions.copy() for sector, versions in self.sectors.items()}
        other.sizes = self.sizes.copy()
        other.writes = self.writes
        return other

    def torn(self, choose: random.Random, keep: float | None) -> bytes:
        """What a cut may leave: of each sector any version; all of the newest with ``keep`` 1, none with 0."""

        def pick(count: int) -> int:
            """From 0 (the durable version) to ``count`` (the newest one)."""
            if keep is None:
                return choose.randint(0, count)
            return count if choose.random() < keep else 0

        size = [len(self.durable), *(size for _, size in self.sizes)][pick(len(self.sizes))]
        content = bytearray(self.durable[:size].ljust(size, b"\0"))
        for sector, versions in self.sectors.items():
            at = pick(len(versions))
            if at and sector * SECTOR < size:
                raw = versions[at - 1][1][: size - sector * SECTOR]
                content[sector * SECTOR : sector * SECTOR + len(raw)] = raw
        return bytes(content)


Names = dict[str, _Inode | None]
"""Paths; a folder has no inode."""


class _Renaming:
    """One change of names in a folder: ``gone`` disappears and ``new`` appears, at once."""

    def __init__(self, folder: str, gone: str | None, new: str | None, inode: _Inode | None) -> None:
        self.folder = folder
        self.gone = gone
        self.new = new
        self.inode = inode

    def apply(self, names: Names) -> None:
        if self.gone is not None:
            names.pop(self.gone, None)
        if self.new is not None:
            names[self.new] = self.inode


class SimulatedFile:
    """An open file of a :class:`SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, path: str, inode: _Inode, *, locked: bool = False) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode
        self._locked = locked

    def read(self, offset: int, length: int) -> bytes:
        self._disk.begin("read", self._path)
        return bytes(self._inode.current[offset : offset + length])

    def write(self, offset: int, data: bytes | bytearray) -> None:
        try:
            self._disk.begin("write", self._path)
        except TreestoreError:
            whole = max(0, len(data) - SPARED)
            self._inode.write(offset, data[: whole * (self._disk.operations % 3) // 2])  # it may have been done in part
            raise
        self._inode.write(offset, data)
        self._disk.done("write", self._path)

    def reserve(self, offset: int, length: int) -> None:
        self._disk.begin("reserve", self._path)
        self._inode.grow(offset + length)
        self._disk.done("reserve", self._path)

    def sync(self) -> None:
        try:
            self._disk.begin("sync", self._path)
        except SyncFailed:
            self._inode.lose(random.Random(self._disk.operations))
            self._disk.sync_failed(self._path)
            raise
        writes = self._inode.writes
        self._disk.done("sync", self._path)
        self._inode.sync(writes)

    def size(self) -> int:
        return len(self._inode.current)

    def close(self) -> None:
        if self._locked:
            self._disk.locks.discard(self._path)


class SimulatedDisk:
    """The FileSystem. Folders and files lie under :data:`ROOT`."""

    def __init__(self) -> None:
        self.names: Names = {ROOT: None}
        self.durable: Names = {ROOT: None}
        self.pending: list[_Renaming] = []
        self.locks: set[str] = set()
        self.operations = 0
        self.fault: Fault | None = None
        self.hook: Callable[[str, str], None] | None = None
        self.turn: Callable[[], None] | None = None
        self.told: Callable[[str], None] | None = None
        self._device = next(_devices)

    # --- what happens to it ----------------------------------------------------------------------------------------------

    def begin(self, kind: str, path: str) -> None:
        """An operation is about to be done: it is counted, and may fail."""
        if self.turn is not None:
            self.turn()
        self.operations += 1
        if self.fault is not None:
            error = self.fault(self.operations, kind, path)
            if error is not None:
                raise error

    def done(self, kind: str, path: str) -> None:
        """An operation is under way."""
        if self.hook is not None:
            self.hook(kind, path)
        if self.turn is not None:
            self.turn()

    def sync_failed(self, path: str) -> None:
        """A sync has failed: others may go on before its caller is told."""
        if self.turn is not None:
            self.turn()
        if self.told is not None:
            self.told(path)

    def after_cut(self, seed: int, keep: float | None = None) -> SimulatedDisk:
        """This disk as a power cut at this moment may leave it. ``keep`` is the part of what was not synced that is kept,
        the newest of it; None: any version of everything."""
        choose = random.Random(seed)
        names = self.durable.copy()
        for change in self.pending:
            if choose.random() < (0.5 if keep is None else keep):
                change.apply(names)
        other = SimulatedDisk()
        torn: dict[int, _Inode] = {}
        for path, inode in sorted(names.items()):
            if path != ROOT and os.path.dirname(path) not in other.names:
                continue  # the folder was lost, and with it all that is in it
            if inode is not None and id(inode) not in torn:
                torn[id(inode)] = _Inode(inode.torn(choose, keep))
            other.names[path] = None if inode is None else torn[id(inode)]
        other.durable = other.names.copy()
        return other

    def after_kill(self) -> SimulatedDisk:
        """This disk after the death of the process that uses it."""
        copies: dict[int, _Inode] = {}

        def copy(inode: _Inode | None) -> _Inode | None:
            if inode is None:
                return None
            if id(inode) not in copies:
                copies[id(inode)] = inode.copy()
            return copies[id(inode)]

        other = SimulatedDisk()
        other.names = {path: copy(inode) for path, inode in self.names.items()}
        other.durable = {path: copy(inode) for path, inode in self.durable.items()}
        other.pending = [_Renaming(one.folder, one.gone, one.new, copy(one.inode)) for one in self.pending]
        return other

    # --- the file system -------------------------------------------------------------------------------------------------

    def _change(self, gone: str | None, new: str | None, inode: _Inode | None) -> None:
        path = new if new is not None else gone
        assert path is not None
        change = _Renaming(os.path.dirname(path), gone, new, inode)
        change.apply(self.names)
        self.pending.append(change)

    def open(self, path: str, *, create: bool = False) -> SimulatedFile:
        inode = self.names.get(path)
        if inode is None:
            if not create:
                raise Corrupted(f"{path} is missing")
            if os.path.dirname(path) not in self.names:
                raise Unavailable(f"cannot open {path}: no such folder")
            self.begin("open", path)
            inode = _Inode()
            self._change(None, path, inode)
            self.done("open", path)
        return SimulatedFile(self, path, inode)

    def lock(self, path: str, holder: str) -> SimulatedFile:
        if path in self.locks:
            raise Locked(f"{os.path.dirname(path)} is in use by {self._content(path)}")
        self.begin("lock", path)
        inode = self.names.get(path) or _Inode()
        if path not in self.names:
            self._change(None, path, inode)
        inode.write(0, holder.encode())
        self.locks.add(path)
        self.done("lock", path)
        return SimulatedFile(self, path, inode, locked=True)

    def _content(self, path: str) -> str:
        inode = self.names.get(path)
        return "" if inode is None else inode.current.decode()

    def exists(self, path: str) -> bool:
        return path in self.names

    def list(self, folder: str) -> list[str]:
        if folder not in self.names:
            raise Unavailable(f"cannot list {folder}: no such folder")
        return sorted(os.path.basename(path) for path in self.names if path != ROOT and os.path.dirname(path) == folder)

    def make_folder(self, path: str) -> None:
        self.begin("make_folder", path)
        self._change(None, path, None)
        self.done("make_folder", path)

    def rename(self, old: str, new: str) -> None:
        self.begin("rename", old)
        self._change(old, new, self.names[old])
        self.done("rename", new)

    def remove(self, path: str) -> None:
        self.begin("remove", path)
        self._change(path, None, None)
        self.done("remove", path)

    def sync_folder(self, path: str) -> None:
        try:
            self.begin("sync_folder", path)
        except SyncFailed:
            self.sync_failed(path)
            raise
        covered = [change for change in self.pending if change.folder == path]
        self.done("sync_folder", path)
        for change in covered:
            if change in self.pending:  # else another sync was faster
                change.apply(self.durable)
                self.pending.remove(change)

    def identity(self, path: str) -> tuple[int, int]:
        return -self._device, hash(path)


def failing(at: int, *, for_ever: bool, full: bool = False, kinds: frozenset[str] = WRITES) -> Fault:
    """A fault that fails operation number ``at``, counted from 1 among those of ``kinds`` from now on, and, ``for_ever``, all
    of them after it: a disk that is broken, or ``full``."""
    count = 0

    def fault(number: int, kind: str, path: str) -> TreestoreError | None:
        nonlocal count
        count += kind in kinds
        if kind not in kinds or count < at or (count > at and not for_ever):
            return None
        if kind in SYNCS:
            return SyncFailed(f"cannot sync {path}: {'no space left' if full else 'input/output error'}")
        return DiskFull(f"the disk is full: cannot {kind} {path}") if full else Unavailable(f"cannot {kind} {path}")

    return fault


def cuts(disk: SimulatedDisk, seed: int) -> Iterator[tuple[str, SimulatedDisk]]:
    """The disk as cuts of every sort may leave it, each with a name to replay it by."""
    yield f"all lost, seed {seed}", disk.after_cut(seed, 0.0)
    yield f"all kept, seed {seed}", disk.after_cut(seed, 1.0)
    yield f"half kept, seed {seed}", disk.after_cut(seed, 0.5)
    yield f"any version, seed {seed}", disk.after_cut(seed)
