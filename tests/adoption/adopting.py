"""A database that the old service made, the command's verbs on it, and what the server says about it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import BytesIO, TextIOWrapper
from typing import Any, NamedTuple

import psycopg

from tests.adoption.old_service import schema
from tests.adoption.old_service.models import Base
from tests.postgres import databases
from tests.postgres.server import Server
from treestore.cli import app

TEMPLATE = "old_service"

SECONDS = 1800
"""For one run of the command: more than it takes with thousands of versions, so that one that hangs is noticed at last."""

OLD_COLUMNS = {name: tuple(table.columns.keys()) for name, table in Base.metadata.tables.items()}
"""The service's tables, and the columns that it made of each, in its order."""


class Ran(NamedTuple):
    """What a run of the command did."""

    status: int
    out: str
    err: str


def old_url() -> str:
    """The URL of a new database with the service's tables and nothing in them; it goes with the test."""
    server, name = databases.server(), databases.new_name()
    server.make_database(name, _template(server))
    return server.url(name)


@cache
def _template(server: Server) -> str:
    schema.make(server.make_database(TEMPLATE))
    return TEMPLATE


# --- the command's verbs -------------------------------------------------------------------------------------------------


def command(url: str, *arguments: str) -> list[str]:
    """How ``treestore db`` is run on a store, as a process of its own."""
    return [sys.executable, "-m", "treestore", "db", *arguments, "--store", url]


def run(url: str, *arguments: str) -> Ran:
    """Run ``treestore db`` to its end: for the main thread in this process, which is quicker, for others in one of its own."""
    if threading.current_thread() is threading.main_thread():
        with redirect_stdout(_printed()) as out, redirect_stderr(_printed()) as err:
            status = app.run(["db", *arguments, "--store", url])
        return Ran(status, *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]
    ran = subprocess.run(command(url, *arguments), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "Traceback" not in ran.stderr, ran.stderr
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def _printed() -> TextIOWrapper:
    return TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True)


def done(url: str, *arguments: str) -> str:
    """Run ``treestore db``; it must succeed. What it printed."""
    ran = run(url, *arguments)
    assert ran.status == 0, ran
    return ran.out


def upgrade(url: str) -> None:
    done(url, "upgrade")


def downgrade(url: str) -> None:
    done(url, "downgrade", "base", "--yes")


def derive(url: str) -> Any:
    """The summary of a run that nobody was in the way of."""
    return json.loads(done(url, "derive", "--json"))


def repair(url: str, *arguments: str) -> Any:
    """As :func:`derive`."""
    return json.loads(done(url, "repair", "--json", *arguments))


def status(url: str) -> dict[str, int]:
    """How many versions are derived, stale, underived, broken and deleted."""
    versions: dict[str, int] = json.loads(done(url, "status", "--json"))["versions"]
    return versions


def broken(summary: Any) -> dict[tuple[str, str], str]:
    """What a summary, or the whole answer of a status, says is broken: the reason by policy and version."""
    return {(each["policy_id"], each["version_id"]): each["reason"] for each in summary["broken"]}


# --- what the server says ------------------------------------------------------------------------------------------------


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection that commits each statement."""
    return psycopg.connect(url, autocommit=True)


def one(url: str, query: str, *values: Any) -> Any:
    """The one value that a query gives."""
    with connect(url) as connection:
        row = connection.execute(query, values).fetchone()
        assert row is not None
        return row[0]


def by_hand(url: str, statement: str, *values: Any) -> int:
    """Change something as an administrator does; the number of rows."""
    with connect(url) as connection:
        return connection.execute(statement, values).rowcount


def old_rows(url: str) -> dict[str, list[tuple[str, ...]]]:
    """All rows of the service's tables: of the columns that it made, in the server's own text form, by primary key."""
    found = {}
    with connect(url) as connection:
        for table, columns in OLD_COLUMNS.items():
            key = '(policy_id COLLATE "C"), (version_id COLLATE "C")' if table == "policy_versions" else "id"
            texts = ", ".join(f"{column}::text" for column in columns)
            found[table] = list(connection.execute(f"SELECT {texts} FROM {table} ORDER BY {key}"))
        found["alembic_version"] = list(connection.execute("SELECT version_num::text FROM alembic_version"))
    return found


CATALOG = """
    SELECT format('table %s %s', relname, relkind) FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT format('column %s.%s %s %s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod),
            attnotnull, attcollation::regcollation, pg_get_expr(adbin, adrelid))
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
            LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT format('index %s %s', indexdef, indisvalid)
        FROM pg_indexes JOIN pg_index ON indexrelid = indexname::regclass WHERE schemaname = 'public'
    UNION ALL SELECT format('sequence %s %s', sequencename, data_type) FROM pg_sequences WHERE schemaname = 'public'
    UNION ALL SELECT format('trigger %s', tgname) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT format('function %s', proname) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT format('statistics %s', stxname) FROM pg_statistic_ext
"""


def catalog(url: str) -> list[str]:
    """What the database's own schema holds: tables, columns, constraints, indexes, sequences and the rest, a line each."""
    with connect(url) as connection:
        return sorted(line for (line,) in connection.execute(CATALOG))


def deadlocks(url: str) -> int:
    """How many deadlocks the server has had to resolve in this database. Its backends tell of theirs when they end."""
    return int(one(url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))


def wait_for_others(url: str) -> None:
    """Return when no connection of treestore's is left; those of a process that was killed end a little later."""
    of_treestore = "datname = current_database() AND application_name = 'treestore'"
    while one(url, f"SELECT count(*) FROM pg_stat_activity WHERE {of_treestore}"):
        time.sleep(0.01)
