"""What is measured: each case one question asked many times, what its answer must be, and what treestore aims at.

A time is that of one question, or of one node or document where ``what`` says so; everything that is stored is durable. A
bound against another store is in times as fast: 2.0 means half of the other's time. Most bounds are set for a document of
:data:`NODES` nodes: of one of another size a run says how it comes out, and judges nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from treestore.bench import truth
from treestore.bench.contender import LEVELS, TASKS
from treestore.bench.corpus import (
    EDITED,
    EPOCH,
    LATER,
    NODES_PER_PAGE,
    SEARCHES,
    SEED,
    VERSION,
    VERSIONS,
    Corpus,
    Tree,
    amended,
    small_tree,
)

TREESTORE, ASYNC, SQLITE, LMDB, LIMIT = "treestore", "treestore async", "SQLite", "LMDB", "the limit"
ON_POSTGRES, POSTGRES = "treestore on PostgreSQL", "PostgreSQL"

NODES = 50_000


class Bound(msgspec.Struct, frozen=True):
    """What treestore's time should be: so many times as fast as another store, or as another case, which is ``called`` so in
    the table; or at most so many seconds. ``of`` is the face that is judged. ``nodes`` is the size of the document that it is
    set for, None if it holds for all."""

    times: float = 1.0
    than: str = TREESTORE
    case: str | None = None
    called: str = ""
    seconds: float | None = None
    of: str = TREESTORE
    nodes: int | None = NODES

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"at most {self.seconds * 1e6:g} µs" if self.seconds < 1e-3 else f"at most {self.seconds * 1e3:g} ms"
        who = f"{self.of}: " if self.of == ON_POSTGRES else ""
        return f"{who}{f'{self.times:.2f}'.rstrip('0').rstrip('.')}x {self.called or self.than}"


class Case(msgspec.Struct, frozen=True):
    """One row of the table. ``questions`` are those of a round; ``fresh``: each time is taken in a new and empty store.

    ``expected`` gives the answer to a question; ``None`` for a case with a check of its own. ``amends``: its questions amend
    nodes, and in the end make them say again what they said. ``first``: nothing is kept of earlier answers.
    """

    name: str
    what: str
    verb: str
    questions: Callable[[Corpus, str], Sequence[Any]]
    expected: Callable[[Corpus, Any], Any] | None = None
    units: Callable[[Sequence[Any]], int] = len
    fresh: bool = False
    bounds: tuple[Bound, ...] = ()
    amends: bool = False
    first: bool = False


AMENDED = 10
"""Nodes that are amended in a round, to and fro."""

MANY = 2000
"""Questions of a round where one takes microseconds."""

SMALL_NODES = 20
_LEVEL = 0.95


def _of_plain_sql(most: float) -> Bound:
    """The store on PostgreSQL takes at most so many times as long as plain SQL on the same tables."""
    return Bound(1 / most, POSTGRES, of=ON_POSTGRES)


def _some(pool: Sequence[Any], count: int) -> list[Any]:
    """So many of them, the same each time; one may come twice. Of few things fewer questions are asked."""
    return random.Random(SEED).choices(pool, k=min(count, 4 * len(pool)))


def _ids(corpus: Corpus, _: str) -> list[str]:
    return _some([node.node_id for node in corpus.tree.nodes], MANY)


def _inner_ids(corpus: Corpus, _: str) -> list[str]:
    inner = [node.node_id for node in corpus.tree.nodes if node.last_ordinal > node.ordinal]
    return _some(inner or ["0000"], MANY // 2)


def _tops(corpus: Corpus, _: str) -> list[str]:
    """The nodes below the root: in a document of 37,449 nodes or more each has 585 on its levels."""
    return [node.node_id for node in corpus.tree.nodes if node.depth == 1] or ["0000"]


def _times(_: Corpus, __: str) -> list[Any]:
    return [EPOCH + timedelta(minutes=minute) for minute in _some(range(VERSIONS * 30 * 24 * 60), MANY)]


def _pages(corpus: Corpus, _: str) -> list[int]:
    return _some(range(1, len(corpus.tree.nodes) // NODES_PER_PAGE + 2), MANY // 10)


def _small(nodes: int, count: int) -> Callable[[Corpus, str], list[Tree]]:
    def questions(_: Corpus, label: str) -> list[Tree]:
        return [small_tree(f"small-{nodes}-{label}-{i}", "1", i, EPOCH, nodes) for i in range(count)]

    return questions


def _together(_: Corpus, label: str) -> list[list[Tree]]:
    return [[small_tree(f"together-{label}-{i}", "1", i, EPOCH) for i in range(5 * TASKS)]]


def _nodes_of(trees: Sequence[Tree]) -> int:
    return sum(len(tree.nodes) for tree in trees)


def _searching(kind: str) -> Case:
    return Case(
        f"search, {kind}",
        f"Search, {kind}",
        "search",
        lambda corpus, _: corpus.searches[kind],
        bounds=(Bound(seconds=2e-3), Bound(5.0, POSTGRES)) if len(SEARCHES[kind]) == 2 else (),
    )


def _amendments(corpus: Corpus, _: str) -> list[tuple[str, str]]:
    """Nodes and texts: for each node another one, then its own again."""
    nodes = _some(corpus.tree.nodes, AMENDED)
    return [(node.node_id, text) for node in nodes for text in (amended(corpus, node), node.text or "")]


def _both(_: Corpus, __: str) -> list[tuple[str, str]]:
    return [(VERSION, LATER)]


def _edited(corpus: Corpus, _: str) -> list[tuple[str, str]]:
    """The two versions, unless the document is too small to have three nodes that differ."""
    return [(VERSION, LATER)] if len(truth.edited_ids(corpus)) == EDITED else []


def _document(corpus: Corpus, _: str) -> list[Tree]:
    return [corpus.tree]


def _version(_: Corpus, __: str) -> list[str]:
    return [VERSION]


def _created(_: Corpus, __: Tree) -> str:
    return "created"


_WRITES = (
    Case("store", "Store the document, per node", "store", _document, _created, _nodes_of, True,
         (Bound(_LEVEL, SQLITE), _of_plain_sql(2.0))),
    Case("store searchable", "Store it searchable, per node", "store_searchable", _document, _created, _nodes_of,
         True, (Bound(1.5, POSTGRES),)),
    Case("store equal", "Store equal content again, per node", "store_equal", _document, lambda _, __: "unchanged",
         _nodes_of),
    Case("amend", "Amend a node's text, searchable", "amend", _amendments, amends=True),
    Case("small", "Store a document of 1 node", "store_small", _small(1, 60), _created,
         bounds=(Bound(1 / 1.3, LIMIT, nodes=None),)),
    Case("small, more", f"Store a document of {SMALL_NODES} nodes", "store_small",
         _small(SMALL_NODES, 30), _created),
    Case("together", f"{TASKS} at once store one node, per node", "store_together", _together,
         lambda _, trees: len(trees), lambda questions: sum(map(len, questions)),
         bounds=(Bound(5.0, SQLITE, of=ASYNC, nodes=None),)),
)  # fmt: skip

_READS = (
    Case("node", "A node by its id", "node", _ids, truth.node,
         bounds=(Bound(1.0, SQLITE), Bound(1 / 3, LMDB), _of_plain_sql(1.6))),
    Case("node, first", "A node by its id, the first time", "node",
         lambda corpus, label: list(dict.fromkeys(_ids(corpus, label))), truth.node, first=True),
    Case("node, outline", "A node by its id, without text", "node_outline", _ids,
         lambda corpus, node_id: truth.outline([truth.node(corpus, node_id)]), bounds=(Bound(0.5, LMDB),)),
    Case("children", "The children of a node", "children", _inner_ids, truth.children,
         bounds=(Bound(_LEVEL, SQLITE),)),
    Case("children, outline", "A node and children, without texts", "children_outline", _inner_ids,
         lambda corpus, node_id: truth.outline(truth.below(corpus, node_id, 1)), bounds=(Bound(_LEVEL, SQLITE),)),
    Case("subtree", f"Subtree to depth {LEVELS}", "subtree", _tops, truth.subtree,
         bounds=(Bound(2.0, SQLITE), Bound(3.0, POSTGRES), _of_plain_sql(1.3))),
    Case("subtree, first", f"Subtree to depth {LEVELS}, the first time", "subtree", _tops, truth.subtree, first=True),
    Case("subtree, outline", f"Subtree to depth {LEVELS}, without texts", "subtree_outline", _tops,
         lambda corpus, node_id: truth.outline(truth.subtree(corpus, node_id)), bounds=(Bound(4.0, SQLITE),)),
    Case("whole", "The whole tree", "whole", _version, truth.whole,
         bounds=(Bound(3.0, SQLITE), Bound(_LEVEL, LMDB))),
    Case("whole, outline", "The whole tree, without texts", "whole_outline", _version,
         lambda corpus, version_id: truth.outline(truth.whole(corpus, version_id))),
    Case("ancestors", "The way to the root", "ancestors", _ids, truth.ancestors, bounds=(Bound(1.0, SQLITE),)),
    Case("as of", f"The version as of a date, of {VERSIONS}", "as_of", _times, truth.as_of),
)  # fmt: skip

_FINDING = (
    Case("page", "The nodes on a page", "on_page", _pages, truth.on_page,
         bounds=(Bound(50.0, case="page, scan", called="reading the whole tree"),)),
    Case("page, scan", "The nodes on a page, reading all", "scan_page",
         lambda corpus, label: _pages(corpus, label)[:2], truth.on_page),
    *map(_searching, SEARCHES),
    Case("diff", f"Which {EDITED} nodes differ, of 2 versions", "diff", _edited,
         lambda corpus, _: truth.edited_ids(corpus), bounds=(Bound(100.0, case="read both", called="reading both versions"),)),
    Case("read both", "Both versions, read whole", "read_both", _both,
         lambda corpus, _: 2 * len(corpus.tree.nodes)),
)  # fmt: skip

CASES = (*_WRITES, *_READS, *_FINDING)
"""All cases, in the order of the table."""
