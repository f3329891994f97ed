"""Runs of numbers: under which number each of a version's rows, or texts, lies.

What versions share has a number of its own in their policy. A version maps indexes (0, 1, 2…) to numbers by a few runs, as
most of what follows each other in the version was written one after the other: ``length`` indexes from ``first`` on have
the numbers from ``number`` on. The runs of a version are in order of index and without gaps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple


class Run(NamedTuple):
    """``length`` indexes of a version, from ``first`` on, and the number of the first one."""

    first: int
    number: int
    length: int

    @property
    def end(self) -> int:
        """The number behind the last one."""
        return self.number + self.length


Runs = tuple[Run, ...]

_ANY = 1 << 64  # above all numbers: a run with the index that is looked for comes before it


def number_at(runs: Runs, index: int) -> int:
    """The number of an index."""
    run = runs[0] if len(runs) == 1 else runs[bisect_right(runs, (index, _ANY)) - 1]
    return run.number + index - run.first


def numbers_of(runs: Runs) -> list[int]:
    """The numbers of all indexes, in order."""
    return list(chain.from_iterable([range(run.number, run.end) for run in runs]))


def runs_of(numbers: Sequence[int]) -> Runs:
    """The fewest runs that give each index its number."""
    breaks = [index for index, (one, following) in enumerate(pairwise(numbers), 1) if following != one + 1]
    ends = [*breaks, len(numbers)] if numbers else []
    return tuple([Run(first, numbers[first], end - first) for first, end in zip([0, *breaks], ends, strict=False)])


def between(runs: Runs, first: int, last: int) -> Iterator[Run]:
    """What the runs say of the indexes from ``first`` to ``last``."""
    at = 0 if len(runs) == 1 else max(bisect_right(runs, (first, _ANY)) - 1, 0)
    for run in runs[at:]:
        if run.first > last:
            return
        start, end = max(first, run.first), min(last + 1, run.first + run.length)
        if start < end:
            yield Run(start, run.number + start - run.first, end - start)


def with_number(runs: Runs, index: int, number: int) -> Runs:
    """The runs with another number for one index."""
    last = runs[-1].first + runs[-1].length - 1
    joined: list[Run] = []
    for run in chain(between(runs, 0, index - 1), (Run(index, number, 1),), between(runs, index + 1, last)):
        if joined and joined[-1].end == run.number:
            run = Run(joined[-1].first, joined[-1].number, joined[-1].length + run.length)
            joined.pop()
        joined.append(run)
    return tuple(joined)


def names(runs: Iterable[Run], number: int) -> int:
    """How many indexes have a number."""
    return sum([run.number <= number < run.number + run.length for run in runs])


def outside(runs: Iterable[Run], kept: Iterable[Run]) -> Iterator[tuple[int, int]]:
    """The numbers of runs that the others do not have: where each range of them starts, and what is behind it."""
    spans = _merged(kept)
    starts = [start for start, _ in spans]
    for start, end in _merged(runs):
        for low, high in spans[max(bisect_right(starts, start) - 1, 0) :]:
            if low >= end:
                break
            if start < low:
                yield start, low
            start = max(start, high)
        if start < end:
            yield start, end


def _merged(runs: Iterable[Run]) -> list[tuple[int, int]]:
    """The ranges of numbers that runs have, in order, none of which touches another."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted([(run.number, run.end) for run in runs]):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged
