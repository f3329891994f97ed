"""The verbs on a PostgreSQL store's schema: making its tables, bringing them up to date, taking them back, comparing them."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from treestore.cli.options import Json, Store, refuse, store_url
from treestore.cli.output import counted, printable, say, write, write_json, write_table
from treestore.errors import InvalidInput

if TYPE_CHECKING:
    from treestore.backends.postgres.address import Address

app = typer.Typer(add_completion=False)

Revision = Annotated[str, typer.Argument(metavar="[REVISION]", help="A revision's id, or head: the newest.")]


@app.callback()
def _schema() -> None:
    """The schema of a PostgreSQL store."""


@app.command()
def upgrade(
    context: typer.Context,
    revision: Revision = "head",
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL for an empty database and change nothing.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the SQL for this database, with its locks, and change nothing.")
    ] = False,
    store: Store = None,
) -> None:
    """Make the tables, or bring them up to date.

    All in one transaction. Tables that a reasoning-service has made are adopted beside its running code, in short steps; what
    is interrupted there is finished by doing it again. With --sql, FROM:TO as REVISION prints what leads from one revision to
    another.
    """
    need_packages()
    from treestore.backends.postgres import migrations

    if sql:
        write(migrations.sql(revision))
        return
    address = database_address(context, store)
    if dry_run:
        write(migrations.dry_run(address, revision) or "-- nothing is to be done\n")
        return
    before = migrations.current(address)
    migrations.upgrade(address, revision, say=say)
    after = migrations.current(address)
    was = before or ("the tables of a reasoning-service" if migrations.adopted(address) else "an empty database")
    write(f"at {after} already\n" if before == after else f"upgraded {was} to {after}\n")


@app.command()
def downgrade(
    context: typer.Context,
    revision: Annotated[
        str, typer.Argument(metavar="REVISION", help="A revision's id, or base: no tables at all.", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: Store = None,
) -> None:
    """Take the tables back to an older revision.

    What that deletes is said before. It is gone: make a copy (pg_dump) first. All in one transaction; tables that are shared
    with a reasoning-service stay, with its rows, and are taken leave of in short steps.
    """
    need_packages()
    from treestore.backends.postgres import migrations

    address = database_address(context, store)
    before = migrations.current(address)
    taken_back = migrations.deletions(address, revision)
    if not taken_back:
        write(f"at {before or 'base'} already\n")
        return
    for step in taken_back:
        say(f"going down from {step.revision} ({step.title}): {step.deletes}")
    say(f"{address.shown} holds {counted(migrations.counted_versions(address), 'versions')} of policies")
    before = taken_back[0].revision
    if not yes:
        _confirm(f"take {address.shown} from {before} to {revision}")
    migrations.downgrade(address, revision, say=say)
    write(f"downgraded {before} to {migrations.current(address) or 'base'}\n")


def _confirm(what: str) -> None:
    if not sys.stdin.isatty():
        refuse(f"would {what}; say --yes to do it", status=2)
    if not typer.confirm(f"{what[0].upper()}{what[1:]}?", err=True):
        say("nothing was changed")
        raise typer.Exit(1)


@app.command("widen-ids")
def widen_ids(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: Store = None,
) -> None:
    """Give the ids of nodes' rows 64 bits.

    32 bits count to 2,147,483,647. The table is written anew: nobody reads or writes it meanwhile. All in one transaction.
    """
    need_packages()
    from treestore.backends.postgres import ids
    from treestore.backends.postgres.locks import lock_of

    address = database_address(context, store)
    steps = ids.to_widen(address)
    if not steps:
        write("ids have 64 bits already\n")
        return
    for statement in steps[0].statements:
        say(f"{statement}: {lock_of(statement)}")
    if not yes:
        _confirm(f"give the ids in {address.shown} 64 bits")
    ids.widen(address, say)
    write("ids have 64 bits now\n")


@app.command()
def current(context: typer.Context, store: Store = None, as_json: Json = False) -> None:
    """Show the revision that the database is at."""
    need_packages()
    from treestore.backends.postgres import migrations
    from treestore.backends.postgres.tables import REVISIONS

    revision = migrations.current(database_address(context, store))
    if as_json:
        write_json({"revision": revision, "head": REVISIONS[-1]})
    else:
        write("no tables of treestore\n" if revision is None else f"{revision}{' (head)' * (revision == REVISIONS[-1])}\n")


@app.command()
def history(as_json: Json = False) -> None:
    """List all revisions, the oldest first."""
    need_packages()
    from treestore.backends.postgres import migrations

    revisions = migrations.history()
    if as_json:
        write_json([{"revision": entry.revision, "title": entry.title, "downgrade": entry.deletes} for entry in revisions])
    else:
        write_table(("REVISION", "TITLE"), [(entry.revision, entry.title) for entry in revisions])


@app.command()
def check(context: typer.Context, store: Store = None, as_json: Json = False) -> None:
    """Name what differs from what is expected.

    The status is 1 if they differ. What others have added is no difference.
    """
    need_packages()
    from treestore.backends.postgres import migrations

    found = migrations.differences(database_address(context, store))
    if as_json:
        write_json({"differences": found})
    else:
        write("".join(f"{printable(line)}\n" for line in found) or "no differences\n")
    if found:
        refuse(f"the tables differ in {counted(len(found), 'places')}", status=1)


def need_packages() -> None:
    """Raise InvalidInput, which says what to install, where PostgreSQL's packages are missing."""
    try:
        importlib.import_module("treestore.backends.postgres.migrations")
    except ImportError as error:
        missing = f"PostgreSQL needs {error.name}, which is not installed: install treestore with its extra, postgres"
        raise InvalidInput(missing) from error


def database_address(context: typer.Context, store: str | None) -> Address:
    """The PostgreSQL database that the options or the environment name."""
    from treestore.backends.postgres.migrations import address_of

    try:
        return address_of(store_url(context, store))
    except InvalidInput as error:
        if "must begin with" not in error.rule:
            raise
        rule = f"{error.rule}; name it by --store or TREESTORE_URL (other stores need no 'treestore db')"
        raise InvalidInput(rule, field=error.field) from error
