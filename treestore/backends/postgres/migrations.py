"""The schema's revisions: making the tables, bringing them up to date, taking them back, and comparing them with the catalog.

The revisions are Alembic's, in ``alembic/`` of the checkout, which the wheel ships beside this module; plain ``alembic`` in a
checkout does the same. All of one command happens in one transaction: PostgreSQL's DDL is transactional, so a command that
fails, or is killed, has changed nothing. There are no locks beyond the tables' own. Of two processes that upgrade at once, one
finds that the other has made what it was about to make, looks again, and goes on from there.

Tables that a reasoning-service has made, and those that treestore shares with it, are the exception: they are changed in
steps, by :mod:`treestore.backends.postgres.adoption`, without the revisions.

Everything here blocks; under asyncio it belongs into a thread. Errors are treestore's.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from treestore.backends.postgres import adoption, errors
from treestore.backends.postgres.address import Address, parse
from treestore.backends.postgres.adoption import OVERTAKEN, Say
from treestore.backends.postgres.comparison import OPTIONS as OPTIONS
from treestore.backends.postgres.comparison import differ
from treestore.backends.postgres.comparison import options as options
from treestore.backends.postgres.connecting import transaction as transaction
from treestore.backends.postgres.connecting import translated as translated
from treestore.backends.postgres.locks import commented
from treestore.backends.postgres.shape import look
from treestore.backends.postgres.tables import REVISIONS, VERSION_TABLE, VERSIONS
from treestore.config import Settings
from treestore.errors import MigrationError, NoStore, TreestoreError

ATTEMPTS = 5
"""How often an upgrade looks again after another process was quicker."""

_one_at_a_time = threading.Lock()
"""Alembic's environment is global to the process."""


class Revision(NamedTuple):
    """A revision of the schema: its id, what it is about, and what going down from it deletes."""

    revision: str
    title: str
    deletes: str


def _silent(line: str) -> None:
    """Tells nobody."""


def upgrade(address: Address, revision: str = "head", *, adopt: bool = True, say: Say = _silent) -> None:
    """Bring the database up to a revision, the newest by default; nothing happens where it is already. An empty one is filled.
    The tables of a reasoning-service are adopted, unless ``adopt`` is false; ``say`` is told what that waits for.

    Raises MigrationError: the revision is not known, the database is newer than this code, or it holds tables of these names
    that treestore has not made; NotAStore or AccessDenied: they can't be adopted; else what connecting and DDL raise
    (Unavailable, Timeout, AccessDenied, ReadOnly, NoStore).
    """
    if adopt and _adopt(address, revision, say):
        return
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
            if attempt == ATTEMPTS or not (state in OVERTAKEN or isinstance(cause, CommandError)):
                raise
            if current(address) == before and not errors.is_again(cause):  # then it was nobody who was quicker
                raise (_strangers(address, cause) if state == "42P07" else error) from cause


def downgrade(address: Address, revision: str, *, say: Say = _silent) -> None:
    """Take the database back to an older revision, "base" for nothing at all. What :func:`deletions` names is gone. Adopted
    tables are left to those whose they were.

    Raises as :func:`upgrade`; MigrationError also where tables of others refer to ours, which stay then.
    """
    _check_known(address, current(address))
    if _leaving(address, revision) is not None:
        adoption.follow(address, adoption.leaving, say)
        return
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


def adopted(address: Address) -> bool:
    """Whether the tables are shared with the code of a reasoning-service that has made them."""
    with translated(address), transaction(address) as connection:
        return look(connection, address.shown).adopted


def history() -> list[Revision]:
    """All revisions that this code knows, oldest first."""
    return [_revision(script) for script in reversed(list(_scripts().walk_revisions()))]


def deletions(address: Address, revision: str) -> list[Revision]:
    """The revisions that a downgrade would take back, in its order, the newest first. Raises as :func:`downgrade`."""
    now = current(address)
    _check_known(address, now)
    leaving = _leaving(address, revision)
    if leaving is not None:
        return [leaving]
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


def dry_run(address: Address, revision: str = "head") -> str:
    """The statements that :func:`upgrade` would run on this database as it is now, in order, each with the lock that it takes;
    empty if none. Only catalogs and notes of revisions are read. Raises as :func:`upgrade`."""
    now = current(address)
    _check_known(address, now)
    with translated(address):
        if steps := adoption.looked(address, adoption.adopting):
            _check_newest(address, revision)
            return adoption.script(address, steps)
    if now is not None and revision in REVISIONS[: REVISIONS.index(now) + 1]:
        return ""
    parts = [part.strip() for part in sql(revision if now is None else f"{now}:{revision}").split("\n\n") if part.strip()]
    some = len(parts) > len(("BEGIN", "COMMIT"))
    return "\n".join(f"{part}\n" if part.startswith("--") else commented(part) for part in parts) if some else ""


# --- what plain alembic uses too -----------------------------------------------------------------------------------------


def address_of(url: str | None) -> Address:
    """The address that plain ``alembic`` is given: ``-x url=…``, else TREESTORE_URL. Raises InvalidInput."""
    settings = Settings.from_environment()
    return parse(settings.url if url is None else url, settings)


def before_alembic(address: Address, verb: str, revision: str, say: Say) -> None:
    """What has to be done before plain ``alembic`` runs its revisions: tables to adopt are adopted, which leaves it nothing to
    do. It does not go down from adopted ones: MigrationError. Else raises as :func:`upgrade`."""
    if verb == "upgrade":
        _adopt(address, revision, say)
    elif verb == "downgrade" and _leaving(address, "base") is not None:
        raise MigrationError(f"{address.shown}: its tables are shared; 'treestore db downgrade base' takes ours out of them")


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


# --- tables that are shared ----------------------------------------------------------------------------------------------


def _adopt(address: Address, revision: str, say: Say) -> bool:
    """Adopt the tables of a reasoning-service. False: there are none to adopt."""
    with translated(address):
        if not adoption.looked(address, adoption.adopting):
            return False
    _check_newest(address, revision)
    return adoption.follow(address, adoption.adopting, say)


def _check_newest(address: Address, revision: str) -> None:
    if revision not in ("head", "heads", REVISIONS[-1]):
        rule = f"tables of others are adopted at the newest revision, {REVISIONS[-1]}, at no other ({revision})"
        raise MigrationError(f"{address.shown}: {rule}")


def _leaving(address: Address, revision: str) -> Revision | None:
    """What a downgrade to nothing deletes of adopted tables, or of what an interrupted adoption has left. None: they are not
    adopted, or it goes nowhere. Raises MigrationError for a revision in between."""
    with translated(address), transaction(address) as connection:
        database = look(connection, address.shown)
        if not adoption.leaving(database):
            return None
        lost = adoption.lost_by_leaving(connection, database)
    if revision in ("head", "heads", *database.revision):
        return None
    if revision != "base":
        raise MigrationError(f"{address.shown}: shared tables are at revision {REVISIONS[-1]} or at base, not at {revision}")
    noted = database.revision or ["an adoption that was not finished"]
    return Revision(noted[0], "the tables of a reasoning-service, shared with its code", lost)
