"""Groups that lose against others are tried again, whole: an error at every statement, once and several times in a row.

The errors are real ones: before the chosen statement the server is made to raise, so the transaction is broken as it would be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import msgspec
import pytest

from tests.clock import SetClock
from tests.contract.samples import ALL_PLANES, bushy, manual
from tests.contract.test_groups import group, whole
from tests.postgres import databases
from tests.postgres.faults import fails, opened
from tests.postgres.server import Server
from tests.stores import SyncStore, open_backend
from treestore import Closed, Conflict, Document, NotFound, OutcomeUnknown, Unavailable
from treestore.backends.postgres import backend
from treestore.operations import Absent, Check
from treestore.records import Version

METHODS = ("execute", "executemany", "fetch", "fetchrow", "fetchval", "copy_records_to_table", "copy_to_table")
"""What statements go through, those that begin and end transactions too."""


class Statements:
    """The statements of writing transactions, counted from the one that begins each. ``fault`` is asked about each, with its
    number, the number of the transaction (both from 1) and its text, and names the SQLSTATE and the message to fail with."""

    def __init__(self) -> None:
        self.fault: Callable[[int, int, str], tuple[str, str] | None] = lambda at, attempt, sql: None
        self.attempts = 0
        self.count = 0

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look at every statement of asyncpg's connections from now on."""
        for name in METHODS:
            monkeypatch.setattr(asyncpg.Connection, name, self._watched(getattr(asyncpg.Connection, name), name))

    def begin(self, fault: Callable[[int, int, str], tuple[str, str] | None]) -> None:
        """Count anew."""
        self.attempts, self.count, self.fault = 0, 0, fault

    def _watched(self, method: Any, name: str) -> Any:
        execute = asyncpg.Connection.execute if name != "execute" else method

        async def watched(connection: Any, *args: Any, **kwargs: Any) -> Any:
            sql = f"COPY {args[0]}" if name.startswith("copy") else str(args[0])
            if sql.startswith("BEGIN") and "READ ONLY" not in sql:
                self.attempts, self.count = self.attempts + 1, 0
            if not sql.startswith(("ROLLBACK", "SET ", "BEGIN ISOLATION LEVEL REPEATABLE READ")):
                self.count += 1
                fault = self.fault(self.count, self.attempts, sql)
                if fault is not None:
                    state, message = fault
                    raising = f"DO $$ BEGIN RAISE EXCEPTION '{message}' USING ERRCODE = '{state}'; END $$"
                    await execute(connection, raising)
                    raise AssertionError("it raises")
            return await method(connection, *args, **kwargs)

        return watched


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    found = Statements()
    found.watch(monkeypatch)

    async def at_once(_: int) -> None:
        """No pause."""

    monkeypatch.setattr(backend, "pause", at_once)
    return found


PAGES = [{"page": 1, "content": "NUL \0 and " + ALL_PLANES}, {"page": 7, "content": "", "extra": {"k": -0.0}}]


def store_it(store: SyncStore, policy_id: str) -> Any:
    return store.documents.store_document(policy_id, "1", manual(), pages=PAGES, description="first")


def replace_it(store: SyncStore, policy_id: str) -> Any:
    return store.documents.store_document(policy_id, "1", list(bushy(40)), pages=PAGES[:1])


def amend_it(store: SyncStore, policy_id: str) -> Any:
    return store.documents.update_node(policy_id, "a", title="another title", text="words that are new", metadata={"k": [1]})


def date_it(store: SyncStore, policy_id: str) -> Any:
    return store.versions.set_effective_date(policy_id, "1", SetClock().now)


def delete_it(store: SyncStore, policy_id: str) -> Any:
    return store.documents.delete_document(policy_id)


VERBS = [store_it, replace_it, amend_it, date_it, delete_it]


def state(store: SyncStore, policy_id: str) -> Any:
    """All that is kept of a policy, as if it were called "p"."""
    versions = [msgspec.structs.replace(one, policy_id="p") for one in store.versions.list(policy_id, include_deleted=True)]
    try:
        document = store.documents.get_document(policy_id)
    except NotFound:
        document = Document(version=versions[0], nodes=[], pages=[])
    hits = [(hit.node.node_id, hit.score) for hit in _found(store, policy_id)]
    return versions, [msgspec.structs.replace(node, policy_id="p") for node in document.nodes], document.pages, hits


def _found(store: SyncStore, policy_id: str) -> Any:
    try:
        return store.documents.search_nodes(policy_id, "title text words new", limit=100)
    except NotFound:
        return []


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("code", ["40001", "40P01"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_serialization_failure_at_every_statement(
    statements: Statements, verb: Callable[[SyncStore, str], Any], code: str, times: int
) -> None:
    """Applied once, and equal to what an undisturbed one gives."""
    with opened(databases.new_url()) as store:

        def prepared(policy_id: str) -> None:
            if verb is not store_it:
                store_it(store, policy_id)

        prepared("expected")
        verb(store, "expected")
        expected = state(store, "expected")
        for at in range(1, 100):
            policy_id = f"p{at}"
            prepared(policy_id)
            statements.begin(lambda n, attempt, sql, at=at: (code, "injected") if n == at and attempt <= times else None)  # type: ignore[misc]
            verb(store, policy_id)
            disturbed = statements.attempts > times
            statements.begin(lambda n, attempt, sql: None)
            assert state(store, policy_id) == expected, f"at statement {at}"
            if not disturbed:
                break
        assert at > 4, "there were statements to fail at, BEGIN and COMMIT among them"
        assert store.check().problems == []


def test_a_group_that_always_loses_is_a_conflict_at_last(statements: Statements, clock: SetClock) -> None:
    backend = open_backend(databases.new_url(), clock)
    statements.begin(lambda n, attempt, sql: ("40001", "injected") if sql.startswith("COMMIT") else None)
    asked = group(whole("p", "1"), expects=[Absent(Version, ("p", "1"))])
    with fails(Conflict, "others changed the same at once, again and again"):
        backend.write_now(asked)
    assert statements.attempts == 10
    statements.begin(lambda n, attempt, sql: None)
    assert not backend.write_now(asked).repeated
    assert backend.read_one_now(Check()).problems == []
    backend.close_now()


def test_reads_that_lose_are_tried_again(statements: Statements) -> None:
    with opened(databases.new_url()) as store:
        store_it(store, "p")
        expected = state(store, "p")
        for code in ("40001", "40P01"):
            for at in range(1, 9):
                left = [at]

                def countdown(n: int, attempt: int, sql: str, left: list[int] = left, code: str = code) -> Any:
                    left[0] -= 1
                    return (code, "injected") if left[0] == 0 else None

                statements.begin(countdown)
                assert state(store, "p") == expected
                statements.begin(lambda n, attempt, sql: None)


def test_other_errors_are_not_tried_again(statements: Statements, clock: SetClock) -> None:
    """They would come again, or what is asked would be done twice."""
    backend = open_backend(databases.new_url(), clock)
    for code in ("23505", "22003", "53100", "57014", "XX000", "0A000", "42883"):
        statements.begin(lambda n, attempt, sql, code=code: (code, "injected") if n == 3 else None)  # type: ignore[misc]
        with pytest.raises(Exception, match="injected") as caught:
            backend.write_now(group(whole(code, "1")))
        assert type(caught.value).__module__ == "treestore.errors"
        assert statements.attempts == 1, code
    backend.close_now()


def test_a_commit_of_which_the_server_does_not_know_what_became(statements: Statements, clock: SetClock) -> None:
    """SQLSTATE 40003, as servers that are several machines report it."""
    backend = open_backend(databases.new_url(), clock)
    asked = group(whole("p", "1"))
    statements.begin(lambda n, attempt, sql: ("40003", "injected") if sql.startswith("COMMIT") else None)
    with fails(OutcomeUnknown, "sent again with the same id it is applied once"):
        backend.write_now(asked)
    assert statements.attempts == 1
    statements.begin(lambda n, attempt, sql: None)
    assert not backend.write_now(asked).repeated
    backend.close_now()


def test_a_server_without_copy(statements: Statements) -> None:
    """Everything is stored as COPY would have stored it."""
    with opened(databases.new_url()) as copying, opened(databases.new_url()) as inserting:
        statements.begin(lambda n, attempt, sql: None)
        for verb in (store_it, replace_it, store_it, amend_it):
            verb(copying, "p")
        expected = state(copying, "p")
        refused = []

        def refuse(n: int, attempt: int, sql: str) -> tuple[str, str] | None:
            if not sql.startswith("COPY"):
                return None
            refused.append(sql)
            return "0A000", "COPY is not supported here"

        statements.begin(refuse)
        for verb in (store_it, replace_it, store_it, amend_it):
            verb(inserting, "p")
        assert len(refused) == 1, "once it is known, it is not tried again"
        assert state(inserting, "p") == expected
        assert inserting.check().problems == []


def test_statements_prepared_before_a_table_was_changed_by_others(postgres_server: Server) -> None:
    url = databases.new_url()
    name = url.partition("@/")[2].partition("?")[0]
    with opened(url) as store, postgres_server.connect(name) as others:
        store_it(store, "p")
        expected = state(store, "p")
        for change in ("varchar(4000)", "text"):
            others.execute(f"ALTER TABLE policy_nodes ALTER COLUMN summary TYPE {change}".encode())
            others.execute(f"ALTER TABLE policy_versions ALTER COLUMN description TYPE {change}".encode())
            assert state(store, "p") == expected
            others.execute(f"ALTER TABLE policy_nodes ALTER COLUMN prefix_summary TYPE {change}".encode())
            others.execute(f"ALTER TABLE policy_versions ALTER COLUMN created_by TYPE {change}".encode())
            assert amend_it(store, "p").title == "another title"
            store_it(store, "p")
            replace_it(store, "p")
            store_it(store, "p")
            expected = state(store, "p")
        assert store.check().problems == []


def test_a_snapshot_in_which_a_statement_fails_has_ended(postgres_server: Server) -> None:
    """Its transaction is broken, and another one would be of another moment."""
    url = databases.new_url()
    with opened(url) as store, postgres_server.connect(url.partition("@/")[2].partition("?")[0]) as others:
        store_it(store, "p")
        expected = state(store, "p")
        with store.snapshot() as snapshot:
            others.execute("ALTER TABLE policy_versions ALTER COLUMN description TYPE varchar(4000)")
            with fails(Unavailable, "others changed the tables meanwhile"):
                snapshot.versions.list("p")
            with fails(Closed, "ended when a read failed; take a new one", chained=False):
                snapshot.versions.list("p")
        assert state(store, "p") == expected
        with store.snapshot() as snapshot:
            assert snapshot.versions.list("p") == store.versions.list("p")
