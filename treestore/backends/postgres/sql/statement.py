"""An SQL statement of the relational store: an SQLAlchemy expression, compiled once.

A statement is made at its first use and kept. It is run by asyncpg itself, by its text and its arguments in order:
SQLAlchemy's own execution costs two to five times what the server takes to find a node (docs/architecture.md). Every term of a
statement names the policy, which leads every index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    ColumnElement,
    Integer,
    LargeBinary,
    Text,
    and_,
    bindparam,
    column,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP, asyncpg
from sqlalchemy.sql.base import Executable

from treestore import catalog

_DIALECT = asyncpg.dialect()  # type: ignore[no-untyped-call]


class Statement:
    """An SQL statement: its text, and the names of its parameters in their order."""

    __slots__ = ("_constants", "names", "sql")

    def __init__(self, element: Executable) -> None:
        compiled: Any = element.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
        self.sql: str = compiled.string
        self.names: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The arguments in order, by their names."""
        if self._constants:
            values = {**self._constants, **values}
        return [values[name] for name in self.names]


def text_(name: str) -> BindParameter[Any]:
    """A parameter of text."""
    return bindparam(name, type_=Text)


def integer(name: str) -> BindParameter[Any]:
    """A parameter that is an integer."""
    return bindparam(name, type_=Integer)


def time(name: str) -> BindParameter[Any]:
    """A parameter that is a time without a zone, in UTC."""
    return bindparam(name, type_=TIMESTAMP(timezone=False))


ONE = literal_column("1", Integer)
POLICY = text_("policy_id")
VERSION = text_("version_id")


def of_version(table: Any, version: Any = VERSION) -> ColumnElement[bool]:
    """A row that belongs to the version."""
    return and_(table.c.policy_id == POLICY, table.c.version_id == version)


def columns_of(table: catalog.Table, sql: Any, record: type[msgspec.Struct] | None = None) -> list[Any]:
    """The columns of a table's record, or of one that has some of its fields, in the order of the fields."""
    return [sql.c[table.columns[name].name] for name in (record or table.record).__struct_fields__]


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("segment", "depth", "position", "ordinal", "last_ordinal", "parent_ordinal"), Integer),
    **dict.fromkeys(("node_hash", "tree_hash", "text_hash"), LargeBinary),
    "row": BigInteger,
}


def asked(*names: str) -> Any:
    """Arrays of equal length, given as parameters of these names, as rows; ``at`` is the place of each, from 1."""
    arrays = [bindparam(name, type_=ARRAY(_KINDS.get(name, Text))) for name in names]
    columns = [column(name, _KINDS.get(name, Text)) for name in names]
    return func.unnest(*arrays).table_valued(*columns, with_ordinality="at", name="asked").render_derived()
