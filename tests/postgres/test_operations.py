"""What docs/operations.md says to type: the rights that it grants suffice and are needed, its settings are all there are."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import treestore
from tests.adoption.databases import at, execute, old_database
from tests.contract.samples import manual
from tests.postgres.server import Server
from treestore import AccessDenied
from treestore.backends.postgres import address, migrations
from treestore.backends.postgres.tables import METADATA
from treestore.cli.app import run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str, section: str) -> list[str]:
    part = TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


@pytest.fixture
def server() -> Iterator[Server]:
    """One of its own, as roles belong to no database."""
    with Server() as server:
        server.make_database("documents")
        yield server


def url_of(server: Server, user: str) -> str:
    return server.url("documents").replace("postgres@", f"{user}@")


def test_the_two_roles(server: Server) -> None:
    make_roles, grant = blocks("sql", "Roles and rights")
    with server.connect("documents") as connection:
        connection.execute(make_roles.encode())
    owner, service = url_of(server, "treestore_owner"), url_of(server, "treestore_service")
    with pytest.raises(AccessDenied):
        treestore.open_sync(service)
    assert run(["--store", owner, "db", "upgrade"]) == 0
    with server.connect("documents") as connection:
        connection.execute("SET ROLE treestore_owner")
        connection.execute(grant.encode())
    with treestore.open_sync(service) as store:
        store.documents.store_document("policy", "1", manual())
        store.documents.store_document("policy", "1", manual()[:3])
        store.documents.update_node("policy", "a", title="another")
        assert store.documents.search_nodes("policy", "another")
        with store.snapshot() as snapshot:
            assert snapshot.documents.get_outline("policy")
        assert store.check().ok
        assert store.stats().nodes == 3
        store.documents.reindex()
        store.compact()
        store.documents.delete_document("policy")
    assert run(["--store", service, "db", "check"]) == 0
    assert run(["--store", service, "db", "downgrade", "base", "--yes"]) == 1, "the owner alone"
    with server.connect("documents") as connection:
        connection.execute("REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM treestore_service")
    with treestore.open_sync(service) as store:
        assert store.documents.list_documents() == []
        with pytest.raises(AccessDenied):
            store.documents.store_document("policy", "2", manual())


def test_every_table_is_granted_and_distributed() -> None:
    _, grant = blocks("sql", "Roles and rights")
    (distribute,) = blocks("sql", "Other servers")
    for table in METADATA.tables:
        assert re.search(rf"\b{table}\b", grant)
        assert re.search(rf"'{table}'", distribute)


def test_every_parameter_is_listed() -> None:
    table = TEXT.partition("| parameter |")[2].partition("\n\n")[0]
    for parameter in address._PARAMETERS:
        assert f"`{parameter}`" in table


def test_the_filter_for_the_histories_of_others(tmp_path: Path) -> None:
    (block,) = blocks("python", "The schema")
    program = tmp_path / "env.py"
    program.write_text(block, encoding="utf-8")
    include_object = runpy.run_path(str(program))["include_object"]
    url = old_database()
    engine = sqlalchemy.create_engine(at(url).sqlalchemy_url(), poolclass=sqlalchemy.NullPool)
    models = sqlalchemy.MetaData()
    models.reflect(engine)
    migrations.upgrade(at(url))

    def differences(**options: Any) -> list[Any]:
        with engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection, opts=options), models))

    assert len(differences()) > len(METADATA.tables)
    assert differences(include_object=include_object) == []
    execute(url, "ALTER TABLE policy_nodes DROP COLUMN summary", "CREATE TABLE theirs ()")
    found = {step[0] for step in differences(include_object=include_object)}
    assert found == {"add_column", "remove_table"}, "what is theirs is compared"
