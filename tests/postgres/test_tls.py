"""Each ``sslmode`` means the same to both drivers: who is let through, and whether what is said is encrypted.

The certificates in tests/data/tls were made for this alone: one of ``localhost``, the root that signed it, and another root.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg
import pytest
import sqlalchemy

import treestore
from tests.postgres import databases
from tests.postgres.server import Server, account, own_folder
from treestore import Settings, Unavailable
from treestore.backends.postgres import migrations
from treestore.backends.postgres.address import Address, parse

TLS = Path(__file__).resolve().parent.parent / "data" / "tls"
QUESTION = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
Answer = bool | None
"""Whether a connection is encrypted; ``None``: there is none."""


@pytest.fixture(scope="module")
def encrypting() -> Iterator[Server]:
    """A server that speaks TLS too."""
    owner, folder = account(), own_folder(account())
    try:
        for name in ("server.crt", "server.key"):
            shutil.copy(TLS / name, folder)
            (folder / name).chmod(0o600)
            if owner is not None:
                shutil.chown(folder / name, owner.pw_uid, owner.pw_gid)
        settings = {"ssl": "on", "ssl_cert_file": f"{folder}/server.crt", "ssl_key_file": f"{folder}/server.key"}
        with Server(tcp=True, settings=settings) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    """A server that does not."""
    with Server(tcp=True) as server:
        yield server


def can_encrypt() -> bool:
    """Whether the PostgreSQL that the tests have found was built with TLS."""
    with databases.server().connect() as connection:
        return connection.execute("SHOW ssl_library").fetchone() != ("",)


async def by_asyncpg(address: Address) -> Answer:
    try:
        connection = await asyncpg.connect(**address.asyncpg_arguments())
    except OSError:
        return None
    try:
        return bool(await connection.fetchval(QUESTION))
    finally:
        await connection.close()


def by_psycopg(address: Address) -> Answer:
    engine = sqlalchemy.create_engine(address.sqlalchemy_url(), poolclass=sqlalchemy.NullPool)
    try:
        with engine.connect() as connection:
            return bool(connection.exec_driver_sql(QUESTION).scalar_one())
    except sqlalchemy.exc.OperationalError as error:
        assert isinstance(error.orig, psycopg.OperationalError)
        return None


def at(server: Server, host: str, query: str) -> Address:
    return parse(f"postgresql://postgres@{host}:{server.port}/postgres?{query.format(TLS)}", Settings())


@pytest.mark.parametrize(
    ("query", "localhost", "by_number"),
    [
        ("", True, True),
        ("sslmode=disable", False, False),
        ("sslmode=allow", False, False),
        ("sslmode=prefer", True, True),
        ("sslmode=require", True, True),
        ("sslmode=require&sslrootcert={0}/root.crt", True, True),
        ("sslmode=require&sslrootcert={0}/other.crt", None, None),
        ("sslmode=verify-ca&sslrootcert={0}/root.crt", True, True),
        ("sslmode=verify-ca&sslrootcert={0}/other.crt", None, None),
        ("sslmode=verify-full&sslrootcert={0}/root.crt", True, None),
        ("sslmode=verify-full&sslrootcert={0}/other.crt", None, None),
        ("sslmode=verify-full&sslrootcert=system", None, None),
    ],
)
async def test_modes(request: pytest.FixtureRequest, query: str, localhost: Answer, by_number: Answer) -> None:
    if can_encrypt():
        server = request.getfixturevalue("encrypting")
    else:  # then what asks for TLS is refused, and that alone can be seen
        server = request.getfixturevalue("plain")
        must = "require" in query or "verify" in query
        localhost = by_number = None if must else False
    for host, expected in (("localhost", localhost), ("127.0.0.1", by_number)):
        address = at(server, host, query)
        assert (await by_asyncpg(address), by_psycopg(address)) == (expected, expected), host


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_nothing_is_said_in_the_open_where_tls_must_be(plain: Server, mode: str) -> None:
    address = at(plain, "localhost", f"sslmode={mode}&sslrootcert={{0}}/root.crt")
    assert (await by_asyncpg(address), by_psycopg(address)) == (None, None)
    assert (await by_asyncpg(at(plain, "localhost", "")), by_psycopg(at(plain, "localhost", ""))) == (False, False)


def test_who_is_not_who_they_say_is_an_error_of_ours(request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue("encrypting" if can_encrypt() else "plain")
    query = "sslmode=verify-full&sslrootcert={0}/other.crt"
    address = at(server, "localhost", query)
    with pytest.raises(Unavailable, match="localhost"):
        migrations.upgrade(address)
    with pytest.raises(Unavailable, match="localhost"):
        treestore.open_sync(f"postgresql://postgres@localhost:{server.port}/postgres?{query.format(TLS)}")
