"""The tables of a relational store: the catalog's as SQLAlchemy has them, and those that keep what is beside the records.

    policy_versions, policy_nodes   the reasoning-service's tables with columns of ours, see treestore.catalog
    treestore_page_texts            kept page texts, by their position in the document
    treestore_postings              rows of postings, by the first term of each: treestore.search.postings
    treestore_lengths               how many terms each node of a segment has
    treestore_intervals             rows of page ranges: treestore.trees.intervals
    treestore_policies              one row for each policy, which a writer locks before it changes anything of it
    treestore_groups                the write groups applied of late
    treestore_adoption              one row, if the first two tables are shared with the reasoning-service's own code

The policy leads every key and index of ours, and text in keys is ordered by code points (``COLLATE "C"``), on any server.
There are no triggers, extensions or foreign keys of ours: a group is written whole, and a check finds what belongs to nobody.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy import Column as SqlColumn
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from treestore import catalog
from treestore.catalog import Column

REVISIONS = ("0001", "0002")
"""The schema's revisions, oldest first; the last one is what this code works on."""

VERSION_TABLE = "treestore_alembic_version"
"""Where Alembic notes the revision of our tables: a table of our own, as the service's history has its own."""

HISTORY = "693889b485e5"
"""The one revision of the reasoning-service's own history, in ``alembic_version``, whose tables are known here."""

TITLES_LENGTH = 500
"""The length of ``policy_nodes.section_path``: the titles from the root down, cut off there."""

DIALECT: Dialect = registry.load("postgresql")()

METADATA = MetaData()

KEYS = frozenset({"policy_id", "version_id", "node_id", "parent_id", "term"})
"""Columns by which rows are found or put in order: in that of code points."""


def _type(column: Column) -> TypeEngine[Any]:
    collation = "C" if column.name in KEYS else None
    match column.kind:
        case "text" if column.length is not None:
            return String(column.length, collation=collation)
        case "text":
            return Text(collation=collation)
        case "integer" | "serial":
            return Integer()
        case "bigint":
            return BigInteger()
        case "bytes":
            return LargeBinary()
        case "time":
            return TIMESTAMP(timezone=False)
        case "json":
            return Text()


def _column(column: Column) -> SqlColumn[Any]:
    default = None if column.default is None else text(column.default)
    serial = column.kind == "serial"
    return SqlColumn(column.name, _type(column), nullable=not column.required, server_default=default, autoincrement=serial)


def _of_catalog(table: catalog.Table, *constraints: Any) -> Table:
    columns = {column.name: column for column in (*table.beside, *table.columns.values())}
    return Table(table.name, METADATA, *map(_column, columns.values()), *constraints)


def _of_version(name: str, key: tuple[str, ...], *columns: Column) -> Table:
    """A table of ours that keeps something of each version."""
    owner = (Column("policy_id", "text", required=True, length=100), Column("version_id", "text", required=True, length=50))
    primary = PrimaryKeyConstraint("policy_id", "version_id", *key, name=f"{name}_pkey")
    return Table(name, METADATA, *map(_column, (*owner, *columns)), primary)


VERSIONS = _of_catalog(
    catalog.VERSIONS,
    PrimaryKeyConstraint("policy_id", "version_id", name="policy_versions_pkey"),
    Index("ix_policy_versions_policy_id_ingested_at", "policy_id", "ingested_at"),
)

NODES = _of_catalog(
    catalog.NODES,
    PrimaryKeyConstraint("id", name="policy_nodes_pkey"),
    ForeignKeyConstraint(
        ("policy_id", "version_id"),
        ("policy_versions.policy_id", "policy_versions.version_id"),
        name="policy_nodes_policy_id_version_id_fkey",
    ),
    CheckConstraint(
        "(page_start IS NULL AND page_end IS NULL) OR page_start <= page_end", name="policy_nodes_page_range_check"
    ),
    CheckConstraint(
        "validation_status IN ('pending', 'approved', 'flagged')", name="policy_nodes_validation_status_check"
    ),
    Index("ix_policy_nodes_policy_id_version_id_node_id", "policy_id", "version_id", "node_id"),
    Index("ix_policy_nodes_policy_id_version_id_parent_id", "policy_id", "version_id", "parent_id"),
    Index("ix_policy_nodes_policy_id_version_id_ordinal", "policy_id", "version_id", "ordinal", unique=True),
)

PAGE_TEXTS = _of_catalog(
    catalog.PAGE_TEXTS,
    PrimaryKeyConstraint("policy_id", "version_id", "position", name="treestore_page_texts_pkey"),
    UniqueConstraint("policy_id", "version_id", "page", name="treestore_page_texts_page_key"),
)

POSTINGS = _of_version(
    "treestore_postings",
    ("segment", "term"),
    Column("segment", "integer", required=True),
    Column("term", "text", required=True),
    Column("packed", "bytes", required=True),
)

LENGTHS = _of_version(
    "treestore_lengths",
    ("segment",),
    Column("segment", "integer", required=True),
    Column("lengths", "bytes", required=True),
)

INTERVALS = _of_version(
    "treestore_intervals",
    ("depth", "position"),
    Column("depth", "integer", required=True),
    Column("position", "integer", required=True),
    Column("packed", "bytes", required=True),
)

POLICIES = Table(
    "treestore_policies",
    METADATA,
    _column(Column("policy_id", "text", required=True, length=100)),
    _column(Column("changes", "bigint", required=True)),  # how many groups have changed anything of it
    PrimaryKeyConstraint("policy_id", name="treestore_policies_pkey"),
)

GROUPS = Table(
    "treestore_groups",
    METADATA,
    *map(
        _column,
        (
            Column("policy_id", "text", required=True, length=100),
            Column("group_id", "bytes", required=True),
            Column("applied_at", "time", required=True),
        ),
    ),
    PrimaryKeyConstraint("policy_id", "group_id", name="treestore_groups_pkey"),
)

ADOPTION = Table(
    "treestore_adoption",
    METADATA,
    _column(Column("adopted_at", "time", required=True)),
    PrimaryKeyConstraint("adopted_at", name="treestore_adoption_pkey"),
)

CONTENT = (NODES, PAGE_TEXTS, POSTINGS, LENGTHS, INTERVALS)
"""The tables that a version's content lies in."""

BY_RECORD: dict[type[Any], Table] = {catalog.VERSIONS.record: VERSIONS}
"""The plain tables by their record."""

THEIRS: dict[str, frozenset[str]] = {
    VERSIONS.name: frozenset({
        "policy_id", "version_id", "pageindex_doc_id", "pdf_sha256", "markdown_ptr", "tree_json_ptr", "source_url",
        "effective_date", "revision_date", "ingested_at", "tree_validated_by", "tree_validated_at", "created_at",
    }),
    NODES.name: frozenset({
        "id", "policy_id", "version_id", "node_id", "parent_id", "section_path", "title", "page_index", "page_start",
        "page_end", "summary", "text", "content_hash", "validation_status", "updated_at",
    }),
}
"""The reasoning-service's columns of its tables; the others are ours."""

SHARED = (VERSIONS, NODES)
"""The tables that the reasoning-service's code may have made, and then goes on using."""

COVERED: dict[str, tuple[str, ...]] = {"ix_policy_nodes_policy_id_version_id_ordinal": ("id", "updated_at")}
"""What an index holds beside its key on adopted tables: the fingerprint of a version is read there, without its rows."""


def ours(table: Table) -> list[SqlColumn[Any]]:
    """The columns of one of the shared tables that its first owner does not know, in their order."""
    return [column for column in table.columns if column.name not in THEIRS[table.name]]
