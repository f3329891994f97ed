"""Databases that a reasoning-service has made its tables in, not adopted yet and adopted."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from tests.postgres import databases
from treestore import Settings
from treestore.backends.postgres import migrations
from treestore.backends.postgres.address import Address, parse

TABLES = (Path(__file__).parent / "tables.sql").read_text(encoding="utf-8")
ROWS = (Path(__file__).parent / "rows.sql").read_text(encoding="utf-8")


def at(url: str) -> Address:
    return parse(url, Settings())


def connected(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection of the service's: each statement is committed."""
    return databases.server().connect(at(url).database)


def execute(url: str, *statements: str) -> list[Any]:
    """Run statements, each committed by itself; the rows of the last one."""
    with connected(url) as connection:
        for statement in statements:
            ran = connection.execute(statement.encode())
        return ran.fetchall() if ran.description else []


_STATE = (
    """SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull,
        pg_get_expr(adbin, adrelid), collname
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    LEFT JOIN pg_collation l ON l.oid = attcollation
    WHERE attrelid >= 16384 AND relkind IN ('r', 'p', 'v', 'c') AND attnum > 0 AND NOT attisdropped""",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid >= 16384""",
    """SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid
    FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE indexrelid >= 16384 AND relkind <> 't'""",
    """SELECT relname, relkind, relowner::regrole::text, relpersistence, pg_relation_filenode(oid) FROM pg_class
    WHERE oid >= 16384 AND relkind IN ('r', 'i', 'S', 'v', 'p') AND relnamespace <> 'pg_toast'::regnamespace""",
)


def snapshot(url: str) -> dict[str, Any]:
    """All that a database holds: columns, constraints, indexes, files and rows."""
    with connected(url) as connection:
        state: dict[str, Any] = {
            name: sorted(map(repr, connection.execute(question.encode()).fetchall()))
            for name, question in zip(("columns", "constraints", "indexes", "files"), _STATE, strict=True)
        }
        listed = "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'S') AND oid >= 16384 ORDER BY 1"
        for (name,) in connection.execute(listed.encode()).fetchall():
            state[name] = sorted(map(repr, connection.execute(f"SELECT t.* FROM {name} t".encode()).fetchall()))
        return state


def old_database(rows: bool = False) -> str:
    """The URL of a new database with the service's tables, a few rows in them if asked; it goes with the test."""
    name = databases.new_name()
    databases.server().make_database(name, _old_template(databases.server().host))
    if rows:
        with databases.server().connect(name) as connection:
            connection.execute(ROWS)
    return databases.server().url(name)


def adopted_url() -> str:
    """The URL of a new, empty database whose tables were the service's and are adopted; it goes with the test."""
    return databases.server().url(databases.lend(_adopted_template(databases.server().host)))


@cache
def _old_template(host: str) -> str:
    databases.server().make_database("old_template")
    with databases.server().connect("old_template") as connection:
        connection.execute(TABLES)
    return "old_template"


@cache
def _adopted_template(host: str) -> str:
    databases.server().make_database("adopted_template", _old_template(host))
    migrations.upgrade(at(databases.server().url("adopted_template")))
    return "adopted_template"
