"""The checks of single values: what they let through, in which form, and what they say of the rest."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given

from tests.trees import samples
from treestore.errors import InvalidInput
from treestore.trees import rules


class Colour(StrEnum):
    RED = "red"


class Number(IntEnum):
    SEVEN = 7


def refused(check: Any, *arguments: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        check(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 300
    return message


@pytest.mark.parametrize("text", ["", "a", "é", "日本", "\U0001f600", "line\nline\ttab", "\ufffe", "\ud7ff\ue000"])
def test_a_text_may_hold_every_character_but_nul_and_surrogates(text: str) -> None:
    assert rules.check_text(text, "title") == text


def test_a_string_of_a_subclass_becomes_a_plain_one() -> None:
    assert type(rules.check_text(Colour.RED, "title")) is str
    assert rules.check_text(Colour.RED, "title") == "red"


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (None, "title: must be a string, not None"),
        (5, "title: must be a string, not 5"),
        (b"bytes", "title: must be a string, not b'bytes'"),
        (["a"], "title: must be a string, not a list"),
        ("ab\0c", "title: must not contain NUL (character 2)"),
        ("é\0", "title: must not contain NUL (character 1)"),
        ("ab\ud800", "title: must not contain a lone surrogate ('\\ud800' at character 2)"),
        ("\udfff", "title: must not contain a lone surrogate ('\\udfff' at character 0)"),
    ],
)
def test_what_is_no_text(value: object, rule: str) -> None:
    assert refused(rules.check_text, value, "title") == rule


def test_a_text_is_at_most_64_mib_of_utf8() -> None:
    largest = "x" * rules.MAX_TEXT_BYTES
    assert rules.check_text(largest, "text") is largest
    assert "67108865 bytes" in refused(rules.check_text, largest + "x", "text")
    half = "é" * (rules.MAX_TEXT_BYTES // 2)
    assert rules.check_text(half, "text") is half
    assert "67108866 bytes" in refused(rules.check_text, half + "é", "text")


@pytest.mark.parametrize(
    ("check", "limit"), [(rules.check_policy_id, 100), (rules.check_version_id, 50), (rules.check_node_id, 100)]
)
def test_ids_are_bounded_in_characters(check: Any, limit: int) -> None:
    assert check("é" * limit) == "é" * limit
    assert check("x") == "x"
    assert f"is {limit + 1} characters long, at most {limit} are allowed" in refused(check, "x" * (limit + 1))
    assert f"must not be empty (1 to {limit} characters)" in refused(check, "")
    assert "must be a string, not 7" in refused(check, 7)


def test_a_list_of_strings() -> None:
    assert rules.check_texts(["a", "", "b"], "tags") == ("a", "", "b")
    assert rules.check_texts((tag for tag in "ab"), "tags") == ("a", "b")
    assert refused(rules.check_texts, "ab", "tags") == "tags: must be a list of strings, not 'ab'"
    assert refused(rules.check_texts, {"a": 1}, "tags") == "tags: must be a list of strings, not a dict"
    assert refused(rules.check_texts, 3, "tags") == "tags: must be a list of strings, not 3"
    assert refused(rules.check_texts, ["a", 3], "tags") == "tags[1]: must be a string, not 3"


@pytest.mark.parametrize("number", [0, 1, 2**31 - 1, Number.SEVEN])
def test_an_integer_of_31_bits(number: int) -> None:
    assert rules.check_integer(number, "page_start") == number
    assert type(rules.check_integer(number, "page_start")) is int


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (True, "must be an integer, not True"),
        (1.0, "must be an integer, not 1.0"),
        (float("nan"), "must be an integer, not nan"),
        ("1", "must be an integer, not '1'"),
        (None, "must be an integer, not None"),
        (-1, "must be from 0 to 2147483647, not -1"),
        (2**31, "must be from 0 to 2147483647, not 2147483648"),
        (10**100, "must be from 0 to 2147483647, not an integer of more than 60 digits"),
    ],
)
def test_what_is_no_page_number(value: object, rule: str) -> None:
    assert refused(rules.check_integer, value, "page_start", "0007") == f"node '0007': page_start: {rule}"


def test_a_number_that_python_would_not_print_is_refused_too() -> None:
    assert "must be from 0 to 2147483647, not an int" in refused(rules.check_integer, 10**5000, "page_start")
    assert "metadata.a: must be an integer from -2**63" in refused(rules.check_json, {"a": -(10**5000)}, "metadata")


def test_a_status_is_one_of_three() -> None:
    for status in ("pending", "approved", "flagged"):
        assert rules.check_status(status) == status
    others: list[object] = ["Pending", "", None, 1, ["pending"], {}]
    for other in others:
        assert "must be one of pending, approved, flagged, not " in refused(rules.check_status, other)


# --- JSON ----------------------------------------------------------------------------------------------------------------


@given(samples.json_objects)
def test_json_comes_back_equal_and_apart(value: dict[str, Any]) -> None:
    checked = rules.check_json_object(value, "metadata")
    assert repr(checked) == repr(value)  # the types and the order of keys too
    checked["mine"] = 1
    assert "mine" not in value


def test_json_shares_no_container_with_what_was_given() -> None:
    inner: list[int] = [1]
    checked = rules.check_json({"a": inner, "b": inner}, "metadata")
    inner.append(2)
    assert checked == {"a": [1], "b": [1]}
    assert checked["a"] is not checked["b"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": float("nan")}, "metadata.a: must be a finite number, not nan"),
        ({"a": [0, {"b": float("-inf")}]}, "metadata.a[1].b: must be a finite number, not -inf"),
        ({"a": 2**64}, "metadata.a: must be an integer from -2**63 to 2**64 - 1, not 18446744073709551616"),
        ({"a": -(2**63) - 1}, "metadata.a: must be an integer from -2**63 to 2**64 - 1, not -9223372036854775809"),
        ({"a": "x\0"}, "metadata.a: must not contain NUL (character 1)"),
        ({"a": ["\ud800"]}, "metadata.a[0]: must not contain a lone surrogate ('\\ud800' at character 0)"),
        ({"\ud800": 1}, "metadata: key '\\ud800' must not contain a lone surrogate ('\\ud800' at character 0)"),
        ({"a": {"x\0": 1}}, "metadata.a: key 'x\\x00' must not contain NUL (character 1)"),
        ({1: "a"}, "metadata: keys must be strings, not 1"),
        (
            {"a\nb": [(1,)]},
            "metadata.'a\\nb'[0]: must be a JSON value (string, number, boolean, None, list or dict), not a tuple",
        ),
        ({"a": b"x"}, "metadata.a: must be a JSON value (string, number, boolean, None, list or dict), not b'x'"),
        ({"a": Colour.RED}, "metadata.a: must be a JSON value (string, number, boolean, None, list or dict), not 'red'"),
        ({"a": datetime(2024, 1, 1, tzinfo=UTC)}, "metadata.a: must be a JSON value"),
        ({"a": {1, 2}}, "metadata.a: must be a JSON value"),
    ],
)
def test_what_is_no_json(value: object, message: str) -> None:
    assert refused(rules.check_json, value, "metadata").startswith(message)


def test_metadata_is_an_object() -> None:
    others: list[object] = [None, [], "a", 1]
    for other in others:
        assert "metadata: must be an object (a dict), not " in refused(rules.check_json_object, other, "metadata")


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_json_is_nested_at_most_100_levels() -> None:
    assert rules.check_json(nested(100), "metadata") == nested(100)
    for levels in (101, 100_000):
        assert refused(rules.check_json, nested(levels), "metadata") == "metadata: is nested more than 100 levels deep"


def test_json_that_contains_itself_is_refused() -> None:
    value: dict[str, Any] = {}
    value["again"] = [value]
    assert "nested more than 100 levels" in refused(rules.check_json, value, "metadata")


def test_json_that_would_grow_without_bound_is_refused() -> None:
    value: list[Any] = ["lol"]
    for _ in range(60):
        value = [value, value]
    assert "holds more than 1000000 values" in refused(rules.check_json, value, "metadata")


# --- times ---------------------------------------------------------------------------------------------------------------

NEW_YORK = timezone(timedelta(hours=-5))


class Unset(tzinfo):
    """A zone that does not know its offset: a datetime in it is naive."""

    def utcoffset(self, dt: datetime | None) -> None:
        return None

    def dst(self, dt: datetime | None) -> None:
        return None

    def tzname(self, dt: datetime | None) -> None:
        return None


@pytest.mark.parametrize(
    ("given_", "fact", "question"),
    [
        (date(2024, 2, 29), datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)),
        (datetime.fromisoformat("2024-01-02T03:04:05.000006"), datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC), None),
        (datetime(2024, 1, 2, 22, tzinfo=NEW_YORK), datetime(2024, 1, 3, 3, tzinfo=UTC), None),
        (datetime(2024, 1, 2, 22, tzinfo=Unset()), datetime(2024, 1, 2, 22, tzinfo=UTC), None),
        (datetime(2024, 11, 3, 1, 30, tzinfo=UTC, fold=1), datetime(2024, 11, 3, 1, 30, tzinfo=UTC), None),
    ],
)
def test_times_are_utc_and_a_date_is_a_whole_day(given_: date, fact: datetime, question: datetime | None) -> None:
    for moment, expected in (
        (rules.as_fact_time(given_, "effective_date"), fact),
        (rules.as_question_time(given_, "date"), question or fact),
    ):
        assert moment == expected
        assert moment.tzinfo is UTC
        assert type(moment) is datetime


def test_the_zone_of_the_machine_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ+5")
    time.tzset()
    try:
        for naive in (datetime.fromisoformat("2024-01-02T22:00"), datetime(2024, 1, 2, 22, tzinfo=Unset())):
            assert rules.as_fact_time(naive, "effective_date") == datetime(2024, 1, 2, 22, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("value", ["2024-01-01", 0, 1.5, None, True, [2024, 1, 1]])
def test_what_is_no_time(value: object) -> None:
    for check in (rules.as_fact_time, rules.as_question_time):
        assert "date: must be a datetime or a date, not " in refused(check, value, "date")


def test_times_that_leave_the_calendar_are_refused() -> None:
    east, west = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
    for value in (datetime(1, 1, 1, 3, tzinfo=east), datetime(9999, 12, 31, 23, tzinfo=west)):
        for check in (rules.as_fact_time, rules.as_question_time):
            assert "date: is out of range: its year in UTC must be from 1 to 9999" in refused(check, value, "date")


def test_the_moments_that_databases_read_as_infinity_are_no_facts() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    for value in (datetime.min, datetime.max, last, date.min):
        assert "stands for infinity" in refused(rules.as_fact_time, value, "effective_date")
    assert rules.as_question_time(date.max, "date") == last
    assert rules.as_fact_time(date.max, "effective_date") == datetime(9999, 12, 31, tzinfo=UTC)
