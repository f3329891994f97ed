"""Fingerprints of versions that the reasoning-service's code writes too

What its code writes has no columns of ours and leaves those that were there stale. A version's row keeps what its nodes were
when they were derived, so that this is noticed.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def columns() -> list[sa.Column[Any]]:
    """What is ours of the reasoning-service's table of versions."""
    return [
        sa.Column("fingerprint_count", sa.Integer),
        sa.Column("fingerprint_id", sa.BigInteger),
        sa.Column("fingerprint_updates", sa.BigInteger),
        sa.Column("fingerprint_row", sa.Integer),
        sa.Column("broken", sa.Text),
    ]


def upgrade() -> None:
    """Adds the columns of the fingerprint, and the table that says whether the tables are shared."""
    for column in columns():
        op.add_column("policy_versions", column)
    op.create_table(
        "treestore_adoption",
        sa.Column("adopted_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("adopted_at", name="treestore_adoption_pkey"),
    )


def downgrade() -> None:
    """Deletes the fingerprints, and no document."""
    # Fails where there is a row: 0001 would drop tables that are not ours. 'treestore db downgrade base' leaves them.
    op.create_check_constraint("tables_are_not_shared", "treestore_adoption", "adopted_at IS NULL")
    op.drop_table("treestore_adoption")
    for column in reversed(columns()):
        op.drop_column("policy_versions", column.name)
