"""What a driver's error means, as an error of treestore. Both drivers: asyncpg (the store), psycopg (migrations).

By SQLSTATE (PostgreSQL's documentation, appendix A), since messages are translated. The driver's error is chained by whoever
raises what :func:`translate` gives.
"""

from __future__ import annotations

import re

from treestore.errors import (
    AccessDenied,
    Closed,
    Conflict,
    DiskFull,
    InvalidInput,
    MigrationError,
    NoStore,
    NotAStore,
    ReadOnly,
    Timeout,
    TreestoreError,
    Unavailable,
)

_UPGRADE = "the tables are not those that this version of treestore works on; 'treestore db check' says in what they differ"

_BY_STATE: dict[str, tuple[type[TreestoreError], str]] = {
    "08": (Unavailable, "the connection to PostgreSQL was lost"),
    "22003": (Unavailable, "PostgreSQL refused a number that is too large"),
    "22": (InvalidInput, "PostgreSQL refused a value"),
    "2200H": (MigrationError, "policy_nodes has given out all ids of its sequence: docs/operations.md says what to do"),
    "23": (Conflict, "a rule of the tables was broken, most likely by rows that other programs wrote"),
    "25P02": (Closed, "the transaction was ended by an error before"),
    "25P04": (Timeout, "the transaction took longer than the server allows"),
    "25006": (ReadOnly, "PostgreSQL does not accept writes here: it is a standby, or read-only by its settings"),
    "28": (AccessDenied, "PostgreSQL refused to let this user in"),
    "3F000": (NoStore, "there is no such schema: the user's search_path names none that exists"),
    "3D000": (NoStore, "there is no such database"),
    "40": (Conflict, "others changed the same at once, again and again"),
    "23503": (Conflict, "rows of other tables refer to it"),
    "42501": (AccessDenied, "this user of PostgreSQL lacks a right"),
    "42P01": (MigrationError, _UPGRADE),
    "42703": (MigrationError, _UPGRADE),
    "53100": (DiskFull, "PostgreSQL has no disk space left"),
    "53": (Unavailable, "PostgreSQL lacks resources"),
    "55P03": (Timeout, "a lock could not be had in time"),
    "57014": (Timeout, "a statement took longer than it may (TREESTORE_STATEMENT_TIMEOUT_SECONDS)"),
    "55000": (Unavailable, "PostgreSQL can't do that now"),
    "57P": (Unavailable, "PostgreSQL is stopping or starting"),
    "58": (Unavailable, "PostgreSQL has trouble with its files"),
    "XX": (Unavailable, "PostgreSQL reports an internal error"),
}
"""By SQLSTATE or its beginning; the longest one counts."""

_AGAIN = ("40001", "40P01")
_LOST = ("08", "57P01", "57P02", "57P03", "25P03", "25P04", "57P05")


def state_of(error: BaseException) -> str:
    """The SQLSTATE of a driver's error; empty if it has none."""
    found = getattr(error, "sqlstate", None)
    return found if isinstance(found, str) else ""


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that a read may be tried again on another one."""
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return True
    name = type(error).__name__
    if name in ("ConnectionDoesNotExistError", "InternalClientError"):
        return True
    if name == "InterfaceError":
        return "closed" in str(error) or "connection" in str(error)
    return state_of(error).startswith(_LOST)


def is_again(error: BaseException) -> bool:
    """Whether the whole group may simply be tried again: it lost against others, or a prepared statement is out of date."""
    return state_of(error) in _AGAIN or type(error).__name__ in ("InvalidCachedStatementError", "OutdatedSchemaCacheError")


def is_unknown(error: BaseException) -> bool:
    """Whether the server says that it does not know what became of a commit, as one of several machines may."""
    return state_of(error) == "40003"


def is_held(error: BaseException) -> bool:
    """Whether somebody else holds a row for longer than is waited for it."""
    return state_of(error) == "55P03"


def lacks_copy(error: BaseException) -> bool:
    """Whether the server says that it has no COPY, or not here."""
    return state_of(error) == "0A000" and "copy" in str(error).lower()


def check_encoding(encoding: str, where: str) -> None:
    """Raise NotAStore unless a database keeps text in UTF-8: others can't keep what documents are made of."""
    if encoding.upper() not in ("UTF8", "UTF-8"):
        raise NotAStore(f"{where}: the database's encoding is {encoding}; treestore needs one with UTF8")


def translate(error: BaseException, where: str = "") -> TreestoreError:
    """The error of ours that tells what a driver's error means, on one line; ``where`` is the address without secrets.

    An error of ours is given back as it is.
    """
    if isinstance(error, TreestoreError):
        return error
    state = state_of(error)
    kind, meaning = _meaning(error, state)
    detail = " ".join(_message(error).split())
    detail = re.sub(r"(?i)(password=)\S+", r"\1***", detail)
    told = f" ({detail}{f', SQLSTATE {state}' if state else ''})" if detail else ""
    return kind(f"{where}: {meaning}{told}" if where else f"{meaning}{told}")


def _message(error: BaseException) -> str:
    """What a driver's error says, without the details and hints that are for whoever writes SQL."""
    if type(error).__name__ == "InterfaceError" and is_lost(error):
        return ""  # about the state of an object
    primary = getattr(error, "message", None) or getattr(getattr(error, "diag", None), "message_primary", None)
    return str(primary or error)


def _meaning(error: BaseException, state: str) -> tuple[type[TreestoreError], str]:
    for length in (5, 3, 2):
        if state[:length] in _BY_STATE and state:
            return _BY_STATE[state[:length]]
    if "pool is clos" in str(error):
        return Closed, "the store is closed"
    if isinstance(error, TimeoutError):
        return Timeout, "PostgreSQL did not answer in time"
    if isinstance(error, OSError) and "rejected SSL upgrade" in str(error):
        return Unavailable, "PostgreSQL has no TLS here, and sslmode asks for it"
    if isinstance(error, OSError):
        return Unavailable, "PostgreSQL can't be reached"
    if is_lost(error):
        return Unavailable, "the connection to PostgreSQL was lost"
    if is_again(error):
        return Unavailable, "others changed the tables meanwhile"
    return Unavailable, f"PostgreSQL refused ({type(error).__name__})"
