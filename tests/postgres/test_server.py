"""The servers that tests start: that they are real, end when they are told to, and never outlive the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg
import pytest

from tests.postgres import binaries, processes
from tests.postgres.server import Failed, Server, account, own_folder

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    with Server() as server:
        yield server


def ended(pid: int) -> None:
    processes.wait_for_end([pid], 20)


def test_both_drivers_connect_by_its_url(own: Server) -> None:
    with psycopg.connect(own.url()) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        collation = connection.execute("SELECT datcollate FROM pg_database WHERE datname = current_database()").fetchone()
        assert collation == ("C",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


async def test_asyncpg_connects_by_its_url(own: Server) -> None:
    connection = await asyncpg.connect(own.url())
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


def test_nobody_else_can_enter_its_folder(own: Server) -> None:
    found = Path(own.host).stat()
    assert found.st_mode & 0o077 == 0
    owner = account()
    assert found.st_uid == (os.geteuid() if owner is None else owner.pw_uid)
    assert found.st_uid != 0


def test_databases_are_made_from_templates_and_dropped_under_their_clients(own: Server) -> None:
    with psycopg.connect(own.make_database('odd "name"'), autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS one")
    with psycopg.connect(own.make_database("copy", 'odd "name"')) as connection:
        assert connection.execute("SELECT one FROM t").fetchone() == (1,)
        own.drop_database("copy")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    own.drop_database("copy")


def test_killed_it_recovers_what_was_committed(own: Server) -> None:
    with own.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS seven")
        own.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    own.start()
    assert "was not properly shut down; automatic recovery in progress" in own.log()
    with own.connect() as connection:
        assert connection.execute("SELECT seven FROM kept").fetchone() == (7,)


def test_killed_while_its_processes_work_it_can_be_started_at_once(own: Server) -> None:
    with own.connect() as connection:
        connection.execute("CREATE TABLE grown (n integer)")
    asleep = subprocess.Popen(
        [sys.executable, "-c", f"import psycopg; psycopg.connect({own.url()!r}).execute('SELECT pg_sleep(60)')"],
        stderr=subprocess.DEVNULL,
    )
    with own.connect() as connection:
        until = time.monotonic() + 20
        while connection.execute("SELECT 1 FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'").fetchone() is None:
            assert time.monotonic() < until
    own.kill()
    own.start()
    assert asleep.wait(20) == 1


def test_paused_it_answers_nothing_until_it_goes_on(own: Server) -> None:
    with own.connect() as connection:
        own.pause()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(own.url(connect_timeout="2"))
        own.resume()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_it_can_be_made_read_only_in_both_ways(own: Server) -> None:
    own.restart({"default_transaction_read_only": "on"})
    with own.connect() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("CREATE TABLE t (n integer)")
    own.restart({"default_transaction_read_only": "off"}, standby=True)
    with own.connect() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("CREATE TABLE t (n integer)")
    own.restart()
    with own.connect() as connection:
        connection.execute("CREATE TEMPORARY TABLE t (n integer)")


def test_with_a_password_and_a_port() -> None:
    with Server(password="p:@/ '%ü", tcp=True) as server:
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url(password="wrong"))
        with socket.create_connection(("127.0.0.1", server.port), timeout=5):
            pass


def test_one_that_can_not_start_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []

    def noted(owner: pwd.struct_passwd | None) -> Path:
        folders.append(own_folder(owner))
        return folders[-1]

    monkeypatch.setattr("tests.postgres.server.own_folder", noted)
    with pytest.raises(Failed, match=r'"no_such_setting"'):
        Server(settings={"no_such_setting": "1"})
    assert [folder.exists() for folder in folders] == [False]


def test_closed_it_and_its_folder_are_gone() -> None:
    server = Server()
    pid = server.pid
    assert pid is not None
    server.close()
    ended(pid)
    assert not Path(server.host).exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_the_process_that_started_it(number: signal.Signals) -> None:
    code = "import time; from tests.postgres.server import Server; s = Server(); print(s.pid, s.host, flush=True)"
    command = [sys.executable, "-c", code + "; time.sleep(60)"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        os.kill(int(pid), 0)
        owner.send_signal(number)
    ended(int(pid))
    until = time.monotonic() + 20
    while Path(folder).exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_long_and_odd_temporary_folders_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("long" * 30, "comma, space"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        with Server() as server:
            assert not server.host.startswith(str(tmp_path))


def test_it_runs_as_who_may_run_it_from_a_wheel_that_only_the_owner_can_reach(tmp_path: Path) -> None:
    found = binaries.find(None, "/nonexistent", [])
    site, closed = found.folder.parent.parent.parent, tmp_path / "closed"
    closed.mkdir(mode=0o700)
    installed = shutil.copytree(found.folder.parent, closed / found.folder.parent.relative_to(site)) / "bin"
    libraries = f"{binaries.WHEEL}.libs"
    if (site / libraries).exists():
        shutil.copytree(site / libraries, closed / libraries)
    with Server(installation=binaries.Installation(installed, found.version)) as server:
        assert server.installation.folder.is_relative_to(tmp_path) == (os.geteuid() != 0)
        with server.connect() as connection:
            assert connection.info.server_version // 10000 == found.version
