"""Tables of a reasoning-service are adopted: in place, whatever their names, by what the dry run prints; and left again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import event

import treestore
from tests.adoption.databases import adopted_url, at, connected, execute, old_database, snapshot
from tests.contract.samples import manual
from tests.postgres import databases
from tests.postgres.test_migrations import alembic
from treestore import MigrationError
from treestore.backends.postgres import migrations
from treestore.backends.postgres.tables import METADATA, REVISIONS, SHARED, THEIRS, VERSION_TABLE, ours

HEAD = REVISIONS[-1]
OLD = (*THEIRS, "reasoning_outputs", "policy_validation_issues", "alembic_version")

OTHERWISE = {
    "as the service makes them": "",
    "without a history": "DROP TABLE alembic_version",
    "ids of 64 bits": "ALTER TABLE policy_nodes ALTER id TYPE bigint",
    "an identity": "ALTER TABLE policy_nodes ALTER id DROP DEFAULT;"
    " ALTER TABLE policy_nodes ALTER id ADD GENERATED ALWAYS AS IDENTITY (START 100)",
    "a sequence that nobody owns": "ALTER SEQUENCE policy_nodes_id_seq OWNED BY NONE",
    "longer texts": "ALTER TABLE policy_nodes ALTER section_path TYPE text; ALTER TABLE policy_versions"
    " ALTER pdf_sha256 TYPE varchar(99)",
    "columns beside": "ALTER TABLE policy_nodes ADD theirs integer, ADD filled integer NOT NULL DEFAULT 7",
    "no indexes": "DROP INDEX idx_policy_nodes_lookup, idx_policy_nodes_parent, idx_policy_versions_ingested",
    "partial indexes": "DROP INDEX idx_policy_nodes_parent; CREATE INDEX idx_policy_nodes_parent ON policy_nodes"
    " (policy_id, version_id, parent_id) WHERE parent_id IS NOT NULL",
    "names of ours": "ALTER INDEX idx_policy_nodes_lookup RENAME TO ix_policy_nodes_policy_id_version_id_node_id",
    "neither checks nor foreign keys": "ALTER TABLE policy_nodes DROP CONSTRAINT fk_policy_nodes_version,"
    " DROP CONSTRAINT check_page_range",
    "a table that notes no revision of ours": f"CREATE TABLE {VERSION_TABLE} (version_num varchar(32) PRIMARY KEY)",
}


def beside_ours(state: dict[str, Any]) -> dict[str, Any]:
    """What a snapshot shows of the service's own columns, indexes and files."""
    kept = {"columns", "constraints", "indexes", "files"}
    columns = [column for table in SHARED for column in ours(table)]
    mine = ("treestore_", "'ix_policy_", *(f"('{column.table.name}', '{column.name}', " for column in columns))
    return {key: [line for line in state[key] if not any(name in line for name in mine)] for key in kept}


@pytest.mark.parametrize("otherwise", OTHERWISE)
def test_tables_are_adopted_in_place(otherwise: str) -> None:
    url = old_database(rows=True)
    execute(url, "SELECT", *filter(None, OTHERWISE[otherwise].split("; ")))
    before = snapshot(url)
    said: list[str] = []
    migrations.upgrade(at(url), say=said.append)
    assert "building an index of policy_nodes; transactions that run now are waited for" in said
    assert migrations.current(at(url)) == HEAD
    assert migrations.adopted(at(url))
    assert migrations.differences(at(url)) == []
    assert beside_ours(snapshot(url)) == beside_ours(before), "nothing of theirs is another, no file was written anew"
    assert execute(url, "SELECT count(*) FROM policy_nodes WHERE num_nulls(ordinal, depth, node_hash) = 3") == [(10,)]
    assert migrations.dry_run(at(url)) == ""
    with treestore.open_sync(url) as store:
        store.documents.store_document("ours", "1", manual())
        store.documents.update_node("ours", "a", title="another title")
        assert store.documents.get_node("ours", "a").title == "another title"


def test_what_is_ours_is_what_an_empty_database_gets() -> None:
    """By the server's own words."""
    adopted, made = snapshot(adopted_url()), snapshot(databases.new_url())
    for kind in ("columns", "constraints", "indexes"):
        lines = [[line for line in state[kind] if "treestore_" in line] for state in (adopted, made)]
        assert lines[0] and lines[0] == lines[1]
    for table in SHARED:
        for column in ours(table):
            name = f"('{table.name}', '{column.name}',"
            lines = [[line for line in state["columns"] if name in line] for state in (adopted, made)]
            assert len(lines[0]) == 1 and lines[0] == lines[1]


def test_the_index_answers_for_a_fingerprint_alone() -> None:
    """The number of a version's nodes, the greatest id and the newest time are read where the rows are not."""
    url = old_database(rows=True)
    migrations.upgrade(at(url))
    execute(url, "VACUUM policy_nodes")
    asked = "SELECT count(*), max(id), max(updated_at) FROM policy_nodes WHERE policy_id = 'leave' AND version_id = '1'"
    with connected(url) as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET enable_bitmapscan = off")
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {asked}".encode()))
    assert "Index Only Scan using ix_policy_nodes_policy_id_version_id_ordinal" in plan


def test_two_hundred_thousand_rows_are_not_written_anew() -> None:
    url = old_database(rows=True)
    execute(
        url,
        "INSERT INTO policy_nodes (policy_id, version_id, node_id, section_path, title, content_hash)"
        " SELECT 'leave', '2', n::text, 'T', 'T', repeat('a', 64) FROM generate_series(1, 200000) AS n",
    )
    files = "SELECT relname, pg_relation_filenode(oid) FROM pg_class WHERE relname ~ '^(policy_|idx_|pk_policy)' ORDER BY 1"
    before = execute(url, files)
    assert len(before) >= 8
    migrations.upgrade(at(url))
    assert execute(url, files) == before
    assert migrations.differences(at(url)) == []
    migrations.downgrade(at(url), "base")
    assert execute(url, files) == before


# --- compared ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("ALTER TABLE policy_versions DROP tags", "column policy_versions.tags is missing"),
        ("ALTER TABLE policy_nodes DROP summary", "column policy_nodes.summary is missing"),
        ("ALTER TABLE policy_nodes ALTER depth TYPE bigint", "column policy_nodes.depth is bigint, not INTEGER"),
        ("ALTER TABLE policy_nodes ALTER title DROP NOT NULL", "column policy_nodes.title may be null, and may not here"),
        (
            "ALTER TABLE policy_nodes ADD theirs integer NOT NULL",
            "column policy_nodes.theirs is not known, may not be null and has no default",
        ),
        (
            "DROP INDEX ix_policy_nodes_policy_id_version_id_ordinal",
            "unique index of policy_nodes on (policy_id, version_id, ordinal) INCLUDE (id, updated_at) is missing or invalid",
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_policy_nodes_lookup'::regclass",
            "index of policy_nodes on (policy_id, version_id, node_id) is missing or invalid",
        ),
        (
            "DROP INDEX idx_policy_versions_ingested",
            "index of policy_versions on (policy_id, ingested_at) is missing or invalid",
        ),
        ("DROP TABLE treestore_lengths", "table treestore_lengths is missing"),
        ("ALTER TABLE treestore_groups ADD y integer", "column treestore_groups.y is not known"),
    ],
)
def test_each_difference_of_adopted_tables_is_named(change: str, difference: str) -> None:
    url = adopted_url()
    assert migrations.differences(at(url)) == []
    execute(url, change)
    assert migrations.differences(at(url)) == [difference]


# --- dry run -------------------------------------------------------------------------------------------------------------


@contextmanager
def told() -> Iterator[list[str]]:
    """What the server is told meanwhile that is no question."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if not statement.lstrip().startswith(("SELECT", "SHOW", "select", "show")):
            found.append(plain(statement))

    event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(sqlalchemy.Engine, "before_cursor_execute", note)


def plain(statement: str) -> str:
    return " ".join(statement.rstrip(";").split())


def statements(script: str) -> list[str]:
    parts = (part.splitlines() for part in script.split(";\n"))
    return [found for part in parts if (found := plain("\n".join(line for line in part if not line.startswith("--"))))]


@pytest.mark.parametrize("otherwise", ["as the service makes them", "no indexes"])
def test_a_dry_run_prints_what_an_upgrade_tells_the_server(otherwise: str) -> None:
    url = old_database(rows=True)
    execute(url, "SELECT", *filter(None, OTHERWISE[otherwise].split("; ")))
    before = snapshot(url)
    script = migrations.dry_run(at(url))
    assert snapshot(url) == before
    with told() as found:
        migrations.upgrade(at(url))
    assert [part for part in statements(script) if part not in ("BEGIN", "COMMIT")] == found
    again = old_database(rows=True)
    execute(again, "SELECT", *filter(None, OTHERWISE[otherwise].split("; ")))
    execute(again, *statements(script))
    assert migrations.differences(at(again)) == []
    assert migrations.adopted(at(again))


@pytest.mark.parametrize("before", [None, "0001", "0002"])
def test_a_dry_run_of_a_database_of_ours(before: str | None) -> None:
    name = databases.new_name()
    url = databases.server().make_database(name)
    if before is not None:
        migrations.upgrade(at(url), before)
    state = snapshot(url)
    script = migrations.dry_run(at(url))
    assert snapshot(url) == state
    assert (script == "") == (before == HEAD)
    with connected(url) as connection:
        connection.execute(script.encode())
    assert migrations.current(at(url)) == HEAD
    assert migrations.differences(at(url)) == []


def test_a_dry_run_waits_for_no_lock_on_the_tables() -> None:
    url = old_database(rows=True)
    script = migrations.dry_run(at(url))
    with connected(url) as connection, connection.transaction():
        connection.execute("LOCK TABLE policy_versions, policy_nodes IN ACCESS EXCLUSIVE MODE")
        assert migrations.dry_run(at(f"{url}&statement_timeout=5")) == script


# --- left again ----------------------------------------------------------------------------------------------------------


def test_leaving_gives_the_tables_back_as_they_were() -> None:
    url = old_database(rows=True)
    before = snapshot(url)
    migrations.upgrade(at(url))
    migrations.downgrade(at(url), "base")
    assert migrations.current(at(url)) is None
    assert snapshot(url) == before
    migrations.upgrade(at(url))
    assert migrations.differences(at(url)) == []


def test_leaving_keeps_all_rows_of_theirs_and_says_what_is_lost() -> None:
    url = old_database(rows=True)
    migrations.upgrade(at(url))
    with treestore.open_sync(url) as store:
        for version in ("1", "2"):
            store.documents.store_document("ours", version, manual())
        store.documents.delete_version("ours", "2")
    asked = [f"SELECT {', '.join(sorted(THEIRS[table]))} FROM {table} ORDER BY 1, 2, 3" for table in THEIRS]
    rows = [execute(url, question) for question in asked]
    (lost,) = migrations.deletions(at(url), "base")
    assert lost.deletes.endswith("versions that were deleted and are plain rows again: 1.")
    migrations.downgrade(at(url), "base")
    assert [execute(url, question) for question in asked] == rows
    assert ("ours",) in execute(url, "SELECT policy_id FROM policy_versions WHERE version_id = '2'")
    left = {name for (name,) in execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert left == set(OLD)
    assert execute(url, "SELECT FROM pg_attribute WHERE attrelid = 'policy_nodes'::regclass AND attname = 'ordinal'") == []


def test_there_is_no_revision_between_all_and_nothing() -> None:
    url = adopted_url()
    before = snapshot(url)
    for step in (migrations.downgrade, migrations.deletions):
        with pytest.raises(MigrationError, match="shared tables are at revision 0002 or at base, not at 0001"):
            step(at(url), "0001")
        step(at(url), HEAD)
    assert snapshot(url) == before


def test_adopted_tables_are_never_dropped() -> None:
    """Not by plain alembic, and not by the script that takes an unshared database down."""
    url = old_database(rows=True)
    migrations.upgrade(at(url))
    before = snapshot(url)
    ran = alembic(at(url), "downgrade", "base")
    assert ran.returncode != 0
    assert "its tables are shared; 'treestore db downgrade base' takes ours out of them" in ran.stdout + ran.stderr
    with pytest.raises(Exception, match="tables_are_not_shared"), connected(url) as connection:
        connection.execute(migrations.sql_down(f"{HEAD}:base").encode())
    assert snapshot(url) == before


def test_what_hangs_on_our_columns_is_named_and_the_rest_is_done_later() -> None:
    url = old_database(rows=True)
    migrations.upgrade(at(url))
    execute(url, "CREATE VIEW theirs AS SELECT ordinal FROM policy_nodes")
    with pytest.raises(MigrationError, match="tables of others refer to ours"):
        migrations.downgrade(at(url), "base")
    execute(url, "DROP VIEW theirs")
    assert len(migrations.deletions(at(url), "base")) == 1
    migrations.downgrade(at(url), "base")
    assert migrations.deletions(at(url), "base") == []
    assert not any("ordinal" in line for line in snapshot(url)["columns"])


# --- other ways ----------------------------------------------------------------------------------------------------------


def test_plain_alembic_adopts_too() -> None:
    url = old_database(rows=True)
    ran = alembic(at(url), "upgrade", "head")
    assert ran.returncode == 0, ran
    assert "building an index of policy_nodes" in ran.stderr
    assert migrations.adopted(at(url))
    assert migrations.differences(at(url)) == []
    assert "No new upgrade operations detected." in alembic(at(url), "check").stdout
    execute(url, "DROP TABLE treestore_lengths")
    assert alembic(at(url), "check").returncode != 0
    refused = old_database()
    execute(refused, "DROP TABLE policy_nodes")
    ran = alembic(at(refused), "upgrade", "head")
    assert ran.returncode != 0 and "Traceback" not in ran.stderr
    assert "there is no table policy_nodes" in ran.stdout + ran.stderr


def test_behind_pgbouncer() -> None:
    address = at(databases.bouncer().url(at(old_database(rows=True)).database))
    migrations.upgrade(address)
    assert migrations.differences(address) == []
    migrations.downgrade(address, "base")
    assert migrations.current(address) is None


UPGRADE = "import sys; from tests.adoption.databases import at, migrations; migrations.upgrade(at(sys.argv[1]))"


def test_processes_that_adopt_at_once_all_end_well() -> None:
    url = old_database(rows=True)
    execute(url, "DROP INDEX idx_policy_nodes_lookup", "DROP INDEX idx_policy_nodes_parent")
    started = [subprocess.Popen([sys.executable, "-c", UPGRADE, url], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert ended == [("", 0)] * 4
    assert migrations.differences(at(url)) == []
    assert execute(url, "SELECT count(*) FROM treestore_adoption") == [(1,)]
    assert {*METADATA.tables, VERSION_TABLE} < {n for (n,) in execute(url, "SELECT tablename FROM pg_tables")}
