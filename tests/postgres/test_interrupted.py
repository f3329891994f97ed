"""Connections and servers that go away, hang or are full under an open store: nothing is half written or written twice, no
call hangs, and the same store goes on when they are back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from tests.clock import SetClock, young
from tests.contract.samples import bushy
from tests.contract.test_groups import group, whole
from tests.postgres import databases
from tests.postgres.faults import FACES, Face, eventually, fails, opened, store_one
from tests.postgres.proxy import Fault, Message, Proxy
from tests.postgres.server import Server
from tests.stores import SyncStore, open_backend
from treestore import Closed, OutcomeUnknown, Settings, Timeout, TreestoreError, Unavailable, open_sync
from treestore.operations import Check, Get, WriteGroup
from treestore.records import Version

COPY_CUTS = 6
"""Places in the bytes of a bulk load where the connection is cut."""


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Face:
    found: Face = request.param
    return found


@pytest.fixture
def wire(postgres_server: Server) -> Iterator[Proxy]:
    with Proxy(postgres_server) as proxy:
        yield proxy


def named(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def once(fault: Fault, fits: Callable[[Message], bool]) -> Callable[[Message], Fault]:
    """A fault at the first message that fits."""
    left = [fault]
    return lambda sent: left.pop() if left and fits(sent) else Fault.NONE


def commits(sent: Message) -> bool:
    return sent.says("COMMIT")


@contextmanager
def locked(server: Server, database: str, table: str = "policy_nodes") -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A table that another session keeps to itself."""
    with server.connect(database) as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield connection


def waiting(server: Server, database: str) -> list[int]:
    """The backends that wait for a lock in a database."""
    query = b"SELECT pid FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    with server.connect() as connection:
        return [pid for (pid,) in connection.execute(query, (database,))]


def terminate(server: Server, pids: list[int]) -> None:
    with server.connect() as connection:
        for pid in pids:
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))


def sound(store: SyncStore) -> bool:
    return not store.check().problems


# --- a commit whose reply does not come ----------------------------------------------------------------------------------


def test_reply_lost_after_commit(wire: Proxy, clock: SetClock) -> None:
    backend = open_backend(wire.by_way(databases.new_url()), clock)
    first: WriteGroup = group(whole("p", "1"))
    wire.fault = once(Fault.LOSE_REPLY, commits)
    with fails(OutcomeUnknown, "sent again with the same id it is applied once"):
        backend.write_now(first)
    assert backend.read_one_now(Get(Version, ("p", "1"))) is not None, "it was applied"
    assert backend.write_now(first).repeated
    assert backend.write_now(first).repeated
    assert backend.read_one_now(Check()).counts == {"versions": 1, "nodes": 7, "pages": 0}
    assert backend.read_one_now(Check()).problems == []
    backend.close_now()


def test_connection_lost_before_commit_reaches_the_server(wire: Proxy, clock: SetClock) -> None:
    backend = open_backend(wire.by_way(databases.new_url()), clock)
    first = group(whole("p", "1"))
    wire.fault = once(Fault.CUT, commits)
    with fails(OutcomeUnknown, "sent again with the same id it is applied once"):
        backend.write_now(first)  # to the client it looks as if the reply was lost
    assert backend.read_one_now(Get(Version, ("p", "1"))) is None, "it was not applied"
    assert not backend.write_now(first).repeated
    assert backend.read_one_now(Check()).problems == []
    backend.close_now()


def test_connection_lost_at_every_message_of_a_group(wire: Proxy, clock: SetClock) -> None:
    """Before the commit: not applied, and the error says so. The commit itself: not known. Sent again: applied once."""
    backend = open_backend(wire.by_way(databases.new_url()), clock)
    backend.write_now(group(whole("warm", "1")))
    for fault in (Fault.CUT, Fault.HALVE, Fault.LOSE_REPLY):
        count = 0
        while True:
            at = len(wire.seen) + count
            wire.fault = once(fault, lambda sent, at=at: len(wire.seen) == at + 1)  # type: ignore[misc]
            name = f"{fault.name} {count}"
            asked = group(whole(name, "1"))
            try:
                backend.write_now(asked)
            except Unavailable:
                assert backend.read_one_now(Get(Version, (name, "1"))) is None, name
            except OutcomeUnknown:
                assert any(commits(sent) for sent in wire.seen[at : at + 1]), f"{name}: only of a commit it can't be known"
            else:
                if len(wire.seen) <= at:
                    break
            wire.fault = lambda sent: Fault.NONE
            backend.write_now(asked)
            assert backend.write_now(asked).repeated
            count += 1
        assert count > 4, "there were messages to lose"
    wire.fault = lambda sent: Fault.NONE
    assert backend.read_one_now(Check()).problems == []
    backend.close_now()


def test_connection_cut_in_mid_copy(wire: Proxy, face: Face, clock: SetClock) -> None:
    """Every some bytes of a load: nothing of the document is there, and stored again it is whole."""
    nodes = list(bushy(3000))
    direct = databases.new_url()
    with opened(wire.by_way(direct), face) as store, opened(direct) as beside:
        wire.seen.clear()
        expected = store.documents.store_document("whole", "1", nodes)
        copied = [len(sent.content) + 5 for sent in wire.seen if sent.kind == b"d"]
        assert sum(copied) > 500_000
        for cut in range(COPY_CUTS):
            left = [sum(copied) * cut // COPY_CUTS]

            def at_byte(sent: Message, left: list[int] = left) -> bool:
                left[0] -= len(sent.content) + 5 if sent.kind == b"d" else 0
                return left[0] <= 0 and sent.kind == b"d"

            wire.fault = once(Fault.HALVE, at_byte)
            with fails(Unavailable, "connection to PostgreSQL was lost"):
                store.documents.store_document("p", "1", nodes)
            with pytest.raises(TreestoreError, match="policy 'p'"):
                beside.documents.get_outline("p")
        assert store.documents.store_document("p", "1", nodes).tree_hash == expected.tree_hash
        assert sound(store)


# --- reads are tried again, writes are not -------------------------------------------------------------------------------


def test_reads_are_tried_again_on_another_connection(wire: Proxy, face: Face) -> None:
    with opened(wire.by_way(databases.new_url()), face) as store:
        store_one(store)
        reads: list[Callable[[], Any]] = [
            lambda: store.documents.get_node("p", "a"),
            lambda: store.documents.get_subtree("p", "a", 1),
            lambda: store.documents.search_nodes("p", "text"),
            lambda: store.versions.list("p"),
            lambda: store.documents.get_document("p"),
            lambda: store.check(),
            lambda: store.stats(),
        ]
        for read in reads:
            expected = read()
            for fault in (Fault.CUT, Fault.HALVE, Fault.LOSE_REPLY):
                wire.fault = once(fault, lambda sent: True)
                assert read() == expected
                wire.cut_all()
                assert read() == expected


def test_all_connections_of_the_pool_lost_at_once(wire: Proxy, face: Face) -> None:
    """More of them than a read is tried again."""
    with opened(wire.by_way(databases.new_url(), pool_size="30"), face) as store:
        store_one(store)
        with ExitStack() as stack:
            for _ in range(29):
                stack.enter_context(store.snapshot())
        wire.cut_all()
        assert store.documents.get_node("p", "a").text == "text of a"
        wire.cut_all()
        store_one(store, "q")
        assert sound(store)


def test_a_server_restarted_between_reads(face: Face) -> None:
    with Server() as server:
        server.make_database("db")
        with opened(server.url("db"), face) as store:
            store_one(store)
            for at in range(3):
                server.restart()
                assert store.documents.get_node("p", "a").node_id == "a"
                server.restart()
                store_one(store, f"q{at}")
            assert sound(store)


def test_a_backend_terminated_in_the_middle_of_a_read(postgres_server: Server, face: Face) -> None:
    url = databases.new_url()
    with opened(url, face) as store, ThreadPoolExecutor() as pool:
        store_one(store)
        with locked(postgres_server, named(url)):
            reading = pool.submit(lambda: store.documents.get_node("p", "a"))
            eventually(lambda: bool(waiting(postgres_server, named(url))))
            terminate(postgres_server, waiting(postgres_server, named(url)))
            eventually(lambda: bool(waiting(postgres_server, named(url))))  # on another connection
        assert reading.result(10).text == "text of a"


def test_a_backend_terminated_in_the_middle_of_a_write(postgres_server: Server, face: Face) -> None:
    url = databases.new_url()
    with opened(url, face) as store, ThreadPoolExecutor() as pool:
        store_one(store)
        with locked(postgres_server, named(url), "treestore_postings"):
            writing = pool.submit(lambda: store_one(store, "p", text="other"))
            eventually(lambda: bool(waiting(postgres_server, named(url))))
            terminate(postgres_server, waiting(postgres_server, named(url)))
            with fails(Unavailable):
                writing.result(10)
        assert store.documents.get_node("p", "a").text == "text of a"
        store_one(store, "p", text="other")
        assert store.documents.get_node("p", "a").text == "other"
        assert sound(store)


# --- too slow, too many, too old -----------------------------------------------------------------------------------------


def test_a_statement_that_waits_too_long(postgres_server: Server, face: Face) -> None:
    url = databases.new_url(statement_timeout="0.4")
    with opened(url, face) as store:
        store_one(store)
        with locked(postgres_server, named(url)):
            with fails(Timeout, "TREESTORE_STATEMENT_TIMEOUT_SECONDS", within=8):
                store.documents.get_node("p", "a")
            with fails(Timeout, "TREESTORE_STATEMENT_TIMEOUT_SECONDS", within=8):
                store_one(store, "q")
            with fails(Timeout, "TREESTORE_STATEMENT_TIMEOUT_SECONDS", within=8):
                store.check()
        assert [found.policy_id for found in store.documents.list_documents()] == ["p"]
        store_one(store, "q")
        assert sound(store)


def test_all_connections_in_use(face: Face) -> None:
    with opened(databases.new_url(pool_size="2", pool_timeout="0.4"), face) as store:
        store_one(store)
        with store.snapshot() as first, store.snapshot():
            with fails(Timeout, "all 2 connections have been in use for 0.4 s; TREESTORE_POOL_SIZE", within=8):
                store.documents.get_node("p", "a")
            with fails(Timeout, "all 2 connections have been in use for 0.4 s", within=8):
                store_one(store, "q")
            with fails(Timeout, "all 2 connections have been in use for 0.4 s", within=8):
                store.snapshot()
            assert first.documents.get_node("p", "a").node_id == "a"
        store_one(store, "q")
        assert store.documents.get_node("q", "a").node_id == "a"


def test_a_snapshot_that_becomes_too_old(face: Face) -> None:
    url = databases.new_url(pool_size="1", pool_timeout="3")
    settings = Settings(snapshot_max_age_seconds=0.5)
    with open_sync(url, settings=settings) as store:
        store_one(store)
        with young(0.5):
            snapshot = store.snapshot()
            assert snapshot.documents.get_node("p", "a").node_id == "a"
        store_one(store, "q")  # waits for the only connection, which the snapshot gives back when it is too old
        with fails(Closed, "maximum age", chained=False):
            snapshot.documents.get_node("p", "a")
        snapshot.close()
        assert store.documents.get_node("q", "a").node_id == "a"


def test_a_snapshot_whose_connection_is_lost(wire: Proxy, face: Face) -> None:
    """It can't go on at another moment, so it has ended."""
    with opened(wire.by_way(databases.new_url(), pool_size="2"), face) as store:
        store_one(store)
        with store.snapshot() as snapshot:
            wire.cut_all()
            with fails(Unavailable, "connection to PostgreSQL was lost"):
                snapshot.documents.get_node("p", "a")
            with fails(Closed, "ended when a read failed; take a new one", chained=False):
                snapshot.documents.get_node("p", "a")
            assert store.documents.get_node("p", "a").node_id == "a"
        for _ in range(3):
            with store.snapshot() as snapshot:
                assert snapshot.documents.get_node("p", "a").node_id == "a"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver waits half a second longer than the server may work, not five, and as long for a connection's end."""
    monkeypatch.setattr("treestore.backends.postgres.address.STATEMENT_MARGIN", 0.5)
    for module in ("session", "pools"):
        monkeypatch.setattr(f"treestore.backends.postgres.{module}.RELEASE_SECONDS", 0.5)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_hangs(face: Face) -> None:
    """Stopped, it takes connections and bytes and says nothing. The statement's time and the driver's patience count."""
    patience = 0.5 + 0.5 + 3
    with Server() as server:
        server.make_database("db")
        with opened(server.url("db", statement_timeout="0.5", connect_timeout="1"), face) as store:
            store_one(store)
            snapshot = store.snapshot()
            server.pause()
            with fails(Timeout, within=patience):
                store.documents.get_node("p", "a")
            with fails(Timeout, within=patience):
                store_one(store, "q")
            with fails(Timeout, "did not answer, the connection was given up", within=patience):
                snapshot.documents.get_node("p", "a")
            server.resume()
            snapshot.close()
            assert store.documents.get_node("p", "a").node_id == "a"
            store_one(store, "q")
            assert sound(store)


@pytest.mark.usefixtures("impatient")
def test_closing_while_the_server_hangs(face: Face) -> None:
    with Server() as server:
        server.make_database("db")
        store = opened(server.url("db", statement_timeout="0.5"), face)
        store_one(store)
        snapshot = store.snapshot()
        assert snapshot.documents.get_node("p", "a").node_id == "a"
        server.pause()
        began = time.monotonic()
        store.__exit__(None, None, None)
        assert time.monotonic() - began < 10


@pytest.mark.usefixtures("impatient")
def test_a_commit_that_is_never_answered(wire: Proxy, clock: SetClock) -> None:
    """A network that loses the connection without a word."""
    backend = open_backend(wire.by_way(databases.new_url(), statement_timeout="0.5", connect_timeout="1"), clock)
    first = group(whole("p", "1"))
    wire.fault = once(Fault.SILENCE, commits)
    began = time.monotonic()
    with fails(OutcomeUnknown, within=10):
        backend.write_now(first)
    assert time.monotonic() - began > 0.5
    assert backend.write_now(first).repeated
    backend.close_now()
