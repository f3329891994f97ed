"""Trees derived in memory from the rows of tables that others write too.

The reasoning-service's code fills none of our columns, and its updates leave them stale. Where the nodes of a version are not
as they were when what is ours was derived of them (their fingerprint differs), it is derived of the rows as they are, by the
code that stores a document. Siblings are in the order of ``id``. Columns of ours that say what was given (metadata, a section
number…) count where a row has them.

What forms no tree (a parent that is not there, an id that is empty or there twice, a cycle, one page of a range alone) is kept
as a flat list: each node is a root, in the order of ``id``, with its ``parent_id`` and pages as they are.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from treestore.backends.postgres.rows import Fingerprint, Found
from treestore.errors import InvalidInput
from treestore.records import Node, PageText, Version
from treestore.search import analyzer
from treestore.search.postings import Packed, pack
from treestore.trees import content
from treestore.trees.content import Content
from treestore.trees.derive import Steps, derive
from treestore.trees.given import DERIVED_KEYS

KEPT_NODES = 50_000
"""So many nodes of derived versions are kept in memory, and of one version as many as it has."""

Key = tuple[Any, ...]


class Derived:
    """The content of a version as derived of its rows. ``row_ids`` are the rows' ``id`` in document order; ``broken`` says why
    they form no tree, ``reingested`` whether not one of them has anything of ours."""

    def __init__(self, whole: Content, row_ids: Sequence[int], broken: str | None, *, reingested: bool) -> None:
        self.content = whole
        self.row_ids = row_ids
        self.broken = broken
        self.reingested = reingested
        self._packed: Packed | None = None

    def packed(self) -> Steps[Packed]:
        """The postings of the nodes."""
        if self._packed is None:
            self._packed = yield from pack(self.content.nodes)
        return self._packed

    def version(self, found: Found) -> Steps[Version]:
        """The version as it is with this content."""
        packed = (yield from self.packed()) if found.searchable else None
        facts = content.facts(self.content.nodes, self.content.pages)
        if self.reingested:
            facts["pageindex"] = None
        return msgspec.structs.replace(
            found.version,
            **facts,
            analyzer=analyzer.VERSION if packed else "",
            term_count=packed.term_count if packed else 0,
        )


class DerivedCache:
    """The contents that were derived last, for any number of threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, tuple[Fingerprint, Derived]] = OrderedDict()
        self._nodes = 0
        self._lock = threading.Lock()

    def get(self, key: Key, fingerprint: Fingerprint) -> Derived | None:
        """What was derived of a version whose nodes are as they were."""
        with self._lock:
            then, kept = self._kept.get(key, (None, None))
            if then != fingerprint:
                return None
            self._kept.move_to_end(key)
            return kept

    def keep(self, key: Key, fingerprint: Fingerprint, derived: Derived) -> None:
        """Keep what was derived, and let go of what was not asked for the longest."""
        with self._lock:
            self._drop(key)
            self._kept[key] = fingerprint, derived
            self._nodes += len(derived.row_ids)
            while self._nodes > KEPT_NODES and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        if key in self._kept:
            _, old = self._kept.pop(key)
            self._nodes -= len(old.row_ids)


Given = tuple[int, Mapping[str, Any]]
"""The ``id`` of a row, and the fields of a node that it has."""

_NOT_GIVEN = frozenset(Node.__struct_fields__) & DERIVED_KEYS


def derive_rows(key: Key, rows: Sequence[Given], pages: Sequence[PageText]) -> Steps[Derived]:
    """The content of a version of its rows, in any order. Pauses now and then."""
    in_order = sorted(rows, key=lambda row: row[0])
    reingested = all(row["ordinal"] is None for _, row in in_order)
    given = [
        {name: value for name, value in row.items() if value is not None and name not in _NOT_GIVEN} for _, row in in_order
    ]
    yield
    try:
        nodes = yield from derive(key[0], key[1], given)
    except InvalidInput as error:
        flat = yield from _flat(key, given)
        return Derived(Content(flat, pages), [row_id for row_id, _ in in_order], str(error), reingested=reingested)
    by_id = {row["node_id"]: (row_id, row["updated_at"]) for row_id, row in in_order}
    amended = {node_id: moment for node_id, (_, moment) in by_id.items() if moment is not None}
    if amended:
        nodes = [msgspec.structs.replace(node, updated_at=amended.get(node.node_id)) for node in nodes]
    return Derived(Content(nodes, pages), [by_id[node.node_id][0] for node in nodes], None, reingested=reingested)


_ALWAYS_RIGHT = ("title", "summary", "prefix_summary", "text", "validation_status", "metadata", "extra")
_AS_THEY_ARE = ("parent_id", "page_start", "page_end", "page_index", "line_num")


def _flat(key: Key, given: Sequence[Mapping[str, Any]]) -> Steps[list[Node]]:
    """Nodes that form no tree, each as a root."""
    roots = [
        {"node_id": str(at), **{name: row[name] for name in _ALWAYS_RIGHT if name in row}} for at, row in enumerate(given)
    ]
    nodes = yield from derive("-", "-", roots)  # its own ids may be none that we take
    found = []
    for node, row in zip(nodes, given, strict=True):
        kept = {name: row.get(name) for name in _AS_THEY_ARE}
        found.append(
            msgspec.structs.replace(node, policy_id=key[0], version_id=key[1], node_id=row["node_id"], **kept)
        )
    return found
