"""For each record its table, as plain data: the key, the indexes, the greatest lengths and the columns.

Every store is made from this: the native one its key families, a relational one its tables. Lengths are in characters and
those of the running reasoning-service's tables, so that what one store accepts every store accepts.

``policy_versions`` and ``policy_nodes`` are that service's own tables. Its columns keep their names and their meaning for its
code; a column of ours has a default or may be null, so that its inserts go on working. All other tables are treestore's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from treestore.records import Node, PageText, Version

Kind = Literal["text", "integer", "bigint", "serial", "bytes", "time", "json"]
"""What a column holds. ``serial``: an integer that the server counts up. ``bytes``: also for text that may hold NUL. ``time``:
without a zone, in UTC. ``json``: the value in JSON as text, since types for JSON change what they store (−0.0, 1e22, the order
of keys)."""


@dataclass(frozen=True)
class Column:
    """A column of a relational table. ``length`` is the greatest number of characters, ``default`` an SQL expression."""

    name: str
    kind: Kind
    required: bool = False
    default: str | None = None
    length: int | None = None


@dataclass(frozen=True)
class Table:
    """``key`` names the fields of the primary key; ``indexes`` maps an index's name to its leading fields (the key's own
    fields follow, so an index entry is always unique); ``lengths`` are in characters.

    ``columns`` maps each of the record's fields to its column; ``beside`` are columns that only a relational table has. The
    fields of the key and of the indexes are those of the record.
    """

    name: str
    record: type[msgspec.Struct]
    key: tuple[str, ...]
    indexes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    beside: tuple[Column, ...] = ()

    def key_of(self, record: msgspec.Struct) -> tuple[Any, ...]:
        """The primary key of a record of this table."""
        return tuple(getattr(record, name) for name in self.key)


_NOW = "timezone('utc', now())"


def _named(*columns: Column) -> dict[str, Column]:
    return {column.name: column for column in columns}


VERSIONS = Table(
    name="policy_versions",
    record=Version,
    key=("policy_id", "version_id"),
    indexes={"ingested": ("policy_id", "ingested_at")},
    lengths={
        "policy_id": 100,
        "version_id": 50,
        "pageindex_doc_id": 64,
        "pdf_sha256": 64,
        "tree_validated_by": 100,
    },
    columns=_named(
        Column("policy_id", "text", required=True, length=100),
        Column("version_id", "text", required=True, length=50),
        Column("pageindex_doc_id", "text", required=True, length=64),
        Column("pdf_sha256", "text", required=True, length=64),
        Column("markdown_ptr", "text", required=True),
        Column("tree_json_ptr", "text", required=True),
        Column("source_url", "text"),
        Column("effective_date", "time"),
        Column("revision_date", "time"),
        Column("ingested_at", "time", required=True, default=_NOW),
        Column("tree_validated_by", "text", length=100),
        Column("tree_validated_at", "time"),
        Column("created_at", "time", required=True, default=_NOW),
        Column("updated_at", "time"),
        Column("deleted_at", "time"),
        Column("description", "text"),
        Column("created_by", "text"),
        Column("tags", "json"),
        Column("metadata", "json"),
        Column("facts", "json"),
        Column("node_count", "integer"),
        Column("root_count", "integer"),
        Column("page_count", "integer"),
        Column("node_hash", "bytes"),
        Column("tree_hash", "bytes"),
        Column("pages_hash", "bytes"),
        Column("pageindex", "json"),
        Column("revision", "integer"),
        Column("analyzer", "text"),
        Column("term_count", "bigint"),
    ),
    beside=(
        # What the nodes were when what is ours was derived of them: their number, greatest id, and the sum of hashes of their
        # updated_at: an update is seen whatever its time is, also where the clocks of those who write differ.
        Column("fingerprint_count", "integer"),
        Column("fingerprint_id", "bigint"),
        Column("fingerprint_updates", "bigint"),
        Column("fingerprint_row", "integer"),  # of this row's own columns that are the service's, when treestore wrote it
        Column("broken", "text"),  # why the nodes with this fingerprint form no tree
    ),
)

NODES = Table(
    name="policy_nodes",
    record=Node,
    key=("policy_id", "version_id", "ordinal"),
    indexes={"node_id": ("policy_id", "version_id", "node_id")},
    lengths={"policy_id": 100, "version_id": 50, "node_id": 100, "parent_id": 100, "section_path": 500},
    columns={
        **_named(
            Column("policy_id", "text", required=True, length=100),
            Column("version_id", "text", required=True, length=50),
            Column("node_id", "text", required=True, length=100),
            Column("parent_id", "text", length=100),
            Column("title", "text", required=True),
            Column("page_start", "integer"),
            Column("page_end", "integer"),
            Column("page_index", "integer"),
            Column("line_num", "integer"),
            Column("summary", "text"),
            Column("prefix_summary", "text"),
            Column("ordinal", "integer"),
            Column("last_ordinal", "integer"),
            Column("parent_ordinal", "integer"),
            Column("depth", "integer"),
            Column("validation_status", "text", required=True, default="'pending'", length=20),
            Column("metadata", "json"),
            Column("extra", "json"),
            Column("node_hash", "bytes"),
            Column("tree_hash", "bytes"),
            Column("text_hash", "bytes"),
            Column("text", "text"),
        ),
        "section_path": Column("section_number", "text", length=500),
        "updated_at": Column("amended_at", "time"),
    },
    beside=(
        Column("id", "serial", required=True),
        Column("section_path", "text", required=True, length=500),  # the titles from the root down, joined by " > "
        Column("content_hash", "text", required=True, length=64),  # SHA-256 of text, or else summary, or else title, in hex
        Column("updated_at", "time", required=True, default=_NOW),  # of the row, whoever wrote it
    ),
)

PAGE_TEXTS = Table(
    name="treestore_page_texts",
    record=PageText,
    key=("policy_id", "version_id", "page"),
    columns=_named(
        Column("page", "integer", required=True),
        Column("content", "bytes", required=True),
        Column("extra", "json"),
    ),
    beside=(
        Column("policy_id", "text", required=True, length=100),
        Column("version_id", "text", required=True, length=50),
        Column("position", "integer", required=True),
    ),
)

TABLES: dict[type[msgspec.Struct], Table] = {table.record: table for table in (VERSIONS, NODES, PAGE_TEXTS)}
"""All tables by their record."""
