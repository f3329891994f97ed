"""Tuples as bytes whose order is the tuples' order.

Elements are None, bool, int, str, bytes and aware datetimes; of different types, None sorts first, then bytes, str, int,
bool, datetime. No encoding is a prefix of another tuple's unless the tuple is, so all keys that begin with a tuple are one
range. Strings and bytes end in 00 with every 00 inside written as 00 FF, and integers carry their length in the type code:
the tuple layer of FoundationDB does it so.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

_NONE, _BYTES, _STR, _INT_ZERO, _FALSE, _TRUE, _TIME = 0x00, 0x01, 0x02, 0x14, 0x26, 0x27, 0x28
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(value: int) -> datetime:
    """The inverse of :func:`micros`."""
    return _EPOCH + value * _MICROSECOND


def _integer(value: int) -> bytes:
    if value == 0:
        return bytes((_INT_ZERO,))
    width = (abs(value).bit_length() + 7) // 8
    if width > 8:
        raise OverflowError(f"{value} has more than 64 bits")
    if value > 0:
        return bytes((_INT_ZERO + width,)) + value.to_bytes(width, "big")
    return bytes((_INT_ZERO - width,)) + ((1 << 8 * width) - 1 + value).to_bytes(width, "big")


def _element(value: Any) -> bytes:
    if isinstance(value, str):
        return b"\x02" + value.encode().replace(b"\0", b"\0\xff") + b"\0"
    if value is None:
        return b"\x00\xff"
    if isinstance(value, bool):
        return bytes((_TRUE if value else _FALSE,))
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, bytes):
        return b"\x01" + value.replace(b"\0", b"\0\xff") + b"\0"
    if isinstance(value, datetime):
        return bytes((_TIME,)) + (micros(value) + (1 << 63)).to_bytes(8, "big")
    raise TypeError(f"a key can't hold {type(value).__name__}")


def encode(key: tuple[Any, ...]) -> bytes:
    """The bytes of a tuple. Raises TypeError for other elements, OverflowError for integers over 64 bits."""
    return b"".join(map(_element, key))


def _until_end(raw: bytes, start: int) -> tuple[bytes, int]:
    end = raw.index(b"\0", start)
    while raw[end + 1 : end + 2] == b"\xff":
        end = raw.index(b"\0", end + 2)
    return raw[start:end].replace(b"\0\xff", b"\0"), end + 1


def decode(raw: bytes) -> tuple[Any, ...]:
    """The inverse of :func:`encode`. Raises ValueError for bytes that it did not make."""
    key: list[Any] = []
    at = 0
    while at < len(raw):
        code = raw[at]
        if code in (_BYTES, _STR):
            content, at = _until_end(raw, at + 1)
            key.append(content if code == _BYTES else content.decode())
        elif code == _NONE and raw[at + 1 : at + 2] == b"\xff":
            key.append(None)
            at += 2
        elif _INT_ZERO - 8 <= code <= _INT_ZERO + 8:
            width = abs(code - _INT_ZERO)
            value = int.from_bytes(raw[at + 1 : at + 1 + width], "big")
            key.append(value if code >= _INT_ZERO else value - (1 << 8 * width) + 1)
            at += 1 + width
        elif code in (_FALSE, _TRUE):
            key.append(code == _TRUE)
            at += 1
        elif code == _TIME:
            key.append(from_micros(int.from_bytes(raw[at + 1 : at + 9], "big") - (1 << 63)))
            at += 9
        else:
            raise ValueError(f"byte {at} of a key is no type code: {code}")
    return tuple(key)


def prefix_range(prefix: tuple[Any, ...]) -> tuple[bytes, bytes]:
    """The range (low inclusive, high exclusive) of the bytes of all tuples that begin with these elements."""
    low = encode(prefix)
    return low, low + b"\xff"  # no element begins with FF, and a longer string in the last place goes on with 00 FF
