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
import weakref
from collections.abc import Callable, Iterator
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
    never writes in place), or nothing is to be changed, the range stays as it is."""
    with contextlib.suppress(DiskFull, ReadOnly):
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
    def use(self, doing: str = "") -> Iterator[int]:
        """Its descriptor, which stays its own meanwhile. The system's errors are translated where it is said what is done."""
        descriptor = self._begin()
        try:
            yield descriptor
        except OSError as error:
            if not doing:
                raise
            raise _translate(error, doing, self._path) from error
        finally:
            self._end()

    def _begin(self) -> int:
        with self._idle:
            if self._descriptor < 0:
                raise Closed(f"{self._path} is closed")
            self._using += 1
            return self._descriptor

    def _end(self) -> None:
        with self._idle:
            self._using -= 1
            if not self._using:
                self._idle.notify_all()

    def read(self, offset: int, length: int) -> bytes:
        descriptor = self._begin()  # not by `use`, which takes as long as the reading
        try:
            data = os.pread(descriptor, length, offset)
            while len(data) < length:
                more = os.pread(descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise _translate(error, "read", self._path) from error
        finally:
            self._end()
        return data

    def write(self, offset: int, data: bytes | bytearray) -> None:
        view = memoryview(data)
        with self.use("write to") as descriptor:
            while view:
                written = os.pwrite(descriptor, view, offset)
                if not written:  # nothing more goes in
                    raise OSError(errno.ENOSPC, "nothing could be written")
                view = view[written:]
                offset += written

    def reserve(self, offset: int, length: int) -> None:
        with self.use("grow") as descriptor:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, offset, length)
            else:
                with _growing:  # or two threads that grow a file could cut it
                    if os.fstat(descriptor).st_size < offset + length:
                        os.ftruncate(descriptor, offset + length)

    def sync(self) -> None:
        with self.use("sync") as descriptor:
            try:
                _full_sync(descriptor)
            except OSError as error:
                raise SyncFailed(f"cannot sync {self._path}: {error.strerror}") from error

    def size(self) -> int:
        with self.use("read") as descriptor:
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


class _Lock(OsFile):
    """A locked file. ``home`` is its folder, held open and locked as well; closing lets go of both."""

    def __init__(self, path: str, descriptor: int, home: OsFile, let_go: Callable[[], object]) -> None:
        super().__init__(path, descriptor)
        self._home = home
        self._let_go = let_go
        _locks.add(self)

    def close(self) -> None:
        self._let_go()
        super().close()
        self._home.close()


_locks: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _close_after_fork() -> None:
    """A child keeps no copy of a lock, also of one whose store was just being opened: it would outlive the parent's."""
    for lock in list(_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_after_fork)


def _taken(descriptor: int, how: int) -> bool:
    """Whether somebody else has locked a file or folder; if nobody has, we have now: LOCK_EX alone, LOCK_SH with others."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _folder_taken(descriptor: int, how: int) -> bool:
    """As :func:`_taken`; False also where the file system locks no folders."""
    try:
        return _taken(descriptor, how)
    except OSError:
        return False


def _refuse_taken(descriptor: int, folder: str, refused: bool, how: int) -> None:
    """Lock the lock file of a folder that is locked already, or ``refused``. Raises Locked, naming the holder."""
    if refused or _taken(descriptor, how):
        who = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        raise Locked(f"{folder} is in use by {who or 'another process'}")


class OsFileSystem:
    """The operating system's file system. Paths are taken as given. As long as a file is locked, paths in its folder mean that
    very folder, wherever it is moved and whatever takes its name; and the folder is locked with the file, so whoever deletes
    or replaces the file lets nobody in.
    """

    def __init__(self) -> None:
        self._homes: dict[str, OsFile] = {}  # folders of locked files by name; each change makes a new dict

    @contextlib.contextmanager
    def _at(self, path: str) -> Iterator[tuple[str, int | None]]:
        """A path for the system, and the descriptor of the folder that it begins at (None: as any path)."""
        for folder, home in self._homes.items():
            if path == folder or path.startswith(folder + os.sep):
                with home.use() as descriptor:
                    yield path[len(folder) + 1 :] or ".", descriptor
                return
        yield path, None

    def open(self, path: str, *, create: bool = False) -> File:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            with self._at(path) as (name, folder):
                return OsFile(path, os.open(name, flags, 0o600 if create else 0, dir_fd=folder))
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not create:
                raise Corrupted(f"{path} is missing") from error
            raise _translate(error, "open", path) from error

    def lock(self, path: str, holder: str) -> File:
        folder, name = os.path.split(path)
        with _translated("open", folder):
            home = OsFile(folder, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            with _translated("lock", path), home.use() as at:
                refused = _folder_taken(at, fcntl.LOCK_EX)
                try:
                    descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC | (0 if refused else os.O_CREAT), 0o600, dir_fd=at)
                except FileNotFoundError as error:
                    raise Locked(f"{folder} is in use by another process") from error
            self._homes = {**self._homes, folder: home}
            lock = _Lock(path, descriptor, home, lambda: self._leave(home))
        except BaseException:
            home.close()
            raise
        try:
            with _translated("lock", path):
                _refuse_taken(descriptor, folder, refused, fcntl.LOCK_EX)
            with contextlib.suppress(OSError):  # on a full disk it is locked all the same
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder.encode(), 0)
        except BaseException:
            lock.close()
            raise
        return lock

    def _leave(self, home: OsFile) -> None:
        self._homes = {folder: other for folder, other in self._homes.items() if other is not home}

    def exists(self, path: str) -> bool:
        try:
            with self._at(path) as (name, folder):
                os.stat(name, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _translate(error, "look at", path) from error
        return True

    def list(self, folder: str) -> list[str]:
        with _translated("list", folder):
            try:
                with self._at(folder) as (name, at):
                    if at is None:
                        return sorted(os.listdir(name))
                    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
                try:
                    return sorted(os.listdir(descriptor))
                finally:
                    os.close(descriptor)
            except NotADirectoryError as error:
                raise NotAStore(f"{folder} is a file; name a folder") from error

    def make_folder(self, path: str) -> None:
        with _translated("create", path), self._at(path) as (name, folder):
            os.mkdir(name, 0o700, dir_fd=folder)

    def rename(self, old: str, new: str) -> None:
        with _translated("rename", old), self._at(old) as (before, one), self._at(new) as (after, other):
            os.replace(before, after, src_dir_fd=one, dst_dir_fd=other)

    def remove(self, path: str) -> None:
        with _translated("remove", path), self._at(path) as (name, folder):
            os.unlink(name, dir_fd=folder)

    def sync_folder(self, path: str) -> None:
        try:
            with self._at(path) as (name, folder):
                descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except NotADirectoryError as error:
            raise Corrupted(f"{path} is a file where a folder must be") from error
        except PermissionError as error:
            raise ReadOnly(f"cannot sync {path}: {error.strerror}") from error
        except OSError as error:
            raise SyncFailed(f"cannot sync {path}: {error.strerror}") from error

    def identity(self, path: str) -> tuple[int, int]:
        with _translated("look at", path), self._at(path) as (name, folder):
            found = os.stat(name, dir_fd=folder)
        return found.st_dev, found.st_ino


class _UnchangedFile(OsFile):
    """A file that is only read; there is nothing to be synced."""

    def write(self, offset: int, data: bytes | bytearray) -> None:
        raise ReadOnly(f"{self._path} would be written to, and nothing here is to be changed")

    def sync(self) -> None:
        pass


class UnchangedFileSystem(OsFileSystem):
    """The operating system's file system for looking at a store without changing a byte or a name of it, so also where
    nothing can be written. What would change something raises ReadOnly; syncs do nothing."""

    def open(self, path: str, *, create: bool = False) -> File:
        try:
            return _UnchangedFile(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError as error:
            raise Corrupted(f"{path} is missing") from error
        except OSError as error:
            raise _translate(error, "open", path) from error

    def lock(self, path: str, holder: str) -> File:
        """Keep others from opening the store, and refuse (Locked) where one has it open. Without a lock file, which a copy may
        lack, the folder alone is locked: the file is not made."""
        folder = os.path.dirname(path)
        with _translated("open", folder):
            home = OsFile(folder, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            with _translated("lock", path), home.use() as at:
                refused = _folder_taken(at, fcntl.LOCK_SH)
                try:
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError as error:
                    if refused:
                        raise Locked(f"{folder} is in use by another process") from error
                    return home
        except BaseException:
            home.close()
            raise
        lock = _Lock(path, descriptor, home, lambda: None)
        try:
            with _translated("lock", path):
                _refuse_taken(descriptor, folder, refused, fcntl.LOCK_SH)
        except BaseException:
            lock.close()
            raise
        return lock

    def make_folder(self, path: str) -> None:
        raise ReadOnly(f"{path} would be made, and nothing here is to be changed")

    def rename(self, old: str, new: str) -> None:
        raise ReadOnly(f"{old} would be renamed, and nothing here is to be changed")

    def remove(self, path: str) -> None:
        raise ReadOnly(f"{path} would be removed, and nothing here is to be changed")

    def sync_folder(self, path: str) -> None:
        if not os.path.isdir(path):
            raise Corrupted(f"{path} is a file where a folder must be")

