"""A disk that is watched: how many bytes are written to it, and how long a sync takes at least.

It stands where the engine's file system stands, so a whole store can lie on it and know nothing.
"""

from __future__ import annotations

import os
from time import perf_counter, sleep

import msgspec

from treestore.backends.btree.engine.file import File, OsFileSystem
from treestore.backends.btree.engine.recovery import LOG_FOLDER


class Written(msgspec.Struct):
    """Bytes written: records in the log, zeros that the log's file is grown with ahead of them, and pages; and how often the
    log was synced."""

    log: int = 0
    ahead: int = 0
    pages: int = 0
    syncs: int = 0

    def since(self, before: Written) -> Written:
        """What was written after ``before``."""
        return Written(self.log - before.log, self.ahead - before.ahead, self.pages - before.pages, self.syncs - before.syncs)

    @property
    def all(self) -> int:
        """All of them."""
        return self.log + self.ahead + self.pages


class WatchedDisk(OsFileSystem):
    """The operating system's file system. A sync of a file takes ``sync_seconds`` at least; it is a real one."""

    def __init__(self, sync_seconds: float = 0.0) -> None:
        super().__init__()
        self.sync_seconds = sync_seconds
        self.written = Written()

    def open(self, path: str, *, create: bool = False) -> File:
        in_log = os.path.basename(os.path.dirname(path)) == LOG_FOLDER
        return _WatchedFile(super().open(path, create=create), self, in_log)

    def copied(self) -> Written:
        """What was written until now."""
        return msgspec.structs.replace(self.written)


class _WatchedFile:
    """A file that reports to its disk. What is written just where room was reserved is the growing of a log file."""

    def __init__(self, file: File, disk: WatchedDisk, in_log: bool) -> None:
        self._file = file
        self._disk = disk
        self._in_log = in_log
        self._reserved = (-1, 0)
        self.read, self.size, self.close = file.read, file.size, file.close

    def write(self, offset: int, data: bytes | bytearray) -> None:
        self._file.write(offset, data)
        written = self._disk.written
        if not self._in_log:
            written.pages += len(data)
        elif (offset, len(data)) == self._reserved:
            written.ahead += len(data)
        else:
            written.log += len(data)

    def reserve(self, offset: int, length: int) -> None:
        self._file.reserve(offset, length)
        self._reserved = (offset, length)

    def sync(self) -> None:
        began = perf_counter()
        self._file.sync()
        self._disk.written.syncs += self._in_log
        rest = self._disk.sync_seconds - (perf_counter() - began)
        if rest > 0:
            sleep(rest)
