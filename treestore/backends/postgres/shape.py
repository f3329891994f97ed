"""What a database has of our tables, by the server's catalogs, and whether the tables of others are such as can be shared.

Only catalogs are read, so no lock on a table is taken or waited for. Constraints and indexes of others are known by their
columns, never by their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import BigInteger, Connection, Integer, LargeBinary, String, Table, Text
from sqlalchemy import Column as SqlColumn

from treestore.backends.postgres.tables import (
    ADOPTION,
    COVERED,
    DIALECT,
    HISTORY,
    KEYS,
    METADATA,
    NODES,
    SHARED,
    THEIRS,
    VERSION_TABLE,
    ours,
)
from treestore.errors import AccessDenied, MigrationError, NotAStore, TreestoreError


class Relation(NamedTuple):
    """What bears a name in a schema. ``kind`` is PostgreSQL's letter, ``r`` for a plain table; ``logged``: its rows outlive a
    crash; ``alone``: it is no part of others, and has none."""

    oid: int
    schema: str
    kind: str
    logged: bool
    alone: bool
    owner: str
    owned: bool


class Column(NamedTuple):
    """A column: its type in the server's words, whether it may not be null, whether it gets a value by itself."""

    type: str
    required: bool
    filled: bool


class Index(NamedTuple):
    """An index, by its columns in order and those that it holds beside them. ``plain``: a B-tree of all rows."""

    name: str
    columns: tuple[str, ...]
    covered: tuple[str, ...]
    unique: bool
    primary: bool
    valid: bool
    plain: bool


class Sequence(NamedTuple):
    """What counts up ``policy_nodes.id``: its name as SQL has it, its type, and the greatest number it gives."""

    name: str
    type: str
    greatest: int


class Database(NamedTuple):
    """What there is under the names that count, in the schemas that names are looked for in.

    ``where`` is its address without secrets, ``creates`` whether ``role`` may make tables in ``schema``, the first of them.
    ``revision``: what is noted of ours; ``history``: what is noted in ``alembic_version``, None without such a table;
    ``adopted``: the first two tables are shared with the code that made them.
    """

    where: str
    role: str
    schema: str | None
    creates: bool
    relations: Mapping[str, Relation]
    columns: Mapping[str, Mapping[str, Column]]
    indexes: Mapping[str, list[Index]]
    sequence: Sequence | None
    revision: list[str]
    history: list[str] | None
    adopted: bool

    @property
    def shared(self) -> list[str]:
        """Which of the two tables that may be others' are there."""
        return [table.name for table in SHARED if table.name in self.relations]

    def extended(self, table: Table) -> bool:
        """Whether a table has all columns of ours: they are added together."""
        return all(column.name in self.columns.get(table.name, {}) for column in ours(table))


# --- read ----------------------------------------------------------------------------------------------------------------

_SELF = sqlalchemy.text(
    "SELECT current_user AS role, current_schema() AS schema,"
    " coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS creates"
)

_RELATIONS = sqlalchemy.text("""
    SELECT relname, c.oid, nspname AS schema, relkind::text AS kind, relpersistence = 'p' AS logged,
        NOT EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)) AS alone,
        pg_get_userbyid(relowner)::text AS owner, pg_has_role(relowner, 'USAGE') AS owned
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relname = ANY(:names) AND pg_table_is_visible(c.oid)""")

_COLUMNS = sqlalchemy.text("""
    SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull AS required,
        atthasdef OR attidentity <> '' OR attgenerated <> '' AS filled
    FROM pg_attribute WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum""")

_INDEXES = sqlalchemy.text("""
    SELECT c.relname::text AS name, indisunique AS unique, indisprimary AS primary, indisvalid AS valid,
        amname = 'btree' AND indpred IS NULL AND indexprs IS NULL AND indimmediate AS plain, indnkeyatts AS keys,
        ARRAY(SELECT coalesce(attname::text, '') FROM unnest(indkey::int2[]) WITH ORDINALITY AS k (number, at)
            LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = number ORDER BY at) AS columns
    FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam
    WHERE indrelid = :oid ORDER BY c.relname""")

# An identity depends on its column; a serial's default depends on it.
_SEQUENCE = sqlalchemy.text("""
    SELECT s.oid::regclass::text AS name, format_type(seqtypid, NULL) AS type, seqmax AS greatest
    FROM pg_attribute a
    LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
    JOIN pg_depend p ON (p.classid = 'pg_class'::regclass AND p.deptype = 'i' AND p.refclassid = 'pg_class'::regclass
            AND p.refobjid = attrelid AND p.refobjsubid = attnum)
        OR (p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass)
    JOIN pg_class s ON relkind = 'S' AND s.oid IN (p.objid, p.refobjid)
    JOIN pg_sequence ON seqrelid = s.oid
    WHERE attrelid = :oid AND attname = 'id'""")


def look(connection: Connection, where: str) -> Database:
    """What there is now. Tables come first: a store's revision is committed with them, so it is seen if they are."""
    mine = connection.execute(_SELF).one()
    names = [*METADATA.tables, *_index_names(), VERSION_TABLE, "alembic_version"]
    found = connection.execute(_RELATIONS, {"names": names}).all()
    relations = {row.relname: Relation(*row[1:]) for row in found}
    columns: dict[str, dict[str, Column]] = {}
    indexes: dict[str, list[Index]] = {}
    for table in SHARED:
        if table.name in relations:
            oid = {"oid": relations[table.name].oid}
            columns[table.name] = {row.attname: Column(*row[1:]) for row in connection.execute(_COLUMNS, oid)}
            indexes[table.name] = [_index(row) for row in connection.execute(_INDEXES, oid)]
    nodes = relations.get(NODES.name)
    sequence = None if nodes is None else connection.execute(_SEQUENCE, {"oid": nodes.oid}).first()
    noted = _noted(connection, relations, VERSION_TABLE)
    adopted = ADOPTION.name in relations and bool(noted)
    return Database(
        where,
        mine.role,
        mine.schema,
        mine.creates,
        relations,
        columns,
        indexes,
        None if sequence is None else Sequence(*sequence),
        noted or [],
        None if noted else _noted(connection, relations, "alembic_version"),
        adopted and connection.execute(sqlalchemy.select(ADOPTION)).first() is not None,
    )


def _index(row: Any) -> Index:
    key, covered = tuple(row.columns[: row.keys]), tuple(row.columns[row.keys :])
    return Index(row.name, key, covered, row.unique, row.primary, row.valid, row.plain)


def _noted(connection: Connection, relations: Mapping[str, Relation], table: str) -> list[str] | None:
    """The revisions that Alembic has noted in a table, None without it."""
    if table not in relations:
        return None
    return list(connection.execute(sqlalchemy.text(f"SELECT version_num FROM {table} ORDER BY 1")).scalars())


def _index_names() -> list[str]:
    return [str(index.name) for table in SHARED for index in table.indexes]


# --- judged --------------------------------------------------------------------------------------------------------------


def check_adoptable(database: Database) -> None:
    """Raise NotAStore, MigrationError or AccessDenied, with all that keeps the tables of others from being shared."""
    kinds: list[tuple[type[TreestoreError], list[str]]] = [
        (NotAStore, [*_misplaced(database), *_misshapen(database), *_taken(database)]),
        (MigrationError, list(_foreign(database))),
        (AccessDenied, list(_forbidden(database))),
    ]
    found = [line for _, lines in kinds for line in lines]
    if found:
        kind = next(kind for kind, lines in kinds if lines)
        raise kind(f"{database.where}: the tables can't be adopted, nothing was changed: {'; '.join(found)}")


def _misplaced(database: Database) -> Iterator[str]:
    for table in SHARED:
        there = database.relations.get(table.name)
        if there is None:
            yield f"there is no table {table.name}"
        elif there.schema != database.schema:
            yield f"{table.name} is in the schema {there.schema}, not in the first one of the search_path, {database.schema}"
        elif there.kind != "r" or not there.logged or not there.alone:
            yield f"{table.name} is not an ordinary table: a view, partitioned, inherited, unlogged"


def _misshapen(database: Database) -> Iterator[str]:
    for table in SHARED:
        found = database.columns.get(table.name)
        if found is None:
            continue
        yield from column_differences(database, table, THEIRS[table.name])
        mine = [column for column in ours(table) if column.name in found]
        if database.extended(table):
            yield from column_differences(database, table, frozenset(column.name for column in mine))
        else:  # ours come together
            yield from (f"there is a column {table.name}.{column.name}, which treestore would add" for column in mine)
        yield from unknown_columns(database, table)


def column_differences(database: Database, table: Table, names: frozenset[str]) -> Iterator[str]:
    """In what these columns of a shared table and its primary key differ from what is worked on, one line each."""
    found = database.columns[table.name]
    for column in table.columns:
        if column.name not in names:
            continue
        there = found.get(column.name)
        name = f"column {table.name}.{column.name}"
        if there is None:
            yield f"{name} is missing"
            continue
        if not _fits(column, there.type):
            yield f"{name} is {there.type}, not {column.type.compile(dialect=DIALECT)}"
        if there.required and column.nullable:
            yield f"{name} may not be null, and may here"
        if not there.required and not column.nullable:
            yield f"{name} may be null, and may not here"
    key = next((index.columns for index in database.indexes[table.name] if index.primary), ())
    wanted = tuple(column.name for column in table.primary_key.columns)
    if names == THEIRS[table.name] and key != wanted:
        yield f"table {table.name} has the primary key ({', '.join(key)}), not ({', '.join(wanted)})"
    if table is NODES and "id" in names and database.sequence is None:
        yield "column policy_nodes.id is not counted up by a sequence"


def unknown_columns(database: Database, table: Table) -> Iterator[str]:
    """The columns of others that keep rows of ours out."""
    for name, there in database.columns[table.name].items():
        if name not in table.columns and there.required and not there.filled:
            yield f"column {table.name}.{name} is not known, may not be null and has no default"


def _fits(column: SqlColumn[Any], found: str) -> bool:
    """Whether a column has our type, or a wider one that does no harm: text of others may be longer, but not keys."""
    wanted = column.type
    if isinstance(wanted, Text):
        return found in ("text", "character varying")
    if isinstance(wanted, String):
        length = re.fullmatch(r"character varying\((\d+)\)", found)
        if length is None:
            return column.name not in KEYS and found in ("text", "character varying")
        return int(length[1]) == wanted.length if column.name in KEYS else int(length[1]) >= (wanted.length or 0)
    if isinstance(wanted, BigInteger):
        return found == "bigint"
    if isinstance(wanted, Integer):
        return found == "integer" or (column.name == "id" and found == "bigint")
    if isinstance(wanted, LargeBinary):
        return found == "bytea"
    return found == "timestamp without time zone"


def _taken(database: Database) -> Iterator[str]:
    """Names that are ours and are somebody else's here. What an interrupted adoption has left is ours."""
    for name in (*METADATA.tables, VERSION_TABLE):
        if name in database.relations and name not in THEIRS and not (name == VERSION_TABLE and not database.revision):
            yield f"there is a {name} already"
    for table in SHARED:
        here = {index.name: index for index in database.indexes.get(table.name, ())}
        for name in (str(index.name) for index in missing_indexes(database, table)):
            if name in database.relations and (name not in here or here[name].valid):
                yield f"there is a {name} already, which is another index than treestore would make"


def missing_indexes(database: Database, table: Table) -> list[sqlalchemy.Index]:
    """The indexes that a shared table needs and has none of these columns for that is whole."""
    there = database.indexes.get(table.name, [])
    return [index for index in sorted(table.indexes, key=lambda index: str(index.name)) if not _has(there, index)]


def _has(there: list[Index], index: sqlalchemy.Index) -> bool:
    columns = tuple(column.name for column in index.columns)
    covered = set(COVERED.get(str(index.name), ()))
    whole = [found for found in there if found.valid and found.plain and (found.unique or not index.unique)]
    return any(found.columns == columns and covered <= {*found.covered} for found in whole)


def _foreign(database: Database) -> Iterator[str]:
    if database.history is not None and database.history != [HISTORY]:
        noted = ", ".join(database.history) or "no revision"
        yield f"alembic_version notes {noted}, and known is {HISTORY}"


def _forbidden(database: Database) -> Iterator[str]:
    for name in database.shared:
        there = database.relations[name]
        if not there.owned:
            yield f"{name} belongs to {there.owner}, and {database.role} may not change it"
    if database.schema is not None and not database.creates:
        yield f"{database.role} may not create tables in the schema {database.schema}"


def differences(database: Database) -> list[str]:
    """In what adopted tables differ from those that are worked on, one line each. Names, collations, constraints of others
    and what they have beside ours are no difference."""
    found: list[str] = []
    for table in SHARED:
        if table.name not in database.relations:
            found.append(f"table {table.name} is missing")
            continue
        found += column_differences(database, table, THEIRS[table.name])
        found += column_differences(database, table, frozenset(column.name for column in ours(table)))
        found += unknown_columns(database, table)
        for index in missing_indexes(database, table):
            columns = ", ".join(column.name for column in index.columns)
            covered = COVERED.get(str(index.name))
            beside = f" INCLUDE ({', '.join(covered)})" if covered else ""
            kind = "unique index" if index.unique else "index"
            found.append(f"{kind} of {table.name} on ({columns}){beside} is missing or invalid")
    return found
