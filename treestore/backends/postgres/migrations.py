"""The schema's revisions: making the tables, bringing them up to date, taking them back, and comparing them with the catalog.

The revisions are Alembic's, in ``alembic/`` of the checkout, which the wheel ships beside this module; plain ``alembic`` in a
checkout does the same. All of one command happens in one transaction: PostgreSQL's DDL is transactional, so a command that
fails, or is killed, has changed nothing. There are no locks beyond the tables' own. Of two processes that upgrade at once, one
finds that the other has made what it was about to make, looks again, and goes on from there.

Everything here blocks; under asyncio it belongs into a thread. Errors are treestore's.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from treestore.backends.postgres import errors
from treestore.backends.postgres.address import Address, parse
from treestore.backends.postgres.comparison import OPTIONS as OPTIONS
from treestore.backends.postgres.comparison import differ
from treestore.backends.postgres.tables import REVISIONS, VERSION_TABLE, VERSIONS
from treestore.config import Settings
from treestore.errors import MigrationError, NoStore, Timeout, TreestoreError

ATTEMPTS = 5
"""How often an upgrade looks again after another process was quicker."""

_OVERTAKEN = frozenset({"23505", "40001", "40P01", "42701", "42710", "42P07"})
"""What an upgrade meets if another one commits the same: a key, a table, a column, an index that is there already."""

_one_at_a_time = threading.Lock()
"""Alembic's environment is global to the process."""


class Revision(NamedTuple):
    """A revision of the schema: its id, what it is about, and what going down from it deletes."""

    revision: str
    title: str
    deletes: str


def upgrade(address: Address, revision: str = "head") -> None:
    """Bring the database up to a revision, the newest by default; nothing happens where it is already. An empty one is filled.

    Raises MigrationError: the revision is not known, the database is newer than this code, or it holds tables of these names
    that treestore has not made; else what connecting and DDL raise (Unavailable, Timeout, AccessDenied, ReadOnly, NoStore).
    """
    for attempt in range(1, ATTEMPTS + 1):
        before = current(address)
        _check_known(address, before)
        try:
            with translated(address), transaction(address) as connection:
                _run(command.upgrade, revision, connection)
            return
        except TreestoreError as error:
            cause = error.__cause__ or error
            state = errors.state_of(cause)
            if attempt == ATTEMPTS or not (state in _OVERTAKEN or isinstance(cause, CommandError)):
                raise
            if current(address) == before and not errors.is_again(cause):  # then it was nobody who was quicker
                raise (_strangers(address, cause) if state == "42P07" else error) from cause


def downgrade(address: Address, revision: str) -> None:
    """Take the database back to an older revision, "base" for nothing at all. What :func:`deletions` names is gone.

    Raises as :func:`upgrade`; MigrationError also where tables of others refer to ours, which stay then.
    """
    _check_known(address, current(address))
    with translated(address), transaction(address) as connection:
        _run(command.downgrade, revision, connection)
        context = MigrationContext.configure(connection, opts=OPTIONS)
        if not context.get_current_heads():
            connection.execute(sqlalchemy.text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))


def current(address: Address) -> str | None:
    """The revision that the database is at; ``None``: it has none of our tables, or was taken back to nothing.

    Raises MigrationError where several are noted, else as :func:`upgrade`.
    """
    with translated(address), transaction(address) as connection:
        heads = MigrationContext.configure(connection, opts=OPTIONS).get_current_heads()
    if len(heads) > 1:
        raise MigrationError(f"{address.shown}: {VERSION_TABLE} notes several revisions: {', '.join(heads)}")
    return heads[0] if heads else None


def history() -> list[Revision]:
    """All revisions that this code knows, oldest first."""
    return [_revision(script) for script in reversed(list(_scripts().walk_revisions()))]


def deletions(address: Address, revision: str) -> list[Revision]:
    """The revisions that a downgrade would take back, in its order, the newest first. Raises as :func:`downgrade`."""
    now = current(address)
    _check_known(address, now)
    if now is None:
        return []
    with translated(address):
        return [_revision(script) for script in _scripts().iterate_revisions(now, revision)]


def counted_versions(address: Address) -> int:
    """How many versions of policies the database holds, with those whose content was deleted."""
    with translated(address), transaction(address) as connection:
        return connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(VERSIONS)).scalar_one()


def differences(address: Address) -> list[str]:
    """In what the database's tables differ from those that this code works on, one line each; empty if in nothing.

    Tables, columns and indexes of others are no difference. Raises MigrationError where the database is at another revision
    than this code's, and as :func:`upgrade`.
    """
    now = current(address)
    if now is None:
        raise NoStore(f"{address.shown}: there is no treestore; 'treestore db upgrade' makes its tables")
    _check_known(address, now)
    if now != REVISIONS[-1]:
        rule = f"is at revision {now}, this code works on {REVISIONS[-1]}; 'treestore db upgrade' brings it there"
        raise MigrationError(f"{address.shown} {rule}")
    with translated(address), transaction(address) as connection:
        return differ(connection)


def sql(revision: str = "head") -> str:
    """The statements that bring an empty database to a revision, or from one to another (``"0001:head"``), as a script.

    Raises MigrationError if a revision is not known.
    """
    with translated(None):
        return _run(command.upgrade, revision, None)


def sql_down(revisions: str) -> str:
    """The statements that take a database from one revision to an older one (``"0001:base"``). Raises as :func:`sql`."""
    with translated(None):
        return _run(command.downgrade, revisions, None)


# --- what plain alembic uses too -----------------------------------------------------------------------------------------


def address_of(url: str | None) -> Address:
    """The address that plain ``alembic`` is given: ``-x url=…``, else TREESTORE_URL. Raises InvalidInput."""
    settings = Settings.from_environment()
    return parse(settings.url if url is None else url, settings)


@contextmanager
def transaction(address: Address) -> Generator[sqlalchemy.Connection]:
    """A connection of its own, in a transaction that is committed at the end. Raises drivers' errors."""
    engine = sqlalchemy.create_engine(
        address.sqlalchemy_url(),
        poolclass=sqlalchemy.NullPool,
        use_native_hstore=False,  # it is looked for under a savepoint
        # Prepared statements do not outlive a transaction behind PgBouncer; in SQL_ASCII psycopg gives bytes for text.
        connect_args={"prepare_threshold": None, "client_encoding": "UTF8"},
    )
    with engine.begin() as connection:
        errors.check_encoding(connection.exec_driver_sql("SHOW server_encoding").scalar_one(), address.shown)
        if address.pgbouncer:
            connection.execute(sqlalchemy.text(f"SET LOCAL statement_timeout = {address.statement_timeout_ms}"))
        yield connection


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


# --- what these functions are made of ------------------------------------------------------------------------------------


def folder() -> Path:
    """Where Alembic's files are: beside this module in a wheel, at the top of a checkout."""
    shipped = Path(__file__).parent / "alembic"
    return shipped if shipped.is_dir() else Path(__file__).parents[3] / "alembic"


def _config(output: io.StringIO) -> Config:
    config = Config(stdout=output, output_buffer=output)
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(io.StringIO()))


def _revision(script: Any) -> Revision:
    return Revision(script.revision, script.doc, (script.module.downgrade.__doc__ or "").strip())


def _run(step: Callable[..., None], revision: str, connection: sqlalchemy.Connection | None) -> str:
    """Run one of Alembic's commands on a connection or, without one, write its SQL, which is returned."""
    output = io.StringIO()
    config = _config(output)
    config.attributes["connection"] = connection
    with _one_at_a_time:
        step(config, revision, sql=connection is None)
    return output.getvalue()


def _check_known(address: Address, now: str | None) -> None:
    """Nothing is done to a schema that a newer treestore has made: what it needs is not known here."""
    if now is not None and now not in REVISIONS:
        known = f"this one knows revisions up to {REVISIONS[-1]}"
        raise MigrationError(f"{address.shown} is at revision {now}, which a newer treestore has made; {known}")


def _strangers(address: Address, error: BaseException) -> MigrationError:
    rule = f"{address.shown} has tables of these names that treestore has not made; name another database"
    return MigrationError(f"{rule} ({' '.join(str(error).split())})")


# --- errors --------------------------------------------------------------------------------------------------------------


def _meaning(error: BaseException, address: Address | None) -> TreestoreError:
    where = "" if address is None else address.shown
    state = errors.state_of(error)
    if state == "2BP01":
        return MigrationError(f"{where}: tables of others refer to ours, nothing was changed ({' '.join(str(error).split())})")
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
