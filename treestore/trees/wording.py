"""What was reworded between two texts: the places where their words differ, as a reader would point at them.

Words are what stands between spaces; how they are spaced and broken into lines is no difference. Pure functions, bounded in
time: where much differs they point at less exactly, never wrongly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

MOST_WORDS = 10_000
"""Words between the first and the last difference of two texts that are compared one by one (within a fourth of a second).
Where there are more, all of them count as one difference."""

MOST_PAIRS = 200_000
"""Pairs of equal words, one in each text, that are looked at, likewise: their number is what the time depends on. Words that
are more than a hundredth of a text do not count: difflib leaves them out of its search."""

_CLOSE = 2  # equal words between two differences that are told as one


class Rewording(NamedTuple):
    """One place where two texts differ. ``before`` and ``after`` are what stands there in the one and in the other, either may
    be empty; ``lead`` and ``rest`` are the equal words on both sides of it, "…" where there are more of them.
    """

    lead: str
    before: str
    after: str
    rest: str


def rewordings(before: str | None, after: str | None, *, context: int = 4) -> list[Rewording]:
    """The places where two texts differ, in order, each with up to ``context`` words of ``before`` on both sides. None is an
    empty text.

    Empty if the texts differ in their white space alone. By difflib's SequenceMatcher (Ratcliff and Obershelp) on words.
    """
    old, new = (before or "").split(), (after or "").split()
    return [
        Rewording(_last(old[:i], context), " ".join(old[i:j]), " ".join(new[k:m]), _first(old[j:], context))
        for i, j, k, m in _differences(old, new)
    ]


def shortened(text: str, words: int) -> str:
    """A text of at most so many words: the middle of a longer one is left out."""
    found = text.split()
    if len(found) <= words:
        return text
    tail = words // 3
    return " ".join([*found[: words - tail], "…", *found[len(found) - tail :]])


def _first(words: Sequence[str], count: int) -> str:
    return " ".join([*words[:count], "…"] if len(words) > count else words)


def _last(words: Sequence[str], count: int) -> str:
    return " ".join(["…", *words[len(words) - count :]] if len(words) > count else words)


def _pairs(left: Sequence[str], right: Sequence[str]) -> int:
    counts = Counter(right)
    popular = len(right) // 100 + 1
    return sum(count * counts[word] for word, count in Counter(left).items() if counts[word] <= popular)


def _differences(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    """``(i, j, k, m)`` for each difference: ``old[i:j]`` became ``new[k:m]``."""
    start, least = 0, min(len(old), len(new))
    while start < least and old[start] == new[start]:
        start += 1
    tail = 0
    while tail < least - start and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    left, right = old[start : len(old) - tail], new[start : len(new) - tail]
    if not left and not right:
        return
    blocks: list[tuple[int, int, int]] = [(0, 0, 0)]
    if len(left) <= MOST_WORDS and len(right) <= MOST_WORDS and _pairs(left, right) <= MOST_PAIRS:
        matcher = SequenceMatcher(None, left, right)
        blocks += [block for block in matcher.get_matching_blocks() if block[2] > _CLOSE]
    for (i, k, size), (j, m, _) in pairwise([*blocks, (len(left), len(right), 0)]):
        if i + size < j or k + size < m:
            yield start + i + size, start + j, start + k + size, start + m
