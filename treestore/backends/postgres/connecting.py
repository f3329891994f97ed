"""One connection that blocks, for work on the schema, and what its errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import sqlalchemy
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from treestore.backends.postgres import errors
from treestore.backends.postgres.address import Address
from treestore.backends.postgres.tables import REVISIONS
from treestore.errors import MigrationError, Timeout, TreestoreError


@contextmanager
def transaction(address: Address) -> Generator[sqlalchemy.Connection]:
    """A connection of its own, in a transaction that is committed at the end. Raises drivers' errors."""
    with _engine(address, "READ COMMITTED").begin() as connection:
        errors.check_encoding(connection.exec_driver_sql("SHOW server_encoding").scalar_one(), address.shown)
        if address.pgbouncer:
            connection.execute(sqlalchemy.text(f"SET LOCAL statement_timeout = {address.statement_timeout_ms}"))
        yield connection


@contextmanager
def no_transaction(address: Address) -> Generator[sqlalchemy.Connection]:
    """A connection of its own on which each statement is committed by itself. Raises drivers' errors."""
    with _engine(address, "AUTOCOMMIT").connect() as connection:
        yield connection


def _engine(address: Address, isolation: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(
        address.sqlalchemy_url(),
        poolclass=sqlalchemy.NullPool,
        isolation_level=isolation,
        use_native_hstore=False,  # it is looked for under a savepoint
        # Prepared statements do not outlive a transaction behind PgBouncer; in SQL_ASCII psycopg gives bytes for text.
        connect_args={"prepare_threshold": None, "client_encoding": "UTF8"},
    )


@contextmanager
def translated(address: Address | None) -> Generator[None]:
    """What drivers and Alembic raise, as errors of treestore that say where."""
    where = "" if address is None else address.shown
    try:
        yield
    except DBAPIError as error:
        cause: BaseException = error.orig or error
        raise _meaning(cause, address) from cause
    except (CommandError, RevisionError) as error:
        told = " ".join(f"{where}: {error}".removeprefix(": ").split())
        raise MigrationError(f"{told} (known are base, {', '.join(REVISIONS)} and head)") from error
    except OSError as error:
        raise errors.translate(error, where) from error


_HELD = {
    "2BP01": "tables of others refer to ours, nothing was changed",
    "0A000": "what others have made of the tables is in the way, nothing was changed",
}
"""What keeps a table or a column from being dropped or changed."""


def _meaning(error: BaseException, address: Address | None) -> TreestoreError:
    where = "" if address is None else address.shown
    state = errors.state_of(error)
    if state in _HELD:
        return MigrationError(f"{where}: {_HELD[state]} ({' '.join(str(error).split())})")
    if not state and address is not None:
        return errors.translate(_refusal(error, address), where)
    return errors.translate(error, where)


def _refusal(error: BaseException, address: Address) -> BaseException:
    """Why a connection was refused. libpq tells psycopg in words alone, in the server's language; asyncpg is told the
    SQLSTATE, so it is asked to connect too."""
    import psycopg

    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return Timeout(f"{address.shown}: PostgreSQL did not answer within {address.connect_timeout:g} s")
    with ThreadPoolExecutor(1) as thread:  # this one may run a loop already
        return thread.submit(asyncio.run, _tried(address)).result() or error


async def _tried(address: Address) -> BaseException | None:
    import asyncpg

    try:
        connection = await asyncpg.connect(**address.asyncpg_arguments())
    except Exception as error:
        return error
    await connection.close(timeout=address.connect_timeout)
    return None
