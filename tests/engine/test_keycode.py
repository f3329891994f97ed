"""Keys: the bytes' order is the tuples' order, a prefix is one range, and nothing is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treestore.backends.btree.engine import keycode

ODD_MOMENTS = [
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
]
MOMENTS = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(ODD_MOMENTS)
ODD_TEXTS = st.sampled_from(["", "\0", "\0\0", "a", "a\0", "a\0\0", "a\0\xff", "\x7f", "\x80", "\xff", "\u07ff", "\u0800"])
EDGES = st.sampled_from(["\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0001f600", "\U0010ffff"])
ALIKE = st.sampled_from(["é", "e\u0301", "\u212b", "\u00c5", "A\u030a"])  # composed and decomposed: other texts
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | ODD_TEXTS | EDGES | ALIKE
ODD_NUMBERS = st.sampled_from([0, 1, -1, 255, 256, -255, -256, 2**31, 2**32, 2**63, -(2**63)])
NUMBERS = st.integers(-(2**64) + 1, 2**64 - 1) | ODD_NUMBERS
ELEMENTS = st.none() | st.booleans() | NUMBERS | TEXTS | st.binary(max_size=12) | MOMENTS
TUPLES = st.lists(ELEMENTS, max_size=4).map(tuple)


def rank(element: Any) -> tuple[int, Any]:
    """What the order of elements is, said in another way: by type, then by value (text by code points)."""
    order = [type(None), bytes, str, int, bool, datetime]
    value = 0 if element is None else element
    return order.index(type(element)), [ord(c) for c in value] if isinstance(value, str) else value


@given(TUPLES, TUPLES)
@example(("a",), ("a\0",))
@example(("a", "b"), ("a\0b",))
@example((b"\0",), (b"\0\xff",))
@example((-1,), (0,))
@example((-256,), (-255,))
@example((2**64 - 1,), (2**63,))
@example(("\uffff",), ("\U00010000",))  # in UTF-16 the other way round
@example(("e\u0301",), ("é",))  # the same to the eye
@example((datetime.min.replace(tzinfo=UTC),), (datetime(1969, 12, 31, tzinfo=UTC),))
def test_the_order_of_bytes_is_the_order_of_tuples(one: tuple[Any, ...], two: tuple[Any, ...]) -> None:
    first, second = [rank(e) for e in one], [rank(e) for e in two]
    assert (keycode.encode(one) < keycode.encode(two)) == (first < second)
    assert (keycode.encode(one) == keycode.encode(two)) == (first == second)


@given(TUPLES)
def test_decoding_gives_back_what_was_encoded(one: tuple[Any, ...]) -> None:
    back = keycode.decode(keycode.encode(one))
    assert back == one
    assert [type(e) for e in back] == [type(e) for e in one]


@given(TUPLES, TUPLES, st.integers(0, 4))
@example(("a",), ("a\0",), 1)
@example((None,), (None, 1), 1)
@example((b"",), (b"\0",), 1)
def test_a_prefix_is_one_range(one: tuple[Any, ...], two: tuple[Any, ...], length: int) -> None:
    prefix = one[:length]
    low, high = keycode.prefix_range(prefix)
    for other in (one, two, prefix + two):
        begins = [rank(e) for e in other[: len(prefix)]] == [rank(e) for e in prefix]
        assert (low <= keycode.encode(other) < high) == begins


def test_moments_of_other_zones_are_the_same_moment() -> None:
    moment = datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC)
    assert keycode.encode((moment,)) == keycode.encode((moment.astimezone(timezone(timedelta(hours=5))),))


@pytest.mark.parametrize("element", [1.5, ["list"], ("tuple",), object()])
def test_other_types_are_refused(element: Any) -> None:
    with pytest.raises(TypeError):
        keycode.encode((element,))


@pytest.mark.parametrize("number", [2**64, -(2**64)])
def test_numbers_over_64_bits_are_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        keycode.encode((number,))


@given(st.binary(max_size=20))
def test_bytes_that_it_did_not_make_are_refused_or_make_the_same_bytes(raw: bytes) -> None:
    try:
        key = keycode.decode(raw)
    except (ValueError, OverflowError):  # OverflowError: a moment outside the calendar
        return
    assert isinstance(key, tuple)
