"""A PostgreSQL URL: what it means to both drivers, and that it is refused by name, never with the password."""

from __future__ import annotations

import getpass
import inspect
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy

from tests.postgres import databases
from tests.postgres.server import Server
from treestore import InvalidInput, Settings
from treestore.backends.postgres import address as module
from treestore.backends.postgres.address import Address, parse


def of(url: str, **settings: Any) -> Address:
    return parse(url, Settings(**settings))


def test_all_that_a_url_says() -> None:
    given = of(
        "postgresql://us%40er:p%40ss%2Fw%3A%25@db.example:6432/my%20base?sslmode=require&application_name=billing&pool_size=3"
        "&pool_timeout=4&connect_timeout=6&statement_timeout=7.5&pgbouncer=no"
    )
    assert (given.host, given.port, given.user, given.password) == ("db.example", 6432, "us@er", "p@ss/w:%")
    assert (given.database, given.sslmode, given.application_name) == ("my base", "require", "billing")
    assert (given.pool_size, given.pool_timeout, given.connect_timeout, given.statement_timeout) == (3, 4.0, 6.0, 7.5)
    assert given.pgbouncer is False
    arguments = given.asyncpg_arguments()
    assert arguments["server_settings"] == {"application_name": "billing", "statement_timeout": "7500"}
    assert (arguments["host"], arguments["port"], arguments["user"]) == ("db.example", 6432, "us@er")
    assert (arguments["password"], arguments["database"], arguments["timeout"]) == ("p@ss/w:%", "my base", 6.0)
    assert arguments["command_timeout"] > 7.5, "the server is to answer first"
    assert "statement_cache_size" not in arguments
    url = given.sqlalchemy_url()
    assert (url.drivername, url.host, url.port, url.username) == ("postgresql+psycopg", "db.example", 6432, "us@er")
    assert (url.password, url.database, url.query["sslmode"]) == ("p@ss/w:%", "my base", "require")
    assert (url.query["connect_timeout"], url.query["options"]) == ("6", "-c statement_timeout=7500")
    assert url.query["application_name"] == "billing"


def test_settings_stand_where_the_url_is_silent() -> None:
    given = of("postgresql://u@h/d", pool_size=2, pool_timeout_seconds=3.0, connect_timeout_seconds=0.5, pgbouncer=True)
    assert (given.pool_size, given.pool_timeout, given.connect_timeout, given.statement_timeout) == (2, 3.0, 0.5, 60.0)
    assert given.pgbouncer is True
    assert given.application_name == "treestore"
    assert given.sqlalchemy_url().query["connect_timeout"] == "2", "libpq's least"


def test_behind_pgbouncer_nothing_is_said_that_it_refuses_and_nothing_is_prepared() -> None:
    given = of("postgresql://u@h/d?pgbouncer=true")
    arguments = given.asyncpg_arguments()
    assert arguments["server_settings"] == {"application_name": "treestore"}
    assert arguments["statement_cache_size"] == 0
    assert "options" not in given.sqlalchemy_url().query


def test_the_arguments_are_those_that_asyncpg_has() -> None:
    for url in ("postgresql://u@h/d?sslmode=require", "postgresql://u@h/d?pgbouncer=1", "postgresql:///d?host=/x"):
        assert of(url).asyncpg_arguments().keys() <= inspect.signature(asyncpg.connect).parameters.keys()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_schemes(scheme: str) -> None:
    assert of(f"{scheme}://u@h:1/d").shown == "postgresql://u@h:1/d"


@pytest.mark.parametrize(
    ("url", "host", "port", "database", "shown"),
    [
        ("postgresql://u@h", "h", 5432, "u", "postgresql://u@h:5432/u"),
        ("postgresql://u@h/", "h", 5432, "u", "postgresql://u@h:5432/u"),
        ("postgresql://u@h:/d", "h", 5432, "d", "postgresql://u@h:5432/d"),
        ("postgresql://u@[::1]:7/d", "::1", 7, "d", "postgresql://u@[::1]:7/d"),
        ("postgresql://u@[fe80::1%25eth0]/d", "fe80::1%eth0", 5432, "d", "postgresql://u@[fe80::1%25eth0]:5432/d"),
        ("postgresql://u@/d?host=/run/pg&port=7", "/run/pg", 7, "d", "postgresql://u@/d?host=/run/pg&port=7"),
        ("postgresql://u@%2Frun%2Fpg:7/d", "/run/pg", 7, "d", "postgresql://u@/d?host=/run/pg&port=7"),
        ("postgresql:///d?host=h&user=u", "h", 5432, "d", "postgresql://u@h:5432/d"),
        ("postgresql://?host=h&user=u&dbname=d&port=7", "h", 7, "d", "postgresql://u@h:7/d"),
        ("postgresql://u@h/a%2Fb", "h", 5432, "a/b", "postgresql://u@h:5432/a%2Fb"),
        ("postgresql:///d?user=me@tenant&host=h", "h", 5432, "d", "postgresql://me%40tenant@h:5432/d"),
        ("postgresql://u@h/d?password=&user=", "h", 5432, "d", "postgresql://u@h:5432/d"),
    ],
)
def test_places(url: str, host: str, port: int, database: str, shown: str) -> None:
    given = of(url)
    assert (given.host, given.port, given.database, given.shown) == (host, port, database, shown)
    assert of(given.shown) == given, "what is shown names the same place"


SECRETS = ["postgresql://u:secret@h/d", "postgresql://u@h/d?password=secret", "postgresql://:s%65cret@h/d?user=u"]


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_is_never_shown(url: str) -> None:
    given = of(url)
    assert given.password == "secret"
    rich = str(list(given.__rich_repr__()))
    for shown in (given.shown, repr(given), str(given), f"{given}", rich, str(given.sqlalchemy_url())):
        assert "secret" not in shown


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("postgresql+psycopg2://u:secret@h/d", "the driver psycopg2 is not used; write postgresql:// or postgresql+asyncpg://"),
        ("postgresql+psycopg://u:secret@h/d", "the driver psycopg is not used"),
        ("mysql://u:secret@h/d", "must begin with postgresql://"),
        ("postgresql:/u:secret@h/d", "must begin with postgresql://"),
        ("postgresql://u:secret@h/d?foo=secret", "the parameter foo is not known; known are pool_size, "),
        ("postgresql://u:secret@h/d?SSLMODE=secret", "a parameter is not known; known are "),
        ("postgresql://u:secret@h/d?p%61ssword=secret", "a parameter is not known"),
        ("postgresql://u:secret@h/d?service=secret", "the parameter service is not known"),
        ("postgresql://u:secret@h/d?secret", "a parameter is written name=value"),
        ("postgresql://u:secret@h/d?user=v", "user is given twice"),
        ("postgresql://u:secret@h/d?password=secret", "password is given twice"),
        ("postgresql://u:secret@h/d?port=1&port=2", "port is given twice"),
        ("postgresql://u:se@secret@h/d", "it can't be told where the password ends"),
        ("postgresql://u:se/secret@h/d", "it can't be told where the password ends"),
        ("postgresql://u:12/secret@h/d", "it can't be told where the password ends"),
        ("postgresql://u:12?secret@h/d", "it can't be told where the password ends"),
        ("postgresql://u:secret/d", "no host and port are read from it"),
        ("postgresql://u:secret@h/a/b", "it can't be told where the password ends"),
        ("postgresql://u:sec%ret@h/d", "password: a % is followed by two hexadecimal digits"),
        ("postgresql://u:secret%ff@h/d", "password: is not UTF-8"),
        ("postgresql://u:secret%00@h/d", "password: holds a control character"),
        ("postgresql://u:secret@h:0/d", "port: must be a number from 1 to 65535"),
        ("postgresql://u:secret@h:65536/d", "port: must be a number from 1 to 65535"),
        ("postgresql://u:secret@h:secret/d", "no host and port are read from it"),
        ("postgresql://u:secret@::1/d", "no host and port are read from it; an IPv6 address stands in [brackets]"),
        ("postgresql://u:secret@h1,h2/d", "several hosts are not supported; name one"),
        ("postgresql://u:secret@h1:1,h2:2/d", "several hosts are not supported; name one"),
        ("postgresql://u:secret@/d?host=h1,h2", "host: several hosts are not supported; name one"),
        ("postgresql://u:secret@/d?host=run/pg", "host: must be a name, an IP address, or a folder by its whole path"),
        ("postgresql://u:secret@/d?host=@abstract", "host: must be a name, an IP address, or a folder by its whole path"),
        ("postgresql://u:secret@/d?host=/run/.s.PGSQL.5432", "host: names a socket; name the folder that it is in"),
        ("postgresql://u:secret@h/d?sslmode=on", "sslmode: must be one of disable, allow, prefer, require, verify-ca"),
        ("postgresql://u:secret@h/d?sslrootcert=/x", "sslrootcert: needs sslmode=verify-full"),
        ("postgresql://u:secret@h/d?sslmode=require&sslrootcert=/no/file", "sslrootcert: /no/file can't be read"),
        ("postgresql://u:secret@h/d?sslmode=require&sslrootcert=system", "sslrootcert: as system it needs sslmode"),
        ("postgresql://u:secret@h/d?sslkey=/dev/null", "sslkey needs the sslcert that it belongs to"),
        ("postgresql://u:secret@h/d?sslcert=/no/file", "sslcert: /no/file can't be read"),
        ("postgresql://u:secret@h/d?pool_size=lots", "pool_size: must be a whole number, not 'lots'"),
        ("postgresql://u:secret@h/d?pool_size=0", "pool_size: must be from 1 to 1000 connections, not 0"),
        ("postgresql://u:secret@h/d?pool_timeout=-1", "pool_timeout: must be above 0"),
        ("postgresql://u:secret@h/d?statement_timeout=3e6", "statement_timeout: must be at most 2147483 seconds"),
        ("postgresql://u:secret@h/d?connect_timeout=soon", "connect_timeout: must be a number of seconds, not 'soon'"),
        ("postgresql://u:secret@h/d?pgbouncer=perhaps", "pgbouncer: must be true or false, not 'perhaps'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_the_password(url: str, rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        of(url)
    said = str(caught.value)
    assert said.startswith(f"url: {rule}")
    assert said.isprintable()
    assert "secret" not in said


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_proving_the_server_needs_a_certificate(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InvalidInput, match=f"sslmode={mode} needs sslrootcert=FILE, or sslrootcert=system"):
        of(f"postgresql://u@h/d?sslmode={mode}")
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").write_text("")
    assert of(f"postgresql://u@h/d?sslmode={mode}").sslmode == mode


def test_certificates_are_given_to_both(tmp_path: Path) -> None:
    for name in ("root&x.crt", "own.crt", "own.key"):
        (tmp_path / name).write_text("")
    given = of(
        f"postgresql://u@h/d?sslmode=verify-ca&sslrootcert={tmp_path}/root%26x.crt&sslcert={tmp_path}/own.crt"
        f"&sslkey={tmp_path}/own.key"
    )
    query = given.sqlalchemy_url().query
    expected = [f"{tmp_path}/root&x.crt", f"{tmp_path}/own.crt", f"{tmp_path}/own.key"]
    assert [query[name] for name in ("sslrootcert", "sslcert", "sslkey")] == expected
    told = dict(sqlalchemy.make_url(given.asyncpg_arguments()["dsn"]).query)
    assert told == {"sslmode": "verify-ca", "sslrootcert": expected[0], "sslcert": expected[1], "sslkey": expected[2]}


def test_the_certificates_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl

    given = of("postgresql://u@h/d?sslmode=verify-full&sslrootcert=system")
    trusting = given.asyncpg_arguments()["ssl"]
    assert isinstance(trusting, ssl.SSLContext)
    assert (trusting.check_hostname, trusting.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert given.sqlalchemy_url().query["sslrootcert"] == "system"


def test_a_socket_knows_no_tls() -> None:
    given = of("postgresql://u@/d?host=/run/pg&sslmode=verify-full")
    assert given.asyncpg_arguments()["ssl"] == "disable"
    assert given.sqlalchemy_url().query["sslmode"] == "disable"


def test_libpqs_variables_are_asked_where_the_url_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "root.crt"
    certificate.write_text("")
    variables = {"HOST": "other", "PORT": "7", "USER": "them", "DATABASE": "theirs", "SSLMODE": "require"}
    for name, value in {**variables, "SSLROOTCERT": str(certificate)}.items():
        monkeypatch.setenv(f"PG{name}", value)
    given = of("postgresql://")
    assert given.shown == "postgresql://them@other:7/theirs"
    assert (given.sslmode, given.sslrootcert) == ("require", str(certificate))
    assert of("postgresql://u@h:1/d?sslmode=disable").shown == "postgresql://u@h:1/d"
    assert of("postgresql://?sslmode=disable").sslrootcert is None, "no certificate is asked for"
    monkeypatch.setenv("PGPORT", "many")
    with pytest.raises(InvalidInput, match=r"^PGPORT: must be a number"):
        of("postgresql://h")
    monkeypatch.setenv("PGHOST", "a,b")
    with pytest.raises(InvalidInput, match=r"^PGHOST: several hosts"):
        of("postgresql://u@:1/d")
    monkeypatch.setenv("PGSSLMODE", "yes")
    with pytest.raises(InvalidInput, match=r"^PGSSLMODE: must be one of"):
        of("postgresql://u@h:1/d")


def test_without_a_host_it_is_the_usual_socket_else_localhost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOCKET_FOLDERS", (str(tmp_path / "none"), str(tmp_path)))
    assert of("postgresql:///d").host == "localhost"
    (tmp_path / ".s.PGSQL.5432").touch()
    assert of("postgresql:///d").host == str(tmp_path)
    assert of("postgresql:///d?port=5433").host == "localhost"


def test_without_a_user_it_is_that_of_the_process() -> None:
    owner = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert (of("postgresql://h").user, of("postgresql://h").database) == (owner, owner)


# --- on a server ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asking() -> Iterator[Server]:
    """A server that listens on a port and asks for a password that is hard to write."""
    with Server(password="p@s:s/w%o?r&d=#'\\ é", tcp=True) as server:
        yield server


async def _both(given: Address, question: str) -> tuple[Any, Any]:
    """The answers that the two drivers get."""
    connection = await asyncpg.connect(**given.asyncpg_arguments())
    try:
        first = await connection.fetchval(question)
    finally:
        await connection.close()
    engine = sqlalchemy.create_engine(given.sqlalchemy_url(), poolclass=sqlalchemy.NullPool)
    with engine.connect() as other:
        return first, other.execute(sqlalchemy.text(question)).scalar_one()


@pytest.mark.parametrize("host", ["socket", "127.0.0.1", "localhost"])
async def test_both_drivers_reach_the_same(asking: Server, host: str) -> None:
    url = asking.url("postgres", statement_timeout="1.5", application_name="bïlling")
    if host != "socket":
        url = url.replace(f"host={asking.host}", f"host={host}")
    given = of(url)
    assert await _both(given, "SELECT current_user || ' ' || current_database()") == ("postgres postgres",) * 2
    assert await _both(given, "SHOW statement_timeout") == ("1500ms",) * 2
    first, second = await _both(given, "SHOW application_name")
    assert first == second
    assert await _both(given, "SELECT coalesce(inet_server_port(), 0)") == (0 if host == "socket" else asking.port,) * 2


async def test_the_password_may_come_from_the_variable_or_the_password_file(
    asking: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asking.connect() as connection:
        connection.execute("CREATE ROLE plain LOGIN PASSWORD 'plain word'")
    url = f"postgresql://plain@127.0.0.1:{asking.port}/postgres"
    with monkeypatch.context() as patched:
        patched.setenv("PGPASSWORD", "plain word")
        assert await _both(of(url), "SELECT 1") == (1, 1)
    file = tmp_path / "pgpass"
    file.write_text("127.0.0.1:*:*:plain:plain word\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert await _both(of(url), "SELECT 1") == (1, 1)


async def test_variables_of_libpq_lead_neither_driver_elsewhere(asking: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.2", 0))
        variables = {"HOSTADDR": "127.0.0.2", "PORT": str(nobody.getsockname()[1]), "HOST": "127.0.0.2", "USER": "them"}
        for name, value in {**variables, "APPNAME": "theirs", "CONNECT_TIMEOUT": "1", "SSLMODE": "verify-full"}.items():
            monkeypatch.setenv(f"PG{name}", value)
        given = of(asking.url("postgres", sslmode="prefer").replace(f"host={asking.host}", "host=127.0.0.1"))
        assert await _both(given, "SHOW application_name") == ("treestore",) * 2


def test_the_process_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncpg would believe LOGNAME, libpq does not."""
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert getpass.getuser() == "somebody-else"
    assert of("postgresql://h").user != "somebody-else"


def test_the_suites_databases_are_read_by_it() -> None:
    assert of(databases.new_url()).database.startswith("test_")
