"""Tables that can't be adopted: one message that names all that is wrong, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import treestore
from tests.adoption.databases import at, execute, old_database, snapshot
from tests.postgres import databases
from treestore import AccessDenied, MigrationError, NotAStore, ReadOnly, TreestoreError
from treestore.backends.postgres import migrations

WRONG = [
    ("DROP TABLE policy_nodes", "there is no table policy_nodes"),
    ("DROP TABLE policy_versions CASCADE", "there is no table policy_versions"),
    ("ALTER TABLE policy_nodes DROP summary", "column policy_nodes.summary is missing"),
    ("ALTER TABLE policy_nodes ALTER title TYPE varchar(9)", "column policy_nodes.title is character varying(9), not TEXT"),
    (
        "ALTER TABLE policy_nodes ALTER section_path TYPE varchar(499)",
        "column policy_nodes.section_path is character varying(499), not VARCHAR(500)",
    ),
    (
        "ALTER TABLE policy_nodes ALTER node_id TYPE varchar(101)",
        "column policy_nodes.node_id is character varying(101), not VARCHAR(100)",
    ),
    ("ALTER TABLE policy_nodes ALTER node_id TYPE text", "column policy_nodes.node_id is text, not VARCHAR(100)"),
    (
        "ALTER TABLE policy_versions ALTER ingested_at TYPE timestamptz",
        "column policy_versions.ingested_at is timestamp with time zone, not TIMESTAMP WITHOUT TIME ZONE",
    ),
    ("ALTER TABLE policy_nodes ALTER page_start TYPE bigint", "column policy_nodes.page_start is bigint, not INTEGER"),
    ("ALTER TABLE policy_nodes ALTER id DROP DEFAULT", "column policy_nodes.id is not counted up by a sequence"),
    ("ALTER TABLE policy_nodes ALTER id SET DEFAULT 7", "column policy_nodes.id is not counted up by a sequence"),
    (
        "ALTER TABLE policy_versions ALTER source_url SET NOT NULL",
        "column policy_versions.source_url may not be null, and may here",
    ),
    ("ALTER TABLE policy_nodes ALTER title DROP NOT NULL", "column policy_nodes.title may be null, and may not here"),
    (
        "ALTER TABLE policy_nodes ADD theirs integer NOT NULL",
        "column policy_nodes.theirs is not known, may not be null and has no default",
    ),
    (
        "ALTER TABLE policy_nodes DROP CONSTRAINT pk_policy_nodes, ADD PRIMARY KEY (policy_id, id)",
        "table policy_nodes has the primary key (policy_id, id), not (id)",
    ),
    ("ALTER TABLE policy_nodes ADD ordinal text", "there is a column policy_nodes.ordinal, which treestore would add"),
    ("ALTER TABLE policy_versions ADD tags text", "there is a column policy_versions.tags, which treestore would add"),
    ("CREATE TABLE treestore_groups (theirs integer)", "there is a treestore_groups already"),
    ("CREATE TYPE treestore_policies AS (theirs integer)", "there is a treestore_policies already"),
    ("CREATE TABLE treestore_adoption (adopted_at timestamp)", "there is a treestore_adoption already"),
    (
        "CREATE INDEX ix_policy_nodes_policy_id_version_id_ordinal ON policy_nodes (title)",
        "there is a ix_policy_nodes_policy_id_version_id_ordinal already, which is another index than treestore would make",
    ),
    ("ALTER TABLE policy_nodes SET UNLOGGED", "policy_nodes is not an ordinary table"),
    ("CREATE TABLE more () INHERITS (policy_nodes)", "policy_nodes is not an ordinary table"),
    (
        "ALTER TABLE policy_nodes RENAME TO nodes; CREATE VIEW policy_nodes AS SELECT * FROM nodes",
        "policy_nodes is not an ordinary table",
    ),
    (
        "DROP TABLE policy_nodes; CREATE TABLE policy_nodes (id serial, policy_id varchar(100)) PARTITION BY LIST (policy_id)",
        "policy_nodes is not an ordinary table",
    ),
    (
        "CREATE SCHEMA app; ALTER TABLE policy_nodes SET SCHEMA app",
        "there is no table policy_nodes",
    ),
]


def refused(url: str, kind: type[TreestoreError]) -> str:
    """The one line that an upgrade and a dry run refuse with; nothing was changed."""
    before = snapshot(url)
    told = set()
    for step in (migrations.upgrade, migrations.dry_run):
        with pytest.raises(TreestoreError) as caught:
            step(at(url))
        assert type(caught.value) is kind
        told.add(str(caught.value))
    assert snapshot(url) == before
    assert migrations.current(at(url)) is None
    (line,) = told
    assert line.isprintable()
    assert line.startswith(f"{at(url).shown}: the tables can't be adopted, nothing was changed: ")
    return line


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_what_is_wrong_is_named(change: str, words: str) -> None:
    url = old_database()
    execute(url, *change.split("; "))
    assert words in refused(url, NotAStore)


def test_all_that_is_wrong_is_in_one_message() -> None:
    url = old_database(rows=True)
    execute(
        url,
        "ALTER TABLE policy_nodes DROP summary, ALTER page_end TYPE bigint",
        "ALTER TABLE policy_versions ADD theirs integer NOT NULL DEFAULT 1",
        "ALTER TABLE policy_versions ALTER theirs DROP DEFAULT",
        "UPDATE alembic_version SET version_num = 'f00'",
    )
    told = refused(url, NotAStore).partition("nothing was changed: ")[2]
    assert told.split("; ") == [
        "column policy_versions.theirs is not known, may not be null and has no default",
        "column policy_nodes.page_end is bigint, not INTEGER",
        "column policy_nodes.summary is missing",
        "alembic_version notes f00, and known is 693889b485e5",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE alembic_version SET version_num = 'f00'", "alembic_version notes f00, and known is 693889b485e5"),
        ("DELETE FROM alembic_version", "alembic_version notes no revision, and known is 693889b485e5"),
        ("INSERT INTO alembic_version VALUES ('f00')", "alembic_version notes 693889b485e5, f00, and known is 693889b485e5"),
    ],
)
def test_another_history_is_refused(change: str, words: str) -> None:
    url = old_database(rows=True)
    execute(url, change)
    assert refused(url, MigrationError).endswith(words)


def test_tables_of_another_schema_are_refused() -> None:
    url = old_database()
    execute(url, "CREATE SCHEMA app", f'ALTER DATABASE "{at(url).database}" SET search_path = app, public')
    assert "policy_nodes is in the schema public, not in the first one of the search_path, app" in refused(url, NotAStore)


@pytest.fixture
def role() -> Iterator[str]:
    """A role that may connect, and nothing else; it goes with the test."""
    with databases.server().connect() as connection:
        connection.execute("CREATE ROLE of_the_test LOGIN")
        yield "of_the_test"
    databases.take_back()
    with databases.server().connect() as connection:
        connection.execute("DROP ROLE of_the_test")


@pytest.mark.parametrize("rights", ["SELECT, INSERT, UPDATE, DELETE", None])
def test_who_does_not_own_the_tables_is_refused(role: str, rights: str | None) -> None:
    url = old_database(rows=True)
    execute(url, "REVOKE CREATE ON SCHEMA public FROM public", "GRANT SELECT ON alembic_version TO of_the_test")
    if rights is not None:
        execute(url, f"GRANT {rights} ON policy_versions, policy_nodes TO of_the_test")
    told = refused(url.replace("postgres@", f"{role}@"), AccessDenied)
    assert "policy_nodes belongs to postgres, and of_the_test may not change it" in told
    assert "of_the_test may not create tables in the schema public" in told


def test_a_member_of_the_owning_role_may(role: str) -> None:
    url = old_database(rows=True)
    execute(
        url,
        "CREATE ROLE of_the_owner",
        "GRANT of_the_owner TO of_the_test",
        "GRANT CREATE ON SCHEMA public TO of_the_test",
        "ALTER TABLE policy_versions OWNER TO of_the_owner",
        "ALTER TABLE policy_nodes OWNER TO of_the_owner",
        "GRANT CREATE ON SCHEMA public TO of_the_owner",
        "GRANT SELECT ON alembic_version TO of_the_test",
    )
    try:
        migrations.upgrade(at(url.replace("postgres@", f"{role}@")))
        assert migrations.differences(at(url)) == []
    finally:
        databases.take_back()
        with databases.server().connect() as connection:
            connection.execute("DROP ROLE of_the_owner")


@pytest.mark.parametrize("create", [True, False])
def test_opening_never_adopts(create: bool) -> None:
    url = old_database(rows=True)
    before = snapshot(url)
    with pytest.raises(NotAStore, match="tables of others, policy_versions and policy_nodes; 'treestore db upgrade'"):
        treestore.open_sync(url, create=create)
    execute(url, "DROP TABLE policy_nodes")
    with pytest.raises(NotAStore, match=r"tables of others, policy_versions; .*\(docs/adopting.md\)$"):
        treestore.open_sync(url, create=create)
    execute(url, "DROP TABLE policy_versions CASCADE", "CREATE TABLE policy_nodes ()")
    with pytest.raises(NotAStore, match="tables of others, policy_nodes; "):
        treestore.open_sync(url, create=create)
    assert set(snapshot(url)) < set(before)


def test_tables_are_adopted_at_the_newest_revision_alone() -> None:
    url = old_database(rows=True)
    before = snapshot(url)
    for revision in ("0001", "nope", "base"):
        for step in (migrations.upgrade, migrations.dry_run):
            with pytest.raises(MigrationError, match="tables of others are adopted at the newest revision"):
                step(at(url), revision)
    assert snapshot(url) == before


def test_a_server_that_only_reads_is_not_changed() -> None:
    url = old_database(rows=True)
    execute(url, f'ALTER DATABASE "{at(url).database}" SET default_transaction_read_only = on')
    before = snapshot(url)
    with pytest.raises(ReadOnly):
        migrations.upgrade(at(url))
    assert snapshot(url) == before
