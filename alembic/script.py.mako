"""${message}

Says what changes and why, and what going down loses. Never imports treestore: it must stay what it was.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """SAY WHAT IT MAKES."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """SAY WHAT IT DELETES: `treestore db downgrade` shows this line before it does so."""
    ${downgrades if downgrades else "pass"}
