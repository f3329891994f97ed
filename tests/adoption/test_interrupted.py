"""An adoption that was interrupted: the service's code does not notice, opening says what to do, and that does the rest.

Also what it waits for, how long others wait behind it, and which locks it takes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import treestore
from tests.adoption.databases import at, connected, execute, old_database, snapshot
from tests.adoption.test_adopting import UPGRADE
from treestore import NotAStore, Timeout
from treestore.backends.postgres import adoption, ids, migrations
from treestore.backends.postgres.address import Address
from treestore.backends.postgres.locks import lock_of

STEPS = ("columns of versions", "columns of nodes", "index", "tables of ours")
ORDINAL = "ix_policy_nodes_policy_id_version_id_ordinal"
LOOKUPS = ("DROP INDEX idx_policy_nodes_lookup, idx_policy_nodes_parent, idx_policy_versions_ingested",)

WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'treestore'"
    " AND wait_event_type = 'Lock' AND query LIKE %s"
)

HELD = {
    "columns of versions": ("LOCK TABLE policy_versions IN ROW EXCLUSIVE MODE", "ALTER TABLE policy_versions%"),
    "columns of nodes": ("LOCK TABLE policy_nodes IN ROW EXCLUSIVE MODE", "ALTER TABLE policy_nodes%"),
    "index": ("LOCK TABLE policy_nodes IN ROW EXCLUSIVE MODE", "CREATE UNIQUE INDEX%"),
    "tables of ours": ("LOCK TABLE policy_nodes IN SHARE UPDATE EXCLUSIVE MODE", "LOCK TABLE policy_nodes%"),
}
"""By step: what somebody does in a transaction that stays open, and what then waits for it."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "PAUSE_SECONDS", 0.05)


def works_as_before(url: str) -> None:
    """The service's code replaces a version, as it always does."""
    with connected(url) as connection, connection.transaction():
        connection.execute("UPDATE policy_versions SET ingested_at = now() WHERE policy_id = 'leave' AND version_id = '2'")
        connection.execute("DELETE FROM policy_nodes WHERE policy_id = 'leave' AND version_id = '2'")
        connection.execute(
            "INSERT INTO policy_nodes (policy_id, version_id, node_id, section_path, title, content_hash)"
            " SELECT 'leave', '2', '', 'T', 'T', repeat('a', 64) FROM generate_series(1, 3)"
        )


def stands_in_between(url: str) -> None:
    """It is no store, the service's code works, and a dry run shows the rest."""
    assert migrations.current(at(url)) is None
    with pytest.raises(NotAStore, match="an upgrade that adopts policy_versions and policy_nodes was interrupted; '"):
        treestore.open_sync(url)
    works_as_before(url)
    assert migrations.dry_run(at(url))


def goes_on(url: str) -> None:
    migrations.upgrade(at(url))
    assert migrations.differences(at(url)) == []
    assert migrations.adopted(at(url))
    works_as_before(url)


def up_to(
    steps: int, monkeypatch: pytest.MonkeyPatch, change: Callable[[Address], None] = migrations.upgrade
) -> Callable[[str], None]:
    """An upgrade, or another change, that is killed before a step; there are so many before it."""
    taken = 0
    take = adoption._take

    def interrupted(*arguments: Any) -> None:
        nonlocal taken
        if taken == steps:
            raise KeyboardInterrupt
        taken += 1
        take(*arguments)

    def changed(url: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(adoption, "_take", interrupted)
            with pytest.raises(KeyboardInterrupt):
                change(at(url))

    return changed


@pytest.mark.parametrize("steps", range(1, len(STEPS) + 3))
def test_interrupted_between_steps(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    url = old_database(rows=True)
    execute(url, *LOOKUPS)
    up_to(steps, monkeypatch)(url)
    stands_in_between(url)
    goes_on(url)


@pytest.mark.parametrize("steps", range(1, len(STEPS)))
def test_what_an_interrupted_adoption_has_left_can_be_taken_away(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    url = old_database(rows=True)
    before = snapshot(url)
    up_to(steps, monkeypatch)(url)
    assert len(migrations.deletions(at(url), "base")) == 1
    migrations.downgrade(at(url), "base")
    assert snapshot(url) == before
    assert migrations.deletions(at(url), "base") == []


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_leaving_that_was_interrupted_is_finished_by_doing_it_again(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    url = old_database(rows=True)
    before = snapshot(url)
    migrations.upgrade(at(url))
    up_to(steps, monkeypatch, lambda address: migrations.downgrade(address, "base"))(url)
    assert migrations.adopted(at(url)) == (steps == 0)
    works_as_before(url)
    migrations.downgrade(at(url), "base")
    after = snapshot(url)
    assert [after[kind] for kind in ("columns", "constraints", "indexes")] == [
        before[kind] for kind in ("columns", "constraints", "indexes")
    ]


# --- during a step -------------------------------------------------------------------------------------------------------


def waiting(connection: psycopg.Connection[Any], query: str, process: Callable[[], bool]) -> int:
    """The server's process that waits with such a query."""
    until = time.monotonic() + 60
    while True:
        found = connection.execute(WAITING, [query]).fetchone()
        if found is not None:
            return int(found[0])
        assert time.monotonic() < until and process()
        time.sleep(0.01)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["process", "connection"])
def test_ended_during_a_step(step: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = old_database(rows=True)
    up_to(STEPS.index(step), monkeypatch)(url)
    hold, query = HELD[step]
    with connected(url) as watching, connected(url) as holder:
        holder.execute("BEGIN")
        holder.execute(hold.encode())
        process = subprocess.Popen([sys.executable, "-c", UPGRADE, url], stderr=subprocess.PIPE, text=True)
        try:
            backend = waiting(watching, query, lambda: process.poll() is None)
            if how == "process":
                process.kill()
            else:
                watching.execute("SELECT pg_terminate_backend(%s)", [backend])
            told = process.communicate(timeout=60)[1]
        finally:
            process.kill()
        assert (process.returncode < 0) == (how == "process")
        assert how == "process" or "Unavailable" in told
        invalid = watching.execute("SELECT relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE NOT indisvalid")
        assert invalid.fetchall() == ([(ORDINAL,)] if step == "index" else [])
        holder.execute("ROLLBACK")
    goes_on(url)


def test_an_index_that_was_not_finished_is_built_anew() -> None:
    """Not one of them is taken for an index, and what is dropped is named."""
    url = old_database(rows=True)
    execute(url, *LOOKUPS)
    migrations.upgrade(at(url))
    migrations.downgrade(at(url), "base")
    names = "('ix_policy_nodes_policy_id_version_id_node_id'::regclass, 'ix_policy_versions_policy_id_ingested_at'::regclass)"
    execute(url, f"UPDATE pg_index SET indisvalid = false WHERE indexrelid IN {names}")
    script = migrations.dry_run(at(url))
    assert script.count("\nDROP INDEX ix_") == 2
    goes_on(url)
    assert execute(url, "SELECT FROM pg_index WHERE NOT indisvalid") == []


# --- what is waited for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["policy_versions", "policy_nodes"])
def test_nobody_waits_long_behind_an_upgrade(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody keeps a transaction open. Who comes after the upgrade gets through, and the upgrade says whom it waits for."""
    monkeypatch.setattr(adoption, "LOCK_SECONDS", 0.3)
    url = old_database(rows=True)
    said: list[str] = []
    with connected(url) as holder, connected(url) as reader, connected(url) as watching, ThreadPoolExecutor(1) as pool:
        holder.execute("SET application_name = 'long report'")
        holder.execute("BEGIN")
        holder.execute(f"SELECT count(*) FROM {table}".encode())
        upgrade = pool.submit(migrations.upgrade, at(url), say=said.append)
        for _ in range(3):
            waiting(watching, f"ALTER TABLE {table}%", lambda: not upgrade.done())
            reader.execute(f"SELECT count(*) FROM {table}".encode())  # while the holder goes on
        holder.execute("COMMIT")
        upgrade.result(timeout=60)
    told = f"waiting for a lock on {table}, held by process \\d+ \\(long report, idle in transaction, for 00:00:0\\d\\)"
    assert any(re.fullmatch(told, line) for line in said), said
    assert migrations.differences(at(url)) == []


def test_an_upgrade_gives_up_at_last_and_says_who_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "LOCK_SECONDS", 0.05)
    monkeypatch.setattr(adoption, "ATTEMPTS", 3)
    url = old_database(rows=True)
    said: list[str] = []
    with connected(url) as holder, holder.transaction():
        holder.execute("SELECT FROM policy_nodes")
        with pytest.raises(Timeout, match=r"waiting for a lock on policy_nodes, held by .*: given up; what was done stays"):
            migrations.upgrade(at(url), say=said.append)
    assert len(said) == 2
    stands_in_between(url)
    goes_on(url)


def test_beside_code_that_writes_all_the_time() -> None:
    """Transactions of the service's code follow each other on both tables, each open for a while; none of them fails."""
    url = old_database(rows=True)
    with connected(url) as connection, ThreadPoolExecutor(1) as pool:
        upgrade = pool.submit(migrations.upgrade, at(url))
        rounds = 0
        while not upgrade.done() or rounds < 3:
            with connection.transaction():
                connection.execute("UPDATE policy_versions SET ingested_at = now() WHERE version_id = '2'")
                connection.execute("DELETE FROM policy_nodes WHERE version_id = '2'")
                time.sleep(0.2)
                connection.execute(
                    "INSERT INTO policy_nodes (policy_id, version_id, node_id, section_path, title, content_hash)"
                    " VALUES ('leave', '2', '', 'T', 'T', repeat('a', 64))"
                )
            rounds += 1
        upgrade.result()
    assert migrations.differences(at(url)) == []


# --- locks ---------------------------------------------------------------------------------------------------------------

LOCKS = """
    SELECT relation::regclass::text, upper(regexp_replace(regexp_replace(mode, 'Lock$', ''), '([a-z])([A-Z])', '\\1 \\2', 'g'))
    FROM pg_locks WHERE pid = %s AND granted AND locktype = 'relation' AND relation IN ('policy_versions'::regclass,
        'policy_nodes'::regclass)"""

BY_STRENGTH = ("SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE")
"""The locks that writers or changes of the schema wait for."""


def named(statement: str) -> set[tuple[str, str]]:
    """The lock on one of the shared tables that a statement's comment names."""
    words = re.match(r"([A-Z ]+) on (policy_versions|policy_nodes)\b", lock_of(statement))
    return set() if words is None else {(words[2], words[1])}


def test_statements_take_the_locks_that_their_comments_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement of adopting, widening and leaving is run by itself, and the server is asked for its locks."""
    url = old_database(rows=True)
    execute(url, *LOOKUPS)
    seen: set[tuple[str, str]] = set()
    for plan in (adoption.adopting, ids.widening, adoption.leaving):
        while steps := adoption.looked(at(url), plan):
            seen |= taken(url, steps[0])
    assert {mode for _, mode in seen} == {"SHARE UPDATE EXCLUSIVE", "ACCESS EXCLUSIVE"}


def taken(url: str, step: adoption.Step) -> set[tuple[str, str]]:
    """Take a step, statement by statement, and compare; the locks that were seen."""
    if step.online:
        return taken_online(url, step)
    found: set[tuple[str, str]] = set()
    with connected(url) as connection, connection.transaction():
        for statement in (*step.before(at(url)), *step.statements):
            before = set(connection.execute(LOCKS, [connection.info.backend_pid]).fetchall())
            connection.execute(statement.encode())
            after = set(connection.execute(LOCKS, [connection.info.backend_pid]).fetchall())
            new = [mode for mode in BY_STRENGTH if any(found == mode for _, found in after - before)]
            assert [mode for _, mode in named(statement)] == new[-1:], statement
            assert {table for table, _ in after - before} <= {step.table}
            found |= named(statement)
    return found


def taken_online(url: str, step: adoption.Step) -> set[tuple[str, str]]:
    """An index is held up by a transaction that began before; readers and writers go on meanwhile."""
    with connected(url) as holder, connected(url) as watching, ThreadPoolExecutor(1) as pool:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT 1")
        building = pool.submit(execute, f"{url}", "SET application_name = 'treestore'", *step.statements)
        backend = waiting(watching, "CREATE%", lambda: not building.done())
        assert set(watching.execute(LOCKS, [backend]).fetchall()) == named(step.statements[0])
        works_as_before(url)
        holder.execute("COMMIT")
        building.result()
    return named(step.statements[0])


def test_dropping_the_rest_of_an_index_locks_its_table() -> None:
    url = old_database(rows=True)
    migrations.upgrade(at(url))
    with connected(url) as connection, connection.transaction():
        connection.execute(f"DROP INDEX {ORDINAL}".encode())
        found = connection.execute(LOCKS, [connection.info.backend_pid]).fetchall()
    assert found == [("policy_nodes", "ACCESS EXCLUSIVE")]
    assert lock_of(f"DROP INDEX {ORDINAL}").startswith("ACCESS EXCLUSIVE on the index and its table")


def test_every_statement_of_a_revision_has_its_lock() -> None:
    with pytest.raises(ValueError, match="the lock of this statement is not known: VACUUM"):
        lock_of("VACUUM")
    for part in filter(None, map(str.strip, migrations.sql().split("\n\n"))):
        assert part.startswith("--") or lock_of(part)
