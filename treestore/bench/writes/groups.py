"""Small groups from some callers at once: how many a second, and how long a call takes.

Each measurement has a new store. In each round every writer has its turn, and another one begins; the rate is the median of
the rounds, latencies are those of all calls of all rounds.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from treestore.bench.run import Say, take_out_of_sight
from treestore.bench.tables import Aim, Column, Table, Topic, Value
from treestore.bench.writes import held
from treestore.bench.writes.given import Amend, Author, Delete, Store, Write, shared_out
from treestore.bench.writes.writers import DiskAlone, EachAlone, Gathered, Ran, Tasks, Threads, Writer

CALLERS = (1, 8, 64)
WRITERS: tuple[type[Writer], ...] = (Threads, Tasks, EachAlone, Gathered, DiskAlone)
NODES = 20
"""Of the larger documents, and of those that are amended."""


class Kind(msgspec.Struct, frozen=True):
    """A kind of groups: what there is before, and what is written."""

    what: str
    before: Sequence[Write]
    writes: Sequence[Write]


class Measured(msgspec.Struct, frozen=True):
    """All runs of a writer with some callers."""

    runs: list[Ran]

    @property
    def rate(self) -> float:
        """Groups per second: the median of the rounds."""
        return median(run.rate for run in self.runs)

    def latency(self, share: float) -> float:
        """The time within which this share of all calls returned."""
        return at(sorted(latency for run in self.runs for latency in run.latencies), share)


def at(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of all values lies."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def kinds(author: Author, groups: int) -> list[Kind]:
    """What is measured, with so many groups of each; fewer of what takes long."""
    some = max(groups // 4, 1)
    ones = author.documents(groups, 1)
    larger = author.documents(some, NODES)
    amended = author.documents(min(64, some), NODES)
    stored = [Store(tree) for tree in ones]

    def amendments(*, searchable: bool) -> list[Amend]:
        each = [author.amendments(tree, searchable=searchable) for tree in amended]
        return [next(each[i % len(each)]) for i in range(groups)]

    return [
        Kind("store a document of 1 node", [], stored),
        Kind("store a document of 1 node, searchable", [], [Store(tree, searchable=True) for tree in ones]),
        Kind(f"store a document of {NODES} nodes", [], [Store(tree) for tree in larger]),
        Kind(f"store a document of {NODES} nodes, searchable", [], [Store(tree, searchable=True) for tree in larger]),
        Kind(f"amend one of {NODES} nodes", [Store(tree) for tree in amended], amendments(searchable=False)),
        Kind(
            f"amend one of {NODES} nodes, searchable",
            [Store(tree, searchable=True) for tree in amended],
            amendments(searchable=True),
        ),
        Kind("delete a document of 1 node", stored, [Delete(write.policy_id) for write in stored]),
    ]


def measure(author: Author, folder: Path, groups: int, rounds: int, callers: Sequence[int], say: Say) -> Topic:
    """The topic, with so many groups of each kind in each round. Raises Mismatch if a store has not what it was given."""
    tables, aims = [], []
    measured = kinds(author, groups)
    take_out_of_sight()
    for kind in measured:
        found: dict[tuple[int, str], Measured] = {}
        for count in callers:
            say(f"{kind.what}, {count} at once")
            for number in range(rounds):
                turn = number % len(WRITERS)
                for writer in WRITERS[turn:] + WRITERS[:turn]:
                    ran = _once(kind, writer, count, folder / "groups", check=number == 0)
                    found.setdefault((count, writer.name), Measured([])).runs.append(ran)
        tables.append(_table(kind, callers, found))
        aims += _aims(kind, callers, found)
    return Topic("Small groups", tuple(tables), NOTES, tuple(aims))


def _once(kind: Kind, writer: type[Writer], callers: int, folder: Path, *, check: bool) -> Ran:
    """One run in a new store, which is looked into afterwards and removed."""
    try:
        opened = writer(folder)
        try:
            before = opened.run(shared_out(kind.before, 64)) if kind.before else None
            shares = shared_out(kind.writes, callers)
            gc.collect()
            ran = opened.run(shares)
        finally:
            opened.close()
        if check:
            held.check(writer, folder, [*(before.done if before else ()), *ran.done])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ran


_COLUMNS = (
    Column("CALLERS"),
    Column("WRITER"),
    Column("GROUPS/S", "rate"),
    Column("P50", "seconds"),
    Column("P99", "seconds"),
    Column("X SQLITE", "times"),
    Column("DISK/S", "rate"),
    Column("OF DISK", "times"),
)


def _table(kind: Kind, callers: Sequence[int], found: dict[tuple[int, str], Measured]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for count in callers:
        disk, sqlite = found[count, DiskAlone.name].rate, _fastest_sqlite(found, count)
        for writer in WRITERS:
            if writer is DiskAlone:
                continue
            one = found[count, writer.name]
            own = writer in (Threads, Tasks)
            rows.append(
                (
                    str(count),
                    writer.name,
                    one.rate,
                    one.latency(0.5),
                    one.latency(0.99),
                    one.rate / sqlite if own else None,
                    disk,
                    one.rate / disk,
                )
            )
    return Table(f"{kind.what[0].upper()}{kind.what[1:]}", _COLUMNS, tuple(rows))


def _fastest_sqlite(found: dict[tuple[int, str], Measured], callers: int) -> float:
    return max(found[callers, writer.name].rate for writer in (EachAlone, Gathered))


def _aims(kind: Kind, callers: Sequence[int], found: dict[tuple[int, str], Measured]) -> list[Aim]:
    """The two that are set: for one small document, and for 64 callers that store one each."""
    if kind.what != "store a document of 1 node":
        return []
    aims = []
    if 1 in callers:
        times = found[1, DiskAlone.name].rate / found[1, Threads.name].rate
        aims.append(Aim(f"{kind.what} in 1.3 times the disk's time", f"{times:.2f} times", times <= 1.3))
    if 64 in callers:
        times = found[64, Tasks.name].rate / _fastest_sqlite(found, 64)
        aims.append(Aim(f"64 tasks {kind.what} each at 5 times SQLite's rate", f"{times:.2f} times", times >= 5))
    return aims


NOTES = (
    "GROUPS/S: groups that became durable, per second. P50, P99: within this time half of the calls, and 99 of 100, returned.",
    "X SQLITE: times the rate of SQLite, in whichever of the two ways is the faster with so many callers.",
    "DISK/S: the limit, the disk alone: what is given, encoded, for all callers in one write and one sync.",
)
