"""A disk in memory that forgets: a FileSystem whose unsynced writes and names may be lost, kept, reordered or torn.

Of each file it keeps what is durable and, for each sector of 512 bytes, every version that was written since the last sync;
of the folders it keeps the durable names and, in order, every change of names since. :meth:`SimulatedDisk.after_cut` is the
disk as a power cut may leave it: any version of each sector, any size the file had, any of the changed names.
:meth:`SimulatedDisk.after_kill` is what the death of the process alone leaves: all is there and can be read, but what was not
synced is still not durable.

``fault`` is asked before each operation for an error to raise in its place; ``hook`` is called when an operation is under
way: after a write or a change of names was done (and is not durable), before a sync is.
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

SYNCS = frozenset({"sync", "sync_folder"})
CHANGES = frozenset({"write", "reserve", "open", "lock", "rename", "remove", "make_folder"})

Fault = Callable[[int, str, str], TreestoreError | None]
"""Given the number, the kind and the path of an operation, the error that it ends in."""

_devices = itertools.count(1)


class _Inode:
    """A file: its present bytes, its durable ones, and the versions of sectors and sizes in between."""

    def __init__(self, content: bytes = b"") -> None:
        self.current = bytearray(content)
        self.durable = bytes(content)
        self.sectors: dict[int, list[bytes]] = {}
        self.sizes: list[int] = []

    def write(self, offset: int, raw: bytes | bytearray) -> None:
        end = offset + len(raw)
        if end > len(self.current):
            self.current.extend(bytes(end - len(self.current)))
            self.sizes.append(end)
        self.current[offset:end] = raw
        for sector in range(offset // SECTOR, -(-end // SECTOR)):
            self.sectors.setdefault(sector, []).append(bytes(self.current[sector * SECTOR : (sector + 1) * SECTOR]))

    def grow(self, size: int) -> None:
        if size > len(self.current):
            self.current.extend(bytes(size - len(self.current)))
            self.sizes.append(size)

    def sync(self) -> None:
        self.durable = bytes(self.current)
        self.sectors.clear()
        self.sizes.clear()

    def copy(self) -> _Inode:
        other = _Inode()
        other.current = bytearray(self.current)
        other.durable = self.durable
        other.sectors = {sector: versions.copy() for sector, versions in self.sectors.items()}
        other.sizes = self.sizes.copy()
        return other

    def torn(self, choose: random.Random, keep: float | None) -> bytes:
        """What a cut may leave: of each sector any version; all of the newest with ``keep`` 1, none with 0."""

        def pick(count: int) -> int:
            """From 0 (the durable version) to ``count`` (the newest one)."""
            if keep is None:
                return choose.randint(0, count)
            return count if choose.random() < keep else 0

        size = [len(self.durable), *self.sizes][pick(len(self.sizes))]
        content = bytearray(self.durable[:size].ljust(size, b"\0"))
        for sector, versions in self.sectors.items():
            at = pick(len(versions))
            if at and sector * SECTOR < size:
                raw = versions[at - 1][: size - sector * SECTOR]
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
            self._inode.write(offset, data[: len(data) // 2])  # a write that fails may have been done in part
            raise
        self._inode.write(offset, data)
        self._disk.done("write", self._path)

    def reserve(self, offset: int, length: int) -> None:
        self._disk.begin("reserve", self._path)
        self._inode.grow(offset + length)
        self._disk.done("reserve", self._path)

    def sync(self) -> None:
        self._disk.begin("sync", self._path)
        self._disk.done("sync", self._path)
        self._inode.sync()

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
        self._device = next(_devices)

    # --- what happens to it ----------------------------------------------------------------------------------------------

    def begin(self, kind: str, path: str) -> None:
        """An operation is about to be done: it is counted, and may fail."""
        self.operations += 1
        if self.fault is not None:
            error = self.fault(self.operations, kind, path)
            if error is not None:
                raise error

    def done(self, kind: str, path: str) -> None:
        """An operation is under way."""
        if self.hook is not None:
            self.hook(kind, path)

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
        self.begin("sync_folder", path)
        self.done("sync_folder", path)
        kept = []
        for change in self.pending:
            if change.folder == path:
                change.apply(self.durable)
            else:
                kept.append(change)
        self.pending = kept

    def identity(self, path: str) -> tuple[int, int]:
        return -self._device, hash(path)


def failing(at: int, *, for_ever: bool, full: bool = False, reads: bool = False) -> Fault:
    """A fault that fails operation number ``at`` and, ``for_ever``, all later ones: a disk that is broken, or ``full``.
    Reads fail only with ``reads``."""

    def fault(number: int, kind: str, path: str) -> TreestoreError | None:
        if number < at or (number > at and not for_ever) or (kind == "read" and not reads):
            return None
        if full:
            return DiskFull(f"the disk is full: cannot {kind} {path}") if kind in CHANGES - {"rename", "remove"} else None
        return SyncFailed(f"cannot sync {path}") if kind in SYNCS else Unavailable(f"cannot {kind} {path}: input/output error")

    return fault


def cuts(disk: SimulatedDisk, seed: int) -> Iterator[tuple[str, SimulatedDisk]]:
    """The disk as cuts of every sort may leave it, each with a name to replay it by."""
    yield f"all lost, seed {seed}", disk.after_cut(seed, 0.0)
    yield f"all kept, seed {seed}", disk.after_cut(seed, 1.0)
    yield f"half kept, seed {seed}", disk.after_cut(seed, 0.5)
    yield f"any version, seed {seed}", disk.after_cut(seed)
