"""The service's own Alembic environment. Its history is noted in ``alembic_version``, as Alembic does by itself."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from tests.adoption.old_service.models import Base

engine = create_engine(context.config.attributes["url"], poolclass=NullPool)
with engine.connect() as connection:
    context.configure(
        connection=connection, target_metadata=Base.metadata, **context.config.attributes.get("options", {})
    )
    with context.begin_transaction():
        context.run_migrations()
