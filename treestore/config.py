"""Settings of a store, from ``TREESTORE_*`` environment variables. Every error names its variable and its rule.

Secrets are never shown: a password inside a URL is replaced by ``***`` wherever a setting is printed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import unquote

import msgspec

from treestore.errors import InvalidInput

PREFIX = "TREESTORE_"
DEFAULT_URL = "btree:///treestore-data"

MAX_MEGABYTES = 1 << 20
"""A terabyte: far above any machine that one process has, far below what would overflow a count of bytes."""

MAX_SECONDS = 10 * 366 * 86_400.0
"""Ten years. A greater number is a slip, such as milliseconds given for seconds."""

MAX_STATEMENT_SECONDS = 2_147_483.0
"""25 days. PostgreSQL counts a statement's time in milliseconds, in 32 bits."""

MAX_POOL_SIZE = 1000
"""Far above what a PostgreSQL server takes from one process."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set about a store.

    ``cache_size_mb`` bounds the memory for decoded pages, ``wal_file_size_mb`` is the size at which the log goes on in a new
    file, ``checkpoint_interval_seconds`` the longest time between checkpoints, ``snapshot_max_age_seconds`` the age at which
    a snapshot is closed, so that a forgotten one can't pin old pages for ever.

    Of PostgreSQL: ``pool_size`` is the greatest number of connections, ``pool_timeout_seconds`` how long a verb waits for a
    free one, ``connect_timeout_seconds`` how long making one may take, ``statement_timeout_seconds`` how long one statement.
    ``pgbouncer`` says that the address leads to a PgBouncer, in transaction mode. A parameter of the URL goes before these.

    Raises InvalidInput where a value breaks its rule, named by the variable that sets it.
    """

    url: str = DEFAULT_URL
    cache_size_mb: int = 512
    checkpoint_interval_seconds: float = 600.0
    wal_file_size_mb: int = 100
    snapshot_max_age_seconds: float = 3600.0
    pool_size: int = 10
    pool_timeout_seconds: float = 10.0
    connect_timeout_seconds: float = 5.0
    statement_timeout_seconds: float = 60.0
    pgbouncer: bool = False

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            _RULES[name](getattr(self, name), variable(name))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings that the environment gives (``os.environ`` by default), the defaults for the rest."""
        environ = os.environ if environ is None else environ
        given = {name: environ[variable(name)] for name in cls.__struct_fields__ if variable(name) in environ}
        return cls(**{name: _PARSERS[name](text, variable(name)) for name, text in given.items()})


def parsed(name: str, text: str, where: str) -> Any:
    """The value of the setting ``name`` as text gives it, elsewhere than in its variable: in ``where``, which errors name.

    Raises InvalidInput.
    """
    value = _PARSERS[name](text, where)
    _RULES[name](value, where)
    return value


Source = Literal["default", "environment", "unknown variable"]


class Shown(msgspec.Struct, frozen=True):
    """One setting as it may be printed: its variable, its value with secrets masked, and where the value came from.

    ``unknown variable``: the environment holds a variable of our prefix that nothing reads, most likely a slip of the pen.
    Its value is not shown, as nobody knows what it holds.
    """

    variable: str
    value: str
    source: Source


def show(environ: Mapping[str, str] | None = None) -> list[Shown]:
    """All settings in the order of :class:`Settings`, then unknown variables by name. Raises InvalidInput as Settings does."""
    environ = os.environ if environ is None else environ
    settings = Settings.from_environment(environ)
    shown = []
    for name in settings.__struct_fields__:
        source: Source = "environment" if variable(name) in environ else "default"
        value = getattr(settings, name)
        text = str(value).lower() if isinstance(value, bool) else masked(str(value))
        shown.append(Shown(variable(name), text, source))
    known = {entry.variable for entry in shown} | READ_ELSEWHERE
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return shown + [Shown(name, "***", "unknown variable") for name in unknown]


READ_ELSEWHERE = frozenset({"TREESTORE_DEBUG"})
"""Variables of our prefix that are no settings of a store: the command line shows tracebacks if this one is set."""


def variable(name: str) -> str:
    """The environment variable that sets a field of :class:`Settings`."""
    return PREFIX + name.upper()


# Up to the last "@", whatever stands between: a password may hold any character, a user's name an "@", and masking too much is
# no harm. A folder's name is no secret.
_PASSWORD = re.compile(r"(?P<before>(?!btree:|memory:)\b[A-Za-z][A-Za-z0-9+.-]*:/{0,2}[^:]*:).*(?=@)", re.DOTALL)
_OPTION = re.compile(r"(?P<name>[?&;][^=&;]*)=[^&;]*")


def masked(url: str) -> str:
    """The URL with its passwords replaced by ``***``."""
    return _PASSWORD.sub(r"\g<before>***", _OPTION.sub(_masked_option, url))


def _masked_option(found: re.Match[str]) -> str:
    return f"{found['name']}=***" if unquote(found["name"]).lower().endswith("password") else found[0]


def _parse_int(text: str, name: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise InvalidInput(f"must be a whole number, not {text[:40]!r}", field=name)
    return int(text)


def _parse_float(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"must be a number of seconds, not {text[:40]!r}", field=name) from None


def _parse_bool(text: str, name: str) -> bool:
    match text.strip().lower():
        case "true" | "1" | "yes" | "on":
            return True
        case "false" | "0" | "no" | "off":
            return False
    raise InvalidInput(f"must be true or false, not {text[:40]!r}", field=name)


def _check_url(value: Any, name: str) -> None:
    if not isinstance(value, str) or not value.strip():
        rule = "must be the URL of a store, such as btree:///folder, postgresql://user@host/database or memory://"
        raise InvalidInput(rule, field=name)


def _check_megabytes(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"must be a whole number of megabytes, not {value!r}", field=name)
    if not 1 <= value <= MAX_MEGABYTES:
        raise InvalidInput(f"must be from 1 to {MAX_MEGABYTES} megabytes, not {value}", field=name)


def _check_seconds(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(f"must be a number of seconds, not {value!r}", field=name)
    if not math.isfinite(value) or not 0 < value <= MAX_SECONDS:
        raise InvalidInput(f"must be above 0 and at most {MAX_SECONDS:.0f} seconds, not {value}", field=name)


def _check_statement_seconds(value: Any, name: str) -> None:
    _check_seconds(value, name)
    if value > MAX_STATEMENT_SECONDS:
        raise InvalidInput(f"must be at most {MAX_STATEMENT_SECONDS:.0f} seconds, not {value}", field=name)


def _check_pool_size(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"must be a whole number of connections, not {value!r}", field=name)
    if not 1 <= value <= MAX_POOL_SIZE:
        raise InvalidInput(f"must be from 1 to {MAX_POOL_SIZE} connections, not {value}", field=name)


def _check_bool(value: Any, name: str) -> None:
    if not isinstance(value, bool):
        raise InvalidInput(f"must be True or False, not {value!r}", field=name)


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "url": lambda text, _: text,
    "cache_size_mb": _parse_int,
    "checkpoint_interval_seconds": _parse_float,
    "wal_file_size_mb": _parse_int,
    "snapshot_max_age_seconds": _parse_float,
    "pool_size": _parse_int,
    "pool_timeout_seconds": _parse_float,
    "connect_timeout_seconds": _parse_float,
    "statement_timeout_seconds": _parse_float,
    "pgbouncer": _parse_bool,
}

_RULES: dict[str, Callable[[Any, str], None]] = {
    "url": _check_url,
    "cache_size_mb": _check_megabytes,
    "checkpoint_interval_seconds": _check_seconds,
    "wal_file_size_mb": _check_megabytes,
    "snapshot_max_age_seconds": _check_seconds,
    "pool_size": _check_pool_size,
    "pool_timeout_seconds": _check_seconds,
    "connect_timeout_seconds": _check_seconds,
    "statement_timeout_seconds": _check_statement_seconds,
    "pgbouncer": _check_bool,
}
