"""Where the time of storing a whole tree goes: a real call of the synchronous face, looked at from outside while it runs.

A timer interrupts the process about once a millisecond. What has passed since the last time is counted for the stage whose
code is running just then: that of the innermost function on Python's stack that :data:`STAGES` knows by its file. So nothing
of the store is changed or wrapped; functions written in C count for whoever called them, and a sync, which can't be
interrupted, counts whole. What the garbage collector takes is told by Python itself and counted apart.
"""

from __future__ import annotations

import gc
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from types import FrameType
from typing import Any

import msgspec

import treestore
from treestore.bench.contender import Place
from treestore.bench.contenders.disk import Disk
from treestore.bench.contenders.sqlite import Sqlite
from treestore.bench.corpus import Tree
from treestore.bench.run import Mismatch, Say, take_out_of_sight
from treestore.bench.tables import Column, Table, Topic, Value
from treestore.bench.writes import held
from treestore.bench.writes.given import Author, Store
from treestore.bench.writes.writers import EachAlone, Threads

INTERVAL = 0.001

VALIDATE, ORDER, HASH, TERMS, ENCODE = "validate", "order and derive", "hash", "terms and postings", "encode"
PAGES, LOG, WRITE, SYNC, COLLECT, REST = "build pages", "log and link", "write files", "sync", "garbage collector", "the rest"
ALL = (VALIDATE, ORDER, HASH, TERMS, ENCODE, PAGES, LOG, WRITE, SYNC, COLLECT, REST)

_ENGINE = "backends/btree/engine"
STAGES = {
    "trees/given.py": VALIDATE,
    "trees/rules.py": VALIDATE,
    "repositories/columns.py": VALIDATE,
    "trees/derive.py": ORDER,
    "trees/intervals.py": ENCODE,
    "trees/hashes.py": HASH,
    "search": TERMS,
    "backends/btree/keyspace.py": ENCODE,
    "backends/btree/content.py": ENCODE,
    f"{_ENGINE}/keycode.py": ENCODE,
    f"{_ENGINE}/bulk.py": PAGES,
    f"{_ENGINE}/node.py": PAGES,
    f"{_ENGINE}/format.py": PAGES,
    f"{_ENGINE}/pager.py": PAGES,
    f"{_ENGINE}/freelist.py": PAGES,
    _ENGINE: LOG,
    "backends/btree/commit.py": LOG,
    "backends/btree/overlay.py": LOG,
    "backends/btree/writes.py": LOG,
    f"{_ENGINE}/file.py": WRITE,
}
"""The stage of each file below the package; that of a folder for its other files. A sync is a function of ``file.py``."""

_ROOT = Path(treestore.__file__).parent
_SYNCING = frozenset({"sync", "_full_sync", "sync_folder"})


def stage_of(file: str, function: str) -> str | None:
    """The stage that a function of a file belongs to; None if its callers have to be asked."""
    path = Path(file)
    if not path.is_relative_to(_ROOT):
        return None
    name = path.relative_to(_ROOT).as_posix()
    if name == f"{_ENGINE}/file.py" and function in _SYNCING:
        return SYNC
    return STAGES.get(name) or STAGES.get(name.rpartition("/")[0])


class Sampler:
    """Counts the seconds of each stage between :meth:`start` and :meth:`stop`, in the main thread."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(ALL, 0.0)
        self._known: dict[tuple[str, str], str | None] = {}
        self._last = 0.0
        self._collecting = 0.0  # when a collection began
        self._collected = 0.0  # seconds since the last sample

    @contextmanager
    def running(self, interval: float = INTERVAL) -> Iterator[None]:
        """Sample until the end of the block; what is left then is counted for the rest."""
        before = signal.signal(signal.SIGALRM, self._sample)
        gc.callbacks.append(self._note_collection)
        self._last = perf_counter()
        signal.setitimer(signal.ITIMER_REAL, interval, interval)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
            gc.callbacks.remove(self._note_collection)
            self._count(REST)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        while frame is not None:
            code = frame.f_code
            key = (code.co_filename, code.co_name)
            if key not in self._known:
                self._known[key] = stage_of(*key)
            stage = self._known[key]
            if stage is not None:
                self._count(stage)
                return
            frame = frame.f_back
        self._count(REST)

    def _count(self, stage: str) -> None:
        now = perf_counter()
        self.seconds[COLLECT] += self._collected
        self.seconds[stage] += now - self._last - self._collected
        self._last, self._collected = now, 0.0

    def _note_collection(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = perf_counter()
        else:
            self._collected += perf_counter() - self._collecting


class Stored(msgspec.Struct, frozen=True):
    """One way of storing the document: the seconds of each stage and in all, and those of SQLite; medians of the rounds."""

    stages: dict[str, float]
    seconds: float
    sqlite: float


def measure(author: Author, folder: Path, nodes: int, rounds: int, say: Say) -> Topic:
    """The topic, for a document of so many nodes. To be called in the main thread. Raises Mismatch."""
    say(f"storing a document of {nodes:,} nodes, looked at")
    tree = author.document(nodes)
    take_out_of_sight()
    plain, searchable = (_stored(tree, flag, folder / "stages", rounds) for flag in (False, True))
    disk = _disk(tree, folder / "stages", rounds)
    limits = {"encoding alone": _encoding(tree, rounds), "the disk alone": disk}
    times = [(stage, plain.stages[stage], searchable.stages[stage]) for stage in ALL]
    times.append(("all", plain.seconds, searchable.seconds))
    rows: list[tuple[Value, ...]] = [
        (what, one / nodes, one / plain.seconds, other / nodes, other / searchable.seconds) for what, one, other in times
    ]
    limit = sum(limits.values())
    for what, seconds, with_words in (
        *((name, seconds, seconds) for name, seconds in limits.items()),
        ("the limit: both", limit, limit),
        ("SQLite", plain.sqlite, searchable.sqlite),
    ):
        rows.append((what, seconds / nodes, seconds / plain.seconds, with_words / nodes, with_words / searchable.seconds))
    columns = (
        Column("STAGE"), Column("PER NODE", "seconds"), Column("SHARE", "share"),
        Column("SEARCHABLE", "seconds"), Column("ITS SHARE", "share"),
    )  # fmt: skip
    return Topic("A whole tree", (Table(f"Storing a document of {nodes:,} nodes", columns, tuple(rows)),), NOTES)


def _stored(tree: Tree, searchable: bool, folder: Path, rounds: int) -> Stored:
    samplers, totals, others = [], [], []
    write = Store(tree, searchable=searchable)
    for number in range(rounds):
        store = Threads(folder)
        sampler = Sampler()
        try:
            gc.collect()
            began = perf_counter()
            with sampler.running():
                result = store.store.documents.store_document(
                    write.policy_id, tree.version.version_id, tree.given, searchable=searchable
                )
            totals.append(perf_counter() - began)
        finally:
            store.close()
        if result.outcome != "created":
            raise Mismatch(f"a whole tree was {result.outcome}")
        if number == 0:
            held.check(Threads, folder, [write])
        shutil.rmtree(folder)
        samplers.append(sampler)
        others.append(_by_sqlite(write, folder))
    stages = {stage: median(sampler.seconds[stage] for sampler in samplers) for stage in ALL}
    return Stored(stages, median(totals), median(others))


def _by_sqlite(write: Store, folder: Path) -> float:
    folder.mkdir()
    try:
        sqlite = Sqlite(Place(folder))
        try:
            gc.collect()
            taken = _time(lambda: sqlite.in_transaction(lambda: sqlite.insert(write.tree, searchable=write.searchable)))
        finally:
            sqlite.close()
        held.check(EachAlone, folder, [write])
    finally:
        shutil.rmtree(folder)
    return taken


def _encoding(tree: Tree, rounds: int) -> float:
    """Seconds for encoding the nodes one by one, as rows that a store could keep."""
    encode = msgspec.msgpack.Encoder().encode
    return median(_time(lambda: [encode(node) for node in tree.nodes]) for _ in range(rounds))


def _disk(tree: Tree, folder: Path, rounds: int) -> float:
    """Seconds for one write and one sync of the same bytes, in a file that has its size."""
    content = Store(tree).encoded()
    folder.mkdir()
    try:
        disk = Disk(folder, max(len(content), 1))
        try:
            return median(_time(lambda: disk.append(content)) for _ in range(rounds))
        finally:
            disk.close()
    finally:
        shutil.rmtree(folder)


def _time(work: Callable[[], Any]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


NOTES = (
    "Each stage is what a timer finds running, once a millisecond, in a real call. SHARE is that of the whole call.",
    "Encoding alone: each node as MessagePack. The disk alone: the same bytes in one write and one sync.",
    "SQLite: its bare rows, given ready-made, and FTS5 over them.",
)
