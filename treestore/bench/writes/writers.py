"""Who writes: treestore's two faces, SQLite in two ways, and the disk alone; each with any number of callers at once.

A caller writes what is its own, one call after the other, as a service's request or an agent does: a thread under the
synchronous face and SQLite, a task under the asynchronous one. All begin together.

SQLite is as in :mod:`treestore.bench.contenders.sqlite`. "SQLite" commits each write by itself, one caller at a time, over one
connection under a lock: with a connection for each of 64 threads it took 1.3 times as long, as each drops its page cache
after a commit of another one, and without a lock 6 times, as they wait for each other by sleeping. "SQLite gathered" has a
thread that puts all that waits into one transaction.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import msgspec

import treestore
from treestore.backends.btree.backend import BtreeBackend
from treestore.bench.cases import ASYNC, SQLITE, TREESTORE
from treestore.bench.contender import Place
from treestore.bench.contenders.disk import DISK, Disk
from treestore.bench.contenders.sqlite import Sqlite
from treestore.bench.contenders.treestores import SETTINGS, face
from treestore.bench.corpus import VERSION
from treestore.bench.writes.disks import WatchedDisk
from treestore.bench.writes.given import Amend, Delete, Store, Write
from treestore.repositories.plan import AsyncDriver, SyncDriver
from treestore.store import AsyncTreeStore, SyncTreeStore, TreeStore, utc_now


class Reading(msgspec.Struct):
    """What one reader got: so many answers, and the longest time in seconds from one to the next."""

    answers: int = 0
    pause: float = 0.0
    _last: float = 0.0

    def begin(self) -> None:
        """It is about to ask for the first time."""
        self._last = perf_counter()

    def note(self) -> None:
        """There is an answer."""
        now = perf_counter()
        self.answers += 1
        self.pause = max(self.pause, now - self._last)
        self._last = now


class Ran(msgspec.Struct):
    """What some callers did: the seconds from the start of the first to the end of the last, how long each call took, what
    was written (of one document in its order), what readers got meanwhile, and how often the log was synced."""

    seconds: float
    latencies: list[float]
    done: list[Write]
    reads: Sequence[Reading] = ()
    syncs: int | None = None

    @property
    def per_sync(self) -> float | None:
        """Groups that shared a sync; None where syncs were not counted."""
        return len(self.latencies) / self.syncs if self.syncs else None

    @property
    def rate(self) -> float:
        """Groups per second."""
        return len(self.latencies) / self.seconds


class Caller:
    """One caller: what it has to write, until that ends or it is told to stop."""

    def __init__(self, share: Iterable[Write], seconds: float | None) -> None:
        self._share = share
        self._seconds = seconds
        self.latencies: list[float] = []
        self.done: list[Write] = []

    def call(self, ask: Callable[[Write], object]) -> None:
        """Write all of it."""
        end = self._end()
        for write in self._share:
            began = perf_counter()
            if began >= end:
                return
            ask(write)
            self._note(write, began)

    async def call_async(self, ask: Callable[[Write], Awaitable[object]]) -> None:
        """Write all of it."""
        end = self._end()
        for write in self._share:
            began = perf_counter()
            if began >= end:
                return
            await ask(write)
            self._note(write, began)

    def _end(self) -> float:
        return float("inf") if self._seconds is None else perf_counter() + self._seconds

    def _note(self, write: Write, began: float) -> None:
        self.latencies.append(perf_counter() - began)
        self.done.append(write)


def _ran(callers: Sequence[Caller], seconds: float, reads: Sequence[Reading]) -> Ran:
    latencies = [latency for caller in callers for latency in caller.latencies]
    return Ran(seconds, latencies, [write for caller in callers for write in caller.done], reads)


class Writer(ABC):
    """A store in a new folder, open from the time it is made until :meth:`close`."""

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, folder: Path) -> None: ...

    @abstractmethod
    def run(self, shares: Sequence[Iterable[Write]]) -> Ran:
        """Have a caller for each share write it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the folder."""


def _read_until(ended: threading.Event, read: Callable[[], object], reading: Reading) -> None:
    reading.begin()
    while not ended.is_set():
        read()
        reading.note()


def _run_threads(
    ask: Callable[[Write], object],
    shares: Sequence[Iterable[Write]],
    seconds: float | None = None,
    reads: Sequence[Callable[[], object]] = (),
) -> Ran:
    """A thread for each share, and one for each reader, which reads until the last caller is done."""
    callers = [Caller(share, seconds) for share in shares]
    ready = threading.Barrier(len(callers) + 1)
    ended = threading.Event()
    readings = [Reading() for _ in reads]
    failures: list[BaseException] = []

    def write(caller: Caller) -> None:
        ready.wait()
        try:
            caller.call(ask)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=_read_until, args=(ended, *pair)) for pair in zip(reads, readings, strict=True)]
    threads = [threading.Thread(target=write, args=(caller,)) for caller in callers]
    for thread in [*readers, *threads]:
        thread.start()
    ready.wait()
    began = perf_counter()
    for thread in threads:
        thread.join()
    taken = perf_counter() - began
    ended.set()
    for thread in readers:
        thread.join()
    if failures:
        raise failures[0]
    return _ran(callers, taken, readings)


def _writing(store: SyncTreeStore | AsyncTreeStore) -> Callable[[Write], Any]:
    """How a write is asked of treestore. On the asynchronous face it gives an awaitable."""
    documents, verbs = store.documents, face(store)
    update_node: Callable[..., Any] = documents.update_node
    delete_document: Callable[..., Any] = documents.delete_document

    def ask(write: Write) -> Any:
        match write:
            case Store(tree, searchable):
                return verbs["store_searchable" if searchable else "store"](tree)
            case Amend():
                return update_node(write.policy_id, write.node_id, version_id=VERSION, text=write.text)
            case Delete(policy_id):
                return delete_document(policy_id)

    return ask


Question = tuple[str, str]
"""A document and one of its nodes, whose children readers ask for."""


class Threads(Writer):
    """treestore's synchronous face."""

    name = TREESTORE

    def __init__(self, folder: Path, disk: WatchedDisk | None = None) -> None:
        self._disk = disk or WatchedDisk()
        self.store: SyncTreeStore = TreeStore(SyncDriver(BtreeBackend.open(folder, SETTINGS, fs=self._disk), utc_now))

    def run(
        self, shares: Sequence[Iterable[Write]], seconds: float | None = None, questions: Sequence[Question] = ()
    ) -> Ran:
        """Callers stop after so many ``seconds``; for each question a reader asks it again and again meanwhile."""
        children = self.store.documents.get_children
        reads = [lambda asked=asked: children(*asked) for asked in questions]
        before = self._disk.written.syncs
        ran = _run_threads(_writing(self.store), shares, seconds, reads)
        return msgspec.structs.replace(ran, syncs=self._disk.written.syncs - before)

    def close(self) -> None:
        self.store.close()


class Tasks(Writer):
    """treestore's asynchronous face: tasks of one event loop."""

    name = ASYNC

    def __init__(self, folder: Path, disk: WatchedDisk | None = None) -> None:
        self._disk = disk or WatchedDisk()
        self._loop = asyncio.Runner()
        self.store: AsyncTreeStore = TreeStore(AsyncDriver(BtreeBackend.open(folder, SETTINGS, fs=self._disk), utc_now))

    def run(
        self, shares: Sequence[Iterable[Write]], seconds: float | None = None, questions: Sequence[Question] = ()
    ) -> Ran:
        """Callers stop after so many ``seconds``; for each question a reader asks it again and again meanwhile."""
        before = self._disk.written.syncs
        ran = self._loop.run(self._run(shares, seconds, questions))
        return msgspec.structs.replace(ran, syncs=self._disk.written.syncs - before)

    async def _run(
        self, shares: Sequence[Iterable[Write]], seconds: float | None, questions: Sequence[Question]
    ) -> Ran:
        callers = [Caller(share, seconds) for share in shares]
        ask, children = _writing(self.store), self.store.documents.get_children
        ended = False

        async def read(asked: Question) -> Reading:
            reading = Reading()
            reading.begin()
            while not ended:
                await children(*asked)
                reading.note()
                await asyncio.sleep(0)  # a server goes on to whoever else has asked
            return reading

        readers = [asyncio.ensure_future(read(asked)) for asked in questions]
        began = perf_counter()
        try:
            await asyncio.gather(*[caller.call_async(ask) for caller in callers])
            taken = perf_counter() - began
        finally:
            ended = True
            reads = await asyncio.gather(*readers)
        return _ran(callers, taken, reads)

    def close(self) -> None:
        async def close() -> None:
            await self.store.close()

        self._loop.run(close())
        self._loop.close()


class EachAlone(Writer):
    """SQLite, each write in a transaction of its own, one at a time."""

    name = SQLITE

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._sqlite = Sqlite(Place(folder))
        self._turn = threading.Lock()

    def run(self, shares: Sequence[Iterable[Write]]) -> Ran:
        return _run_threads(self._write, shares)

    def _write(self, write: Write) -> None:
        with self._turn:
            self._sqlite.in_transaction(lambda: _do(self._sqlite, write))

    def close(self) -> None:
        self._sqlite.close()


class Gathered(Writer):
    """SQLite, with a thread that puts all that waits into one transaction."""

    name = "SQLite gathered"

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._sqlite = Sqlite(Place(folder))

    def run(self, shares: Sequence[Iterable[Write]]) -> Ran:
        return _run_threads(self._write, shares)

    def _write(self, write: Write) -> None:
        self._sqlite.gathering.write(lambda: _do(self._sqlite, write))

    def close(self) -> None:
        self._sqlite.close()


def _do(sqlite: Sqlite, write: Write) -> None:
    match write:
        case Store(tree, searchable):
            sqlite.insert(tree, searchable=searchable)
        case Amend():
            sqlite.amend(write.policy_id, VERSION, write.node_id, write.text, searchable=write.searchable)
        case Delete(policy_id):
            sqlite.delete(policy_id, VERSION)


LEAST_SYNCS = 32
ROOM = 4 << 20


class DiskAlone(Writer):
    """The limit: what is given, encoded, for all callers in one write and one sync."""

    name = DISK

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._disk = Disk(folder, ROOM)

    def run(self, shares: Sequence[Iterable[Write]]) -> Ran:
        """What few have to write is written again until there were some syncs."""
        done: list[Write] = []
        latencies: list[float] = []
        given = [list(share) for share in shares]
        again = -(-LEAST_SYNCS // max(map(len, given)))
        waiting = [iter(share * again) for share in given]
        began = perf_counter()
        while batch := [write for share in waiting if (write := next(share, None)) is not None]:
            start = perf_counter()
            self._disk.append(b"".join([write.encoded() for write in batch]))
            latencies += [perf_counter() - start] * len(batch)
            done += batch
        return Ran(perf_counter() - began, latencies, done)

    def close(self) -> None:
        self._disk.close()


def opened_again(folder: Path) -> SyncTreeStore:
    """treestore's store in a folder, as anybody would open it."""
    return treestore.open_sync(f"btree:///{folder}", settings=SETTINGS, create=False)
