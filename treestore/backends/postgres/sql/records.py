"""SQL on the plain tables: records by their key or an index."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, String, and_, bindparam, collate, delete, select, true
from sqlalchemy.dialects.postgresql import insert as upsert

from treestore import catalog
from treestore.backends.postgres.sql.statement import ONE, Statement, columns_of, integer
from treestore.backends.postgres.sql.versions import with_fingerprint
from treestore.backends.postgres.tables import BY_RECORD


def _ordered(columns: Any, table: catalog.Table, name: str) -> Any:
    """A field's column as it is put in order: text by code points."""
    found = columns[table.columns[name].name]
    return collate(found, "C") if isinstance(found.type, String) else found


def _begins(table: catalog.Table, fields: tuple[str, ...]) -> ColumnElement[bool]:
    """A row whose fields are the parameters ``key_0``, ``key_1``, …"""
    found = BY_RECORD[table.record]
    names = [table.columns[name].name for name in fields]
    equal = [found.c[name] == bindparam(f"key_{i}", type_=found.c[name].type) for i, name in enumerate(names)]
    return and_(true(), *equal)


@cache
def get(record: type[msgspec.Struct], *, shared: bool = False) -> Statement:
    """One record by its primary key. ``shared``: of versions, with what their nodes were and are."""
    table = catalog.TABLES[record]
    found = select(*columns_of(table, BY_RECORD[record])).where(_begins(table, table.key))
    return Statement(with_fingerprint(found) if shared else found)


@cache
def scan(
    record: type[msgspec.Struct], index: str | None, prefix: int, *, reverse: bool, limited: bool, shared: bool = False
) -> Statement:
    """The records whose key, or index, begins with so many given fields, in that order. ``shared`` as in :func:`get`."""
    table = catalog.TABLES[record]
    fields = table.key if index is None else (*table.indexes[index], *table.key)

    def order(columns: Any) -> list[Any]:
        names = [_ordered(columns, table, name) for name in dict.fromkeys(fields)]
        return [each.desc() if reverse else each for each in names]

    found = select(*columns_of(table, BY_RECORD[record])).where(_begins(table, fields[:prefix]))
    found = found.order_by(*order(BY_RECORD[record].c))
    found = found.limit(integer("limit")) if limited else found
    return Statement(with_fingerprint(found, order) if shared else found)


@cache
def any_under(record: type[msgspec.Struct], prefix: int) -> Statement:
    """One row, if there is a record whose key begins with so many given fields."""
    table = catalog.TABLES[record]
    return Statement(select(ONE).select_from(BY_RECORD[record]).where(_begins(table, table.key[:prefix])).limit(ONE))


@cache
def keys_under(record: type[msgspec.Struct], prefix: int) -> Statement:
    """The primary keys that begin with so many given fields."""
    table = catalog.TABLES[record]
    found = BY_RECORD[record]
    key = [found.c[table.columns[name].name] for name in table.key]
    return Statement(select(*key).where(_begins(table, table.key[:prefix])))


@cache
def put(record: type[msgspec.Struct], *, keep: frozenset[str] = frozenset()) -> Statement:
    """Insert a record, or replace the one with its primary key. Parameters are named by the columns. Columns to ``keep`` are
    those of the one that is there."""
    table = catalog.TABLES[record]
    found = BY_RECORD[record]
    names = [table.columns[name].name for name in record.__struct_fields__]
    key = [table.columns[name].name for name in table.key]
    new = upsert(found).values({name: bindparam(name, type_=found.c[name].type) for name in names})
    rest = {name: new.excluded[name] for name in names if name not in key and name not in keep}
    return Statement(new.on_conflict_do_update(index_elements=key, set_=rest))


@cache
def claim(record: type[msgspec.Struct]) -> Statement:
    """Insert a record; no row if there is one with its primary key. Parameters are named by the columns."""
    table = catalog.TABLES[record]
    found = BY_RECORD[record]
    names = [table.columns[name].name for name in record.__struct_fields__]
    new = upsert(found).values({name: bindparam(name, type_=found.c[name].type) for name in names})
    return Statement(new.on_conflict_do_nothing().returning(ONE))


@cache
def remove(record: type[msgspec.Struct]) -> Statement:
    """Delete a record by its primary key."""
    table = catalog.TABLES[record]
    return Statement(delete(BY_RECORD[record]).where(_begins(table, table.key)))
