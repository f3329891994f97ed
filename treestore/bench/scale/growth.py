"""How long a look-up, a subtree, a commit and an opening take in stores of several sizes.

Each store is filled by one process and asked by others. "The first time" is right after the opening, when no page is decoded
yet (they are in the system's memory); "again" is when nodes are kept. Times are medians of single questions, so that what else
the machine does hits few of them.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

import msgspec

import treestore
from treestore.bench.contender import LEVELS, Place
from treestore.bench.contenders.disk import Disk, encoded
from treestore.bench.contenders.sqlite import Sqlite
from treestore.bench.corpus import EPOCH, POLICY, VERSION, PlainNode, PlainVersion, Tree, small_tree
from treestore.bench.run import Mismatch, Say
from treestore.bench.scale.child import elsewhere
from treestore.bench.scale.documents import Documents, Question, store_one, verify
from treestore.bench.tables import Column, Table, Topic, Value

QUESTIONS = 2000
TOPS = 16
COMMITS = 200
"""Small commits that are timed, and replayed by the opening after the kill."""

Q = TypeVar("Q")


class Asked(msgspec.Struct, frozen=True):
    """Seconds for one node, and for one node of a subtree, the first time and again."""

    node_first: float
    node: float
    subtree_first: float
    subtree: float


class Committed(msgspec.Struct, frozen=True):
    """Seconds for a commit, and for the same bytes on the disk alone."""

    commit: float
    disk: float


@elsewhere
def fill(folder: str, count: int, size: int) -> float:
    """Store all documents, in a store with the default settings; the seconds that it takes."""
    documents = Documents(count, size)
    began = perf_counter()
    with treestore.open_sync(f"btree:///{folder}") as store:
        for number in range(count):
            store_one(store, number, documents.nodes(number))
    return perf_counter() - began


def timed(ask: Callable[[Q], Any], questions: Iterable[Q]) -> tuple[float, list[tuple[Q, Any]]]:
    """The median of the seconds that an answer takes, and the answers."""
    seconds, answers = [], []
    for question in questions:
        start = perf_counter()
        answer = ask(question)
        seconds.append(perf_counter() - start)
        answers.append((question, answer))
    return median(seconds), answers


@elsewhere
def ask(folder: str, count: int, size: int) -> Asked:
    """What nodes and subtrees take in a store with these documents, which is opened anew for each."""
    documents = Documents(count, size)
    with treestore.open_sync(f"btree:///{folder}") as store:
        read_node = store.documents.get_node
        nodes = _first_and_again(lambda q: read_node(documents.policy(q[0]), q[1], version_id=VERSION), *_nodes(documents))
    with treestore.open_sync(f"btree:///{folder}") as store:
        read = store.documents.get_subtree
        trees = _first_and_again(lambda q: read(documents.policy(q[0]), q[1], LEVELS, version_id=VERSION), *_trees(documents))
    return Asked(*nodes, *trees)


@elsewhere
def ask_sqlite(folder: str, size: int) -> Asked:
    """The same of SQLite, with one document in rows, which is stored first."""
    documents, place = Documents(1, size), Place(Path(folder))
    filled = Sqlite(place)
    filled.verbs["store"](Tree(PlainVersion(POLICY, VERSION, EPOCH, size, ""), list(documents.nodes(0)), ()))
    filled.prepare()
    filled.close()
    opened = Sqlite(place)
    node, subtree = opened.verbs["node"], opened.verbs["subtree"]
    nodes = _first_and_again(lambda question: node(question[1]), *_nodes(documents))
    return Asked(*nodes, *_first_and_again(lambda question: subtree(question[1]), *_trees(documents)))


Expected = Callable[[Question], Any]


def _nodes(documents: Documents) -> tuple[list[Question], Expected]:
    return documents.some(QUESTIONS), documents.node


def _trees(documents: Documents) -> tuple[list[Question], Expected]:
    return documents.tops(TOPS), documents.subtree


def _first_and_again(ask: Callable[[Question], Any], questions: Sequence[Question], expected: Expected) -> tuple[float, float]:
    """Seconds for one node when the questions are asked for the first and for the third time. All answers are verified."""
    passes = [timed(ask, questions) for _ in range(3)]
    for _, answers in passes:
        verify(answers, expected)
    each = median(len(answer) if isinstance(answer, list) else 1 for _, answer in passes[0][1])
    return passes[0][0] / each, passes[2][0] / each


def _decode(documents: Documents) -> float:
    """Seconds for decoding one node of these documents from its bytes."""
    raws = [msgspec.msgpack.encode(documents.node(question)) for question in documents.some(QUESTIONS)]
    return timed(msgspec.msgpack.Decoder(PlainNode).decode, raws)[0]


@elsewhere
def commit(folder: str, aside: str) -> Committed:
    """Small commits, one after the other. The store is left open: the end of the process is a kill."""
    trees = [_small(i) for i in range(COMMITS)]
    store = treestore.open_sync(f"btree:///{folder}")

    def store_small(tree: Tree) -> str:
        version = tree.version
        stored = store.documents.store_document(version.policy_id, VERSION, tree.given, effective_date=EPOCH, searchable=False)
        return stored.outcome

    seconds, answers = timed(store_small, trees)
    if any(outcome != "created" for _, outcome in answers):
        raise Mismatch("a small document was not created")
    disk, _ = timed(Disk(Path(aside)).append, list(map(encoded, trees)))
    return Committed(seconds, disk)


def _small(number: int) -> Tree:
    return small_tree(f"small-{number}", VERSION, number, EPOCH)


@elsewhere
def reopen(folder: str, nodes: int, small: int) -> float:
    """How long it takes to open a store which then holds so many nodes, so many of which are small documents. It is not
    closed."""
    with tempfile.TemporaryDirectory() as other:
        treestore.open_sync(f"btree:///{other}/store").close()  # all modules are loaded
    began = perf_counter()
    store = treestore.open_sync(f"btree:///{folder}", create=False)
    seconds = perf_counter() - began
    held = store.stats().nodes
    if held != nodes + small:
        raise Mismatch(f"opened with {held} nodes in the place of {nodes + small}")
    verify([((i, "0000"), store.documents.get_node(f"small-{i}", "0000")) for i in range(small)], _expected)
    return seconds


def _expected(question: Question) -> PlainNode:
    return _small(question[0]).nodes[0]


class Grown(msgspec.Struct, frozen=True):
    """All that was measured of one store."""

    nodes: int
    filled: float
    asked: Asked
    sqlite: Asked | None
    decode: float
    committed: Committed
    clean: float
    killed: float


def measured(sizes: Sequence[int], rounds: int, folder: Path, say: Say) -> Topic:
    """A table for one document, and one for many; each opening is the median of ``rounds``. The stores stay, in folders that
    :func:`store_folder` names."""
    tables = []
    for many in (False, True):
        grown = []
        for nodes in sizes:
            say(f"growth: {nodes:,} nodes in {'many documents' if many else 'one document'}")
            documents = Documents.of(nodes, many)
            grown.append(_grown(documents, rounds, store_folder(folder, nodes, many), folder))
        tables.append(_table(grown, many))
    return Topic("Growth", tuple(tables), NOTES)


def store_folder(folder: Path, nodes: int, many: bool) -> Path:
    """Where the store of this size is."""
    return folder / f"{nodes}-{'many' if many else 'one'}"


def _grown(documents: Documents, rounds: int, place: Path, folder: Path) -> Grown:
    nodes = documents.count * documents.size
    filled = fill(str(place), documents.count, documents.size)
    asked = ask(str(place), documents.count, documents.size)
    beside = None
    if documents.count == 1:
        with tempfile.TemporaryDirectory(dir=folder) as other:
            beside = ask_sqlite(other, documents.size)
    clean = median(reopen(str(place), nodes, 0) for _ in range(rounds))
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        committed = commit(str(place), aside)
    killed = median(reopen(str(place), nodes, COMMITS) for _ in range(rounds))
    decode = _decode(Documents(1, min(nodes, QUESTIONS)))
    return Grown(nodes, filled, asked, beside, decode, committed, clean, killed)


def _table(grown: Sequence[Grown], many: bool) -> Table:
    first, last = grown[0], grown[-1]

    def row(
        what: str, of: Callable[[Grown], float | None], limit: Callable[[Grown], float] | None = None
    ) -> tuple[Value, ...]:
        values = [of(one) for one in grown]
        low, high = values[0], values[-1]
        growth = None if low is None or high is None else high / low
        return (what, *values, growth, None if limit is None else median(map(limit, grown)))

    rows = [
        ("Logarithm of the size", *[None for _ in grown], math.log(last.nodes) / math.log(first.nodes), None),
        row("Store, a node", lambda one: one.filled / one.nodes),
        row("Node by id, first", lambda one: one.asked.node_first, lambda one: one.decode),
        row("  SQLite by id, first", lambda one: None if one.sqlite is None else one.sqlite.node_first),
        row("Node by id, again", lambda one: one.asked.node, lambda one: one.decode),
        row("  SQLite by id, again", lambda one: None if one.sqlite is None else one.sqlite.node),
        row("Subtree, a node, first", lambda one: one.asked.subtree_first, lambda one: one.decode),
        row("  SQLite subtree, first", lambda one: None if one.sqlite is None else one.sqlite.subtree_first),
        row("Subtree, a node, again", lambda one: one.asked.subtree, lambda one: one.decode),
        row("  SQLite subtree, again", lambda one: None if one.sqlite is None else one.sqlite.subtree),
        row("A small commit", lambda one: one.committed.commit, lambda one: one.committed.disk),
        row("Open, after closing", lambda one: one.clean),
        row("Open, after a kill", lambda one: one.killed),
    ]
    where = f"documents of {Documents.of(last.nodes, many=True).size} nodes" if many else "one document"
    rows = [one for one in rows if not (many and str(one[0]).startswith("  SQLite"))]
    return Table(
        f"Growth: nodes in {where}",
        (
            Column("WHAT"),
            *(Column(f"{one.nodes:,}", "seconds") for one in grown),
            Column("GROWTH", "times"),
            Column("LIMIT", "seconds"),
        ),
        tuple(rows),
        tuple(float(one.nodes) for one in grown),
        "nodes",
    )


NOTES = (
    "Stored without search. GROWTH: the largest store against the smallest.",
    "LIMIT: decoding one node from a list of bytes; a write of the same bytes and one fdatasync.",
    f"After a kill: {COMMITS} small commits are replayed.",
)
