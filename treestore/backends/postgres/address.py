"""Where a PostgreSQL store is, and how it is reached: a URL read once, given to both drivers alike.

    postgresql://user:password@host:5432/database?sslmode=verify-full&pool_size=20
    postgresql://user@/database?host=/folder/of/the/socket

``postgres://`` and ``postgresql+asyncpg://`` mean the same. asyncpg serves the store and psycopg its migrations; they disagree
about defaults, so everything that says which server, which user and how it is proved is decided here, and given to both:

- Where the URL is silent, PGHOST, PGPORT, PGUSER, PGDATABASE, PGSSLMODE, PGSSLROOTCERT, PGSSLCERT and PGSSLKEY are asked, as
  libpq has them. Without any host it is the socket in the usual folders, else localhost; without a user, that of this process;
  without a database, the one named as the user. A password that the URL lacks is PGPASSWORD's, else that of the password file
  (PGPASSFILE, ``~/.pgpass``), which both drivers read by themselves, and so are ``~/.postgresql/postgresql.crt`` and ``.key``.
  In that file asyncpg takes no password with a colon or a backslash, and calls the host of every socket ``localhost``.
- PGHOSTADDR, PGAPPNAME, PGCONNECT_TIMEOUT and PGGSSENCMODE have no effect. Service files (PGSERVICE) are not supported:
  asyncpg does not follow that variable, and libpq would take from there what is said nowhere else.
- ``sslmode`` as libpq has it: disable, allow, prefer (without any other word), require, verify-ca, verify-full. Only the last
  two prove the server; ``require`` does if there is a root certificate (``sslrootcert``, else ``~/.postgresql/root.crt``).
  ``sslrootcert=system`` means the certificates that the system trusts, with verify-full. A socket knows no TLS.

The password is in no message, no ``repr`` and not in :attr:`Address.shown`.
"""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes, urlencode

import msgspec

from treestore import config
from treestore.config import Settings
from treestore.errors import InvalidInput
from treestore.trees import rules

if TYPE_CHECKING:
    import sqlalchemy

SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_PROVING = SSL_MODES[3:]

ROOT_CERTIFICATE = "~/.postgresql/root.crt"
"""What both drivers take for the root certificate where none is named."""

SOCKET_FOLDERS = ("/run/postgresql", "/var/run/postgresql", "/tmp")
"""Where servers put their sockets: Debian's, others', and what PostgreSQL itself does."""

STATEMENT_MARGIN = 5.0
"""Seconds that the driver waits longer than the server is told to work: the server's own answer says more."""

_SETTINGS = {
    "pool_size": "pool_size",
    "pool_timeout": "pool_timeout_seconds",
    "connect_timeout": "connect_timeout_seconds",
    "statement_timeout": "statement_timeout_seconds",
    "pgbouncer": "pgbouncer",
}
"""Parameters that are settings, by their fields."""

_OF_SERVER = ("host", "port", "user", "password", "dbname")
_OF_LIBPQ = (*_OF_SERVER, "sslmode", "sslrootcert", "sslcert", "sslkey", "application_name")
_PARAMETERS = (*_SETTINGS, *_OF_LIBPQ)
_ENCODE = "what is special in it is written percent-encoded, as %40 for @ and %2F for /"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A PostgreSQL database and how to connect to it. Times are in seconds. Made by :func:`parse`.

    ``host`` is a name, an IP address, or the folder of a socket. ``password=None``: PGPASSWORD's or the password file's.
    """

    host: str
    port: int
    user: str
    database: str
    password: str | None = None
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    application_name: str = "treestore"
    pool_size: int = 10
    pool_timeout: float = 10.0
    connect_timeout: float = 5.0
    statement_timeout: float = 60.0
    pgbouncer: bool = False

    @property
    def shown(self) -> str:
        """The address as a URL without secrets and without what does not say where it is."""
        user, database = quote(self.user, safe=""), quote(self.database, safe="")
        if self._by_socket:
            return f"postgresql://{user}@/{database}?host={quote(self.host)}&port={self.port}"
        host = f"[{quote(self.host, safe=':')}]" if ":" in self.host else self.host
        return f"postgresql://{user}@{host}:{self.port}/{database}"

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    def __rich_repr__(self) -> Any:
        yield self.shown

    @property
    def _by_socket(self) -> bool:
        return self.host.startswith("/")

    @property
    def statement_timeout_ms(self) -> int:
        """The time for a statement as the server counts it, at least 1: to it, 0 means no limit."""
        return max(1, math.ceil(self.statement_timeout * 1000))

    def asyncpg_arguments(self) -> dict[str, Any]:
        """The arguments of ``asyncpg.connect``, and of ``create_pool`` but for the size of the pool.

        Behind PgBouncer, which refuses start-up parameters that it does not know, the server is not told the time for a
        statement: that is for each transaction to say. Prepared statements are not kept there either.
        """
        server_settings = {"application_name": self.application_name}
        if not self.pgbouncer:
            server_settings["statement_timeout"] = str(self.statement_timeout_ms)
        arguments: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "timeout": self.connect_timeout,
            "command_timeout": self.statement_timeout + STATEMENT_MARGIN,
            "server_settings": server_settings,
            **self._asyncpg_tls(),
        }
        if self.pgbouncer:
            arguments["statement_cache_size"] = 0
        return arguments

    def _asyncpg_tls(self) -> dict[str, Any]:
        """asyncpg takes certificates from a DSN alone; so it gets one that says nothing else."""
        if self._by_socket or self.sslmode == "disable":
            return {"ssl": "disable"}
        if self.sslrootcert == "system":
            import ssl

            trusting = ssl.create_default_context()
            if self.sslcert is not None:
                trusting.load_cert_chain(self.sslcert, self.sslkey)
            return {"ssl": trusting}
        return {"dsn": "postgresql://?" + urlencode({"sslmode": self.sslmode, **self._certificates()})}

    def _certificates(self) -> dict[str, str]:
        files = {"sslrootcert": self.sslrootcert, "sslcert": self.sslcert, "sslkey": self.sslkey}
        return {name: path for name, path in files.items() if path is not None}

    def sqlalchemy_url(self) -> sqlalchemy.URL:
        """The address for SQLAlchemy on psycopg, with the same rules. ``str()`` of it masks the password."""
        from sqlalchemy import URL

        query = {
            "hostaddr": "",  # or PGHOSTADDR would lead elsewhere
            "sslmode": "disable" if self._by_socket else self.sslmode,
            "gssencmode": "disable",  # asyncpg does not know it
            "connect_timeout": str(max(2, math.ceil(self.connect_timeout))),  # libpq takes whole seconds, from 2
            "application_name": self.application_name,
        }
        if not self._by_socket:
            query |= self._certificates()
        if not self.pgbouncer:
            query["options"] = f"-c statement_timeout={self.statement_timeout_ms}"
        return URL.create(
            "postgresql+psycopg",
            username=self.user,
            password=self.password,
            host=self.host,
            port=self.port,
            database=self.database,
            query=query,
        )


def parse(url: str, settings: Settings) -> Address:
    """The address that a URL names; what it does not say is as ``settings`` and PG* variables have it.

    Raises InvalidInput, on one line, that says what is wrong, without the password.
    """
    scheme, _, rest = url.partition("://")
    _check_scheme(scheme)
    place, _, query = rest.partition("?")
    authority, _, database = place.partition("/")
    credentials, at, server = authority.rpartition("@")
    if "@" in credentials or (authority and not at and "@" in rest) or "@" in database or "/" in database:
        raise _wrong(f"it can't be told where the password ends and the host begins; {_ENCODE}")
    user, _, password = credentials.partition(":")
    host, port = _host_and_port(server)
    given = {"user": user, "password": password, "host": host, "port": port, "dbname": database}
    found = {name: _decoded(text, name) for name, text in given.items() if text}
    for name, value in _parameters(query).items():
        if name in found:
            raise _wrong(f"{name} is given twice")
        found[name] = value
    return _address(found, settings)


def _wrong(rule: str) -> InvalidInput:
    return InvalidInput(rule, field="url")


def _check_scheme(scheme: str) -> None:
    if scheme in SCHEMES:
        return
    family, _, driver = scheme.partition("+")
    if family in ("postgresql", "postgres") and re.fullmatch(r"[a-z0-9_]{1,20}", driver):
        raise _wrong(f"the driver {driver} is not used; write postgresql:// or postgresql+asyncpg://, which both mean asyncpg")
    raise _wrong("must begin with postgresql://, postgres:// or postgresql+asyncpg://")


_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%25[^\[\]:]+)?)\]|(?P<host>[^\[\]:]*))(?::(?P<port>[0-9]{0,5}))?"
)


def _host_and_port(server: str) -> tuple[str, str]:
    """The two parts as they are written. A port that is none may be a part of a password, so it is not shown."""
    if "," in server:
        raise _wrong("several hosts are not supported; name one")
    parts = _HOST_AND_PORT.fullmatch(server)
    if parts is None:
        raise _wrong(f"no host and port are read from it; an IPv6 address stands in [brackets]; of a password, {_ENCODE}")
    return parts["ipv6"] or parts["host"] or "", parts["port"] or ""


def _decoded(text: str, name: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise _wrong(f"{name}: a % is followed by two hexadecimal digits; % itself is written %25")
    try:
        value = unquote_to_bytes(text.encode()).decode()
    except UnicodeError:
        raise _wrong(f"{name}: is not UTF-8 in its percent-encoded form") from None
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise _wrong(f"{name}: holds a control character")
    return value


def _parameters(query: str) -> dict[str, str]:
    """The parameters by name, decoded. Empty ones are as good as not given."""
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, text = part.partition("=")
        if not equals:
            raise _wrong("a parameter is written name=value; & and = in a value are %26 and %3D")
        if name not in _PARAMETERS:
            called = f"the parameter {name}" if re.fullmatch(r"[a-z_]{1,40}", name) else "a parameter"
            raise _wrong(f"{called} is not known; known are {', '.join(_PARAMETERS)}")
        if name in found:
            raise _wrong(f"{name} is given twice")
        found[name] = _decoded(text, name)
    return {name: text for name, text in found.items() if text}


def _address(found: dict[str, str], settings: Settings) -> Address:
    port = _port(*_said(found, "port", "PGPORT", "5432"))
    host = _host(*_said(found, "host", "PGHOST", "")) or _default_host(port)
    user = _said(found, "user", "PGUSER", "")[0] or _own_name()
    fields = {field: config.parsed(field, found[name], f"url: {name}") for name, field in _SETTINGS.items() if name in found}
    chosen = msgspec.structs.replace(settings, **fields)
    tls = {} if host.startswith("/") else _tls(found)
    return Address(
        host=host,
        port=port,
        user=user,
        database=_said(found, "dbname", "PGDATABASE", user)[0],
        password=found.get("password"),
        application_name=found.get("application_name", "treestore"),
        pool_size=chosen.pool_size,
        pool_timeout=chosen.pool_timeout_seconds,
        connect_timeout=chosen.connect_timeout_seconds,
        statement_timeout=chosen.statement_timeout_seconds,
        pgbouncer=chosen.pgbouncer,
        **tls,
    )


def _said(found: dict[str, str], name: str, variable: str, default: str) -> tuple[str, str]:
    """What the URL says, else the variable, else the default; and what to call it in an error."""
    if name in found:
        return found[name], f"url: {name}"
    return os.environ.get(variable) or default, variable


def _port(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise InvalidInput("must be a number from 1 to 65535", field=where)
    return int(text)


def _host(text: str, where: str) -> str:
    if "," in text:
        raise InvalidInput("several hosts are not supported; name one", field=where)
    if text.startswith("/") and ".s.PGSQL." in text:
        raise InvalidInput("names a socket; name the folder that it is in", field=where)
    if not text.startswith("/") and re.search(r"[\s/@\[\]?#]", text):
        raise InvalidInput("must be a name, an IP address, or a folder by its whole path", field=where)
    return text


def _default_host(port: int) -> str:
    sockets = (folder for folder in SOCKET_FOLDERS if os.path.exists(f"{folder}/.s.PGSQL.{port}"))
    return next(sockets, "localhost")


def _own_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise _wrong("it names no user, and the one of this process has no name") from None


def _tls(found: dict[str, str]) -> dict[str, str]:
    """``sslmode`` and the files, which can be read. A root certificate that the URL names must not be ignored."""
    mode, where = _said(found, "sslmode", "PGSSLMODE", "prefer")
    if mode not in SSL_MODES:
        raise InvalidInput(f"must be one of {', '.join(SSL_MODES)}", field=where)
    said = {name: _said(found, name, f"PG{name.upper()}", "") for name in ("sslrootcert", "sslcert", "sslkey")}
    root, where = said["sslrootcert"]
    if mode not in _PROVING and "sslrootcert" in found:
        raise InvalidInput("needs sslmode=verify-full, verify-ca or require; without one, it proves nothing", field=where)
    if mode not in _PROVING:
        del said["sslrootcert"]
    elif root == "system" and mode != "verify-full":
        raise InvalidInput("as system it needs sslmode=verify-full: anybody can have such a certificate", field=where)
    elif mode in ("verify-ca", "verify-full") and not root and not os.access(os.path.expanduser(ROOT_CERTIFICATE), os.R_OK):
        raise _wrong(f"sslmode={mode} needs sslrootcert=FILE, or sslrootcert=system; there is no {ROOT_CERTIFICATE} either")
    if "sslkey" in found and not said["sslcert"][0]:
        raise _wrong("sslkey needs the sslcert that it belongs to")
    for name, (path, where) in said.items():
        if path and (name, path) != ("sslrootcert", "system") and not os.access(path, os.R_OK):
            raise InvalidInput(f"{rules.shown_path(path)} can't be read", field=where)
    return {"sslmode": mode, **{name: path for name, (path, _) in said.items() if path}}
