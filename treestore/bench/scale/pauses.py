"""How long a task on an event loop waits for a node while the store is at work: the gaps between one answer and the next.

One task reads nodes by their ids and lets the loop go on after each (``asyncio.sleep(0)``), so a gap is one look-up, and
whatever else the loop, the interpreter or the machine did meanwhile. Of each long gap it is known which part of it this
thread computed, without and with the garbage collector (which stops all threads), which part other threads of the process
computed, and which nobody here did: then the loop waited for the disk, or the machine was given to others. On a machine that
does other work too, what was computed says more of the store than what passed.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

import treestore
from treestore.bench import corpus, truth
from treestore.bench.corpus import EPOCH, POLICY, SEED, VERSION, Corpus, small_tree
from treestore.bench.run import Mismatch, Say
from treestore.bench.scale.child import elsewhere
from treestore.bench.tables import Column, Table, Topic, Value

LIMIT = 0.020
"""Seconds that no gap should take while a checkpoint or a bulk store runs."""

ALONE_SECONDS = 0.5
_POLL_SECONDS = 0.02
_POLLS = 10_000
_FILLING = 32_768
"""Bytes of log, at most, for each document that fills it."""


class Gap(msgspec.Struct, frozen=True):
    """Seconds between two answers, and what of them was computed: by the thread of the loop, by the garbage collector in
    whatever thread, by other threads."""

    seconds: float
    own: float
    collector: float
    others: float

    @property
    def computed(self) -> float:
        """Seconds that this process computed in it, so that the loop could not go on."""
        return self.own + self.collector + self.others

    @property
    def mostly(self) -> str:
        """Who computed most of it, and how much."""
        parts = {"own": self.own, "gc": self.collector, "threads": self.others}
        most = max(parts, key=lambda name: parts[name])
        return f"{most} {parts[most] / self.computed:.0%}" if self.computed else "-"


class Gaps(msgspec.Struct, frozen=True):
    """The gaps while something was done: how many, how long half, 99 of 100 and all of them were at most, the one in which
    most was computed, and in how many that was too much."""

    what: str
    count: int
    half: float
    most: float
    longest: float
    busiest: Gap
    too_long: int


class Watch:
    """Notes gaps. ``lap`` is called at each answer, ``collected`` by the garbage collector."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.busiest = Gap(0.0, 0.0, 0.0, 0.0)
        self.too_long = 0
        self._collecting = 0.0
        self._here = self._elsewhere = 0.0  # seconds of the collector in this thread and in others
        self._thread = threading.get_ident()
        self._last = self._clocks()

    def _clocks(self) -> tuple[float, float, float, float, float]:
        return time.perf_counter(), time.thread_time(), time.process_time(), self._here, self._elsewhere

    def collected(self, phase: str, _: dict[str, int]) -> None:
        """A collection begins or ends, in this thread."""
        if phase == "start":
            self._collecting = time.thread_time()
        elif threading.get_ident() == self._thread:
            self._here += time.thread_time() - self._collecting
        else:
            self._elsewhere += time.thread_time() - self._collecting

    def lap(self) -> None:
        """One more answer is there."""
        now = self._clocks()
        wall, thread, process, here, elsewhere = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        self.seconds.append(wall)
        # Another thread may compute beside this one while that waits for nothing but the disk: it took no more than passed.
        others = min(max(0.0, process - thread - elsewhere), max(0.0, wall - thread - elsewhere))
        gap = Gap(wall, max(0.0, thread - here), here + elsewhere, others)
        self.too_long += gap.computed > LIMIT
        if gap.computed > self.busiest.computed:
            self.busiest = gap


async def watched(what: str, read: Callable[[int], Awaitable[None]], busy: Callable[[], Awaitable[None]]) -> Gaps:
    """Read again and again while something is done."""
    gc.collect()
    work = asyncio.ensure_future(busy())
    watch = Watch()
    gc.callbacks.append(watch.collected)
    try:
        for number in itertools.count():
            await read(number)
            watch.lap()
            if work.done():
                break
            await asyncio.sleep(0)
    finally:
        gc.callbacks.remove(watch.collected)
        await work
    gaps = sorted(watch.seconds)
    return Gaps(
        what, len(gaps), gaps[len(gaps) // 2], gaps[len(gaps) * 99 // 100], gaps[-1], watch.busiest, watch.too_long
    )


class Scene:
    """A store with the document, and what is done to it while somebody reads. A checkpoint is due when the log has grown by
    ``log_bytes``."""

    def __init__(self, store: treestore.AsyncTreeStore, known: Corpus, log_bytes: int) -> None:
        self._store = store
        self._known = known
        self._log_bytes = log_bytes
        self._mark = 0  # bytes written to the log when the last checkpoint began
        self._filled = 0
        self._whole: list[treestore.Node] = []
        self._amended: dict[int, str] = {}
        self._rng = random.Random(SEED)

    async def read(self, number: int) -> None:
        """A node that is never amended, and is what it must be."""
        expected = self._known.tree.nodes[number * 7918 % len(self._known.tree.nodes) // 2 * 2]
        found = await self._store.documents.get_node(POLICY, expected.node_id, version_id=VERSION)
        if found.text != expected.text or found.ordinal != expected.ordinal:
            raise Mismatch(f"asked for node {expected.node_id!r}, treestore {truth.difference(expected, found)}")

    async def _figure(self, name: str) -> int:
        return int((await self._store.stats()).backend[name])

    async def _amend(self) -> None:
        ordinal = self._rng.randrange(1, len(self._known.tree.nodes), 2)
        text = f"amended as number {len(self._amended)}, so that there is something to be written. " * 12
        self._amended[ordinal] = text
        await self._store.documents.update_node(POLICY, f"{ordinal:04}", version_id=VERSION, text=text)

    async def _grown(self) -> float:
        """The share of what makes a checkpoint due that the log has grown by."""
        return (await self._figure("log_written_bytes") - self._mark) / self._log_bytes

    async def fill_log(self) -> None:
        """Store documents until a checkpoint is nearly due."""
        while await self._grown() < 1 - _FILLING / self._log_bytes:
            self._filled += 1
            tree = small_tree(f"filling-{self._filled}", VERSION, self._filled, EPOCH, _FILLING // 2048)
            await self._store.documents.store_document(tree.version.policy_id, VERSION, tree.given, searchable=False)

    async def alone(self) -> None:
        """Nothing."""
        await asyncio.sleep(ALONE_SECONDS)

    async def amendments(self) -> None:
        """Amendments one after the other."""
        for _ in range(max(len(self._known.tree.nodes) // 100, 5)):
            await self._amend()

    async def _make_due(self) -> int:
        """Amend until a checkpoint is due; how many there were before."""
        before = await self._figure("checkpoints")
        while await self._grown() <= 1:
            await self._amend()
        self._mark = await self._figure("log_written_bytes")
        return before

    async def checkpoint(self) -> None:
        """The few amendments until a checkpoint is due, and the checkpoint."""
        before = await self._make_due()
        for _ in range(_POLLS):  # the store tells nobody
            if await self._figure("checkpoints") > before:
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise Mismatch("no checkpoint ran")

    async def checkpoint_and_amendments(self) -> None:
        """The same, and amendments all the time."""
        before = await self._make_due()
        while await self._figure("checkpoints") == before:
            await self._amend()

    async def bulk(self) -> None:
        """A bulk store of the document under another name."""
        await self._store_as("bulk", searchable=False)

    async def bulk_searchable(self) -> None:
        """The same with search."""
        await self._store_as("searchable", searchable=True)

    async def _store_as(self, policy_id: str, *, searchable: bool) -> None:
        given = self._known.tree.given
        stored = await self._store.documents.store_document(policy_id, VERSION, given, searchable=searchable)
        if stored.outcome != "created" or stored.node_count != len(given):
            raise Mismatch(f"{policy_id} was {stored.outcome}, with {stored.node_count} nodes of {len(given)}")

    async def whole(self) -> None:
        """The whole tree, read by another task."""
        self._whole = await self._store.documents.get_subtree("bulk", version_id=VERSION)  # verified when nobody waits

    async def compact(self) -> None:
        """A compaction."""
        await self._store.compact()

    async def check(self) -> None:
        """A check of the store."""
        report = await self._store.check()
        if report.problems:
            raise Mismatch(f"check finds {report.problems[0]}")

    async def verify(self) -> None:
        """Raises Mismatch unless all amendments are there, and the whole tree was right."""
        wrong = truth.difference(list(self._known.tree.nodes), self._whole)
        if wrong is not None:
            raise Mismatch(f"asked for the whole tree, treestore {wrong}")
        for ordinal, text in self._amended.items():
            found = await self._store.documents.get_node(POLICY, f"{ordinal:04}", version_id=VERSION)
            if found.text != text:
                raise Mismatch(f"node {ordinal:04} does not say what it was amended to")


@elsewhere
def watch(folder: str, nodes: int, log_mb: int) -> list[Gaps]:
    """All that is done, one after the other, while a task reads."""
    known = corpus.make(nodes)

    async def scenes() -> list[Gaps]:
        settings = treestore.Settings(wal_file_size_mb=log_mb, checkpoint_interval_seconds=86_400.0)
        async with treestore.open(f"btree:///{folder}", settings=settings) as store:
            await store.documents.store_document(POLICY, VERSION, known.tree.given, searchable=False)
            gc.collect()
            gc.freeze()  # the document is the measurement's, not the store's
            scene = Scene(store, known, log_mb << 20)
            found = [await watched("Nothing else", scene.read, scene.alone)]
            found.append(await watched("Amendments", scene.read, scene.amendments))
            await scene.fill_log()
            found.append(await watched("A checkpoint", scene.read, scene.checkpoint))
            await scene.fill_log()
            found.append(await watched("A checkpoint, amendments", scene.read, scene.checkpoint_and_amendments))
            found.append(await watched("A bulk store", scene.read, scene.bulk))
            found.append(await watched("A bulk store with search", scene.read, scene.bulk_searchable))
            found.append(await watched("The whole tree is read", scene.read, scene.whole))
            found.append(await watched("Compaction", scene.read, scene.compact))
            found.append(await watched("Check", scene.read, scene.check))
            await scene.verify()
            return found

    return asyncio.run(scenes())


def measured(nodes: int, log_mb: int, folder: Path, say: Say) -> Topic:
    """One table."""
    say(f"pauses: a store of {nodes:,} nodes")
    rows: list[tuple[Value, ...]] = []
    for one in watch(str(folder / "pauses"), nodes, log_mb):
        times = (one.half, one.most, one.longest, one.busiest.computed)
        rows.append((one.what, one.count, *times, one.busiest.mostly, one.too_long))
    over = f"> {LIMIT * 1e3:.0f} MS"
    timed = (Column(heading, "seconds") for heading in ("P50", "P99", "MAX", "COMPUTED"))
    columns = (Column("MEANWHILE"), Column("READS", "count"), *timed, Column("MOSTLY"), Column(over, "count"))
    notes = (
        f"Gaps between answers to a task that reads nodes by id; aim: {over} is 0 in a checkpoint and in a bulk store.",
        "COMPUTED: the most that this process computed in a gap, mostly in the thread of the loop (own), in the collector",
        f"(gc) or in other threads; {over}: in how many gaps that was more. The rest of MAX is waiting for disk or machine.",
    )
    return Topic("Pauses", (Table(f"Pauses of a reader, {nodes:,} nodes", columns, tuple(rows)),), notes)
