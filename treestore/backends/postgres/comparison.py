"""In what a database's tables differ from those that this code works on.

Alembic compares tables, columns with their types and defaults, indexes, unique and foreign keys. It does not look at
collations, primary keys and checks, which matter as much, so these are compared here. Tables that are not ours are left alone,
and so is what others have added to the adopted ones. Where these are shared with the code that made them, they are compared as
:mod:`treestore.backends.postgres.shape` does, by columns and not by names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Table

from treestore.backends.postgres.shape import differences, look
from treestore.backends.postgres.tables import METADATA, SHARED, VERSION_TABLE

_PREFIX = "treestore_"


def _is_ours(name: str | None, kind: str, parents: Any) -> bool:
    """Of the tables in the database those that the catalog knows or that bear our name; nothing is read of the others."""
    return kind != "table" or name in METADATA.tables or (name or "").startswith(_PREFIX)


def _counts(item: Any, name: str | None, kind: str, reflected: bool, counterpart: Any) -> bool:
    """Not what an adopted table has beside ours."""
    if not reflected or counterpart is not None:
        return True
    table = item if isinstance(item, Table) else item.table
    return str(table.name).startswith(_PREFIX)


def _counts_beside_shared(item: Any, name: str | None, kind: str, reflected: bool, counterpart: Any) -> bool:
    """Neither what an adopted table has beside ours nor, where it is shared, the table."""
    table = item if isinstance(item, Table) else item.table
    return table.name not in (shared.name for shared in SHARED) and _counts(item, name, kind, reflected, counterpart)


def _type_differs(context: Any, found: Any, column: Any, found_type: Any, wanted: Any) -> bool | None:
    """Ids may have been given 64 bits; the rest is for Alembic to compare."""
    return False if column.name == "id" and isinstance(found_type, sqlalchemy.BigInteger) else None


OPTIONS: dict[str, Any] = {
    "target_metadata": METADATA,
    "version_table": VERSION_TABLE,
    "include_name": _is_ours,
    "include_object": _counts,
    "compare_type": _type_differs,
    "compare_server_default": True,
}
"""How Alembic is to look at the database, whoever runs it."""


def options(connection: Connection) -> dict[str, Any]:
    """How Alembic is to look at this database: shared tables are not for it to compare."""
    shared = look(connection, "").adopted
    return {**OPTIONS, "include_object": _counts_beside_shared} if shared else OPTIONS


def differ(connection: Connection) -> list[str]:
    """The differences, one line each; those of Alembic first."""
    context = MigrationContext.configure(connection, opts=options(connection))
    found = [_line(step) for entry in compare_metadata(context, METADATA) for step in _steps(entry)]
    database = look(connection, "")
    there = set(sqlalchemy.inspect(connection).get_table_names())
    for table in METADATA.sorted_tables:
        if table.name in there and not (database.adopted and table in SHARED):
            found += _beside_alembic(connection, table)
    return [*found, *differences(database)] if database.adopted else found


def _steps(entry: Any) -> list[Any]:
    """Changes of one column come as a list."""
    return entry if isinstance(entry, list) else [entry]


def _line(step: Any) -> str:
    """What Alembic would do, as what is so."""
    match step:
        case ("add_table", table):
            return f"table {table.name} is missing"
        case ("remove_table", table):
            return f"table {table.name} is not known"
        case ("add_column", _, table, column):
            return f"column {table}.{column.name} is missing"
        case ("remove_column", _, table, column):
            return f"column {table}.{column.name} is not known"
        case ("modify_nullable", _, table, column, _, was, wanted):
            return f"column {table}.{column} {'may' if was else 'may not'} be null, and {'may' if wanted else 'may not'} here"
        case ("modify_type", _, table, column, _, was, wanted):
            return f"column {table}.{column} is {was}, not {wanted}"
        case ("modify_default", _, table, column, _, was, wanted):
            return f"column {table}.{column} has the default {_default(was)}, not {_default(wanted)}"
        case (("add_index" | "add_constraint" | "add_fk") as kind, item):
            return f"{_NAMES[kind]} {item.name} of {item.table.name} is missing"
        case (("remove_index" | "remove_constraint" | "remove_fk") as kind, item):
            return f"{_NAMES[kind]} {item.name} of {item.table.name} is not known"
    return f"{step!r}"


_NAMES = {
    "add_index": "index",
    "remove_index": "index",
    "add_constraint": "unique key",
    "remove_constraint": "unique key",
    "add_fk": "foreign key",
    "remove_fk": "foreign key",
}


def _default(default: Any) -> str:
    return "none" if default is None else str(getattr(default, "arg", default))


_COLLATIONS = sqlalchemy.text(
    "SELECT attname, collname FROM pg_attribute JOIN pg_collation ON pg_collation.oid = attcollation"
    " WHERE attrelid = CAST(:table AS regclass)"
)


def _beside_alembic(connection: Connection, table: Table) -> Iterator[str]:
    inspector = sqlalchemy.inspect(connection)
    key = inspector.get_pk_constraint(table.name)["constrained_columns"]
    wanted = [column.name for column in table.primary_key.columns]
    if key != wanted:
        yield f"table {table.name} has the primary key ({', '.join(key)}), not ({', '.join(wanted)})"
    collations = {row.attname: row.collname for row in connection.execute(_COLLATIONS, {"table": table.name})}
    for column in table.columns:
        collation = getattr(column.type, "collation", None) or "default"
        if column.name in collations and collations[column.name] != collation:
            yield f"column {table.name}.{column.name} has the collation {collations[column.name]}, not {collation}"
    checks = {check["name"] for check in inspector.get_check_constraints(table.name)}
    for constraint in table.constraints:
        if isinstance(constraint, sqlalchemy.CheckConstraint) and constraint.name not in checks:
            yield f"check {constraint.name} of {table.name} is missing"
