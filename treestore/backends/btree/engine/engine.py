"""The engine: a store of ordered bytes in a folder, with atomic groups, snapshots and recovery.

It keeps up to MAX_TREES trees of byte keys and byte values and knows nothing about what they mean. A group is committed in
this order: it is prepared against the newest state, its record is written to the log, the log is synced, the new state
becomes visible, the caller is told. Groups of one batch share the sync. Reading needs no lock and never waits for a commit.

Everything is synchronous. Commits and the planning of checkpoints are serialised by ``writer``, a lock that the caller of
:meth:`Engine.begin` holds; :meth:`Engine.commit` does all of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import weakref
from collections.abc import Generator, Iterator
from typing import Any

from treestore.backends.btree.engine.batch import Batch, Job
from treestore.backends.btree.engine.bulk import Bulk
from treestore.backends.btree.engine.checkpoint import Checkpoint
from treestore.backends.btree.engine.compact import rewrite
from treestore.backends.btree.engine.file import File, FileSystem, OsFileSystem, SyncFailed
from treestore.backends.btree.engine.format import MAX_PAYLOAD, META_SLOTS, PAGE_SIZE, Meta, encode_meta
from treestore.backends.btree.engine.freelist import FreeList, Run
from treestore.backends.btree.engine.mvcc import Readers, State, state_of
from treestore.backends.btree.engine.options import Options as Options  # whoever opens an engine finds it here
from treestore.backends.btree.engine.pager import Pager, PageWriter
from treestore.backends.btree.engine.recovery import (
    DATA,
    LOCK,
    LOG_FOLDER,
    NEW_DATA,
    Recovered,
    create,
    encode_changes,
    prepare_folder,
    recover,
)
from treestore.backends.btree.engine.wal import Log
from treestore.errors import Closed, DiskFull, InvalidInput, Locked, OutcomeUnknown, TreestoreError, Unavailable

_log = logging.getLogger("treestore.btree")
_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_open_folders: set[tuple[int, int]] = set()


class Engine:
    """An open store. Made by :meth:`open`; any thread may use it; a forked child must not."""

    def __init__(self, fs: FileSystem, folder: str, lock: Any, recovered: Recovered, options: Options) -> None:
        self.folder = folder
        self.options = options
        self.state = recovered.state
        self.readers = Readers()
        self.writer = threading.Lock()
        self.replayed = recovered.replayed
        self.checkpoints = 0
        self.dirty = recovered.dirty
        self._fs = fs
        self._lock_file = lock
        self._identity = fs.identity(folder)
        self._meta = recovered.meta
        self._slot = recovered.slot
        self._data_file = (recovered.state.pager, recovered.freelist)  # one assignment, as a compaction changes both
        self._chain = recovered.chain
        self._free = recovered.free
        self._old_pagers: list[tuple[int, Pager]] = []
        self._log = Log(
            fs,
            os.path.join(folder, LOG_FOLDER),
            recovered.meta.store_id,
            next_lsn=recovered.state.lsn + 1,
            number=recovered.log_number,
            file_size=options.log_file_bytes,
            end=recovered.log_end,
        )
        self._log_mark = -recovered.replayed_bytes  # bytes written to the log up to the last checkpoint
        self._checkpointing = threading.RLock()
        self._syncing = threading.Lock()
        self._checkpoint: Checkpoint | None = None  # planned and not yet durable
        self._lent = 0  # bytes of the cache that others use
        self._stuck: str | None = None  # why the last checkpoint could not be written
        self._poison: str | None = None
        self._closed: str | None = None
        _open_engines.add(self)

    @classmethod
    def open(
        cls, folder: str, options: Options | None = None, *, create_new: bool = True, fs: FileSystem | None = None
    ) -> Engine:
        """Open the store in a folder, or make one there (``create_new``).

        Raises NotAStore, Locked, Corrupted, MigrationError, ReadOnly, DiskFull or Unavailable; nothing is changed then.
        """
        fs = fs or OsFileSystem()
        options = options or Options()
        exists = prepare_folder(fs, folder, create_new=create_new)
        if fs.identity(folder) in _open_folders:
            raise Locked(f"{folder} is in use by this process (pid {os.getpid()}): it is open already")
        lock = fs.lock(os.path.join(folder, LOCK), f"pid {os.getpid()} on {socket.gethostname()}\n")
        try:
            if not exists:
                exists = prepare_folder(fs, folder, create_new=create_new)
            if not exists:
                create(fs, folder)
            elif fs.exists(os.path.join(folder, NEW_DATA)):
                fs.remove(os.path.join(folder, NEW_DATA))
            recovered = recover(fs, folder, options.cache_bytes)
            engine = cls(fs, folder, lock, recovered, options)
        except BaseException:
            lock.close()
            raise
        _open_folders.add(engine._identity)
        if recovered.replayed:
            _log.info("%s: replayed %d groups", folder, recovered.replayed)
        return engine

    @property
    def _freelist(self) -> FreeList:
        return self._data_file[1]

    # --- reading ---------------------------------------------------------------------------------------------------------

    def enter(self) -> tuple[State, int]:
        """The newest committed state and a token for :meth:`leave`; its pages stay as they are in between."""
        if self._closed is not None:
            raise Closed(self._closed)
        while True:
            state = self.state
            token = self.readers.enter(state.epoch)
            if self.state is state:
                return state, token
            self.readers.leave(token)

    def enter_again(self, state: State) -> int:
        """One more token for a state that somebody holds a token for already."""
        if self._closed is not None:
            raise Closed(self._closed)
        return self.readers.enter(state.epoch)

    def leave(self, token: int) -> None:
        """The state of this token is no longer read."""
        self.readers.leave(token)

    @contextlib.contextmanager
    def reading(self) -> Iterator[State]:
        """The newest committed state, for the length of a ``with`` block."""
        state, token = self.enter()
        try:
            yield state
        finally:
            self.leave(token)

    # --- committing ------------------------------------------------------------------------------------------------------

    def bulk(self) -> Bulk:
        """A new bulk load. Its grafts are committed like any change, unless a compaction came between: then the newest
        state has another pager. The caller reads some state meanwhile, so that the file stays open."""
        self.ready()
        return Bulk(*self._data_file, self._sync)

    def ready(self) -> None:
        """Raise Closed, Unavailable or DiskFull where nothing can be committed."""
        if self._closed is not None:
            raise Closed(self._closed)
        if self._poison is not None:
            raise Unavailable(self._poison)
        if self.dirty > self.options.most_dirty_bytes and self._stuck is not None:
            raise DiskFull(f"changes fill the memory set aside for them and can't be written: {self._stuck}")

    def commit(self, jobs: list[Job]) -> None:
        """Commit groups as one batch, in order, each atomic; their outcomes are left in the jobs. Waits for ``writer``."""
        with self.writer:
            try:
                self.finish(self.begin(jobs))
            except BaseException as error:
                self.interrupted(jobs, error)
                raise

    def interrupted(self, jobs: list[Job], error: BaseException) -> None:
        """A commit was left in its midst (Ctrl-C in the thread that ran it): the log may hold what the newest state does
        not, so nothing more is committed, and nobody is told that a job of it is durable."""
        if not all(job.done for job in jobs):
            self._poisoned(error)
        for job in jobs:
            if not job.done:
                job.error = OutcomeUnknown("the commit was interrupted; whether the write is durable is not known")
                job.done = True

    def begin(self, jobs: list[Job]) -> Batch:
        """Prepare groups and write their records, without a sync. The caller holds ``writer`` until :meth:`finish`."""
        batch = Batch(jobs, self.state)
        for job in jobs:
            try:
                self.ready()
                changes = job.prepare(batch.state)
                if not changes:
                    continue
                payload = encode_changes(changes)
                if len(payload) > MAX_PAYLOAD:
                    raise InvalidInput(f"the group takes {len(payload)} bytes, at most {MAX_PAYLOAD} are possible")
                batch.add(job, changes, payload)
            except Exception as error:
                job.error = error
        if batch.written:
            try:
                self._log.append(batch.payloads)
            except Exception as error:
                self._failed(batch, error)
        return batch

    def finish(self, batch: Batch) -> None:
        """Sync the log, publish the batch's state and mark its jobs done."""
        if batch.written:
            try:
                self._log.sync()
            except Exception as error:
                self._failed(batch, error)
            else:
                self._publish(batch)
        for job in batch.jobs:
            job.done = True

    def _publish(self, batch: Batch) -> None:
        self._freelist.commit_staged(batch.linked)
        self._freelist.give_up(batch.state.epoch, batch.freed)
        self.dirty += batch.dirty
        self.state = batch.state

    def _failed(self, batch: Batch, error: Exception) -> None:
        """Nothing of the batch was applied; after a failed sync that is not known, and no later write is accepted."""
        if isinstance(error, (SyncFailed, OutcomeUnknown)) or not isinstance(error, TreestoreError):
            self._poisoned(error)
            unknown = OutcomeUnknown(f"whether the write is durable is not known: {error}")
            unknown.__cause__ = error
            error = unknown
        for job in batch.jobs:
            if job.error is None:
                job.error = error
        batch.written = []

    def _poisoned(self, error: BaseException) -> None:
        reason = str(error) or type(error).__name__
        self._poison = f"writes stopped after an error; reads go on; close the store and open it again: {reason}"
        _log.error("%s: %s", self.folder, self._poison)

    def _sync(self, file: File) -> None:
        """Sync a data file. One at a time: a sync that fails takes others' writes with it, and theirs would then find nothing
        to write and succeed; so none may end before whoever met the failure has stopped writes."""
        with self._syncing:
            if self._poison is not None:
                raise Unavailable(self._poison)
            try:
                file.sync()
            except SyncFailed as error:
                self._poisoned(error)
                raise

    # --- checkpoints -----------------------------------------------------------------------------------------------------

    def checkpoint_due(self) -> bool:
        """Whether changed nodes or the log have grown so far that a checkpoint should run."""
        grown = self._log.bytes_written - self._log_mark
        return self.dirty > self.options.dirty_bytes or grown > self.options.log_bytes

    @property
    def closed(self) -> bool:
        """Whether it was closed, here or because it was opened by another process before a fork."""
        return self._closed is not None

    @property
    def writable(self) -> bool:
        """Whether commits are possible."""
        return self._poison is None and self._closed is None

    def checkpoint(self) -> None:
        """Make everything that is committed part of the data file. Raises DiskFull, Unavailable; nothing is lost then."""
        for _ in self.checkpoint_steps():
            pass

    def checkpoint_steps(self) -> Generator[None, None, None]:
        """:meth:`checkpoint` in steps of about a millisecond. Only one runs at a time."""
        with self._checkpointing:
            if not self.writable:
                self.ready()
            if self._checkpoint is not None:  # one that failed; more was committed since
                yield from self._run(self._checkpoint)
            with self.writer:
                checkpoint = self._planned()
            if checkpoint is not None:
                yield from self._run(checkpoint)

    @contextlib.contextmanager
    def _whole(self, undone: type[TreestoreError] | tuple[()] = ()) -> Iterator[None]:
        """What must not be left half-way: an interrupt in it (Ctrl-C) stops writes until the store is opened again. Errors
        that are ``undone`` have left nothing so."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, undone):
                self._poisoned(error)
            raise

    def _planned(self) -> Checkpoint | None:
        if self.state.lsn == self._meta.lsn:
            return None
        try:
            with self._whole(undone=DiskFull):
                log_end = self._log.end(self.state.lsn)
                self._checkpoint = Checkpoint(self.state, self._freelist, self._chain, self.dirty, log_end)
        except DiskFull as error:
            self._stuck = str(error)
            raise
        self._log_mark = self._log.bytes_written
        return self._checkpoint

    def _run(self, checkpoint: Checkpoint) -> Iterator[None]:
        file = checkpoint.state.pager.file
        try:
            yield from checkpoint.write(PageWriter(file))
            self._sync(file)
            meta = checkpoint.meta(self._meta.store_id, self._meta.generation + 1, self._log.number)
            slot = 1 - self._slot
            file.write(META_SLOTS[slot], encode_meta(meta))
            self._sync(file)
        except TreestoreError as error:
            self._stuck = str(error)
            raise
        with self.writer, self._whole():
            self._stuck = None
            self._meta, self._slot = meta, slot
            self._chain, self._free = checkpoint.chain, checkpoint.free
            self._checkpoint = None
            self.checkpoints += 1
            self.dirty -= checkpoint.dirty
            self._freelist.checkpointed(checkpoint.state.epoch, self.readers.oldest())
        with self._whole():
            yield from checkpoint.settle()
        try:
            self._log.trim(meta.lsn)
        except SyncFailed as error:
            self._poisoned(error)
            raise

    def tidy(self) -> None:
        """Free what readers that have left needed, and share the cache's budget between changed pages and others."""
        with self.writer:  # or a reader of a state that is published meanwhile is not seen
            self._tidied()

    def _tidied(self) -> None:
        oldest = self.readers.oldest()
        self._freelist.readers_left(oldest)
        self._share()
        for entry in self._old_pagers.copy():
            if oldest is None or oldest >= entry[0]:
                self._old_pagers.remove(entry)
                entry[1].file.close()

    def lend(self, size: int) -> None:
        """So many bytes of the cache are used by others; pages get the rest."""
        self._lent = size
        self._share()

    def _share(self) -> None:
        """Divide the memory of the cache: what changed pages and others do not take is for pages that are on disk."""
        room = self.options.cache_bytes - max(self.dirty, 0) - self._lent
        self.state.pager.set_budget(max(room, self.options.cache_bytes // 8))

    @contextlib.contextmanager
    def checkpointed(self) -> Iterator[tuple[State, Meta, list[Run], list[Run]]]:
        """A state that lies wholly in the data file, with its meta page, the runs that are free in it and the pages of its
        free list; none of its pages is written meanwhile. It is the newest one or, where the disk is full or writes have
        stopped, the one of the last checkpoint."""
        with self._checkpointing:
            if self._poison is None:
                with contextlib.suppress(DiskFull):
                    self.checkpoint()
            token = self.readers.enter(self._meta.epoch)
            meta, free, chain, pager = self._meta, self._free, self._chain, self.state.pager
        try:
            yield state_of(meta, pager), meta, free, chain
        finally:
            self.readers.leave(token)

    # --- whole-store work ------------------------------------------------------------------------------------------------

    def compact(self) -> int:
        """Rewrite the data file without free space; gives the bytes saved. Commits wait, readers do not.

        Raises DiskFull (nothing changed): the new file needs room beside the old one.
        """
        with self._checkpointing:
            self.checkpoint()
            with self.writer:
                self.ready()
                return self._compacted()

    def _compacted(self) -> int:
        old = self.state
        before = old.pager.file.size()
        path = os.path.join(self.folder, NEW_DATA)
        new = rewrite(self._fs, path, old, self._meta, self.options.cache_bytes, self._log.end(old.lsn))
        with self._whole():  # from the rename on, this file is the store
            self._fs.rename(path, os.path.join(self.folder, DATA))
            self._fs.sync_folder(self.folder)
            self._old_pagers.append((new.state.epoch, old.pager))
            self._meta, self._slot = new.meta, new.slot
            self._chain, self._free = new.chain, new.free
            self.dirty = 0
            self._data_file = (new.state.pager, new.freelist)
            self.state = new.state
        self._tidied()
        return before - new.state.pager.file.size()

    def figures(self) -> dict[str, int | float | str]:
        """What there is to know about the files and the cache, in bytes and pages."""
        oldest = self.readers.oldest()
        log_sizes = self._log.sizes()
        return {
            "page_size": PAGE_SIZE,
            "pages": self._freelist.page_count,
            "pages_free": self._freelist.free_pages,
            "pages_pending": self._freelist.pending_pages,
            "data_bytes": self.state.pager.file.size(),
            "log_bytes": sum(log_sizes),
            "log_files": len(log_sizes),
            "log_written_bytes": self._log.bytes_written,
            "cache_bytes": self.state.pager.cached_bytes,
            "cache_limit_bytes": self.options.cache_bytes,
            "dirty_bytes": max(self.dirty, 0),
            "pages_read": self.state.pager.reads,
            "pages_decoded": self.state.pager.decoded,
            "commits": self.state.lsn,
            "checkpoints": self.checkpoints,
            "replayed_groups": self.replayed,
            "readers": len(self.readers),
            "oldest_reader_commits_behind": 0 if oldest is None else self.state.epoch - oldest,
        }

    def close(self) -> None:
        """Run a last checkpoint, so that the next opening has nothing to replay, and let go of the files. What is committed
        is safe in the log even where that checkpoint fails."""
        with self._checkpointing:
            if self._closed is not None:
                return
            try:
                if self._poison is None:
                    self.checkpoint()
            except TreestoreError as error:
                _log.warning("%s: no checkpoint at closing: %s", self.folder, error)
            finally:
                with self.writer:
                    try:
                        if self._poison is None and self.state.lsn == self._meta.lsn:
                            self._log.finish()
                    finally:
                        self._let_go("the store is closed")

    def _let_go(self, reason: str) -> None:
        self._closed = reason
        self._log.close()
        for _, pager in self._old_pagers:
            pager.file.close()
        self.state.pager.file.close()
        self._lock_file.close()
        _open_folders.discard(self._identity)
        _open_engines.discard(self)

    def _forked(self) -> None:
        self.writer, self._syncing = threading.Lock(), threading.Lock()  # a thread of the parent may hold them
        self._checkpointing = threading.RLock()
        self._let_go("the store was opened by another process before a fork; open it in this one")


def _after_fork() -> None:
    for engine in list(_open_engines):
        engine._forked()


os.register_at_fork(after_in_child=_after_fork)
