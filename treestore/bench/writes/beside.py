"""What is left of the writers' rate beside readers that never rest, on disks of several speeds.

Readers ask for the children of a node again and again: under asyncio tasks that let the loop go on after each answer, else
threads, which share the interpreter with the writers. Writers write documents of one node for a while, at first alone.

Starving is getting less than one's turn. If the interpreter went round among all who want it, those who write would have at
least the part that each reader has: with 8 readers a ninth. So, together, they must keep a ninth of the rate that they have
alone. As writers need no interpreter while they wait for a disk, on a slow one they could keep more.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from treestore.bench.corpus import Tree
from treestore.bench.run import Say, take_out_of_sight
from treestore.bench.tables import Aim, Column, Table, Topic, Value
from treestore.bench.writes import held
from treestore.bench.writes.disks import WatchedDisk
from treestore.bench.writes.given import Author, Store, Write
from treestore.bench.writes.groups import at
from treestore.bench.writes.writers import DiskAlone, Question, Ran, Tasks, Threads

READERS = 8
WRITERS = (1, 64)
SYNCS = (0.0, 0.002, 0.010)
"""Seconds that a sync takes at least."""

FACES: dict[type[Tasks] | type[Threads], str] = {Tasks: "task", Threads: "thread"}
"""treestore's two faces, by who writes and reads."""

TURN = 1 / (READERS + 1)
"""The share of their rate that writers must keep."""

_READ_NODES = 585
_TREES = 200
"""Documents of which each is stored under many names."""


class Pair(msgspec.Struct, frozen=True):
    """Writers alone, and beside readers. ``limit`` is the rate of the disk alone."""

    writers: str
    disk: str
    alone: Ran
    beside: Ran
    limit: float

    @property
    def kept(self) -> float:
        """The share of their rate that writers keep."""
        return self.beside.rate / self.alone.rate


def measure(
    author: Author, folder: Path, seconds: float, writers: Sequence[int], syncs: Sequence[float], say: Say
) -> Topic:
    """The topic, with so many seconds for each measurement. Raises Mismatch if a store has not what it was given."""
    trees = author.documents(_TREES, 1)
    read = Store(author.document(_READ_NODES))
    take_out_of_sight()
    pairs: list[Pair] = []
    place = folder / "beside"
    for face in FACES:
        for count in writers:
            who = f"{count} {FACES[face]}{'s' if count > 1 else ''}"
            for sync in syncs:
                disk = f"syncs of {sync * 1e3:g} ms" if sync else "this disk"
                say(f"{who} writing beside readers, {disk}")
                alone = _once(face, sync, count, seconds, trees, read, (), place)
                beside = _once(face, sync, count, seconds, trees, read, _questions(read.tree), place)
                pairs.append(Pair(who, disk, alone, beside, _limit(trees, count, sync, place)))
    aims = [
        Aim(
            f"{pair.writers}, {pair.disk}: at least {TURN:.0%} of the rate is kept beside readers",
            f"{pair.kept:.1%}",
            pair.kept >= TURN,
        )
        for pair in pairs
    ]
    return Topic("Writers beside readers", (_rates(pairs), _latencies(pairs), _readings(pairs)), NOTES, tuple(aims))


def _questions(tree: Tree) -> list[Question]:
    inner = [node.node_id for node in tree.nodes if node.last_ordinal > node.ordinal]
    return [(tree.version.policy_id, inner[i * len(inner) // READERS]) for i in range(READERS)]


def _once(
    face: type[Tasks] | type[Threads],
    sync: float,
    writers: int,
    seconds: float,
    trees: Sequence[Tree],
    read: Store,
    questions: Sequence[Question],
    folder: Path,
) -> Ran:
    """One measurement in a new store, which is looked into afterwards and removed."""
    disk = WatchedDisk()
    try:
        opened = face(folder, disk)
        try:
            opened.run([[read]])
            disk.sync_seconds = sync
            opened.run([_endless(trees, f"before-{number}") for number in range(writers)], min(seconds / 4, 0.3))
            gc.collect()
            ran = opened.run([_endless(trees, f"writer-{number}") for number in range(writers)], seconds, questions)
            disk.sync_seconds = 0.0
        finally:
            opened.close()
        held.check_among(face, folder, ran.done)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ran


def _endless(trees: Sequence[Tree], writer: str) -> Iterator[Write]:
    """Documents of one writer, without end."""
    number = 0
    while True:
        tree = trees[number % len(trees)]
        version = msgspec.structs.replace(tree.version, policy_id=f"{writer}-{number}")
        yield Store(msgspec.structs.replace(tree, version=version))
        number += 1


def _limit(trees: Sequence[Tree], writers: int, sync: float, folder: Path) -> float:
    """Groups per second of the disk alone: one write for all writers, and one sync that takes so long."""
    disk = DiskAlone(folder)
    try:
        ran = disk.run([[Store(tree) for tree in trees[:64]]] * writers)
    finally:
        disk.close()
        shutil.rmtree(folder)
    each = ran.seconds / (len(ran.latencies) / writers)
    return writers / max(each, sync)


_WHO = (Column("WRITERS"), Column("DISK"))


def _rates(pairs: Sequence[Pair]) -> Table:
    columns = (
        *_WHO, Column("ALONE/S", "rate"), Column("BESIDE/S", "rate"), Column("KEPT", "share"), Column("TURN", "share"),
        Column("DISK/S", "rate"), Column("OF DISK", "times"),
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = [
        (
            pair.writers,
            pair.disk,
            pair.alone.rate,
            pair.beside.rate,
            pair.kept,
            TURN,
            pair.limit,
            pair.beside.rate / pair.limit,
        )
        for pair in pairs
    ]
    return Table(f"What writers keep beside {READERS} readers", columns, tuple(rows))


def _latencies(pairs: Sequence[Pair]) -> Table:
    columns = (
        *_WHO, Column("READERS"), Column("P50", "seconds"), Column("P99", "seconds"), Column("MAX", "seconds"),
        Column("PER SYNC", "rate"),
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for pair in pairs:
        for readers, ran in ((0, pair.alone), (READERS, pair.beside)):
            ordered = sorted(ran.latencies)
            late = (at(ordered, 0.5), at(ordered, 0.99), ordered[-1])
            rows.append((pair.writers, pair.disk, str(readers), *late, ran.per_sync))
    return Table("How long a call takes", columns, tuple(rows))


def _readings(pairs: Sequence[Pair]) -> Table:
    columns = (*_WHO, Column("READS/S", "rate"), Column("PAUSE", "seconds"))
    rows: list[tuple[Value, ...]] = []
    for pair in pairs:
        reads = pair.beside.reads
        answers = sum(reading.answers for reading in reads) / pair.beside.seconds
        rows.append((pair.writers, pair.disk, answers, max(reading.pause for reading in reads)))
    return Table(f"What the {READERS} readers get", columns, tuple(rows))


NOTES = (
    "ALONE/S, BESIDE/S: groups per second. KEPT: the share of their rate that writers keep. TURN: what they must keep.",
    "DISK/S: the limit, one write for all writers, and one sync. OF DISK: what writers get of it beside readers.",
    "PER SYNC: groups that shared a sync of the log. PAUSE: the longest time from one answer of a reader to its next.",
)
