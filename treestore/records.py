"""Every record that treestore keeps or returns, once, as a typed struct.

Structs are encoded as arrays, so the order of fields is a storage format: add at the end (``text`` apart), never reorder.
All datetimes are aware and in UTC. ``None`` means absent, which is kept apart from empty.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

ValidationStatus = Literal["pending", "approved", "flagged"]
Shape = Literal["pdf", "markdown", "workspace"]


class Outline(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A node of a stored tree without its text: what an LLM walks.

    ``ordinal`` is the node's place in document order (preorder, from 0), ``last_ordinal`` that of the last node below it
    (its own, for a leaf), ``parent_ordinal`` its parent's (-1 for a root), ``depth`` the number of nodes above it.
    ``section_path`` is as given or, where none was, "1.2.3" by the 1-based places among siblings. The hashes are SHA-256
    digests (32 bytes), see :mod:`treestore.trees.hashes`: ``node_hash`` tells whether two nodes say the same,
    ``tree_hash`` whether two subtrees are equal in every field. ``text_hash`` is that of the text's UTF-8, ``None`` where
    the node has no text. ``updated_at`` is the moment of the last amendment in place, ``None`` if there was none.
    ``extra`` holds given keys that treestore has no field for.
    """

    policy_id: str
    version_id: str
    node_id: str
    parent_id: str | None
    title: str
    page_start: int | None = None
    page_end: int | None = None
    page_index: int | None = None
    line_num: int | None = None
    summary: str | None = None
    prefix_summary: str | None = None
    section_path: str
    ordinal: int
    last_ordinal: int
    parent_ordinal: int
    depth: int
    validation_status: ValidationStatus = "pending"
    metadata: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    updated_at: datetime | None = None
    node_hash: bytes
    tree_hash: bytes
    text_hash: bytes | None = None


class Node(Outline, frozen=True, kw_only=True, array_like=True):
    """A whole node: an :class:`Outline` and its text (``None`` where the node has none)."""

    text: str | None = None


class PageText(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The text of one page of the source document, as a PageIndex workspace keeps it. ``page`` is unique in a version."""

    page: int
    content: str
    extra: dict[str, Any] | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a PageIndex file says besides its nodes, enough to write it back equal.

    ``fields`` are the document's own keys (all but the nodes and the pages). ``keys``, ``node_keys`` and ``page_keys`` are
    the orders in which keys stood. ``generated_ids``: the file had no node ids; they were given by treestore.
    """

    shape: Shape
    fields: dict[str, Any]
    keys: tuple[str, ...]
    node_keys: tuple[str, ...]
    page_keys: tuple[str, ...] = ()
    generated_ids: bool = False


class Fact(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One entry of a version's history: what became known at ``recorded_at``.

    ``ingested``: a tree was stored or replaced then. ``effective``: the effective date was set to ``effective_date``.
    ``deleted``: the version was deleted. Facts are appended, never overwritten.
    """

    recorded_at: datetime
    kind: Literal["ingested", "effective", "deleted"]
    effective_date: datetime | None = None


class Version(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One version of a policy: the facts about it, not its nodes.

    ``created_at`` is its first ingestion, ``ingested_at`` the one that its present content came with, ``updated_at`` the
    last change of any kind. ``tree_hash`` and ``node_hash`` are those of the whole tree, ``pages_hash`` that of the page texts
    (which is part of ``tree_hash``), see
    :mod:`treestore.trees.hashes`. A deleted version keeps its row as a tombstone: ``deleted_at`` is set, its content gone.
    ``revision`` counts the changes of the row, from 1: a writer expects the one it read. ``analyzer`` is the version of the
    analyzer (:data:`treestore.search.analyzer.VERSION`) that its postings were made by, empty if it can't be searched;
    ``term_count`` the number of terms of all its nodes together.
    """

    policy_id: str
    version_id: str
    pageindex_doc_id: str = ""
    pdf_sha256: str = ""
    markdown_ptr: str = ""
    tree_json_ptr: str = ""
    source_url: str | None = None
    effective_date: datetime | None = None
    revision_date: datetime | None = None
    ingested_at: datetime
    tree_validated_by: str | None = None
    tree_validated_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    description: str = ""
    created_by: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None
    facts: tuple[Fact, ...] = ()
    node_count: int = 0
    root_count: int = 0
    page_count: int = 0
    node_hash: bytes = b""
    tree_hash: bytes = b""
    pages_hash: bytes = b""
    pageindex: Envelope | None = None
    revision: int = 0
    analyzer: str = ""
    term_count: int = 0


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A version with all its nodes in document order, and its page texts in the order given."""

    version: Version
    nodes: list[Node]
    pages: list[PageText]


class DocumentSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A policy in a listing: its version in effect (or the latest, where none is yet) and how many versions it has."""

    policy_id: str
    version: Version
    version_count: int


class StoreResult(msgspec.Struct, frozen=True, kw_only=True):
    """What storing a document did. ``unchanged`` means equal content was there already and nothing was written."""

    outcome: Literal["created", "replaced", "unchanged"]
    policy_id: str
    version_id: str
    node_count: int
    page_count: int
    tree_hash: bytes


class SearchHit(msgspec.Struct, frozen=True, kw_only=True):
    """A node that a search found, with its score (BM25, above 0) and the words of the query that it has, as asked."""

    node: Node
    score: float
    words: tuple[str, ...]


class DeleteResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a deletion took away: the ids of the versions, in the order of ingestion, and the number of their nodes."""

    policy_id: str
    version_ids: tuple[str, ...]
    node_count: int


class StoreStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over the whole store. ``backend`` holds figures of the store's own kind, by name (bytes, pages, seconds)."""

    documents: int
    versions: int
    nodes: int
    size_bytes: int
    backend: dict[str, int | float | str]


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of the whole store found. ``problems`` is empty for a sound store; each entry is one line."""

    ok: bool
    problems: list[str]
    counts: dict[str, int]


class LostVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a damaged store that is not whole.

    ``nodes`` and ``pages`` are how many it had (``None``: not known), of which ``nodes_read`` and ``pages_read`` can be read;
    ``texts_lost`` of these nodes are without their text. ``facts``: what was known about it can be read. ``where`` names the
    damaged places, ``file`` holds what can be read."""

    policy_id: str
    version_id: str
    nodes: int | None
    nodes_read: int
    texts_lost: int
    pages: int | None
    pages_read: int
    facts: bool
    where: tuple[str, ...]
    file: str | None


class SalvageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was saved of a damaged store: ``versions`` (tombstones too) with their ``nodes`` were copied whole, ``lost`` were
    not. ``outdated`` are (policy, version) whose last changes are missing, or may be. ``damage`` has one line for each damaged
    place, also where nothing was lost by it. ``complete``: all that was ever acknowledged is in the copy, as far as the files
    can tell."""

    complete: bool
    versions: int
    nodes: int
    lost: list[LostVersion]
    outdated: list[tuple[str, str]]
    damage: list[str]


# --- what changed --------------------------------------------------------------------------------------------------------


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node is in one version. ``path`` are the titles from the root down to the node's own, ``ordinal`` is its place
    in document order. Pages and lines are the node's own fields."""

    node_id: str
    ordinal: int
    section_path: str
    path: tuple[str, ...]
    page_start: int | None = None
    page_end: int | None = None
    page_index: int | None = None
    line_num: int | None = None


class NodeChange(msgspec.Struct, frozen=True, kw_only=True):
    """One node that changed: its place before (``None``: it was added) and after (``None``: it was removed). ``fields`` names
    what differs, where the list that it is in is about that."""

    before: Place | None
    after: Place | None
    fields: tuple[str, ...] = ()


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """What changed from ``version_a`` to ``version_b``. A node may be in several of the lists, but for the first two.

    ``added``, ``removed``: each node that came or went, with all that did below it. ``changed``: the same node says something
    else; ``fields`` are of title, summary, prefix_summary, text, validation_status, metadata and extra. ``moved``: it is below
    another parent, or left the order of its siblings; what moved along below it is not listed. ``repaged``: it stands on other
    pages or lines; ``fields`` are of page_start, page_end, page_index and line_num. Other ids, section paths and orders of
    keys are no change, and page texts are not compared.

    Below a node that says the same as before, down to its last descendant, nodes are compared further only while ids and
    section paths are the same: a section that was renumbered, and shifted to other pages, is listed once. Lists are in
    document order, ``removed`` in that of ``version_a``, the others in that of ``version_b``.
    """

    policy_id: str
    version_a: str
    version_b: str
    added: list[NodeChange]
    removed: list[NodeChange]
    changed: list[NodeChange]
    moved: list[NodeChange]
    repaged: list[NodeChange]


class TemporalLookup(msgspec.Struct, frozen=True, kw_only=True):
    """The version in effect at a date, and what changed with it.

    ``previous`` is the version that was in effect until this one came into effect, ``None`` if there was none.
    ``changed_node_ids`` are nodes of ``version`` that were added, changed or moved since ``previous`` (all of them where there
    is no previous: they are all new), ``removed_node_ids`` nodes of ``previous`` that are gone; both in document order.
    """

    version: Version
    previous: Version | None
    changed_node_ids: list[str]
    removed_node_ids: list[str]
