"""The schema's revisions on a real server: up, down and up again, at once, refused, compared; and by plain alembic."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from alembic import command

import treestore
from tests.postgres import databases
from tests.postgres.pgbouncer import PgBouncer
from tests.postgres.server import Server
from treestore import AccessDenied, MigrationError, NoStore, NotAStore, ReadOnly, Settings, Timeout, Unavailable
from treestore.backends.postgres import migrations
from treestore.backends.postgres.address import Address, parse
from treestore.backends.postgres.tables import METADATA, REVISIONS, VERSION_TABLE

ROOT = Path(__file__).resolve().parent.parent.parent
HEAD = REVISIONS[-1]
NODES = [{"node_id": "a", "title": "Leave", "text": "Thirty days.", "nodes": [{"node_id": "b", "title": "Sick leave"}]}]


def at(url: str) -> Address:
    return parse(url, Settings())


@pytest.fixture
def url(postgres_server: Server) -> str:
    """A database of the test's own, with nothing in it."""
    name = databases.new_name()
    postgres_server.make_database(name)
    return postgres_server.url(name)


@pytest.fixture
def address(url: str) -> Address:
    return at(url)


def execute(address: Address, *statements: str) -> list[Any]:
    """Run statements; the rows of the last one."""
    engine = sqlalchemy.create_engine(address.sqlalchemy_url(), poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            answer = connection.exec_driver_sql(statement)
        return list(answer) if answer.returns_rows else []


def tables(address: Address) -> set[str]:
    return {name for (name,) in execute(address, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def fill(url: str) -> None:
    with treestore.open_sync(url, create=False) as store:
        store.documents.store_document("policy", "1", NODES)


# --- up and down ---------------------------------------------------------------------------------------------------------


def test_the_revisions_are_those_that_the_code_knows() -> None:
    history = migrations.history()
    assert tuple(entry.revision for entry in history) == REVISIONS
    assert all(entry.title and entry.deletes.startswith("Deletes ") for entry in history), "a downgrade says what it deletes"


def test_a_wheel_has_them_where_the_code_looks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (shipped,) = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items()
    assert shipped == ("alembic", str(Path(migrations.__file__).parent.relative_to(ROOT) / "alembic"))
    assert migrations.folder() == ROOT / "alembic"
    assert not (ROOT / "alembic" / "__init__.py").exists(), "with it, 'import alembic' would find the folder"


def test_up_with_rows_down_and_up_again(url: str, address: Address) -> None:
    before = tables(address)
    assert migrations.current(address) is None
    migrations.upgrade(address)
    assert migrations.current(address) == HEAD
    assert tables(address) == {*METADATA.tables, VERSION_TABLE}
    first = schema(address)
    fill(url)
    assert migrations.counted_versions(address) == 1
    assert [entry.revision for entry in migrations.deletions(address, "base")] == list(REVISIONS[::-1])
    migrations.downgrade(address, "base")
    assert tables(address) == before
    assert execute(address, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]
    assert migrations.current(address) is None
    migrations.upgrade(address)
    assert schema(address) == first
    fill(url)


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_goes_up_and_down_alone(address: Address, revision: str) -> None:
    below = ("base", *REVISIONS)[REVISIONS.index(revision)]
    migrations.upgrade(address, revision)
    first = schema(address)
    assert migrations.current(address) == revision
    migrations.downgrade(address, below)
    assert migrations.current(address) == (None if below == "base" else below)
    migrations.upgrade(address, revision)
    assert schema(address) == first


def test_doing_it_again_changes_nothing(address: Address) -> None:
    migrations.downgrade(address, "base")
    assert tables(address) == set()
    migrations.upgrade(address)
    first = schema(address)
    migrations.upgrade(address)
    migrations.upgrade(address, HEAD)
    migrations.downgrade(address, HEAD)
    assert migrations.deletions(address, HEAD) == []
    assert schema(address) == first


def schema(address: Address) -> list[Any]:
    """All that a server knows about our columns, constraints and indexes, in words."""
    columns = """
        SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull,
               pg_get_expr(adbin, adrelid), collname
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        LEFT JOIN pg_collation ON pg_collation.oid = attcollation
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped"""
    constraints = """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace"""
    indexes = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    return [sorted(map(repr, execute(address, question))) for question in (columns, constraints, indexes)]


def test_a_migrated_database_is_what_the_catalog_says(address: Address, url: str, postgres_server: Server) -> None:
    """By the server's own words: Alembic compares neither collations nor checks nor primary keys."""
    migrations.upgrade(address)
    assert migrations.differences(address) == []
    name = databases.new_name()
    postgres_server.make_database(name)
    made = at(postgres_server.url(name))
    METADATA.create_all(sqlalchemy.create_engine(made.sqlalchemy_url(), poolclass=sqlalchemy.NullPool))
    wanted = schema(made)
    execute(address, f"DROP TABLE {VERSION_TABLE}")
    assert schema(address) == wanted
    assert any("'C'" in column for column in wanted[0]), "collations are compared"


# --- what is not ours ----------------------------------------------------------------------------------------------------

THEIRS = (
    "CREATE TABLE reasoning_outputs (policy_id varchar(100), version_id varchar(50))",
    "ALTER TABLE reasoning_outputs ADD FOREIGN KEY (policy_id, version_id) REFERENCES policy_versions",
    "CREATE TABLE policy_validation_issues (id serial PRIMARY KEY, note text)",
    "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
    "INSERT INTO alembic_version VALUES ('693889b485e5')",
    "ALTER TABLE policy_nodes ADD COLUMN theirs integer",
    "CREATE INDEX theirs ON policy_versions (pdf_sha256)",
)


def test_what_others_have_is_left_alone(address: Address) -> None:
    migrations.upgrade(address)
    execute(address, *THEIRS)
    assert migrations.differences(address) == []
    assert alembic(address, "check").returncode == 0
    before = schema(address)
    with pytest.raises(MigrationError, match=r"tables of others refer to ours, nothing was changed .*reasoning_outputs"):
        migrations.downgrade(address, "base")
    assert schema(address) == before
    execute(address, "DROP TABLE reasoning_outputs")
    migrations.downgrade(address, "base")
    assert tables(address) == {"policy_validation_issues", "alembic_version"}
    assert execute(address, "SELECT version_num FROM alembic_version") == [("693889b485e5",)]


def test_tables_of_our_names_that_others_have_made_are_not_touched(address: Address) -> None:
    execute(address, "CREATE TABLE policy_versions (policy_id text)", "INSERT INTO policy_versions VALUES ('theirs')")
    before = schema(address)
    with pytest.raises(NotAStore, match="can't be adopted, nothing was changed: there is no table policy_nodes; column"):
        migrations.upgrade(address)
    with pytest.raises(MigrationError, match="has tables of these names that treestore has not made"):
        migrations.upgrade(address, adopt=False)
    assert schema(address) == before
    assert migrations.current(address) is None


# --- compared ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("DROP TABLE treestore_lengths", "table treestore_lengths is missing"),
        ("CREATE TABLE treestore_more ()", "table treestore_more is not known"),
        ("ALTER TABLE policy_versions DROP COLUMN tags", "column policy_versions.tags is missing"),
        ("ALTER TABLE treestore_groups ADD COLUMN y int", "column treestore_groups.y is not known"),
        ("ALTER TABLE policy_nodes ALTER title TYPE varchar(9)", "column policy_nodes.title is VARCHAR(9), not TEXT"),
        (
            "ALTER TABLE policy_nodes ALTER node_id TYPE varchar(100) COLLATE pg_catalog.default",
            "column policy_nodes.node_id has the collation default, not C",
        ),
        (
            "ALTER TABLE policy_versions ALTER created_by TYPE text COLLATE pg_catalog.\"C\"",
            "column policy_versions.created_by has the collation C, not default",
        ),
        (
            "ALTER TABLE policy_versions ALTER revision SET NOT NULL",
            "column policy_versions.revision may not be null, and may here",
        ),
        (
            "ALTER TABLE policy_versions ALTER created_at SET DEFAULT now()",
            "column policy_versions.created_at has the default now(), not timezone('utc', now())",
        ),
        (
            "ALTER TABLE policy_nodes ALTER validation_status DROP DEFAULT",
            "column policy_nodes.validation_status has the default none, not 'pending'",
        ),
        (
            "DROP INDEX ix_policy_versions_policy_id_ingested_at",
            "index ix_policy_versions_policy_id_ingested_at of policy_versions is missing",
        ),
        ("CREATE INDEX more ON treestore_groups (policy_id)", "index more of treestore_groups is not known"),
        (
            "ALTER TABLE policy_nodes DROP CONSTRAINT policy_nodes_policy_id_version_id_fkey",
            "foreign key policy_nodes_policy_id_version_id_fkey of policy_nodes is missing",
        ),
        (
            "ALTER TABLE treestore_page_texts DROP CONSTRAINT treestore_page_texts_page_key",
            "unique key treestore_page_texts_page_key of treestore_page_texts is missing",
        ),
        (
            "ALTER TABLE policy_nodes DROP CONSTRAINT policy_nodes_page_range_check",
            "check policy_nodes_page_range_check of policy_nodes is missing",
        ),
        (
            "ALTER TABLE treestore_policies DROP CONSTRAINT treestore_policies_pkey",
            "table treestore_policies has the primary key (), not (policy_id)",
        ),
    ],
)
def test_each_difference_is_named(change: str, difference: str) -> None:
    address = at(databases.new_url())
    assert migrations.differences(address) == []
    execute(address, change)
    assert migrations.differences(address) == [difference]


def test_a_database_without_tables_or_of_another_revision_is_not_compared(address: Address) -> None:
    with pytest.raises(NoStore, match="there is no treestore; 'treestore db upgrade' makes its tables"):
        migrations.differences(address)
    migrations.upgrade(address)
    execute(address, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(MigrationError, match="is at revision 9999, which a newer treestore has made"):
        migrations.differences(address)


# --- refused -------------------------------------------------------------------------------------------------------------


def test_a_newer_schema_is_not_touched(address: Address, url: str) -> None:
    migrations.upgrade(address)
    execute(address, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    before = schema(address)
    for step in (migrations.upgrade, lambda place: migrations.downgrade(place, "base")):
        with pytest.raises(MigrationError, match="is at revision 9999, which a newer treestore has made"):
            step(address)
    with pytest.raises(MigrationError, match="9999"):
        treestore.open_sync(url)
    assert schema(address) == before


def test_several_revisions_are_refused(address: Address) -> None:
    migrations.upgrade(address)
    execute(address, f"INSERT INTO {VERSION_TABLE} VALUES ('0000')")
    with pytest.raises(MigrationError, match="treestore_alembic_version notes several revisions"):
        migrations.current(address)


@pytest.mark.parametrize("step", [migrations.upgrade, migrations.downgrade, migrations.deletions])
def test_an_unknown_revision(address: Address, step: Callable[[Address, str], object]) -> None:
    migrations.upgrade(address)
    with pytest.raises(MigrationError, match=rf"nope.*\(known are base, {', '.join(REVISIONS)} and head\)"):
        step(address, "nope")
    assert migrations.current(address) == HEAD


def test_no_server_no_database_no_user_no_right(address: Address, postgres_server: Server) -> None:
    for url, kind, words in (
        ("postgresql://u@127.0.0.1:1/d", Unavailable, "can't be reached"),
        ("postgresql://u@/d?host=/nonexistent", Unavailable, "can't be reached"),
        ("postgresql://u@no-such-host.invalid/d", Unavailable, "can't be reached"),
        (postgres_server.url("nowhere"), NoStore, "no such database"),
        (postgres_server.url(address.database).replace("postgres@", "nobody-there@"), AccessDenied, "nobody-there"),
    ):
        for step in (migrations.current, migrations.upgrade):
            with pytest.raises(kind, match=words) as caught:
                step(at(url))
            assert str(caught.value).isprintable()
            assert str(caught.value).startswith(at(url).shown)
    execute(address, "CREATE ROLE reader LOGIN", "REVOKE CREATE ON SCHEMA public FROM public")
    try:
        with pytest.raises(AccessDenied, match="lacks a right"):
            migrations.upgrade(at(postgres_server.url(address.database).replace("postgres@", "reader@")))
    finally:
        execute(address, "DROP ROLE reader")


def test_a_wrong_password_is_not_shown() -> None:
    with Server(password="right") as server:
        with pytest.raises(AccessDenied, match="SQLSTATE 28P01") as caught:
            migrations.current(at(server.url().replace(":right@", ":secret@")))
        assert "secret" not in str(caught.value)


def test_a_server_that_only_reads(address: Address, url: str) -> None:
    execute(address, f'ALTER DATABASE "{address.database}" SET default_transaction_read_only = on')
    with pytest.raises(ReadOnly):
        migrations.upgrade(address)


def test_what_waits_for_a_lock_gives_up_in_time_and_changes_nothing(address: Address, url: str) -> None:
    migrations.upgrade(address)
    before = schema(address)
    with psycopg.connect(host=address.host, port=address.port, user=address.user, dbname=address.database) as other:
        other.execute("SELECT * FROM policy_versions")
        with pytest.raises(Timeout, match="TREESTORE_STATEMENT_TIMEOUT_SECONDS"):
            migrations.downgrade(at(f"{url}&statement_timeout=0.2"), "base")
    assert schema(address) == before


def test_a_migration_that_fails_in_its_middle_changes_nothing(address: Address) -> None:
    execute(address, "CREATE TYPE treestore_groups AS (x int)")  # the table's name is taken, at the very end
    before = schema(address)
    with pytest.raises(MigrationError):
        migrations.upgrade(address)
    assert tables(address) == set()
    assert schema(address) == before


# --- at once -------------------------------------------------------------------------------------------------------------

UPGRADE = "import sys; from tests.postgres.test_migrations import at, migrations; migrations.upgrade(at(sys.argv[1]))"


def test_processes_that_upgrade_an_empty_database_at_once_all_end_well(address: Address, url: str) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", UPGRADE, url], cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert ended == [("", 0)] * 4
    assert migrations.differences(address) == []


def test_threads_that_upgrade_and_stores_that_open_at_once(address: Address, url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        upgrades = [pool.submit(migrations.upgrade, address) for _ in range(4)]
        stores = [pool.submit(treestore.open_sync, url) for _ in range(4)]
        for upgrade in upgrades:
            upgrade.result()
        for store in stores:
            store.result().close()
    assert migrations.differences(address) == []


def test_who_comes_second_waits_and_looks_again(address: Address) -> None:
    with ThreadPoolExecutor(1) as pool:
        with migrations.transaction(address) as first:
            migrations._run(command.upgrade, "head", first)
            second = pool.submit(migrations.upgrade, address)
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            until = time.monotonic() + 30
            while not execute(address, waiting):
                assert time.monotonic() < until and not second.done()
                time.sleep(0.01)
        second.result()
    assert migrations.differences(address) == []


def test_behind_pgbouncer(pgbouncer: PgBouncer) -> None:
    name = databases.new_name()
    databases.server().make_database(name)
    address = at(pgbouncer.url(name))
    assert address.pgbouncer
    migrations.upgrade(address)
    assert migrations.differences(address) == []
    with migrations.transaction(address) as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "1min"
    migrations.downgrade(address, "base")
    assert migrations.current(address) is None


# --- plain alembic -------------------------------------------------------------------------------------------------------


def alembic(address: Address | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = {} if address is None else {"TREESTORE_URL": address.shown}
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_plain_alembic_does_the_same(address: Address) -> None:
    for arguments, said in (
        (("upgrade", "head"), ""),
        (("current",), f"{HEAD} (head)"),
        (("history",), f"-> {HEAD} (head)"),
        (("check",), "No new upgrade operations detected."),
    ):
        ran = alembic(address, *arguments)
        assert (ran.returncode, said in ran.stdout) == (0, True), ran
    assert migrations.differences(address) == []
    assert alembic(address, "downgrade", "base").returncode == 0
    assert tables(address) == {VERSION_TABLE}
    assert alembic(None, "-x", f"url={address.shown}", "upgrade", "head").returncode == 0
    assert migrations.current(address) == HEAD


def test_plain_alembic_fails_in_one_line(postgres_server: Server) -> None:
    for address, words in ((at(postgres_server.url("nowhere")), "no such database"), (None, "must begin with postgresql://")):
        ran = alembic(address, "current")
        assert ran.returncode != 0
        assert "Traceback" not in ran.stderr
        assert words in ran.stdout


def test_the_sql_alone_makes_the_same(address: Address, url: str, postgres_server: Server) -> None:
    script = alembic(None, "upgrade", "head", "--sql")
    assert script.returncode == 0, script
    assert migrations.sql() == script.stdout
    execute(address, script.stdout)
    assert migrations.current(address) == HEAD
    assert migrations.differences(address) == []
    fill(url)
    execute(address, migrations.sql_down(f"{HEAD}:base"))
    assert tables(address) == {VERSION_TABLE}
    with pytest.raises(MigrationError, match="nope"):
        migrations.sql("nope")
