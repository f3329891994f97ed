"""What the schema and the SQL do without, so that they can also run on Citus, CockroachDB and YugabyteDB.

That they do run there is not tested; docs/operations.md says what each of them needs and restricts. The adopted tables are the
written exception, in this alone: ``policy_nodes`` has the primary key (id), a sequence, which is not led by the policy, as the
service's code has it. Nor does ``LOCK TABLE`` run on YugabyteDB and CockroachDB: only a write group that names no policy takes
it, and no verb makes one. Sharing the tables of a running service is for PostgreSQL alone; the table that notes it, of one
row, has no policy to be led by.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Index, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.dialects import registry
from sqlalchemy.engine import Dialect

import treestore
from tests.contract.samples import manual
from tests.postgres.server import Server
from treestore.backends.postgres import migrations
from treestore.backends.postgres.sql import groups
from treestore.backends.postgres.tables import METADATA, REVISIONS

ADOPTED = {"policy_versions", "policy_nodes"}
KEYS_WITHOUT_POLICY = {"policy_nodes_pkey": ["id"], "treestore_adoption_pkey": ["adopted_at"]}
LEADERS = {"policy_id", "project_id", "tenant"}

TYPES = {"VARCHAR", "TEXT", "INTEGER", "BIGINT", "BYTEA", "TIMESTAMP WITHOUT TIME ZONE", "BOOLEAN", "DOUBLE PRECISION"}
"""Those that all of the servers have with the same meaning, but for the length."""

FORBIDDEN = re.compile(
    r"""\b( TRIGGER | EXTENSION | (USING\s+)?(GIN|GIST|SPGIST|BRIN) | (UN)?LISTEN | NOTIFY | \w*advisory\w* | SAVEPOINT
        | LOCK\s+TABLE | TEMP(ORARY)? | CREATE\s+(OR\s+REPLACE\s+)?(FUNCTION|PROCEDURE|RULE) | INHERITS | EXCLUDE\s+USING
        | DEFERRABLE | CONCURRENTLY | TABLESPACE | ctid | xmin | pg_notify )\b""",
    re.IGNORECASE | re.VERBOSE,
)

DIALECT: Dialect = registry.load("postgresql")()
ROOT = Path(treestore.__file__).parent
SHARING = ("adoption.py", "locks.py")
SOURCES = [path for path in sorted((ROOT / "backends" / "postgres").rglob("*.py")) if path.name not in SHARING]

TABLES = [pytest.param(table, id=table.name) for table in METADATA.sorted_tables]


def keys(table: Table) -> Iterator[tuple[str, list[Column[object]]]]:
    """Every key and index of a table, by its name."""
    for item in (*table.constraints, *table.indexes):
        if isinstance(item, PrimaryKeyConstraint | UniqueConstraint | Index):
            yield str(item.name), list(item.columns)


@pytest.mark.parametrize("table", TABLES)
def test_the_policy_leads_every_key_and_index(table: Table) -> None:
    assert table.name in ADOPTED or table.name.startswith("treestore_"), "a new table bears our name"
    assert len(table.primary_key.columns) > 0
    for name, columns in keys(table):
        if name in KEYS_WITHOUT_POLICY:
            assert [column.name for column in columns] == KEYS_WITHOUT_POLICY[name]
        else:
            assert columns[0].name in LEADERS, name


@pytest.mark.parametrize("table", TABLES)
def test_text_in_keys_is_in_the_order_of_code_points(table: Table) -> None:
    for name, columns in keys(table):
        for column in columns:
            if hasattr(column.type, "collation"):
                assert column.type.collation == "C", f"{name}: {column.name}"


@pytest.mark.parametrize("table", TABLES)
def test_types_are_those_that_every_server_has(table: Table) -> None:
    for column in table.columns:
        kind = re.sub(r"\(\d+\)| COLLATE \"C\"", "", column.type.compile(DIALECT))
        assert kind in TYPES, f"{column.name} is {kind}"
        assert column.identity is None and column.computed is None


@pytest.mark.parametrize("table", TABLES)
def test_no_table_of_ours_refers_to_another(table: Table) -> None:
    if table.name not in ADOPTED:
        assert not table.foreign_keys


@pytest.mark.parametrize("table", TABLES)
def test_indexes_are_plain(table: Table) -> None:
    for index in table.indexes:
        assert all(isinstance(expression, Column) for expression in index.expressions), index.name
        options = {name: value for name, value in index.dialect_options["postgresql"].items() if value}
        assert options == {}, index.name


@pytest.mark.parametrize("way", ["up", "down"])
def test_migrations_do_nothing_that_is_ruled_out(way: str) -> None:
    script = migrations.sql() if way == "up" else migrations.sql_down(f"{REVISIONS[-1]}:base")
    assert "TABLE policy_versions" in script, "there is something to read"
    assert [found[0] for found in FORBIDDEN.finditer(script)] == []


def test_a_migration_stays_what_it_was() -> None:
    """So it never looks into the code, whose catalog will be another one."""
    files = sorted((migrations.folder() / "versions").glob("*.py"))
    assert len(files) == len(REVISIONS)
    for path in files:
        imported: set[str] = set()
        for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(found, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in found.names}
            elif isinstance(found, ast.ImportFrom):
                imported.add((found.module or "").partition(".")[0])
        assert imported <= {"__future__", "alembic", "sqlalchemy", "typing"}


def texts(source: str) -> Iterator[str]:
    """The strings of a module but its docstrings; and what calls of the drivers would make."""
    tree = ast.parse(source)
    said = {id(found.value) for found in ast.walk(tree) if isinstance(found, ast.Expr)}
    for found in ast.walk(tree):
        if isinstance(found, ast.Constant) and isinstance(found.value, str) and id(found) not in said:
            yield found.value
        elif isinstance(found, ast.Attribute) and found.attr in ("begin_nested", "savepoint", "add_listener"):
            yield f"SAVEPOINT or LISTEN, by {found.attr}"


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_no_sql_is_written_that_is_ruled_out(path: Path) -> None:
    found = [text for text in texts(path.read_text(encoding="utf-8")) if FORBIDDEN.search(text)]
    lock = groups.LOCK_ALL.partition("treestore_")[0]
    assert found == ([lock] if path.name == "groups.py" else []), "the exception is written above"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f()",
        "CREATE EXTENSION ltree",
        "CREATE INDEX i ON x USING gin (y)",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_try_advisory_lock(1)",
        "LISTEN changes",
        "SELECT pg_notify('a', 'b')",
        'SAVEPOINT "sa_savepoint_1"',
        "LOCK TABLE x",
        "CREATE TEMP TABLE x ()",
    ],
)
def test_what_is_ruled_out_would_be_found(sql: str) -> None:
    assert FORBIDDEN.search(sql)


def test_what_a_server_is_told_is_not_what_is_ruled_out() -> None:
    """What drivers add by themselves too: savepoints for nested transactions, clean-up of connections."""
    with Server(settings={"log_statement": "all"}) as server:
        name = "told"
        server.make_database(name)
        with treestore.open_sync(server.url(name)) as store:
            for version in ("1", "2"):
                store.documents.store_document("policy", version, manual())
            store.documents.store_document("policy", "2", manual()[:3])
            store.documents.update_node("policy", "a", title="another title")
            store.documents.search_nodes("policy", "text")
            store.documents.get_nodes_by_page("policy", 3)
            store.documents.get_subtree("policy", "a", max_depth=2)
            with store.snapshot() as snapshot:
                snapshot.documents.get_outline("policy")
            assert store.check().ok
            store.stats()
            store.documents.reindex()
            store.documents.delete_version("policy", "1")
            store.documents.delete_document("policy")
        migrations.downgrade(migrations.address_of(server.url(name)), "base")
        told = server.log()
    told = "\n".join(line for line in told.splitlines() if "listening on" not in line)
    assert told.count("INSERT INTO policy_versions") >= 2, "there is something to read"
    assert sorted({line for line in told.splitlines() if FORBIDDEN.search(line)}) == []
