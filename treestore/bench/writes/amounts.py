"""How many bytes are written for those that are stored, and what a second version with few changes costs beside the first.

What is stored is counted as :meth:`Store.encoded` counts it. What is written is counted where it is written, below the store:
records in the log, the zeros that a log file grows by ahead of them, and pages, with the checkpoint that closing runs; what
opening writes is left out. SQLite checkpoints at closing too; until then its log grows, so its frames are its log, and the
different pages among them are what the checkpoint writes.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from treestore.bench.contender import Place
from treestore.bench.contenders.sqlite import Sqlite
from treestore.bench.run import Mismatch, Say
from treestore.bench.tables import Aim, Column, Table, Topic, Value
from treestore.bench.writes import held
from treestore.bench.writes.disks import WatchedDisk, Written
from treestore.bench.writes.given import Author, Store
from treestore.bench.writes.writers import EachAlone, Threads, opened_again

SECTIONS, CHANGED = 500, 2
LATER = "later"
LOG_AIM, PAGES_AIM = 0.15, 0.05
"""Most of the first version's bytes that the second one should take."""


class Amount(msgspec.Struct, frozen=True):
    """Bytes that were given, and that were written for them."""

    given: int
    written: Written


def measure(author: Author, folder: Path, groups: int, nodes: int, sections: int, say: Say) -> Topic:
    """The topic, with so many small documents, one of so many nodes, and two versions of one of so many sections. Raises
    Mismatch."""
    say("bytes written")
    some = max(groups // 4, 1)
    rows: list[tuple[Value, ...]] = []
    kinds = ((f"{groups} of 1 node", groups, 1), (f"{some} of 20 nodes", some, 20), (f"1 of {nodes:,} nodes", 1, nodes))
    for what, count, size in kinds:
        trees = author.documents(count, size)
        for searchable in (False, True):
            writes = [Store(tree, searchable=searchable) for tree in trees]
            one, sqlite = _stored(folder / "amounts", writes), _by_sqlite(folder / "amounts", writes)
            rows.append(
                (
                    f"{what}{', searchable' if searchable else ''}",
                    one.given,
                    *_parts(one.written),
                    one.written.all / one.given,
                    sqlite / one.given,
                )
            )
    versions, aims = _versions(author, folder / "amounts", sections)
    columns = (
        Column("DOCUMENTS"), Column("GIVEN", "bytes"), Column("LOG", "bytes"), Column("AHEAD", "bytes"),
        Column("PAGES", "bytes"), Column("PER BYTE", "times"), Column("SQLITE", "times"),
    )  # fmt: skip
    return Topic("Bytes written", (Table("Bytes written for bytes stored", columns, tuple(rows)), versions), NOTES, aims)


def _parts(written: Written) -> tuple[int, int, int]:
    return written.log, written.ahead, written.pages


def _written(folder: Path, writes: Sequence[Store]) -> Written:
    """What storing these writes to the disk, one after the other, from the opening of the store until it is closed."""
    disk = WatchedDisk()
    store = Threads(folder, disk)
    opened = disk.copied()
    try:
        store.run([writes])
    finally:
        store.close()
    return disk.copied().since(opened)


def _stored(folder: Path, writes: Sequence[Store]) -> Amount:
    try:
        written = _written(folder, writes)
        held.check(Threads, folder, writes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Amount(sum(len(write.encoded()) for write in writes), written)


_HEADER, _FRAME = 32, struct.Struct(">I20x")
"""Of SQLite's log: its header, and that of a frame, which begins with the page's number and is followed by the page."""


def _by_sqlite(folder: Path, writes: Sequence[Store]) -> int:
    """The bytes that SQLite writes for the same."""
    folder.mkdir()
    try:
        sqlite = Sqlite(Place(folder))
        try:
            sqlite.settle()
            sqlite.hold_checkpoints()
            for write in writes:
                sqlite.in_transaction(partial(sqlite.insert, write.tree, searchable=write.searchable))
            log = (folder / "database-wal").read_bytes()
        finally:
            sqlite.close()
        held.check(EachAlone, folder, writes)
    finally:
        shutil.rmtree(folder)
    size = int.from_bytes(log[8:12], "big")
    places = range(_HEADER, len(log) - size, size + _FRAME.size)
    pages = {_FRAME.unpack_from(log, place)[0] for place in places}
    return len(log) + len(pages) * size


def _versions(author: Author, folder: Path, sections: int) -> tuple[Table, tuple[Aim, ...]]:
    """A document in two versions, and what each of them wrote."""
    tree = author.document(sections)
    later = author.later_version(tree, LATER, CHANGED)
    rows: list[tuple[Value, ...]] = []
    aims: list[Aim] = []
    for searchable in (False, True):
        amount = _stored(folder, [Store(tree, searchable=searchable)])
        second = _second(folder, Store(tree, searchable=searchable), Store(later, searchable=searchable))
        first = amount.written
        log, pages = second.log / first.log, second.pages / first.pages
        what = "searchable" if searchable else "plain"
        rows.append((what, first.log, first.pages, second.log, second.pages, log, pages, CHANGED / sections))
        for name, share in (("log", log), ("pages", pages)):
            for most in (LOG_AIM, PAGES_AIM):
                aim = f"{what}: the second version takes at most {most:.0%} of the first one's {name}"
                aims.append(Aim(aim, f"{share:.1%}", share <= most))
    columns = (
        Column("DOCUMENT"), Column("1ST LOG", "bytes"), Column("1ST PAGES", "bytes"), Column("2ND LOG", "bytes"),
        Column("2ND PAGES", "bytes"), Column("LOG", "share"), Column("PAGES", "share"), Column("CHANGED", "share"),
    )  # fmt: skip
    title = f"A second version with {CHANGED} of {sections} sections changed"
    return Table(title, columns, tuple(rows)), tuple(aims)


def _second(folder: Path, first: Store, second: Store) -> Written:
    """What storing a second version writes, in a store that was closed after the first one."""
    try:
        _written(folder, [first])
        written = _written(folder, [second])
        version = second.tree.version
        with opened_again(folder) as store:
            nodes = store.documents.get_document(version.policy_id, version_id=version.version_id).nodes
            if [node.text for node in nodes] != [node.text for node in second.tree.nodes]:
                raise Mismatch("the second version, opened again, says something else")
        held.check(Threads, folder, [first])
        return written
    finally:
        shutil.rmtree(folder, ignore_errors=True)


NOTES = (
    "GIVEN: the documents as MessagePack. LOG: records. AHEAD: zeros that a new log file grows by, up to 4 MB ahead.",
    "PAGES: the data file, with one checkpoint, at closing. PER BYTE: all of these for each byte given; the limit is 1x.",
    "SQLITE: what SQLite writes for each byte given, in its log and with one checkpoint.",
    "LOG, PAGES of a second version: its bytes as a share of the first one's. CHANGED, the limit: the share of the sections.",
)
