"""How long an opening takes after a kill, by the length of the log that is to be replayed.

The log is of small groups, each one document of one node, stored without a checkpoint in between. Recovery reads the log
and checks it; the limit is doing that alone.
"""

from __future__ import annotations

import asyncio
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec

import treestore
from treestore.bench.contender import TASKS
from treestore.bench.corpus import EPOCH, VERSION, Tree, small_tree
from treestore.bench.run import Mismatch, Say
from treestore.bench.scale.child import elsewhere
from treestore.bench.scale.documents import verify
from treestore.bench.tables import Column, Table, Topic, Value

SETTINGS = treestore.Settings(cache_size_mb=4096, wal_file_size_mb=4096)
"""So large that no checkpoint is due while the log grows."""

_TOGETHER = 8 * TASKS
_CHECKED = 50


class Recovered(msgspec.Struct, frozen=True):
    """Seconds of the opening, and seconds for reading the same log files and checking their bytes alone."""

    seconds: float
    reading: float


class Log(msgspec.Struct, frozen=True):
    """The groups of a log, and the bytes that they take in it."""

    groups: int
    written: int


@elsewhere
def write(folder: str, log_bytes: int) -> Log:
    """Store small documents, :data:`~treestore.bench.contender.TASKS` at once, until the log has so many bytes. The store is
    not closed."""

    async def written() -> Log:
        store = await treestore.open(f"btree:///{folder}", settings=SETTINGS)
        count = 0
        while True:
            figures = (await store.stats()).backend
            if int(figures["log_written_bytes"]) >= log_bytes:
                return Log(int(figures["commits"]), int(figures["log_written_bytes"]))
            await asyncio.gather(*[_store(store, number) for number in range(count, count + _TOGETHER)])
            count += _TOGETHER

    return asyncio.run(written())


async def _store(store: treestore.AsyncTreeStore, number: int) -> None:
    tree = _tree(number)
    await store.documents.store_document(tree.version.policy_id, VERSION, tree.given, searchable=False)


def _tree(number: int) -> Tree:
    return small_tree(f"small-{number}", VERSION, number, EPOCH)


@elsewhere
def recover(folder: str, groups: int) -> Recovered:
    """Open the store; it must have all groups. It is not closed, so the next opening finds the same log."""
    with tempfile.TemporaryDirectory() as other:
        treestore.open_sync(f"btree:///{other}/store").close()  # all modules are loaded
    began = perf_counter()
    reading = sum(1 for path in Path(folder, "wal").iterdir() if zlib.crc32(path.read_bytes()))
    read = perf_counter() - began
    assert reading
    began = perf_counter()
    store = treestore.open_sync(f"btree:///{folder}", settings=SETTINGS, create=False)
    seconds = perf_counter() - began
    figures = store.stats()
    if (figures.documents, figures.backend["replayed_groups"]) != (groups, groups):
        raise Mismatch(f"opened with {figures.documents} documents of {groups}, {figures.backend['replayed_groups']} replayed")
    some = range(0, groups, max(groups // _CHECKED, 1))
    verify([((i, "0000"), store.documents.get_node(f"small-{i}", "0000")) for i in some], lambda q: _tree(q[0]).nodes[0])
    return Recovered(seconds, read)


def measured(megabytes: Sequence[int], rounds: int, folder: Path, say: Say) -> Topic:
    """One table, of medians of so many rounds."""
    rows: list[tuple[Value, ...]] = []
    for size in megabytes:
        say(f"recovery: a log of {size} MB")
        place = folder / f"log-{size}"
        log = write(str(place), size << 20)
        found = [recover(str(place), log.groups) for _ in range(rounds)]
        seconds, reading = median(one.seconds for one in found), median(one.reading for one in found)
        rows.append((f"{size} MB", log.groups, seconds, seconds / log.groups, seconds / (log.written / 2**20), reading))
    timed = (Column(heading, "seconds") for heading in ("OPENING", "A GROUP", "A MB", "LIMIT"))
    columns = (Column("LOG"), Column("GROUPS", "count"), *timed)
    notes = ("LIMIT: reading the log files and their CRC-32. Each group is a document of one node.",)
    return Topic("Recovery", (Table("Recovery by the length of the log", columns, tuple(rows)),), notes)
