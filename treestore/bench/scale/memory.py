"""How much memory a process takes that reads all of a store, or fills it, beyond what it took before the store was opened.

That should be within ``TREESTORE_CACHE_SIZE_MB`` and a constant, whatever the size of the store. It is the greatest resident
size so far, as Linux counts it; elsewhere it is not measured. Reading goes by chance over all documents, nodes by their ids
and subtrees now and then. Storing gives the store one document after the other, made node by node as they are taken; where all
is one document, the store holds that document while it checks and orders it, which no cache bounds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import msgspec

import treestore
from treestore.bench.contender import LEVELS
from treestore.bench.corpus import SEED, VERSION
from treestore.bench.run import Mismatch, Say
from treestore.bench.scale.child import elsewhere
from treestore.bench.scale.documents import Documents, Question, store_one, verify
from treestore.bench.scale.growth import store_folder
from treestore.bench.tables import Column, Table, Topic, Value, value_text

_STATUS = Path("/proc/self/status")
_TREE_EVERY = 200
"""One question of so many is for a subtree."""

_TOPS = 100


class Taken(msgspec.Struct, frozen=True):
    """Bytes beyond those before the store was opened: at most, and at the end. ``cached`` is what the store says that its
    pages and nodes take, ``reads`` how many nodes or trees were read."""

    most: int
    end: int
    cached: int
    reads: int = 0


def resident() -> tuple[int, int]:
    """The greatest resident size of this process so far, and the present one, in bytes."""
    found = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    most, now = (int(found[name].split()[0]) << 10 for name in ("VmHWM", "VmRSS"))
    return most, now


def possible() -> bool:
    """Whether this system counts what a process takes."""
    return _STATUS.exists()


@elsewhere
def read(folder: str, count: int, size: int, tops: list[Question], cache_mb: int, seconds: float) -> Taken:
    """Read by chance for so long, nodes and the subtrees of ``tops``. Every answer is verified by what it says."""
    documents, rng = Documents(count, size), random.Random(SEED)
    _, before = resident()
    with treestore.open_sync(f"btree:///{folder}", settings=treestore.Settings(cache_size_mb=cache_mb)) as store:
        ask, end, reads = store.documents, monotonic() + seconds, 0
        while monotonic() < end:
            reads += 1
            if reads % _TREE_EVERY:
                number, ordinal = rng.randrange(count), rng.randrange(size)
                _look(number, ask.get_node(documents.policy(number), f"{ordinal:04}", version_id=VERSION), ordinal)
            else:
                number, node_id = rng.choice(tops)
                for node in ask.get_subtree(documents.policy(number), node_id, LEVELS, version_id=VERSION):
                    _look(number, node, node.ordinal)
        return _taken(store, before, reads)


def _look(number: int, node: treestore.Node, ordinal: int) -> None:
    text = node.text or ""
    if node.ordinal != ordinal or node.title != f"Section {number}.{ordinal}" or f" {number}.{ordinal} of" not in text:
        raise Mismatch(f"gives {node.title!r} in the place of node {ordinal} of document {number}")


@elsewhere
def fill(folder: str, count: int, size: int, cache_mb: int) -> Taken:
    """Store all documents."""
    documents = Documents(count, size)
    _, before = resident()
    with treestore.open_sync(f"btree:///{folder}", settings=treestore.Settings(cache_size_mb=cache_mb)) as store:
        for number in range(count):
            store_one(store, number, documents.nodes(number))
        taken = _taken(store, before)
        last = (count - 1, "0000")
        verify([(last, store.documents.get_node(documents.policy(last[0]), last[1]))], documents.node)
        return taken


def _taken(store: treestore.SyncTreeStore, before: int, reads: int = 0) -> Taken:
    most, now = resident()
    figures = store.stats().backend
    cached = sum(int(figures[name]) for name in ("cache_bytes", "dirty_bytes", "kept_bytes"))
    return Taken(most - before, now - before, cached, reads)


def measured(sizes: Sequence[int], caches: Sequence[int], seconds: float, folder: Path, say: Say) -> Topic | None:
    """One table, if the system says how much memory is taken. The stores to be read are those of
    :func:`treestore.bench.scale.growth.measured`."""
    if not possible():
        say("memory is left out: this system has no /proc/self/status")
        return None
    rows: list[tuple[Value, ...]] = []
    beyond: list[float] = []
    for cache_mb in caches:
        for many in (False, True):
            for verb in ("Read", "Store") if many or cache_mb == caches[-1] else ("Read",):
                say(f"memory: {verb.lower()} with a cache of {cache_mb} MB, {'many documents' if many else 'one document'}")
                found = [_one(verb, nodes, many, cache_mb, seconds, folder) for nodes in sizes]
                what = f"{verb} {'many documents' if many else 'one document'}, cache {cache_mb} MB"
                rows.append((what, *(one.most for one in found), found[-1].cached, cache_mb << 20))
                if many or verb == "Read":
                    beyond += [one.most - (cache_mb << 20) for one in found]
    most = value_text(max(0.0, *beyond), "memory")
    notes = (
        f"At most {most} beyond the cache, but for one document that is stored: that is held whole.",
        "CACHED: what the largest store says that pages, changed pages and kept nodes take.",
        f"Each reads for {seconds:g} s.",
    )
    headings = (*(f"{nodes:,}" for nodes in sizes), "CACHED", "LIMIT")
    columns = (Column("WHAT"), *(Column(heading, "memory") for heading in headings))
    table = Table("Memory beyond that before the opening", columns, tuple(rows), tuple(map(float, sizes)), "nodes")
    return Topic("Memory", (table,), notes)


def _one(verb: str, nodes: int, many: bool, cache_mb: int, seconds: float, folder: Path) -> Taken:
    documents = Documents.of(nodes, many)
    if verb == "Read":
        tops = documents.tops(_TOPS)
        return read(str(store_folder(folder, nodes, many)), documents.count, documents.size, tops, cache_mb, seconds)
    place = store_folder(folder, nodes, many).with_suffix(".filled")
    taken = fill(str(place), documents.count, documents.size, cache_mb)
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.rmdir()
    return taken
