"""What may be asked of a store and written to it, as data: the one vocabulary of repositories and backends.

A read is an :class:`Operation`, typed by its answer. A backend answers it or raises :class:`~treestore.errors.NotFound`
for an unknown policy, version or node. Operations read together see one snapshot. A write is a :class:`WriteGroup`: it is
applied whole or not at all, in the order of arrival, and at most once by its id.

The *version* operand of a read is a version id or :class:`InEffect`; the backend resolves it in the same round trip.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from treestore.catalog import TABLES
from treestore.errors import InvalidInput
from treestore.records import (
    CheckReport,
    DocumentSummary,
    Node,
    Outline,
    PageText,
    SearchHit,
    StoreStats,
    Version,
)

R = TypeVar("R")
T = TypeVar("T", bound=msgspec.Struct)
N = TypeVar("N", Outline, Node)


class InEffect(msgspec.Struct, frozen=True):
    """The version in effect at ``at``, among those ingested by ``known_at`` with the effective dates known then.

    A version is in effect from its effective date (its ingestion, where it has none) until the next one's; of equal starts
    the later ingested wins. ``known_at=None``: as known at present. ``or_latest``: where none is in effect yet, the newest
    ingested. Deleted versions are never in effect.
    """

    at: datetime
    known_at: datetime | None = None
    or_latest: bool = False


class Latest(msgspec.Struct, frozen=True):
    """The newest ingested version that is not deleted."""


VersionRef = str | InEffect | Latest


class Operation(msgspec.Struct, Generic[R], frozen=True):
    """A read whose answer is of type ``R``."""


class GetVersion(Operation[Version], frozen=True):
    """The facts of one version. A tombstone is found by its id only if ``deleted`` is set."""

    policy_id: str
    version: VersionRef
    deleted: bool = False


class ListDocuments(Operation[list[DocumentSummary]], frozen=True):
    """All policies with a version that is not deleted, by policy id in code point order, after ``after``, at most
    ``limit``."""

    at: datetime
    after: str | None = None
    limit: int | None = None


class GetNodes(Operation[list[N]], Generic[N], frozen=True):
    """The named nodes, in the order asked (an id asked twice is answered twice). One NotFound names all that are missing.

    ``weight`` is ``Node`` for whole nodes or ``Outline`` for nodes without their texts, here and below.
    """

    weight: type[N]
    policy_id: str
    version: VersionRef
    node_ids: tuple[str, ...]


class Children(Operation[list[N]], Generic[N], frozen=True):
    """The children of a node, or the roots (``parent_id=None``), in document order."""

    weight: type[N]
    policy_id: str
    version: VersionRef
    parent_id: str | None = None


class Subtree(Operation[list[N]], Generic[N], frozen=True):
    """A node and all below it, or all nodes (``node_id=None``), in document order.

    ``max_depth`` counts levels below the node (0: the node alone) or, without a node, below the roots.
    """

    weight: type[N]
    policy_id: str
    version: VersionRef
    node_id: str | None = None
    max_depth: int | None = None


class Ancestors(Operation[list[N]], Generic[N], frozen=True):
    """The way from the root to a node: the root first, the node last."""

    weight: type[N]
    policy_id: str
    version: VersionRef
    node_id: str


class OnPages(Operation[list[N]], Generic[N], frozen=True):
    """The nodes whose page range meets the pages ``first`` to ``last``, in document order. Nodes without a page range lie on
    no page."""

    weight: type[N]
    policy_id: str
    version: VersionRef
    first: int
    last: int


class Word(msgspec.Struct, frozen=True):
    """A word of a query. ``whole`` is the term for all of it (empty, if it has none), ``parts`` are what it is made of: each
    as it was typed, and its term. See :mod:`treestore.search.query` for which of them are looked for."""

    typed: str
    whole: str
    parts: tuple[tuple[str, str], ...] = ()


class Query(msgspec.Struct, frozen=True):
    """What a search asks for: words, each once, in the order in which they were typed. A node is found by any of them."""

    words: tuple[Word, ...]


class Match(Operation[list[SearchHit]], frozen=True):
    """The ``limit`` nodes of a version that fit a query best, best first; of equal scores in document order.

    Scores are those of :mod:`treestore.search.ranking`, with the version's nodes as corpus. Raises NotSearchable.
    """

    policy_id: str
    version: VersionRef
    query: Query
    limit: int


class MatchAll(Operation[list[SearchHit]], frozen=True):
    """As :class:`Match`, over the versions in effect at ``at`` (or the latest, where none is yet) of all policies; of equal
    scores by policy id, then in document order.

    The nodes of all these versions together are the corpus. Versions that were stored without postings are passed over.
    """

    at: datetime
    query: Query
    limit: int


class PageTexts(Operation[list[PageText]], frozen=True):
    """The kept page texts with ``first <= page <= last`` in the order given (all, if both are ``None``)."""

    policy_id: str
    version: VersionRef
    first: int | None = None
    last: int | None = None


class Get(Operation[T | None], Generic[T], frozen=True):
    """One record of a plain table by its primary key; None if there is none. Plain: not nodes or page texts."""

    record: type[T]
    key: tuple[Any, ...]


class Scan(Operation[list[T]], Generic[T], frozen=True):
    """Records of a plain table whose key, or whose ``index``, begins with ``prefix``, in that order (reversed if
    ``reverse``), at most ``limit``."""

    record: type[T]
    prefix: tuple[Any, ...] = ()
    index: str | None = None
    reverse: bool = False
    limit: int | None = None


class Stats(Operation[StoreStats], frozen=True):
    """Counts over the whole store."""


class Check(Operation[CheckReport], frozen=True):
    """Prove the whole store sound: structure, indexes, hashes. Reads everything."""


class Backup(Operation[int], frozen=True):
    """Copy one committed moment of the store to a new folder while it is in use. Answers the copy's size in bytes."""

    folder: str


class Compact(Operation[int], frozen=True):
    """Rewrite the store without its free space. Answers the bytes given back."""


# --- expectations --------------------------------------------------------------------------------------------------------


class Absent(msgspec.Struct, frozen=True):
    """No record of the plain table has this primary key."""

    record: type[msgspec.Struct]
    key: tuple[Any, ...]


class Present(msgspec.Struct, frozen=True):
    """A record of the plain table has this primary key."""

    record: type[msgspec.Struct]
    key: tuple[Any, ...]


class FieldEquals(msgspec.Struct, frozen=True):
    """The record with this primary key exists and its field has this value."""

    record: type[msgspec.Struct]
    key: tuple[Any, ...]
    field: str
    value: Any


class RangeEmpty(msgspec.Struct, frozen=True):
    """No record of the plain table has a primary key that begins with ``prefix``."""

    record: type[msgspec.Struct]
    prefix: tuple[Any, ...]


Expectation = Absent | Present | FieldEquals | RangeEmpty


def unmet(
    expects: Expectation,
    get: Callable[[type[msgspec.Struct], tuple[Any, ...]], msgspec.Struct | None],
    any_under: Callable[[type[msgspec.Struct], tuple[Any, ...]], bool],
) -> str | None:
    """Why an expectation does not hold; None if it does. ``get`` finds a record by its primary key, ``any_under`` says
    whether there is one whose key begins with a prefix; both raise InvalidInput for a record that has no plain table."""
    if isinstance(expects, RangeEmpty):
        found = any_under(expects.record, expects.prefix)
        return f"{TABLES[expects.record].name} has records under {expects.prefix!r}" if found else None
    record = get(expects.record, expects.key)
    name = f"{TABLES[expects.record].name} {expects.key!r}"
    if isinstance(expects, Absent):
        return None if record is None else f"{name} exists"
    if record is None:
        return f"{name} does not exist"
    if isinstance(expects, FieldEquals) and getattr(record, expects.field) != expects.value:
        return f"{name}: {expects.field} was changed meanwhile"
    return None


# --- writes --------------------------------------------------------------------------------------------------------------


class Put(msgspec.Struct, frozen=True):
    """Insert or replace a record of a plain table by its primary key."""

    record: msgspec.Struct


class Delete(msgspec.Struct, frozen=True):
    """Delete a record of a plain table by its primary key, if there is one."""

    record: type[msgspec.Struct]
    key: tuple[Any, ...]


class DeleteRange(msgspec.Struct, frozen=True):
    """Delete the records of a plain table whose primary key begins with ``prefix``."""

    record: type[msgspec.Struct]
    prefix: tuple[Any, ...]


class Segment(msgspec.Struct, frozen=True):
    """The packed postings of successive nodes, up to :data:`treestore.search.postings.SEGMENT_NODES`: ``rows`` by the first
    term of each (in order; the first is under the empty string), and the nodes' ``lengths``."""

    rows: tuple[tuple[str, bytes], ...]
    lengths: bytes


class ReplaceVersion(msgspec.Struct, frozen=True):
    """Put a version's facts and replace all its nodes, page texts and postings (none, where it is new).

    ``nodes`` are in document order with ordinals 0, 1, 2…, as :func:`treestore.trees.derive.derive` makes them. ``segments``
    are their postings as :func:`treestore.search.postings.pack` makes them; none, if the version is not to be searched.
    """

    version: Version
    nodes: Sequence[Node]
    pages: Sequence[PageText] = ()
    segments: Sequence[Segment] = ()


class TermChange(msgspec.Struct, frozen=True):
    """How the terms of one node change: how often it had each, and has it then."""

    ordinal: int
    before: dict[str, int]
    after: dict[str, int]


class AmendNodes(msgspec.Struct, frozen=True):
    """Put a version's facts and replace some of its nodes, found by their ordinals; the structure and the page ranges
    stay. ``terms``: the changes that follow for its postings, if it has any."""

    version: Version
    nodes: Sequence[Node]
    terms: Sequence[TermChange] = ()


def check_amended(node: Node, before: Outline | None) -> None:
    """Raise InvalidInput unless a node can take the place of the one that is ``before`` at its ordinal (None: none is)."""
    if before is None or before.node_id != node.node_id:
        raise InvalidInput("there is no such node at this ordinal", field="ordinal", node=node.node_id)
    if (before.page_start, before.page_end) != (node.page_start, node.page_end):
        raise InvalidInput("can't be amended in place; store the document again", field="page_start", node=node.node_id)


class DropVersion(msgspec.Struct, frozen=True):
    """Put a version's facts as a tombstone (``deleted_at`` set) and delete its nodes, page texts and postings."""

    version: Version


Write = Put | Delete | DeleteRange | ReplaceVersion | AmendNodes | DropVersion


def new_group_id() -> bytes:
    """16 bytes, unique, ascending by time in milliseconds (a UUID of version 7, RFC 9562)."""
    value = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 7 << 76
    return (value & ~(0x3 << 62) | 0x2 << 62).to_bytes(16)


class WriteGroup(msgspec.Struct, frozen=True):
    """Writes that are applied together, in order, or not at all, if all ``expects`` hold just before.

    A store remembers ``group_id`` for at least an hour and checks it first, so the same group sent again after a lost
    reply is applied once. An id stands for one group: other writes need another id. An expectation that does not hold raises
    Conflict.
    """

    writes: tuple[Write, ...]
    expects: tuple[Expectation, ...] = ()
    group_id: bytes = msgspec.field(default_factory=new_group_id)


class Applied(msgspec.Struct, frozen=True):
    """A group is durable. ``repeated``: it had been applied before, under the same id."""

    group_id: bytes
    repeated: bool = False
