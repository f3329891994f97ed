"""The tables of policies and of what was concluded by them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "693889b485e5"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _make_policies()
    _make_conclusions()


def _make_policies() -> None:
    op.create_table(
        "policy_versions",
        *_version(),
        sa.Column("pageindex_doc_id", sa.String(64), nullable=False),
        sa.Column("pdf_sha256", sa.String(64), nullable=False),
        sa.Column("markdown_ptr", sa.Text, nullable=False),
        sa.Column("tree_json_ptr", sa.Text, nullable=False),
        sa.Column("source_url", sa.Text),
        sa.Column("effective_date", sa.DateTime),
        sa.Column("revision_date", sa.DateTime),
        _moment("ingested_at"),
        sa.Column("tree_validated_by", sa.String(100)),
        sa.Column("tree_validated_at", sa.DateTime),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("policy_id", "version_id"),
    )
    op.create_index("idx_versions_recent", "policy_versions", ["policy_id", "ingested_at"])
    op.create_table(
        "policy_nodes",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        *_version(),
        sa.Column("node_id", sa.String(100), nullable=False),
        sa.Column("parent_id", sa.String(100)),
        sa.Column("section_path", sa.String(500), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("page_index", sa.Integer),
        sa.Column("page_start", sa.Integer),
        sa.Column("page_end", sa.Integer),
        sa.Column("summary", sa.Text),
        sa.Column("text", sa.Text),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("validation_status", sa.String(20), server_default="pending", nullable=False),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("id"),
        _of_version("fk_nodes_version"),
        sa.CheckConstraint(
            "(page_start IS NULL AND page_end IS NULL) OR page_start <= page_end", name="ck_nodes_pages"
        ),
        sa.CheckConstraint("validation_status IN ('pending', 'approved', 'flagged')", name="ck_nodes_status"),
    )
    op.create_index("idx_nodes_by_node", "policy_nodes", ["policy_id", "version_id", "node_id"])
    op.create_index("idx_nodes_by_parent", "policy_nodes", ["policy_id", "version_id", "parent_id"])


def _make_conclusions() -> None:
    op.create_table(
        "reasoning_outputs",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("case_id", sa.String(100), nullable=False),
        sa.Column("criterion_id", sa.String(100), nullable=False),
        *_version(),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("rationale", sa.Text),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("id"),
        _of_version("fk_outputs_version"),
    )
    op.create_table(
        "policy_validation_issues",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        *_version(),
        sa.Column("node_id", sa.String(100)),
        sa.Column("issue", sa.Text, nullable=False),
        sa.Column("output_id", sa.Integer),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("id"),
        _of_version("fk_issues_version"),
        sa.ForeignKeyConstraint(["output_id"], ["reasoning_outputs.id"], name="fk_issues_output"),
    )


def _version() -> tuple[sa.Column[str], sa.Column[str]]:
    return sa.Column("policy_id", sa.String(100), nullable=False), sa.Column("version_id", sa.String(50), nullable=False)


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime, server_default=sa.func.now(), nullable=False)


def _of_version(name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["policy_id", "version_id"], ["policy_versions.policy_id", "policy_versions.version_id"], name=name
    )


def downgrade() -> None:
    for table in ("policy_validation_issues", "reasoning_outputs", "policy_nodes", "policy_versions"):
        op.drop_table(table)
