"""A real PostgreSQL server, started by the tests for the tests, on a fresh data folder.

It listens on a unix socket in a folder that nobody else can enter, and on no port (unless asked to). Run by root it runs as
``postgres`` or ``nobody``, since PostgreSQL refuses root; else as whoever runs the tests. It ends, and its folder goes, when
it is closed or when the process that started it ends, by whatever cause: :mod:`tests.postgres.guard` sees to it.

    with Server() as server:                        not durable, as nobody pulls the plug between two tests
        treestore.open_sync(server.url("postgres"))

The suite shares one server (:mod:`tests.postgres.databases`). A test that kills, stops or reconfigures one starts its own,
which takes about half a second:

    with Server(durable=True, settings={"max_connections": "5"}) as server:
        server.kill()                               SIGKILL to all its processes
        server.start()                              on the same folder: crash recovery
        server.restart({"default_transaction_read_only": "on"})
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

from tests.postgres import processes
from tests.postgres.binaries import Installation, NoPostgres, copy_of_wheel, find, look_into, of_wheel
from tests.postgres.guard import Guard

START_SECONDS = 60.0
STOP_SECONDS = 30.0

SOCKET_LENGTH = 100
"""The longest path of a socket: systems have 104 to 108 bytes for it."""

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "autovacuum": "off",  # a vacuum that looks into a template makes cloning it wait
    "timezone": "America/St_Johns",  # what is kept in UTC may not depend on the server's zone; this one is at no full hour
    "max_wal_size": "2GB",
    "log_min_messages": "warning",
}
"""What every server here is started with."""

NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class Failed(Exception):
    """A program of PostgreSQL's, or a server, did not do what it was to do; the message holds what it said."""


class Server:
    """One PostgreSQL server, running from the moment it is made until :meth:`close`, unless it is stopped or killed before.

    ``host`` is the socket's folder, ``port`` the number in its name, ``user`` a superuser. ``settings`` go before
    :data:`SETTINGS`; ``durable`` makes it sync as in service. With a ``password`` it asks for one (SCRAM); with ``tcp`` it
    also listens on a free port of the loopback interface.

    Raises NoPostgres (see :mod:`tests.postgres.binaries`), or Failed with the end of the server's log.
    """

    user = "postgres"
    port = 5432

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        durable: bool = False,
        password: str | None = None,
        tcp: bool = False,
        installation: Installation | None = None,
    ) -> None:
        self.password = password
        self._settings = SETTINGS | ({} if durable else NOT_DURABLE) | (dict(settings) if settings else {})
        if tcp:
            self.port = _free_port()
            self._settings["listen_addresses"] = "127.0.0.1"
        self._account = account()
        self._folder = own_folder(self._account)
        self._guard = Guard(self.host)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.installation = self._reachable(installation or find())
            self._make_cluster()
            self.start()
        except BaseException:
            self.close()
            raise

    # What others connect with.

    @property
    def host(self) -> str:
        return str(self._folder)

    def url(self, database: str = "postgres", scheme: str = "postgresql", **parameters: str) -> str:
        """The URL of a database, by the socket; ``parameters`` are added to it."""
        login = self.user if self.password is None else f"{self.user}:{quote(self.password, safe='')}"
        query = urlencode({"host": self.host, "port": str(self.port), **parameters}, safe="/")
        return f"{scheme}://{login}@/{quote(database, safe='')}?{query}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A connection that commits each statement."""
        return psycopg.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=database, autocommit=True
        )

    def make_database(self, name: str, template: str = "template1") -> str:
        """Make a database, a copy of another one that nobody is connected to. Its URL."""
        # From version 15 there is a choice, and for databases as small as these are this is the faster one, by a tenth.
        how = sql.SQL("STRATEGY FILE_COPY" if self.installation.version >= 15 else "")
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} {}").format(sql.Identifier(name), sql.Identifier(template), how)
        with self.connect() as connection:
            connection.execute(statement)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it. No error if there is none."""
        with self.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            until = time.monotonic() + 1
            # They end within a few milliseconds. DROP … (FORCE) would end them too, but looks only every 100 ms if they have.
            while connection.execute("SELECT FROM pg_stat_activity WHERE datname = %s", [name]).fetchone() is not None:
                if time.monotonic() > until:
                    break
                time.sleep(0.002)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def log(self) -> str:
        """What the server and initdb said so far."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    # Its life.

    @property
    def pid(self) -> int | None:
        """The server's main process, if it runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    def start(self, settings: Mapping[str, str] | None = None, *, standby: bool = False) -> None:
        """Start it and wait until it accepts connections, after recovery where it was killed.

        ``settings`` count from now on. As ``standby`` it waits for a primary server that never comes: it answers, and nobody
        can write to it.
        """
        assert self.pid is None, "it runs"
        self._settings.update(settings or {})
        signal_file = self._data / "standby.signal"
        signal_file.touch() if standby else signal_file.unlink(missing_ok=True)
        given = {**self._settings, "unix_socket_directories": self.host, "port": str(self.port)}
        command = [self.installation.program("postgres"), "-D", str(self._data)]
        for name, value in given.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "log").open("ab") as log:
            self._process = self._run(command, log)
        self._guard.watch(self._process.pid)
        self._wait_until_ready()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends its connections, SIGTERM waits for them, SIGQUIT leaves recovery to the next start."""
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise Failed(f"the server did not stop in {STOP_SECONDS:.0f} s\n{self.log()[-2000:]}") from None
        self._ended()

    def kill(self) -> None:
        """SIGKILL to all its processes, as a crash of the machine ends them (but what was written is not lost)."""
        if self._process is not None:
            pids = self.pause()
            for pid in reversed(pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
            processes.wait_for_end(pids, STOP_SECONDS)
        self._ended()

    def restart(self, settings: Mapping[str, str] | None = None, *, standby: bool = False) -> None:
        """Stop it and start it with these settings changed."""
        self.stop()
        self.start(settings, standby=standby)

    def pause(self) -> list[int]:
        """Make it hang, so that it takes connections and answers nothing, until :meth:`resume`. All its processes."""
        pid = self.pid
        if pid is None:
            return []
        os.kill(pid, signal.SIGSTOP)  # first, so that it makes no child that would be missed
        pids = [pid, *processes.children(pid)]
        _send(pids[1:], signal.SIGSTOP)
        return pids

    def resume(self) -> None:
        """Let it go on."""
        if self.pid is not None:
            _send([*processes.children(self.pid), self.pid], signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.resume()
        try:
            self.stop()
        finally:
            self._guard.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _reachable(self, found: Installation) -> Installation:
        """The installation, as the user that the server runs as can start it."""
        if self._account is None or _runs(found, self._account):
            return found
        if of_wheel(found):
            copied = copy_of_wheel(found, self._folder)
            if _runs(copied, self._account):
                return copied
        raise NoPostgres(f"PostgreSQL refuses root, and user {self._account.pw_name} can't run what is in {found.folder}")

    def _make_cluster(self) -> None:
        command = [self.installation.program("initdb"), "-D", str(self._data), "-U", self.user, "--no-sync"]
        command += ["--encoding=UTF8", "--locale=C", "--auth=trust" if self.password is None else "--auth=scram-sha-256"]
        if self.password is not None:
            file = self._folder / "password"
            file.write_text(self.password, encoding="utf-8")  # in a folder that nobody else can enter
            command.append(f"--pwfile={file}")
        with (self._folder / "log").open("ab") as log, self._run(command, log) as made:
            made.wait(START_SECONDS)
        if made.returncode:
            raise Failed(f"initdb failed\n{self.log()[-2000:]}")

    def _run(self, command: list[str], log: Any) -> subprocess.Popen[bytes]:
        return start_program(command, self._folder, log, self._account)

    def _wait_until_ready(self) -> None:
        """Until its lock file says so, as pg_ctl does: its last line is the state."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.pid is None:
                break
            with suppress(OSError):
                lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
                if len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready":
                    return
            time.sleep(0.01)
        self.kill()
        raise Failed(f"the server did not start\n{self.log()[-2000:]}")

    def _ended(self) -> None:
        self._process = None
        self._guard.watch(0)


def account() -> pwd.struct_passwd | None:
    """The user that a server of root's runs as; None where the tests are run by somebody else, and so is the server."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoPostgres("PostgreSQL refuses root, and there is no user postgres or nobody to run it as; be another user")


def as_user(owner: pwd.struct_passwd | None) -> dict[str, Any]:
    """The arguments of Popen by which a program runs as this user."""
    return {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def start_program(
    command: list[str], folder: Path, log: Any, owner: pwd.struct_passwd | None, **environ: str
) -> subprocess.Popen[bytes]:
    """Start a program in a folder as this user, out of the terminal's reach: Ctrl-C is for pytest, which then stops it."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env={"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder), **environ},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        **as_user(owner),
    )


def own_folder(owner: pwd.struct_passwd | None) -> Path:
    """A new folder for a server that nobody else can enter. Raises NoPostgres where there is no place for it.

    Its path is short enough for sockets and plain enough for settings, and the server's user reaches it.
    """
    for path in map(os.path.realpath, (tempfile.gettempdir(), "/tmp", "/var/tmp")):
        short = len(os.fsencode(path)) + len("/treestore-pg-12345678/.s.PGSQL.65535.lock") <= SOCKET_LENGTH
        plain = re.fullmatch(r"[\w./+@-]+", path, re.ASCII)
        way = (Path(path), *Path(path).parents)
        reached = owner is None or all(folder.stat().st_mode & 0o001 for folder in way)
        if short and plain and reached and os.access(path, os.W_OK | os.X_OK):
            folder = Path(tempfile.mkdtemp(prefix="treestore-pg-", dir=path))
            if owner is not None:
                os.chown(folder, owner.pw_uid, owner.pw_gid)
            return folder
    raise NoPostgres("no folder for a test's PostgreSQL: TMPDIR, /tmp and /var/tmp can't be used; set TMPDIR to a short path")


def _runs(installation: Installation, owner: pwd.struct_passwd) -> bool:
    try:
        for name in ("initdb", "postgres"):
            command = [installation.program(name), "--version"]
            subprocess.run(command, capture_output=True, check=True, cwd="/", **as_user(owner))
    except (OSError, subprocess.CalledProcessError):
        return False
    return look_into(installation.folder) is not None


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
