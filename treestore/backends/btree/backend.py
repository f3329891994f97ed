"""The native store: the engine's bytes behind the protocol of operations and write groups.

Both faces are here. Reads run where they are called, at one committed state each, and never wait. Writes go through the
group commit of :mod:`.commit`; a whole tree of some megabytes is laid out first, in short steps, what is new of it is loaded
in bulk, if it is much, and then linked by its group. A thread of its own runs checkpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import datetime
from types import GeneratorType
from typing import Any, TypeVar, cast

import msgspec

from treestore.backends.btree.checking import check_store
from treestore.backends.btree.commit import Committer, Prepare
from treestore.backends.btree.content import NewContent, read_head
from treestore.backends.btree.engine.backup import backup
from treestore.backends.btree.engine.bulk import Bulk, finished
from treestore.backends.btree.engine.engine import Engine, Options
from treestore.backends.btree.engine.file import FileSystem, OsFileSystem
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.engine.tree import Graft
from treestore.backends.btree.kept import NodeCache
from treestore.backends.btree.keyspace import Head, encode
from treestore.backends.btree.maintenance import Checkpointer
from treestore.backends.btree.overlay import Entry, Overlay
from treestore.backends.btree.reads import Reads
from treestore.backends.btree.search import analyzers
from treestore.backends.btree.steps import Answer, Steps, in_steps, whole
from treestore.backends.btree.writes import Numbers, apply, check_expectations, lay_out, link, remember
from treestore.config import Settings
from treestore.errors import Closed, Corrupted, MigrationError, OutcomeUnknown
from treestore.operations import Applied, Backup, Check, Compact, Operation, ReplaceVersion, Stats, WriteGroup
from treestore.records import StoreStats
from treestore.search.query import say_stale

R = TypeVar("R")

BULK_BYTES = 1024 * 1024  # a tree above this is laid out before its group is committed
_LOGGED = 64  # where a tree's new entries are more than this part of it, they are loaded in bulk, not written to the log
_NODE_BYTES = 250  # about what a node takes beside its strings
_RESTAGE = 3  # a bulk load that others overtook is tried so often, and then goes through the log
_WHOLE_STORE = frozenset({Stats, Check, Backup, Compact})


class _Overtaken(Exception):
    """The policy changed, or the data file was rewritten, while a bulk load was written."""


class _Staged:
    """A tree that was laid out and waits to be linked: ``grafts`` were loaded in bulk, ``puts`` are few. ``head`` is the
    policy's head that it was laid out for."""

    def __init__(self, bulk: Bulk, new: NewContent, head: Head | None) -> None:
        self.bulk = bulk
        self.new = new
        self.head = head
        self.grafts: list[tuple[int, Graft]] = []
        self.puts: list[tuple[int, list[Entry]]] = []

    def load(self) -> Generator[None, None, None]:
        """Write the new entries to the data file, tree by tree, but where they are few. Pauses now and then."""
        for tree, entries in self.new.families():
            few = yield from _first(entries, BULK_BYTES // _LOGGED)
            following = next(entries, None)
            if following is None:
                self.puts.append((tree, few))
                continue
            made = yield from self.bulk.load(itertools.chain(few, (following,), entries))
            assert made is not None
            self.grafts.append((tree, made))

    def sync(self) -> None:
        """Make what was loaded durable."""
        if self.grafts:
            self.bulk.sync()


class _Reader(ABC):
    """What the store and its snapshots have in common: both faces of reading at a state. ``tasks`` are what is under way in
    event loops."""

    def __init__(self, reads: Reads, tasks: set[asyncio.Future[Any]]) -> None:
        self._reads = reads
        self._tasks = tasks

    @abstractmethod
    def _enter(self) -> tuple[State, int]:
        """A state to be read and a token for :meth:`_leave`. Raises Closed."""

    @abstractmethod
    def _leave(self, token: int) -> None:
        """The state is no longer read."""

    def read_one_now(self, operation: Operation[R]) -> R:
        """Answer one operation. Raises NotFound, Corrupted, Unavailable or Closed."""
        state, token = self._enter()
        try:
            answer: R = whole(self._reads.answer(state, operation))
            return answer
        finally:
            self._leave(token)

    def read_now(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Answer several operations at one state."""
        state, token = self._enter()
        try:
            return [whole(self._answer(state, operation)) for operation in operations]
        finally:
            self._leave(token)

    def _answer(self, state: State, operation: Operation[Any]) -> Answer[Any]:
        return self._reads.answer(state, operation)

    async def read_one(self, operation: Operation[R]) -> R:
        """As :meth:`read_one_now`; other tasks run while a long answer is made."""
        state, token = self._enter()
        try:
            answer: Any = self._reads.answer(state, operation)
            found: R = await self._in_steps(answer) if isinstance(answer, GeneratorType) else answer
            return found
        finally:
            self._leave(token)

    async def read(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """As :meth:`read_now`; other tasks run while long answers are made."""
        state, token = self._enter()
        try:
            answers: list[Any] = []
            for operation in operations:
                answer = self._answer(state, operation)
                answers.append(await self._in_steps(answer) if isinstance(answer, GeneratorType) else answer)
            return answers
        finally:
            self._leave(token)

    async def _in_steps(self, steps: Steps[R]) -> R:
        """A long answer, for which the store waits when it is closed."""
        try:
            next(steps)
        except StopIteration as end:  # it is short, as most are
            result: R = end.value
            return result
        under_way: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks.add(under_way)
        try:
            return await in_steps(steps)
        finally:
            self._tasks.discard(under_way)
            under_way.set_result(None)


class BtreeSnapshot(_Reader):
    """One committed state, kept until it is closed or too old."""

    def __init__(self, backend: BtreeBackend, max_age_seconds: float) -> None:
        super().__init__(backend._reads, backend._tasks)
        self._backend = backend
        self._state, self._token = backend._engine.enter()
        self._expires = time.monotonic() + max_age_seconds
        self._closed: str | None = None

    def _enter(self) -> tuple[State, int]:
        self.expire(time.monotonic())
        token = self._backend._engine.enter_again(self._state)
        if self._closed is not None:
            self._leave(token)
            raise Closed(self._closed)
        return self._state, token

    def _leave(self, token: int) -> None:
        self._backend._leave(token)

    def expire(self, now: float) -> None:
        """Let go of the pages if it is too old."""
        if now >= self._expires:
            self.close_now("the snapshot reached its maximum age and was closed; take a new one")

    def close_now(self, reason: str = "the snapshot is closed") -> None:
        """Let go of the state. May be called again."""
        if self._closed is None:
            self._closed = reason
            self._backend._engine.leave(self._token)
            self._backend._snapshots.discard(self)

    async def close(self) -> None:
        """As :meth:`close_now`."""
        self.close_now()


class BtreeBackend(_Reader):
    """An open native store. Made by :meth:`open`; for any number of threads and event loops of one process."""

    def __init__(self, engine: Engine, fs: FileSystem, settings: Settings) -> None:
        super().__init__(Reads(NodeCache(engine.options.cache_bytes * 3 // 8, engine.lend)), set())
        self._engine = engine
        self._fs = fs
        self._settings = settings
        self._numbers = Numbers()
        self._committer = Committer(engine)
        self._snapshots: set[BtreeSnapshot] = set()
        self._closed = False
        self._closing = threading.Lock()
        self._checkpointer = Checkpointer(engine, settings.checkpoint_interval_seconds, self._expire_snapshots)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        settings: Settings | None = None,
        clock: Callable[[], datetime] | None = None,
        *,
        create: bool = True,
        fs: FileSystem | None = None,
    ) -> BtreeBackend:
        """Open the store in the folder ``path``, or make one there unless ``create`` is false.

        Raises NotAStore, Locked, Corrupted, MigrationError, ReadOnly, DiskFull or Unavailable. ``clock`` is not used: the
        store keeps the times that it is given.
        """
        settings = settings or Settings()
        fs = fs or OsFileSystem()
        options = Options(
            cache_bytes=settings.cache_size_mb << 20,
            log_file_bytes=settings.wal_file_size_mb << 20,
        )
        folder = os.fspath(path)
        try:
            engine = Engine.open(folder, options, create_new=create, fs=fs)
        except (Corrupted, MigrationError) as error:
            raise type(error)(f"{folder}: {error}") from error
        try:
            with engine.reading() as state:
                say_stale(analyzers(state))
        except BaseException:
            engine.close()
            raise
        return cls(engine, fs, settings)

    def _expire_snapshots(self) -> None:
        now = time.monotonic()
        for snapshot in self._snapshots.copy():
            snapshot.expire(now)

    def _enter(self) -> tuple[State, int]:
        return self._engine.enter()

    def _leave(self, token: int) -> None:
        self._engine.leave(token)
        if self._committer.busy:
            self._committer.give_way()

    def snapshot_now(self) -> BtreeSnapshot:
        """The present state, as a reader of its own."""
        snapshot = BtreeSnapshot(self, self._settings.snapshot_max_age_seconds)
        self._snapshots.add(snapshot)
        return snapshot

    async def snapshot(self) -> BtreeSnapshot:
        """As :meth:`snapshot_now`."""
        return self.snapshot_now()

    # --- writing ---------------------------------------------------------------------------------------------------------

    def write_now(self, group: WriteGroup) -> Applied:
        """Apply a group; returns when it is durable."""
        applied = self._write_now(group)
        if self._checkpointer.look():
            self._checkpointer.catch_up()
        return applied

    def _write_now(self, group: WriteGroup) -> Applied:
        for _ in range(_RESTAGE if _is_large(group) else 0):
            with contextlib.suppress(_Overtaken):
                return self._write_bulk(group)
        repeated: list[bool] = []
        self._committer.commit(self._prepare(group, None, repeated))
        return Applied(group.group_id, repeated=bool(repeated))

    def _write_bulk(self, group: WriteGroup) -> Applied:
        """One attempt to apply a group whose tree is laid out first. The state that it is laid out for is read until the
        end, so that the data file stays open through a compaction."""
        with self._engine.reading() as state:
            staged = finished(self._stage(group, state))
            repeated: list[bool] = []
            try:
                staged.sync()
                self._committer.commit(self._prepare(group, staged, repeated))
            except Exception as error:
                _abandon_after(staged, error)
                raise
            return _linked(group, staged, repeated)

    async def write(self, group: WriteGroup) -> Applied:
        """As :meth:`write_now`; other tasks run meanwhile. A cancelled caller's group goes on where it had begun."""
        if _is_large(group):
            task = asyncio.ensure_future(self._write_large(group))
            self._tasks.add(task)
            task.add_done_callback(self._done)
            return await asyncio.shield(task)
        return await self._write_logged(group)

    def _done(self, task: asyncio.Future[Applied]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone

    async def _write_logged(self, group: WriteGroup) -> Applied:
        repeated: list[bool] = []
        await self._committer.commit_async(self._prepare(group, None, repeated))
        await self._look()
        return Applied(group.group_id, repeated=bool(repeated))

    async def _look(self) -> None:
        """Wait for a checkpoint where they have fallen behind."""
        if self._checkpointer.look():
            await asyncio.to_thread(self._checkpointer.catch_up)

    async def _write_large(self, group: WriteGroup) -> Applied:
        for _ in range(_RESTAGE):
            with contextlib.suppress(_Overtaken):
                applied = await self._write_bulk_in_steps(group)
                await self._look()
                return applied
        return await self._write_logged(group)

    async def _write_bulk_in_steps(self, group: WriteGroup) -> Applied:
        """As :meth:`_write_bulk`. After a cancellation, when the event loop ends, the pages stay reserved until the store is
        opened again: a thread may still be writing them."""
        with self._engine.reading() as state:
            staged = await in_steps(self._stage(group, state))
            repeated: list[bool] = []
            try:
                await asyncio.to_thread(staged.sync)
                await self._committer.commit_async(self._prepare(group, staged, repeated))
            except Exception as error:
                _abandon_after(staged, error)
                raise
            return _linked(group, staged, repeated)

    def _prepare(self, group: WriteGroup, staged: _Staged | None, repeated: list[bool]) -> Prepare:
        """What the group changes, at the state that it is committed to."""

        def prepare(state: State) -> list[TreeChange]:
            view = Overlay(state)
            if not remember(view, group.group_id):
                repeated.append(True)
                return []
            check_expectations(view, group.expects)
            for write in group.writes:
                if staged is not None and isinstance(write, ReplaceVersion):
                    _link_staged(view, staged)
                else:
                    apply(view, write, self._numbers)
            changes = view.changes()
            self._reads.policies.note(state, changes, view.amended)
            return changes

        return prepare

    def _stage(self, group: WriteGroup, state: State) -> Generator[None, None, _Staged]:
        """Lay the group's tree out, for the policy as it is in a state, and load what is new of it."""
        [write] = group.writes
        assert isinstance(write, ReplaceVersion)
        view = Overlay(state)
        head = read_head(view, write.version.policy_id)
        new = yield from lay_out(view, write, self._numbers)
        staged = _Staged(self._engine.bulk(), new, head)
        try:
            yield from staged.load()
        except BaseException:
            staged.bulk.abandon()
            raise
        return staged

    # --- the whole store -------------------------------------------------------------------------------------------------

    def read_one_now(self, operation: Operation[R]) -> R:
        """As a reader's."""
        if type(operation) in _WHOLE_STORE:
            answer: R = self._whole_store(operation)
            return answer
        return super().read_one_now(operation)

    def _answer(self, state: State, operation: Operation[Any]) -> Answer[Any]:
        return self._whole_store(operation) if type(operation) in _WHOLE_STORE else super()._answer(state, operation)

    def _whole_store(self, operation: Operation[Any]) -> Any:
        match operation:
            case Check():
                return finished(check_store(self._engine))
            case Backup(folder):
                with self._engine.reading() as state:
                    return backup(self._fs, folder, state)
            case Compact():
                freed = self._engine.compact()
                self._engine.tidy()  # the old file is let go, if nobody else reads it
                return freed
        with self._engine.reading() as state:
            return self._stats(state)

    def _stats(self, state: State) -> StoreStats:
        counted: StoreStats = whole(self._reads.answer(state, Stats()))
        figures = self._engine.figures()
        figures["sync_seconds"] = round(self._committer.sync_seconds, 6)
        figures["kept_bytes"] = self._reads.cache.used
        size = int(figures["data_bytes"]) + int(figures["log_bytes"])
        return msgspec.structs.replace(counted, size_bytes=size, backend={**counted.backend, **figures})

    async def read_one(self, operation: Operation[R]) -> R:
        """As a reader's; what reads or writes the whole store runs in a thread."""
        if isinstance(operation, (Check, Backup, Compact)):
            answer: R = await asyncio.to_thread(self.read_one_now, cast(Operation[Any], operation))
            return answer
        if type(operation) in _WHOLE_STORE:
            return self.read_one_now(operation)
        return await super().read_one(operation)

    def close_now(self) -> None:
        """Wait for what is under way, run a last checkpoint and let go of the files. May be called again."""
        if self._engine.closed:  # also in a forked child, where nobody lets go of what the parent's threads held
            return
        with self._closing:
            if self._closed:
                return
            try:
                self._checkpointer.stop()
                self._committer.close()
                for snapshot in self._snapshots.copy():
                    snapshot.close_now()
            finally:
                self._engine.close()
                self._closed = True

    async def close(self) -> None:
        """As :meth:`close_now`. Bulk stores and long reads of this loop are waited for; those of other loops are refused with
        Closed."""
        loop = asyncio.get_running_loop()
        own = [task for task in self._tasks.copy() if task.get_loop() is loop]
        if own:
            await asyncio.wait(own)
        await loop.run_in_executor(None, self.close_now)


def _linked(group: WriteGroup, staged: _Staged, repeated: list[bool]) -> Applied:
    """The answer to a group that is durable; one that was repeated has not linked what it loaded."""
    if repeated:
        staged.bulk.abandon()
    return Applied(group.group_id, repeated=bool(repeated))


def _is_large(group: WriteGroup) -> bool:
    """Whether the group is one whole tree that is laid out before it is committed."""
    if len(group.writes) != 1 or not isinstance(group.writes[0], ReplaceVersion):
        return False
    write = group.writes[0]
    size = sum(len(page.content) for page in write.pages)
    for node in write.nodes:
        size += _NODE_BYTES + len(node.title) + len(node.summary or "") + len(node.text or "") + len(node.prefix_summary or "")
        if node.metadata or node.extra:
            size += len(encode((node.metadata, node.extra)))
        if size >= BULK_BYTES:
            return True
    return size >= BULK_BYTES


def _first(entries: Iterator[Entry], most: int) -> Generator[None, None, list[Entry]]:
    """The first entries, of so many bytes or a little more. Pauses now and then."""
    found: list[Entry] = []
    size = 0
    for entry in entries:
        found.append(entry)
        size += len(entry[0]) + len(entry[1])
        if size > most:
            break
        if len(found) % 64 == 0:
            yield
    return found


def _link_staged(view: Overlay, staged: _Staged) -> None:
    """Link a tree that was laid out, unless it was overtaken."""
    if staged.bulk.pager is not view.state.pager or read_head(view, staged.new.version.policy_id) != staged.head:
        raise _Overtaken
    link(view, staged.new)
    for tree, made in staged.grafts:
        view.graft(tree, made)
    for tree, entries in staged.puts:
        view.put_all(tree, entries)


def _abandon_after(staged: _Staged, error: Exception) -> None:
    """Give a bulk load's pages back, unless a log record that refers to them may be durable."""
    if not isinstance(error, OutcomeUnknown):
        staged.bulk.abandon()
