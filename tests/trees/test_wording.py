"""Where two texts differ, word by word."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.trees.wording import MOST_WORDS, rewordings, shortened

words = st.lists(st.sampled_from(["leave", "of", "the", "thirty", "days", "pay", "\n", "é"]), max_size=40).map(" ".join)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("a b", "a  b\n", []),
        (None, None, []),
        (None, "", []),
        (None, "new words", [("", "", "new words", "")]),
        ("old words", None, [("", "old words", "", "")]),
        ("thirty days of leave", "thirty-one days of leave", [("", "thirty", "thirty-one", "days of …")]),
        ("leave is paid", "leave is not paid", [("leave is", "", "not", "paid")]),
        ("a b c d e f g", "a b c d X f g", [("… c d", "e", "X", "f g")]),
        ("1 b c 2", "x b c y", [("", "1 b c 2", "x b c y", "")]),
        ("1 b c d 2", "x b c d y", [("", "1", "x", "b c …"), ("… c d", "2", "y", "")]),
    ],
)
def test_places(before: str | None, after: str | None, found: list[tuple[str, str, str, str]]) -> None:
    assert rewordings(before, after, context=2) == found


@given(words, words)
def test_every_difference_and_nothing_else(before: str, after: str) -> None:
    found = rewordings(before, after, context=10**9)
    assert bool(found) == (before.split() != after.split())
    rest = after.split()
    for place in found:
        assert [*place.lead.split(), *place.before.split(), *place.rest.split()] == before.split()
        assert place.before != place.after
    mended = before.split()
    for place in reversed(found):
        at = len(place.lead.split())
        mended[at : at + len(place.before.split())] = place.after.split()
    assert mended == rest


def test_texts_that_differ_much_cost_little() -> None:
    chance = random.Random(1)
    before, after = (" ".join(chance.choices([str(n) for n in range(110)], k=MOST_WORDS)) for _ in range(2))
    assert len(rewordings(before, after)) == 1, "told as one place, as looking closer takes the square of its length"
    assert len(rewordings(f"a {before} {before} b", f"c {after} {after} d")) == 1


@pytest.mark.parametrize(("count", "shown"), [(9, "1 2 3 4 5 6 7 8 9"), (8, "1 2 3 4 5 6 … 8 9"), (3, "1 2 … 9")])
def test_shortened(count: int, shown: str) -> None:
    assert shortened("1 2 3 4 5 6 7 8 9", count) == shown


def test_few_words_repeated_very_often_take_no_long_time() -> None:
    before, after = (" ".join(f"w{at * step % 101}" for at in range(10_000)) for step in (1, 37))
    assert len(rewordings(before, after)) == 1
