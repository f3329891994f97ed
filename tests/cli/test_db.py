"""``treestore db``: the schema of a PostgreSQL store from the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from tests.adoption.databases import execute, old_database
from tests.cli.command import SHIPPED_FILES, Command
from tests.postgres import databases
from tests.postgres.server import Server
from treestore.backends.postgres.tables import REVISIONS
from treestore.cli.app import run

HEAD = REVISIONS[-1]


@pytest.fixture
def command(treestore: Command, postgres_server: Server) -> Command:
    """The command on an empty database."""
    name = databases.new_name()
    postgres_server.make_database(name)
    treestore.url = postgres_server.url(name)
    return treestore


def test_from_nothing_to_the_newest_and_back(command: Command) -> None:
    assert command.done("db", "current").out == "no tables of treestore\n"
    assert command.done("db", "current", "--json").json == {"revision": None, "head": HEAD}
    assert command.done("db", "upgrade").out == f"upgraded an empty database to {HEAD}\n"
    assert command.done("db", "upgrade").out == f"at {HEAD} already\n"
    assert command.done("db", "upgrade", HEAD).out == f"at {HEAD} already\n"
    assert command.done("db", "current").out == f"{HEAD} (head)\n"
    assert command.done("db", "check").out == "no differences\n"
    assert command.done("db", "downgrade", "head").out == f"at {HEAD} already\n"
    ran = command("db", "downgrade", "base", "--yes")
    assert (ran.status, ran.out) == (0, f"downgraded {HEAD} to base\n")
    assert command.done("db", "downgrade", "base").out == "at base already\n"
    assert command.done("db", "current").out == "no tables of treestore\n"


def test_help_cuts_nothing_off(command: Command) -> None:
    verbs = command.process("db", "--help", environ={"COLUMNS": "60"}).out.partition("Commands:\n")[2].splitlines()
    assert len(verbs) == 9
    assert [line for line in verbs if line.endswith("...")] == []


def test_history_needs_no_database(command: Command) -> None:
    command.url = "postgresql://u@127.0.0.1:1/d"
    assert [line.split()[0] for line in command.done("db", "history").lines] == ["REVISION", *REVISIONS]
    assert [entry["revision"] for entry in command.done("db", "history", "--json").json] == list(REVISIONS)
    script = command.done("db", "upgrade", "--sql").out
    assert script.startswith("BEGIN;") and script.rstrip().endswith("COMMIT;")
    assert "CREATE TABLE policy_versions" in script


def test_a_downgrade_says_what_it_deletes_and_wants_to_be_sure(command: Command) -> None:
    command.done("ingest", SHIPPED_FILES[0])
    ran = command("db", "downgrade", "base")
    assert (ran.status, ran.out) == (2, "")
    *steps, holds, refusal = ran.err.splitlines()
    assert [step.partition("going down from ")[2].split()[0] for step in steps] == [*reversed(REVISIONS)]
    assert all("Deletes " in step for step in steps)
    assert "holds 1 version of policies" in holds
    assert "say --yes to do it" in refusal
    assert command.done("documents", "--json").json


@pytest.mark.parametrize("answer", [True, False])
def test_a_downgrade_asks_in_a_terminal(command: Command, answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    command.done("db", "upgrade")
    asked: list[str] = []

    def confirm(question: str, **_: object) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "confirm", confirm)
    ran = command("db", "downgrade", "base")
    assert len(asked) == 1 and command.url.split("@")[1] in asked[0]
    if answer:
        assert (ran.status, ran.out) == (0, f"downgraded {HEAD} to base\n")
    else:
        assert ran.status == 1
        assert ran.err.endswith("nothing was changed\n")
        assert command.done("db", "current").out == f"{HEAD} (head)\n"


def test_adopting_and_leaving_the_tables_of_a_service(command: Command) -> None:
    command.url = old_database(rows=True)
    script = command.done("db", "upgrade", "--dry-run").out
    assert "-- ACCESS EXCLUSIVE on policy_nodes, catalog only, until COMMIT\nALTER TABLE policy_nodes ADD COLUMN" in script
    assert command.done("db", "current").out == "no tables of treestore\n"
    assert "'treestore db upgrade' adopts those of a reasoning-service" in command.refused(2, "documents")
    ran = command("db", "upgrade")
    assert (ran.status, ran.out) == (0, f"upgraded the tables of a reasoning-service to {HEAD}\n")
    assert ran.err == "treestore: building an index of policy_nodes; transactions that run now are waited for\n"
    assert command.done("db", "upgrade").out == f"at {HEAD} already\n"
    assert command.done("db", "upgrade", "--dry-run").out == "-- nothing is to be done\n"
    assert command.done("db", "check").out == "no differences\n"
    ran = command("db", "downgrade", "base")
    assert ran.status == 2 and "plain rows again: 0." in ran.err
    assert command.done("db", "current").out == f"{HEAD} (head)\n"
    ran = command("db", "downgrade", "base", "--yes")
    assert (ran.status, ran.out) == (0, f"downgraded {HEAD} to base\n")
    assert command.done("db", "downgrade", "base").out == "at base already\n"


def test_what_can_not_be_adopted_is_refused_in_one_line(command: Command) -> None:
    command.url = old_database()
    execute(command.url, "DROP TABLE policy_nodes")
    for verb in (("upgrade",), ("upgrade", "--dry-run")):
        assert "nothing was changed: there is no table policy_nodes" in command.refused(2, "db", *verb)


def test_ids_are_widened_once_and_not_unasked(command: Command) -> None:
    command.done("db", "upgrade")
    ran = command("db", "widen-ids")
    assert (ran.status, ran.out) == (2, "")
    table, sequence, refusal = ran.err.splitlines()
    assert "ACCESS EXCLUSIVE on policy_nodes, while its rows and indexes are written anew" in table
    assert "ALTER SEQUENCE policy_nodes_id_seq AS bigint: " in sequence
    assert "say --yes to do it" in refusal
    assert command.done("db", "check").out == "no differences\n"
    ran = command("db", "widen-ids", "--yes")
    assert (ran.status, ran.out) == (0, "ids have 64 bits now\n")
    assert command.done("db", "widen-ids").out == "ids have 64 bits already\n"
    assert command.done("db", "check").out == "no differences\n"


def test_check_names_the_differences(command: Command, postgres_server: Server) -> None:
    command.done("db", "upgrade")
    with postgres_server.connect(command.url.split("@/")[1].split("?")[0]) as connection:
        connection.execute("DROP INDEX ix_policy_versions_policy_id_ingested_at")
        connection.execute("ALTER TABLE policy_versions DROP COLUMN tags")
    ran = command("db", "check")
    assert ran.status == 1
    assert sorted(ran.lines) == [
        "column policy_versions.tags is missing",
        "index ix_policy_versions_policy_id_ingested_at of policy_versions is missing",
    ]
    assert ran.err == "treestore: the tables differ in 2 places\n"
    assert len(command("db", "check", "--json").json["differences"]) == 2


def test_refusals_are_one_line(command: Command, postgres_server: Server) -> None:
    command.done("db", "upgrade")
    assert "nope" in command.refused(2, "db", "upgrade", "nope")
    assert "nope" in command.refused(2, "db", "downgrade", "nope", "--yes")
    assert "nope" in command.refused(2, "db", "upgrade", "nope", "--sql")
    with postgres_server.connect(command.url.split("@/")[1].split("?")[0]) as connection:
        connection.execute("UPDATE treestore_alembic_version SET version_num = '9999'")
    for verb in (("upgrade",), ("downgrade", "base", "--yes"), ("check",)):
        assert "which a newer treestore has made" in command.refused(2, "db", *verb)
    assert command.done("db", "current").out == "9999\n"
    command.url = postgres_server.url("nowhere")
    assert "there is no such database" in command.refused(1, "db", "upgrade")
    command.url = "postgresql://u:secret@127.0.0.1:1/d"
    assert "secret" not in command.refused(1, "db", "upgrade")
    command.url = f"btree:///{command.store}"
    assert "must begin with postgresql://" in command.refused(2, "db", "upgrade")
    assert not command.store.exists()


def test_the_address_is_that_of_the_environment_if_no_option_says(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TREESTORE_URL", command.url)
    assert run(["db", "current"]) == 0
    assert capsys.readouterr().out == "no tables of treestore\n"


MISSING = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] in {"alembic", "sqlalchemy", "asyncpg", "psycopg"}]:
    del sys.modules[name]
for name in ("alembic", "sqlalchemy", "asyncpg", "psycopg"):
    sys.modules[name] = None
from treestore.cli.app import main
main(["db", *sys.argv[1:]])
"""


@pytest.mark.parametrize("verb", ["upgrade", "history"])
def test_without_the_extra_one_line_says_what_to_install(verb: str) -> None:
    ran = subprocess.run([sys.executable, "-c", MISSING, verb], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert "install treestore with its extra, postgres" in ran.stderr
    helped = subprocess.run([sys.executable, "-c", MISSING, verb, "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0
