"""The seam between the engine and the operating system: everything that the engine does to a disk goes through here.

A :class:`FileSystem` opens, renames and removes files by path and makes those changes durable with ``sync_folder``; a
:class:`File` is read and written at offsets. Nothing is durable before ``sync`` (contents and size) or ``sync_folder``
(names) returns. Another implementation of these two protocols, one that loses and tears what was not synced, is how crashes
are tested.

Errors of the operating system become this package's: DiskFull, ReadOnly or Unavailable, with the file's path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from typing import Protocol

from treestore.errors import Closed, Corrupted, DiskFull, Locked, NotAStore, ReadOnly, TreestoreError, Unavailable

_AT_ONCE = 4 * 1024 * 1024  # bytes that are read and written again together
_growing = threading.Lock()
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class SyncFailed(Unavailable):
    """A sync failed. What it should have made durable may be lost although the system now believes it written, so nothing
    may be acknowledged on this store before it is opened again."""


class File(Protocol):
    """An open file. ``read`` gives fewer bytes only at the end of the file; ``write`` writes all or raises."""

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, data: bytes | bytearray) -> None: ...

    def reserve(self, offset: int, length: int) -> None:
        """Make sure that the disk has room for this range; raises DiskFull. New bytes are zero."""
        ...

    def sync(self) -> None: ...

    def size(self) -> int: ...

    def close(self) -> None: ...


class FileSystem(Protocol):
    """Names of files. ``open`` creates the file if ``create``; a name is durable after ``sync_folder`` of its folder."""

    def open(self, path: str, *, create: bool = False) -> File: ...

    def lock(self, path: str, holder: str) -> File:
        """Open, creating it, and lock a file exclusively; leaves ``holder`` in it. Raises Locked naming the holder."""
        ...

    def exists(self, path: str) -> bool: ...

    def list(self, folder: str) -> list[str]: ...

    def make_folder(self, path: str) -> None: ...

    def rename(self, old: str, new: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def sync_folder(self, path: str) -> None: ...

    def identity(self, path: str) -> tuple[int, int]:
        """Device and inode, which stay when a folder is renamed."""
        ...


def write_again(file: File, offset: int, length: int) -> None:
    """Write what a range holds over itself, so that the next sync makes it durable. After a sync that failed a system may show
    what was written and have it nowhere but in memory, as if it had been synced. Where the disk is too full even for that (it
    never writes in place) the range stays as it is."""
    with contextlib.suppress(DiskFull):
        for start in range(offset, offset + length, _AT_ONCE):
            file.write(start, file.read(start, min(_AT_ONCE, offset + length - start)))


def _translate(error: OSError, doing: str, path: str) -> TreestoreError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return DiskFull(f"the disk is full: cannot {doing} {path}: {reason}")
    if error.errno in _REFUSED:
        return ReadOnly(f"cannot {doing} {path}: {reason}")
    if error.errno in (errno.EISDIR, errno.ENOTDIR):
        return NotAStore(f"cannot {doing} {path}: {reason}")
    return Unavailable(f"cannot {doing} {path}: {reason}")


@contextlib.contextmanager
def _translated(doing: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _translate(error, doing, path) from error


def _full_sync(descriptor: int) -> None:
    """Data and size on stable storage. macOS needs F_FULLFSYNC: its fsync leaves them in the drive's cache."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


class OsFile:
    """A file of the operating system. ``close`` waits for calls that other threads have under way, so that none of them
    meets another file under the same descriptor."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._opener = os.getpid()
        self._using = 0
        self._idle = threading.Condition()

    @contextlib.contextmanager
    def _use(self, doing: str) -> Iterator[int]:
        with self._idle:
            if self._descriptor < 0:
                raise Closed(f"{self._path} is closed")
            self._using += 1
        try:
            yield self._descriptor
        except OSError as error:
            raise _translate(error, doing, self._path) from error
        finally:
            with self._idle:
                self._using -= 1
                self._idle.notify_all()

    def read(self, offset: int, length: int) -> bytes:
        with self._use("read") as descriptor:
            data = os.pread(descriptor, length, offset)
            while len(data) < length:
                more = os.pread(descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        return data

    def write(self, offset: int, data: bytes | bytearray) -> None:
        view = memoryview(data)
        with self._use("write to") as descriptor:
            while view:
                written = os.pwrite(descriptor, view, offset)
                if not written:  # nothing more goes in
                    raise OSError(errno.ENOSPC, "nothing could be written")
                view = view[written:]
                offset += written

    def reserve(self, offset: int, length: int) -> None:
        with self._use("grow") as descriptor:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, offset, length)
            else:
                with _growing:  # or two threads that grow a file could cut it
                    if os.fstat(descriptor).st_size < offset + length:
                        os.ftruncate(descriptor, offset + length)

    def sync(self) -> None:
        with self._use("sync") as descriptor:
            try:
                _full_sync(descriptor)
            except OSError as error:
                raise SyncFailed(f"cannot sync {self._path}: {error.strerror}") from error

    def size(self) -> int:
        with self._use("read") as descriptor:
            return os.fstat(descriptor).st_size

    def close(self) -> None:
        if os.getpid() != self._opener:  # a forked child: what its parent's threads held at the fork is never let go here
            self._idle, self._using = threading.Condition(), 0
        with self._idle:
            descriptor, self._descriptor = self._descriptor, -1
            while self._using:
                self._idle.wait()
        if descriptor >= 0:
            os.close(descriptor)


class OsFileSystem:
    """The operating system's file system. Paths are taken as given."""

    def open(self, path: str, *, create: bool = False) -> File:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            return OsFile(path, os.open(path, flags, 0o600 if create else 0))
        except FileNotFoundError as error:
            raise Corrupted(f"{path} is missing") from error
        except OSError as error:
            raise _translate(error, "open", path) from error

    def lock(self, path: str, holder: str) -> File:
        with _translated("open", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # on a full disk it is locked all the same
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder.encode(), 0)
        except BlockingIOError as error:
            who = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise Locked(f"{os.path.dirname(path)} is in use by {who or 'another process'}") from error
        except OSError as error:
            os.close(descriptor)
            raise _translate(error, "lock", path) from error
        return OsFile(path, descriptor)

    def exists(self, path: str) -> bool:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _translate(error, "look at", path) from error
        return True

    def list(self, folder: str) -> list[str]:
        with _translated("list", folder):
            try:
                return sorted(os.listdir(folder))
            except NotADirectoryError as error:
                raise NotAStore(f"{folder} is a file; name a folder") from error

    def make_folder(self, path: str) -> None:
        with _translated("create", path):
            os.mkdir(path, 0o700)

    def rename(self, old: str, new: str) -> None:
        with _translated("rename", old):
            os.replace(old, new)

    def remove(self, path: str) -> None:
        with _translated("remove", path):
            os.unlink(path)

    def sync_folder(self, path: str) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except PermissionError as error:
            raise ReadOnly(f"cannot sync {path}: {error.strerror}") from error
        except OSError as error:
            raise SyncFailed(f"cannot sync {path}: {error.strerror}") from error

    def identity(self, path: str) -> tuple[int, int]:
        with _translated("look at", path):
            found = os.stat(path)
        return found.st_dev, found.st_ino
