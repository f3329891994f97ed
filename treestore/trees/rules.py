"""What may be stored: the limits, with their reasons, and the checks of single values.

Every store accepts exactly this, because it is checked once, in front of all of them, before anything is written. A check
returns the value in the form that is stored or raises :class:`~treestore.errors.InvalidInput`, naming the field, the node
(where one is given) and the rule. Messages are one line and short whatever the value is.

The checks run many times for each node, so the usual case leaves each of them after a few comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Final, cast, get_args

import msgspec

from treestore.catalog import NODES, VERSIONS
from treestore.errors import InvalidInput
from treestore.records import ValidationStatus

MAX_INTEGER: Final = 2**31 - 1
"""Pages, lines and counts: a 32-bit column holds them everywhere."""

MAX_DEPTH: Final = 200
"""Levels of a tree. Recursive queries and JSON parsers give up between 1,000 and 10,000; no document comes near it."""

MAX_NODES: Final = 1_000_000
"""Nodes of one document: it is validated, hashed and written as one."""

MAX_RESULTS: Final = 1_000_000
"""Ids asked for, records answered and page texts in one call: an answer is held in memory."""

MAX_TEXT_BYTES: Final = 64 * 1024 * 1024
"""UTF-8 bytes of one string, and encoded bytes of one JSON value: far above any section, far below a field's 1 GB."""

MAX_JSON_DEPTH: Final = 100
"""Levels of a JSON value: a tree's own 2 x 200 levels and these stay below the 1,000 that Python's parser reads."""

MAX_JSON_ITEMS: Final = 1_000_000
"""Values in one JSON value: lists that contain one another several times grow without bound when written out."""

JSON_INTEGERS: Final = (-(2**63), 2**64 - 1)
"""Integers in JSON values: what the codec can write."""

POLICY_ID_LENGTH: Final = VERSIONS.lengths["policy_id"]
VERSION_ID_LENGTH: Final = VERSIONS.lengths["version_id"]
NODE_ID_LENGTH: Final = NODES.lengths["node_id"]
SECTION_PATH_LENGTH: Final = NODES.lengths["section_path"]

NOT_LISTS: Final = (str, bytes, Mapping)
"""What can be iterated, and is no list of anything. (A tuple: to make a union of types takes longer than to look at it.)"""

STATUSES: Final = get_args(ValidationStatus)

_SHOWN = 60  # characters of an offending value that a message shows

_encode_json = msgspec.msgpack.Encoder().encode
_decode_json = msgspec.msgpack.Decoder().decode


def shown(value: object) -> str:
    """A value as a message shows it: on one line, at most about 60 characters, control characters escaped."""
    if isinstance(value, str | bytes | bytearray):
        return shorten(repr(value[: _SHOWN + 1]))
    if value is None or isinstance(value, bool | float | date):
        return repr(value)
    if isinstance(value, int) and -(10**_SHOWN) < value < 10**_SHOWN:
        return repr(value)
    if isinstance(value, int):
        return f"an integer of more than {_SHOWN} digits"
    return f"{'an' if type(value).__name__[:1] in 'aeiouAEIOU' else 'a'} {shorten(type(value).__name__)}"


def shorten(text: str) -> str:
    """At most 60 characters of a text; a longer one ends in "…"."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def shown_key(key: object) -> str:
    """A key of an object as a message shows it where it names a field."""
    return shorten(key) if isinstance(key, str) and key.isprintable() else shown(key)


def shown_path(path: str) -> str:
    """A file's path as a message shows it: whole, and escaped if it holds anything that does not print."""
    return path if path.isprintable() else repr(path)


def check_id(value: object, field: str, limit: int, node: str | None = None) -> str:
    """A non-empty text of at most ``limit`` characters."""
    if type(value) is str and 0 < len(value) <= limit and value.isascii() and "\0" not in value:
        return value
    text = check_text(value, field, node, limit)
    if not text:
        raise InvalidInput(f"must not be empty (1 to {limit} characters)", field=field, node=node)
    return text


def check_policy_id(value: object) -> str:
    """A policy's id: 1 to 100 characters."""
    return check_id(value, "policy_id", POLICY_ID_LENGTH)


def check_version_id(value: object, field: str = "version_id") -> str:
    """A version's id: 1 to 50 characters."""
    return check_id(value, field, VERSION_ID_LENGTH)


def check_node_id(value: object, field: str = "node_id", node: str | None = None) -> str:
    """A node's id: 1 to 100 characters. ``node`` is what a message calls the node."""
    return check_id(value, field, NODE_ID_LENGTH, node)


def check_text(value: object, field: str, node: str | None = None, limit: int | None = None) -> str:
    """A string without NUL and lone surrogates, of at most 64 MiB in UTF-8 and at most ``limit`` characters.

    Strings of a subclass come back as plain strings.
    """
    if type(value) is not str:
        if not isinstance(value, str):
            raise InvalidInput(f"must be a string, not {shown(value)}", field=field, node=node)
        value = str.__str__(value)
    if limit is not None and len(value) > limit:
        raise InvalidInput(f"is {len(value)} characters long, at most {limit} are allowed", field=field, node=node)
    if value.isascii() and "\0" not in value and len(value) <= MAX_TEXT_BYTES:
        return value
    if fault := text_fault(value):
        raise InvalidInput(fault, field=field, node=node)
    return value


def check_raw_text(value: object, field: str, node: str | None = None) -> str:
    """As :func:`check_text`, but NUL is allowed: the text of a page is what a PDF gave, and real ones give NULs for
    mathematical signs. A store whose text columns refuse NUL keeps page texts as bytes."""
    if isinstance(value, str) and "\0" in value:
        check_text(value.replace("\0", " "), field, node)
        return str.__str__(value)
    return check_text(value, field, node)


def check_optional_text(value: object, field: str, node: str | None = None, limit: int | None = None) -> str | None:
    """As :func:`check_text`, or ``None``."""
    return None if value is None else check_text(value, field, node, limit)


def check_texts(values: object, field: str) -> tuple[str, ...]:
    """An iterable of strings, each as :func:`check_text` wants it, in the order given."""
    if isinstance(values, NOT_LISTS) or not isinstance(values, Iterable):
        raise InvalidInput(f"must be a list of strings, not {shown(values)}", field=field)
    return tuple(check_text(value, f"{field}[{index}]") for index, value in enumerate(values))


def check_integer(value: object, field: str, node: str | None = None) -> int:
    """An integer from 0 to 2**31 - 1. Booleans, floats and strings are no integers."""
    if type(value) is int and 0 <= value <= MAX_INTEGER:
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"must be an integer, not {shown(value)}", field=field, node=node)
    if not 0 <= value <= MAX_INTEGER:
        raise InvalidInput(f"must be from 0 to {MAX_INTEGER}, not {shown(value)}", field=field, node=node)
    return int(value)


def check_limit(value: object, field: str = "limit") -> int:
    """How many results are wanted: 1 to 1,000,000."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"must be an integer, not {shown(value)}", field=field)
    if not 1 <= value <= MAX_RESULTS:
        raise InvalidInput(f"must be from 1 to {MAX_RESULTS}, not {shown(value)}", field=field)
    return int(value)


def check_status(value: object, field: str = "validation_status", node: str | None = None) -> ValidationStatus:
    """One of pending, approved and flagged."""
    if isinstance(value, str) and value in STATUSES:
        return cast(ValidationStatus, str.__str__(value))
    raise InvalidInput(f"must be one of {', '.join(STATUSES)}, not {shown(value)}", field=field, node=node)


# --- JSON values ---------------------------------------------------------------------------------------------------------


_CONTAINERS = (dict, list)


def check_json(value: object, field: str, node: str | None = None) -> Any:
    """A JSON value, as a copy that shares nothing with what was given; the order of keys is kept.

    Strings as :func:`check_text` wants them, finite floats, integers from -2**63 to 2**64 - 1, booleans, ``None``, and lists
    and dicts of these (dicts with string keys), nested at most 100 levels. Where ``field`` is "", the value's keys are fields
    themselves: a message names the key.
    """
    if not isinstance(value, _CONTAINERS):
        if fault := _scalar_fault(value):
            raise InvalidInput(fault, field=field, node=node)
        return value
    count = 0
    containers: list[tuple[dict[Any, Any] | list[Any], _Place, int]] = [(value, (None, field), 1)]
    while containers:
        container, place, depth = containers.pop()
        count += len(container)
        if depth > MAX_JSON_DEPTH:
            name = field or _dotted(_outermost(place))
            raise InvalidInput(f"is nested more than {MAX_JSON_DEPTH} levels deep", field=name, node=node)
        if count > MAX_JSON_ITEMS:
            raise InvalidInput(f"holds more than {MAX_JSON_ITEMS} values", field=field or None, node=node)
        if isinstance(container, dict):
            _check_keys(container, place, node)
        for key, item in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(item, _CONTAINERS):
                containers.append((item, (place, key), depth + 1))
            elif fault := _scalar_fault(item):
                raise InvalidInput(fault, field=_dotted((place, key)), node=node)
    encoded = _encode_json(value)
    if len(encoded) > MAX_TEXT_BYTES:
        raise InvalidInput(f"is larger than {MAX_TEXT_BYTES} bytes", field=field or None, node=node)
    return _decode_json(encoded)


def check_json_object(value: object, field: str, node: str | None = None) -> dict[str, Any]:
    """A dict of JSON values, see :func:`check_json`; any other mapping counts as a dict."""
    if not isinstance(value, dict):
        if not isinstance(value, Mapping):
            raise InvalidInput(f"must be an object (a dict), not {shown(value)}", field=field, node=node)
        value = dict(value)
    checked: dict[str, Any] = check_json(value, field, node)
    return checked


_Place = tuple[Any, object]  # the place of the container that holds it (None at the top), and its key or index there


def _check_keys(container: dict[Any, Any], place: _Place, node: str | None) -> None:
    for key in container:
        if type(key) is not str:
            raise InvalidInput(f"keys must be strings, not {shown(key)}", field=_dotted(place) or None, node=node)
        if fault := text_fault(key):
            raise InvalidInput(f"key {shown(key)} {fault}", field=_dotted(place) or None, node=node)


def _dotted(place: _Place | None) -> str:
    """A place in a JSON value as it is written in messages: ``metadata.authors[2].name``."""
    parts: list[str] = []
    while place is not None:
        place, key = place
        if isinstance(key, int):
            parts.append(f"[{key}]")
        else:
            parts.append(str(key) if place is None else f".{shown_key(key)}")
    return shorten("".join(reversed(parts)).removeprefix("."))


def _outermost(place: _Place) -> _Place:
    """The place of that key of a JSON value under which ``place`` lies."""
    while place[0] is not None and place[0][0] is not None:
        place = place[0]
    return place


def _scalar_fault(value: object) -> str | None:
    """The rule that a JSON scalar breaks, if any."""
    if value is None or value is True or value is False:
        return None
    kind = type(value)
    if kind is str:
        return text_fault(cast(str, value))
    if kind is int:
        low, high = JSON_INTEGERS
        inside = low <= cast(int, value) <= high
        return None if inside else f"must be an integer from -2**63 to 2**64 - 1, not {shown(value)}"
    if kind is float:
        return None if math.isfinite(cast(float, value)) else f"must be a finite number, not {shown(value)}"
    return f"must be a JSON value (string, number, boolean, None, list or dict), not {shown(value)}"


def text_fault(text: str) -> str | None:
    """The rule that a text breaks, if any."""
    if "\0" in text:
        return f"must not contain NUL (character {text.index(chr(0))})"
    if not text.isascii():
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            return f"must not contain a lone surrogate ({text[error.start]!r} at character {error.start})"
    else:
        size = len(text)
    return None if size <= MAX_TEXT_BYTES else f"is {size} bytes long in UTF-8, at most {MAX_TEXT_BYTES} are allowed"


# --- times ---------------------------------------------------------------------------------------------------------------


_INFINITIES = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


def as_fact_time(value: object, field: str) -> datetime:
    """A moment to be stored, in UTC: a naive datetime means UTC, a date the start of that day.

    The first and the last moment that a datetime can hold are refused: databases read them as infinity.
    """
    moment = _as_moment(value, field, time.min)
    if moment in _INFINITIES:
        raise InvalidInput(f"is out of range: {moment.isoformat()} stands for infinity", field=field)
    return moment


def as_question_time(value: object, field: str) -> datetime:
    """A moment to ask about, in UTC: a naive datetime means UTC, a date the end of that day (its last microsecond)."""
    return _as_moment(value, field, time.max)


def _as_moment(value: object, field: str, time_of_date: time) -> datetime:
    if not isinstance(value, date):
        raise InvalidInput(f"must be a datetime or a date, not {shown(value)}", field=field)
    try:
        if not isinstance(value, datetime):
            return datetime.combine(value, time_of_date, UTC)
        moment = value.replace(tzinfo=UTC) if value.utcoffset() is None else value.astimezone(UTC)
        # built anew: a subclass may carry more than a datetime (and what it carries would be lost later, silently)
        return datetime.combine(date(moment.year, moment.month, moment.day), moment.time(), UTC)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidInput("is out of range: its year in UTC must be from 1 to 9999", field=field) from error
