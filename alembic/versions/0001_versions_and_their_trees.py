"""Versions of policies and their trees

``policy_versions`` and ``policy_nodes`` are the reasoning-service's tables as its code has them, with columns of ours that may
be null or have a default. The rest is treestore's own: the policy leads every key, and text in keys is ordered by code points.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NOW = sa.text("timezone('utc', now())")


def upgrade() -> None:
    """Makes all tables."""
    _make_versions()
    _make_nodes()
    _make_page_texts()
    _make_search()
    _make_intervals()
    _make_log()


def downgrade() -> None:
    """Deletes every document: all versions of all policies, and all that is kept of them."""
    for table in (
        "treestore_groups",
        "treestore_policies",
        "treestore_intervals",
        "treestore_lengths",
        "treestore_postings",
        "treestore_page_texts",
        "policy_nodes",
        "policy_versions",
    ):
        op.drop_table(table)


def _key(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length, collation="C"), nullable=False)


def _of_version() -> tuple[sa.Column[str], sa.Column[str]]:
    return _key("policy_id", 100), _key("version_id", 50)


def _make_versions() -> None:
    op.create_table(
        "policy_versions",
        *_of_version(),
        sa.Column("pageindex_doc_id", sa.String(64), nullable=False),
        sa.Column("pdf_sha256", sa.String(64), nullable=False),
        sa.Column("markdown_ptr", sa.Text, nullable=False),
        sa.Column("tree_json_ptr", sa.Text, nullable=False),
        sa.Column("source_url", sa.Text),
        sa.Column("effective_date", sa.DateTime),
        sa.Column("revision_date", sa.DateTime),
        sa.Column("ingested_at", sa.DateTime, server_default=NOW, nullable=False),
        sa.Column("tree_validated_by", sa.String(100)),
        sa.Column("tree_validated_at", sa.DateTime),
        sa.Column("created_at", sa.DateTime, server_default=NOW, nullable=False),
        # Ours.
        sa.Column("updated_at", sa.DateTime),
        sa.Column("deleted_at", sa.DateTime),
        sa.Column("description", sa.Text),
        sa.Column("created_by", sa.Text),
        sa.Column("tags", sa.Text),
        sa.Column("metadata", sa.Text),
        sa.Column("facts", sa.Text),
        sa.Column("node_count", sa.Integer),
        sa.Column("root_count", sa.Integer),
        sa.Column("page_count", sa.Integer),
        sa.Column("node_hash", sa.LargeBinary),
        sa.Column("tree_hash", sa.LargeBinary),
        sa.Column("pages_hash", sa.LargeBinary),
        sa.Column("pageindex", sa.Text),
        sa.Column("revision", sa.Integer),
        sa.Column("analyzer", sa.Text),
        sa.Column("term_count", sa.BigInteger),
        sa.PrimaryKeyConstraint("policy_id", "version_id", name="policy_versions_pkey"),
    )
    op.create_index("ix_policy_versions_policy_id_ingested_at", "policy_versions", ["policy_id", "ingested_at"])


def _make_nodes() -> None:
    op.create_table(
        "policy_nodes",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        *_of_version(),
        _key("node_id", 100),
        sa.Column("parent_id", sa.String(100, collation="C")),
        sa.Column("section_path", sa.String(500), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("page_index", sa.Integer),
        sa.Column("page_start", sa.Integer),
        sa.Column("page_end", sa.Integer),
        sa.Column("summary", sa.Text),
        sa.Column("text", sa.Text),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("validation_status", sa.String(20), server_default="pending", nullable=False),
        sa.Column("updated_at", sa.DateTime, server_default=NOW, nullable=False),
        # Ours.
        sa.Column("section_number", sa.String(500)),
        sa.Column("line_num", sa.Integer),
        sa.Column("prefix_summary", sa.Text),
        sa.Column("ordinal", sa.Integer),
        sa.Column("last_ordinal", sa.Integer),
        sa.Column("parent_ordinal", sa.Integer),
        sa.Column("depth", sa.Integer),
        sa.Column("metadata", sa.Text),
        sa.Column("extra", sa.Text),
        sa.Column("node_hash", sa.LargeBinary),
        sa.Column("tree_hash", sa.LargeBinary),
        sa.Column("text_hash", sa.LargeBinary),
        sa.Column("amended_at", sa.DateTime),
        sa.PrimaryKeyConstraint("id", name="policy_nodes_pkey"),
        sa.ForeignKeyConstraint(
            ["policy_id", "version_id"],
            ["policy_versions.policy_id", "policy_versions.version_id"],
            name="policy_nodes_policy_id_version_id_fkey",
        ),
        sa.CheckConstraint(
            "(page_start IS NULL AND page_end IS NULL) OR page_start <= page_end", name="policy_nodes_page_range_check"
        ),
        sa.CheckConstraint(
            "validation_status IN ('pending', 'approved', 'flagged')", name="policy_nodes_validation_status_check"
        ),
    )
    for column, unique in (("node_id", False), ("parent_id", False), ("ordinal", True)):
        name = f"ix_policy_nodes_policy_id_version_id_{column}"
        op.create_index(name, "policy_nodes", ["policy_id", "version_id", column], unique=unique)


def _make_page_texts() -> None:
    op.create_table(
        "treestore_page_texts",
        *_of_version(),
        sa.Column("position", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("page", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("extra", sa.Text),
        sa.PrimaryKeyConstraint("policy_id", "version_id", "position", name="treestore_page_texts_pkey"),
        sa.UniqueConstraint("policy_id", "version_id", "page", name="treestore_page_texts_page_key"),
    )


def _make_search() -> None:
    op.create_table(
        "treestore_postings",
        *_of_version(),
        sa.Column("segment", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("term", sa.Text(collation="C"), nullable=False),
        sa.Column("packed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("policy_id", "version_id", "segment", "term", name="treestore_postings_pkey"),
    )
    op.create_table(
        "treestore_lengths",
        *_of_version(),
        sa.Column("segment", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("lengths", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("policy_id", "version_id", "segment", name="treestore_lengths_pkey"),
    )


def _make_intervals() -> None:
    op.create_table(
        "treestore_intervals",
        *_of_version(),
        sa.Column("depth", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("packed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("policy_id", "version_id", "depth", "position", name="treestore_intervals_pkey"),
    )


def _make_log() -> None:
    op.create_table(
        "treestore_policies",
        sa.Column("policy_id", sa.String(100, collation="C"), nullable=False),
        sa.Column("changes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("policy_id", name="treestore_policies_pkey"),
    )
    op.create_table(
        "treestore_groups",
        sa.Column("policy_id", sa.String(100, collation="C"), nullable=False),
        sa.Column("group_id", sa.LargeBinary, nullable=False),
        sa.Column("applied_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("policy_id", "group_id", name="treestore_groups_pkey"),
    )
