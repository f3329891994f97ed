"""The databases that tests get: empty, migrated, and free of whatever an earlier test did."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg
import pytest

import treestore
from tests.postgres import databases
from tests.postgres.server import Server

NODES = [{"node_id": "a", "title": "kept by nobody", "text": "words"}]


def name(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


def left_by(url: str, *statements: str) -> None:
    """What a test would do to its database, which is then taken back."""
    with treestore.open_sync(url) as store:
        store.documents.store_document("p", "1", NODES)
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
    databases.take_back()


@pytest.fixture
def url() -> str:
    return databases.new_url()


def test_a_database_is_lent_again_when_it_was_emptied(url: str) -> None:
    left_by(url)
    again = databases.new_url()
    assert name(again) == name(url)
    with treestore.open_sync(again) as store:
        assert store.stats().versions == 0
    with psycopg.connect(again) as connection:
        for (table,) in connection.execute(databases.TABLES).fetchall():
            rows = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert rows == (int(table == "treestore_alembic_version"),), table
        assert connection.execute("SELECT nextval('policy_nodes_id_seq')").fetchone() == (1,)


def test_a_large_one_is_emptied_too(url: str) -> None:
    with treestore.open_sync(url) as store:
        nodes = [{"node_id": str(n), "title": "t", "text": f"{n} " * 200} for n in range(9000)]
        store.documents.store_document("p", "1", nodes)
    with psycopg.connect(url) as connection:
        assert databases._one(connection, databases.SIZE) > databases.DELETED_BYTES
    databases.take_back()
    assert name(databases.new_url()) == name(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM policy_nodes").fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE policy_nodes ADD COLUMN mine integer",
        "ALTER TABLE policy_nodes ALTER COLUMN title DROP NOT NULL",
        "CREATE INDEX mine ON policy_nodes (title)",
        "CREATE TABLE mine (n integer)",
        "CREATE SCHEMA mine",
        "DROP TABLE treestore_groups",
        "UPDATE treestore_alembic_version SET version_num = 'mine'",
        "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE policy_nodes DISABLE TRIGGER ALL",
        "ANALYZE policy_nodes",
        "SELECT lo_create(0)",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = %L', current_database(), '64kB'); END $$",
    ],
)
def test_one_that_a_test_has_changed_is_not_lent_again(url: str, statement: str) -> None:
    left_by(url, statement)
    assert name(url) not in databases._free
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_one_that_is_still_used_is_not_lent_again(url: str) -> None:
    with psycopg.connect(url) as connection:
        databases.take_back()
        assert name(url) not in databases._free
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_one_that_a_test_has_dropped_is_no_loss(url: str, postgres_server: Server) -> None:
    postgres_server.drop_database(name(url))
    databases.take_back()
    assert name(url) not in databases._free


def test_pytest_postgresql_clones_the_same_template(postgresql: psycopg.Connection[tuple[int]]) -> None:
    assert postgresql.execute("SELECT count(*) FROM policy_nodes").fetchone() == (0,)
    assert postgresql.execute("SELECT count(*) FROM treestore_alembic_version").fetchone() == (1,)
