"""Whether a database has the tables that this code works on, and making them where it has none."""

from __future__ import annotations

import asyncio

import asyncpg

from treestore.backends.postgres.address import Address
from treestore.backends.postgres.errors import check_encoding
from treestore.backends.postgres.session import Session
from treestore.backends.postgres.tables import ADOPTION, REVISIONS, SHARED, VERSION_TABLE, VERSIONS
from treestore.errors import MigrationError, NoStore, NotAStore

_REVISION = f"SELECT version_num FROM {VERSION_TABLE}"
_TABLES = f"SELECT concat_ws(' and ', {', '.join(f'to_regclass({table.name!r})::text' for table in SHARED)})"
_BEGUN = (  # columns of ours, and no table
    f"SELECT to_regclass('{ADOPTION.name}') IS NULL FROM pg_attribute"
    f" WHERE attrelid = to_regclass('{VERSIONS.name}') AND attname = '{VERSIONS.c.broken.name}'"
)


async def prepare_schema(session: Session, address: Address, create: bool) -> None:
    """Make sure that the tables are those of this code. In a database without any they are made, if ``create``. Opening never
    adopts those of others.

    Raises NoStore, NotAStore, MigrationError, and errors of the driver.
    """
    check_encoding(await session.value("SHOW server_encoding"), address.shown)
    revision = await _revision(session)
    if revision is None:
        if found := await session.value(_TABLES):
            begun = f"an upgrade that adopts {found} was interrupted; 'treestore db upgrade' finishes it"
            strange = f"there are tables of others, {found}; 'treestore db upgrade' adopts those of a reasoning-service"
            told = begun if await session.value(_BEGUN) else strange
            raise NotAStore(f"{address.shown}: {told} (docs/adopting.md)")
        if not create:
            raise NoStore(f"{address.shown}: the database holds no store yet; 'treestore db upgrade' makes one")
        from treestore.backends.postgres import migrations

        await asyncio.to_thread(migrations.upgrade, address, adopt=False)
        revision = await _revision(session)
    check_revision(revision, address.shown)


def check_revision(revision: str | None, where: str) -> None:
    """Raise MigrationError unless a schema has the revision of this code."""
    if revision == REVISIONS[-1]:
        return
    if revision in REVISIONS:
        raise MigrationError(f"{where}: the tables are of revision {revision}, older than this code; 'treestore db upgrade'")
    raise MigrationError(f"{where}: the tables are of revision {revision}, newer than this code: use a newer treestore")


async def _revision(session: Session) -> str | None:
    try:
        found: str | None = await session.value(_REVISION)
    except asyncpg.UndefinedTableError:
        return None
    return found

