"""For each record its table, as plain data: the key, the indexes and the greatest lengths of its columns.

Every store is made from this: the native one its key families, a relational one its tables. Lengths are in characters and
those of the running reasoning-service's tables, so that what one store accepts every store accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from treestore.records import Node, PageText, Version


@dataclass(frozen=True)
class Table:
    """``key`` names the fields of the primary key; ``indexes`` maps an index's name to its leading fields (the key's own
    fields follow, so an index entry is always unique); ``lengths`` are in characters."""

    name: str
    record: type[msgspec.Struct]
    key: tuple[str, ...]
    indexes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)

    def key_of(self, record: msgspec.Struct) -> tuple[Any, ...]:
        """The primary key of a record of this table."""
        return tuple(getattr(record, name) for name in self.key)


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
)

NODES = Table(
    name="policy_nodes",
    record=Node,
    key=("policy_id", "version_id", "ordinal"),
    indexes={"node_id": ("policy_id", "version_id", "node_id")},
    lengths={"policy_id": 100, "version_id": 50, "node_id": 100, "parent_id": 100, "section_path": 500},
)

PAGE_TEXTS = Table(name="page_texts", record=PageText, key=("policy_id", "version_id", "page"))

TABLES: dict[type[msgspec.Struct], Table] = {table.record: table for table in (VERSIONS, NODES, PAGE_TEXTS)}
"""All tables by their record."""
