"""Servers that are not there, refuse, or lack what the store needs: one clear error of our own, soon, and the same store works
again when the server does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from tests.postgres import databases
from tests.postgres.faults import FACES, SECRET, Face, eventually, fails, opened, store_one
from tests.postgres.server import Server
from tests.stores import SyncStore
from treestore import (
    AccessDenied,
    Corrupted,
    MigrationError,
    NoStore,
    NotAStore,
    NotFound,
    ReadOnly,
    Timeout,
    Unavailable,
    open_sync,
)
from treestore.backends.postgres.tables import VERSION_TABLE

QUICK = "connect_timeout=1&pool_timeout=2"


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Face:
    found: Face = request.param
    return found


@contextmanager
def listener(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something that listens on a port and is no PostgreSQL: its URL, with a password."""
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                    stack.callback(connection.close)
                    behave(connection)
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"postgresql://user:{quote(SECRET, safe='')}@127.0.0.1:{listening.getsockname()[1]}/db?{QUICK}"
        listening.shutdown(socket.SHUT_RDWR)


# --- no server -----------------------------------------------------------------------------------------------------------


def test_a_port_that_nobody_listens_on(face: Face) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with fails(Unavailable, f"postgresql://user@127.0.0.1:{port}/db: PostgreSQL can't be reached"):
        opened(f"postgresql://user:{quote(SECRET, safe='')}@127.0.0.1:{port}/db?{QUICK}", face)


def test_a_socket_that_is_not_there(face: Face, tmp_path: Path) -> None:
    with fails(Unavailable, "PostgreSQL can't be reached"):
        opened(f"postgresql://user@/db?host={tmp_path}&{QUICK}", face)


def test_a_host_that_has_no_address(face: Face) -> None:
    with fails(Unavailable, r"no-such-host\.invalid.*can't be reached", within=10):
        opened(f"postgresql://user@no-such-host.invalid/db?{QUICK}", face)


def test_a_listener_that_says_nothing(face: Face) -> None:
    with listener(lambda connection: None) as url, fails(Timeout, "127.0.0.1.*did not answer", within=8):
        opened(url, face)


def test_a_listener_that_does_not_even_accept(face: Face) -> None:
    """As a host that drops packets: its queue is full, so the connection is never made."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with fails(Timeout, "did not answer", within=8):
            opened(f"postgresql://user@127.0.0.1:{full.getsockname()[1]}/db?{QUICK}", face)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 4096, b"N", b"S", b"NE\0\0\0\x08", b"R\xff\xff\xff\xff"]
)
def test_a_listener_that_is_no_postgresql(face: Face, said: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(8)
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)

    with listener(answer) as url, fails(Unavailable, "127.0.0.1"):
        opened(url, face)


# --- a server that refuses -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server that asks for a password, has few connections and can be reconfigured."""
    with Server(password=SECRET, settings={"max_connections": "8", "superuser_reserved_connections": "0"}) as server:
        yield server


def login(server: Server, user: str, password: str, database: str = "postgres") -> str:
    host = f"host={server.host}&port={server.port}"
    return f"postgresql://{user}:{quote(password, safe='')}@/{database}?{host}&{QUICK}"


def test_a_wrong_password(strict: Server, face: Face) -> None:
    with fails(AccessDenied, f"postgresql://postgres@/postgres.*{strict.port}: PostgreSQL refused to let this user in"):
        opened(login(strict, "postgres", SECRET + "x"), face)
    with fails(AccessDenied, "refused to let this user in"):
        opened(login(strict, "nobody-here", SECRET), face)


def test_no_password_where_one_is_needed(strict: Server, face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    with fails(AccessDenied, "refused to let this user in", chained=False):
        opened(f"postgresql://postgres@/postgres?host={strict.host}&port={strict.port}&{QUICK}", face)


def test_a_database_that_does_not_exist(strict: Server, face: Face) -> None:
    with fails(NoStore, "no-such-db.*there is no such database"):
        opened(login(strict, "postgres", SECRET, "no-such-db"), face)


def test_all_connections_of_the_server_taken(strict: Server, face: Face) -> None:
    strict.make_database(f"full_{face}")
    with opened(strict.url(f"full_{face}", connect_timeout="1"), face) as store:
        store_one(store)
        with ExitStack() as stack:
            snapshot = stack.enter_context(store.snapshot())  # holds the store's one connection
            eventually(lambda: _taken(stack, strict))
            with fails(Unavailable, "PostgreSQL lacks resources"):
                store.documents.get_node("p", "a")
            with fails(Unavailable, "PostgreSQL lacks resources"):
                store_one(store, "q")
            assert snapshot.documents.get_node("p", "a").node_id == "a"
        eventually(lambda: _answers(store))
        store_one(store, "q")
        assert store.check().problems == []


def _taken(stack: ExitStack, server: Server) -> bool:
    try:
        while True:
            stack.enter_context(server.connect())
    except psycopg.OperationalError as error:
        return "too many clients" in str(error)


def _answers(store: SyncStore) -> bool:
    try:
        return bool(store.documents.get_node("p", "a"))
    except Unavailable:
        return False


def test_a_server_that_only_reads(face: Face) -> None:
    with Server() as server:
        server.make_database("db")
        server.make_database("empty")
        with opened(server.url("db"), face) as store:
            store_one(store)
            for standby in (False, True):
                server.restart({"default_transaction_read_only": "off" if standby else "on"}, standby=standby)
                eventually(lambda: _answers(store))
                with fails(ReadOnly, "PostgreSQL does not accept writes here"):
                    store_one(store, "q")
                with fails(ReadOnly, "PostgreSQL does not accept writes here"):
                    store.documents.update_node("p", "a", title="x")
                with opened(server.url("db"), face) as another:
                    assert another.check().problems == []
                with store.snapshot() as snapshot:
                    assert snapshot.documents.get_document("p").nodes[0].title == "title of a"
                with fails(ReadOnly, "PostgreSQL does not accept writes here"):
                    opened(server.url("empty"), face)
            server.restart()
            store_one(store, "q")
            assert store.check().problems == []


# --- a database that lacks what is needed --------------------------------------------------------------------------------


def execute(server: Server, database: str, *statements: str) -> None:
    with server.connect(database) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def named(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def test_tables_older_or_newer_than_the_code(postgres_server: Server, face: Face) -> None:
    url = databases.new_url()
    for revision, told in (("9999", "revision 9999, newer than this code"), ("0000", "revision 0000")):
        execute(postgres_server, named(url), f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'")
        with fails(MigrationError, told, chained=False):
            opened(url, face)


def test_tables_of_that_name_that_others_made(postgres_server: Server, face: Face) -> None:
    url = databases.new_url()
    execute(postgres_server, named(url), f"DROP TABLE {VERSION_TABLE}")
    with fails(NotAStore, "there are tables of others, policy_versions and policy_nodes", chained=False):
        opened(url, face)


def test_an_empty_database_that_is_not_to_become_a_store(postgres_server: Server) -> None:
    name = databases.new_name()
    url = postgres_server.make_database(name)
    with fails(NoStore, "holds no store yet; 'treestore db upgrade' makes one", chained=False):
        open_sync(url, create=False)
    with postgres_server.connect(name) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_tables_dropped_and_made_again_under_an_open_store(postgres_server: Server, face: Face) -> None:
    url = databases.new_url()
    with opened(url, face) as store:
        store_one(store)
        execute(postgres_server, named(url), "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        for _ in range(2):
            with fails(MigrationError, "the tables are not those that this version of treestore works on; 'treestore db"):
                store.documents.get_node("p", "a")
            with fails(MigrationError, "the tables are not those that this version of treestore works on; 'treestore db"):
                store_one(store, "q")
            with fails(MigrationError, "the tables are not those that this version of treestore works on; 'treestore db"):
                store.check()
        opened(url).close()
        with pytest.raises(NotFound):
            store.documents.get_node("p", "a")
        store_one(store)
        assert store.check().problems == []


def test_a_column_dropped_under_an_open_store(postgres_server: Server, face: Face) -> None:
    url = databases.new_url()
    with opened(url, face) as store:
        store_one(store)
        execute(postgres_server, named(url), "ALTER TABLE policy_nodes DROP COLUMN last_ordinal")
        with fails(MigrationError, "the tables are not those that this version of treestore works on; 'treestore db"):
            store.documents.get_node("p", "a")
        with fails(MigrationError, "the tables are not those that this version of treestore works on; 'treestore db"):
            store_one(store, "q")


def test_a_user_without_rights(postgres_server: Server, face: Face) -> None:
    url = databases.new_url()
    name = named(url)
    opened(url).close()
    for role in ("t_none", "t_reader"):
        execute(postgres_server, name, f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} LOGIN")
    try:
        execute(postgres_server, name, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO t_reader")
        with fails(AccessDenied, "lacks a right"):
            opened(url.replace("postgres@", "t_none@"), face)
        with opened(url) as owner, opened(url.replace("postgres@", "t_reader@"), face) as store:
            store_one(owner)
            assert store.documents.get_node("p", "a").text == "text of a"
            assert store.check().problems == []
            for write in (lambda: store_one(store, "q"), lambda: store.documents.delete_document("p")):
                with fails(AccessDenied, "lacks a right"):
                    write()
            assert store.documents.get_document("p").nodes
    finally:
        for role in ("t_none", "t_reader"):
            execute(postgres_server, name, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_rows_that_others_broke_are_named(postgres_server: Server, face: Face) -> None:
    """What other programs wrote is never given back as if it were sound."""
    url = databases.new_url()
    with opened(url, face) as store:
        store_one(store)
        execute(postgres_server, named(url), "UPDATE policy_nodes SET metadata = '{\"half' WHERE node_id = 'a'")
        with fails(Corrupted, "metadata can't be decoded", chained=False):
            store.documents.get_node("p", "a")
        assert not store.check().ok
