"""A PgBouncer in transaction mode in front of a server of the tests, to prove that the store works behind one.

It has two connections to the server and takes them in turn, so that two transactions of one client after another run on
different ones: what a session keeps (prepared statements, settings, temporary tables) is gone or is somebody else's. Debian
12's PgBouncer 1.18 knows nothing of prepared statements, and lets no start-up parameter pass that it does not know: the hard
case.

    with PgBouncer(server) as bouncer:
        treestore.open_sync(bouncer.url("database"))

The program is the system's; where there is none, Debian's package and the libraries that it lacks are fetched, without being
installed, into the environment's caches. :class:`NoPgBouncer` says why neither works.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

import psycopg

from tests.postgres.guard import Guard
from tests.postgres.server import START_SECONDS, STOP_SECONDS, Failed, Server, account, own_folder, start_program

PORT = 6432
PROGRAM = "pgbouncer"
SERVER_CONNECTIONS = 2
DOWNLOAD_SECONDS = 60

CONFIGURATION = """\
[databases]
* = host={server.host} port={server.port} user={server.user}{password}

[pgbouncer]
unix_socket_dir = {folder}
unix_socket_mode = 0700
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
min_pool_size = {connections}
server_round_robin = 1
server_lifetime = 3600
max_client_conn = 200
"""


class NoPgBouncer(Exception):
    """There is no PgBouncer, and none could be fetched; the message says why."""


class PgBouncer:
    """A running PgBouncer; ``host`` is its socket's folder. Raises NoPgBouncer, or Failed with what it said."""

    def __init__(self, server: Server) -> None:
        self._server = server
        owner = account()
        self._folder = own_folder(owner)
        self._guard = Guard(self.host)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            programs = self._folder / "programs"
            provide(programs)
            self._configure()
            command = [str(programs / PROGRAM), str(self._folder / "pgbouncer.ini")]
            with (self._folder / "log").open("ab") as log:
                self._process = start_program(command, self._folder, log, owner, LD_LIBRARY_PATH=str(programs))
            self._guard.watch(self._process.pid)
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def host(self) -> str:
        return str(self._folder)

    def url(self, database: str, **parameters: str) -> str:
        """The URL of a database of the server's, by way of PgBouncer and saying so."""
        query = urlencode({"host": self.host, "port": str(PORT), "pgbouncer": "true", **parameters}, safe="/")
        return f"postgresql://{self._server.user}@/{quote(database, safe='')}?{query}"

    def open_all(self, database: str) -> set[int]:
        """Make it open all its connections to a database, which it else does as the load demands. Their processes."""
        with ExitStack() as stack:
            found = set()
            for _ in range(SERVER_CONNECTIONS):
                client = stack.enter_context(
                    psycopg.connect(host=self.host, port=PORT, user=self._server.user, dbname=database, prepare_threshold=None)
                )
                found |= {int(pid) for (pid,) in client.execute("SELECT pg_backend_pid()")}  # its transaction stays open
            return found

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
            self._guard.watch(0)
        self._guard.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _configure(self) -> None:
        given = self._server.password
        password = "" if given is None else " password='{}'".format(given.replace("'", "''"))
        text = CONFIGURATION.format(
            server=self._server, password=password, folder=self._folder, port=PORT, connections=SERVER_CONNECTIONS
        )
        file = self._folder / "pgbouncer.ini"
        file.write_text(text, encoding="utf-8")

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < until:
            if (self._folder / f".s.PGSQL.{PORT}").exists():
                return
            time.sleep(0.01)
        said = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
        raise Failed(f"PgBouncer did not start\n{said[-2000:]}")


def provide(into: Path) -> None:
    """Make a folder with the program and what it needs beside it, which any user may run. Raises NoPgBouncer.

    A copy, since the server's user need not reach the environment's folder.
    """
    cached = Path(sys.prefix, "caches", "pgbouncer")
    installed = shutil.which(PROGRAM) or shutil.which(PROGRAM, path="/usr/sbin:/usr/local/sbin:/sbin")
    if installed is None and (cached / PROGRAM).exists():
        shutil.copytree(cached, into)
        return
    into.mkdir(mode=0o755)
    if installed is not None:
        shutil.copy(installed, into)
        return
    with tempfile.TemporaryDirectory(prefix="treestore-pgbouncer-") as work:
        _fetch(Path(work), into)
    with suppress(OSError):  # an environment of somebody else's, or another run was first: what was fetched serves this run
        cached.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as beside:
            whole = shutil.copytree(into, Path(beside, PROGRAM))
            whole.rename(cached)  # at once, since others look for it meanwhile


def _fetch(work: Path, into: Path) -> None:
    """Fetch Debian's package, and of what it depends on that which is not installed."""
    lacking = [name for name in ("apt-get", "dpkg-deb", "dpkg-query") if shutil.which(name) is None]
    if lacking:
        raise NoPgBouncer(f"no {PROGRAM} is installed, and without {' and '.join(lacking)} none can be fetched")
    package = _download(PROGRAM, work)
    _unpack(package, into)
    for clause in _said_by("dpkg-deb", "-f", str(package), "Depends").split(","):
        name = clause.split("|")[0].split("(")[0].strip()
        here = _said_by("dpkg-query", "-W", "-f", "${db:Status-Status}", name).startswith("installed")
        if name.startswith("lib") and not here:
            _unpack(_download(name, work), into)
    environ = {**os.environ, "LD_LIBRARY_PATH": str(into)}
    ran = subprocess.run([into / PROGRAM, "--version"], env=environ, capture_output=True, text=True, check=False)
    if ran.returncode:
        said = " ".join((ran.stderr or ran.stdout).split())
        raise NoPgBouncer(f"the {PROGRAM} that was fetched does not run: {said[-300:]}")


def _said_by(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _download(package: str, work: Path) -> Path:
    """A package's file; with a list of packages of our own where the system's does not serve."""
    lists = work / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    own = ("-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={work}")
    said = ""
    for step in (("download", package), (*own, "update"), (*own, "download", package)):
        try:
            ran = subprocess.run(
                ["apt-get", "-q", *step], cwd=work, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise NoPgBouncer(f"apt-get fetched no {package} within {DOWNLOAD_SECONDS} s") from None
        said = ran.stderr or said
        files = sorted(work.glob(f"{package}_*.deb"))
        if files:
            return files[-1]
    raise NoPgBouncer(f"apt-get could not fetch {package}: {' '.join(said.split())[-300:]}")


def _unpack(package: Path, into: Path) -> None:
    """Put the program and the libraries of a package into one folder."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True, capture_output=True)
        for path in sorted(Path(folder).rglob("*")):
            program = path.name == PROGRAM and path.parent.name == "sbin"
            if path.is_file() and (program or re.search(r"\.so[.0-9]*$", path.name)):
                shutil.copy(path, into / path.name)
