"""Databases that a reasoning-service has made its tables in, not adopted yet and adopted."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.postgres import databases
from treestore import Settings
from treestore.backends.postgres import migrations
from treestore.backends.postgres.address import Address, parse

TABLES = (Path(__file__).parent / "tables.sql").read_text(encoding="utf-8")
ROWS = (Path(__file__).parent / "rows.sql").read_text(encoding="utf-8")


def at(url: str) -> Address:
    return parse(url, Settings())


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
    name = databases.new_name()
    databases.server().make_database(name, _adopted_template(databases.server().host))
    return databases.server().url(name)


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
