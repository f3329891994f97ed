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
from treestore.bench.writes import held
from treestore.bench.writes.disks import WatchedDisk
from treestore.bench.writes.given import Author, Store, Write
from treestore.bench.writes.groups import at
from treestore.bench.writes.topics import Aim, Column, Table, Topic, Value
from treestore.bench.writes.writers import DiskAlone, Question, Ran, Tasks, Threads

READERS = 8
WRITERS = (1, 64)
SYNCS = (0.0, 0.002, 0.010)
"""Seconds that a sync takes at least."""

FACES: dict[type[Tasks] | type[Threads], str] = {Tasks: "tasks", Threads: "threads"}
"""treestore's two faces, by who writes and reads."""

TURN = 1 / (READERS + 1)
"""The share of their rate that writers must keep."""

_READ_NODES = 585
_TREES = 200
"""Documents of which each is stored under many names."""


class Pair(msgspec.Struct, frozen=True):
    """Writers alone, and beside readers. ``limit`` is the rate of the disk alone."""

    face: str
    sync: float
    writers: int
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
        for sync in syncs:
            for count in writers:
                say(f"{count} {FACES[face]} writing beside readers, {_disk_text(sync)}")
                alone = _once(face, sync, count, seconds, trees, read, (), place)
                beside = _once(face, sync, count, seconds, trees, read, _questions(read.tree), place)
                pairs.append(Pair(FACES[face], sync, count, alone, beside, _limit(trees, count, sync, place)))
    aims = [
        Aim(
            f"{pair.writers} {pair.face} writing, {_disk_text(pair.sync)}: at least {TURN:.0%} of their rate is kept",
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


def _disk_text(sync: float) -> str:
    return f"syncs of {sync * 1e3:.0f} ms" if sync else "this disk"


def _names(pair: Pair) -> tuple[str, str, str]:
    return pair.face, _sync_text(pair.sync), str(pair.writers)


def _sync_text(sync: float) -> str:
    """A disk in a table: how long its syncs take."""
    return f"{sync * 1e3:.0f} ms" if sync else "this"


_WHO = (Column("WHO"), Column("DISK"), Column("WRITERS"))


def _rates(pairs: Sequence[Pair]) -> Table:
    columns = (
        *_WHO, Column("ALONE/S", "rate"), Column("BESIDE/S", "rate"), Column("KEPT", "share"), Column("TURN", "share"),
        Column("DISK/S", "rate"), Column("OF DISK", "times"),
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = [
        (
            *_names(pair),
            pair.alone.rate,
            pair.beside.rate,
            pair.kept,
            TURN,
            pair.limit,
            pair.beside.rate / pair.limit,
        )
        for pair in pairs
    ]
    return Table(f"Groups per second, alone and beside {READERS} readers", columns, tuple(rows))


def _latencies(pairs: Sequence[Pair]) -> Table:
    columns = (
        *_WHO, Column("READERS"), Column("P50", "seconds"), Column("P99", "seconds"), Column("MAX", "seconds"),
        Column("PER SYNC", "rate"),
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for pair in pairs:
        for readers, ran in ((0, pair.alone), (READERS, pair.beside)):
            ordered = sorted(ran.latencies)
            rows.append((*_names(pair), str(readers), at(ordered, 0.5), at(ordered, 0.99), ordered[-1], ran.per_sync))
    return Table("How long a call takes", columns, tuple(rows))


def _readings(pairs: Sequence[Pair]) -> Table:
    columns = (*_WHO, Column("READS/S", "rate"), Column("PAUSE", "seconds"))
    rows: list[tuple[Value, ...]] = []
    for pair in pairs:
        reads = pair.beside.reads
        answers = sum(reading.answers for reading in reads) / pair.beside.seconds
        rows.append((*_names(pair), answers, max(reading.pause for reading in reads)))
    return Table(f"What the {READERS} readers get", columns, tuple(rows))


NOTES = (
    "KEPT: the share of their rate that writers keep beside readers. TURN: what they must keep, a reader's part of all.",
    "DISK/S: the limit, one write for all writers, and one sync. OF DISK: what writers get of it beside readers.",
    "PER SYNC: groups that shared a sync of the log. PAUSE: the longest time from one answer of a reader to its next.",
)
