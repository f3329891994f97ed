"""What Alembic runs for each of its commands: it finds the database, and says which of its tables are ours.

``treestore db`` and :mod:`treestore.backends.postgres.migrations` hand over a connection; plain ``alembic`` has an address,
``-x url=…`` or ``TREESTORE_URL``. All revisions of one command are applied in one transaction: all of them, or none.
Offline (``--sql``) needs no database.
"""

from __future__ import annotations

import sys
from logging.config import fileConfig

from alembic import context
from alembic.util import CommandError

from treestore.backends.postgres import migrations
from treestore.errors import TreestoreError


def offline() -> None:
    """Write the SQL that would be run."""
    context.configure(dialect_name="postgresql", literal_binds=True, **migrations.OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


def say(line: str) -> None:
    """One line to stderr: what is waited for."""
    sys.stderr.write(f"{line}\n")


def online() -> None:
    """Run in the transaction of the connection that was handed over, or of one that is made and committed here; the tables of
    a reasoning-service are adopted before."""
    given = context.config.attributes.get("connection")
    if given is not None:
        context.configure(connection=given, **migrations.OPTIONS)
        context.run_migrations()
        return
    verb = getattr(context.config.cmd_opts, "cmd", None)
    url = context.get_x_argument(as_dictionary=True).get("url")
    try:
        address = migrations.address_of(url)
        if verb is not None and verb[0].__name__ in ("upgrade", "downgrade"):
            migrations.before_alembic(address, verb[0].__name__, context.config.cmd_opts.revision, say)
        with migrations.translated(address), migrations.transaction(address) as connection:
            context.configure(connection=connection, **migrations.options(connection))
            context.run_migrations()
    except TreestoreError as error:
        raise CommandError(str(error)) from error  # which alembic shows as one line


if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
if context.is_offline_mode():
    offline()
else:
    online()
