"""Which nodes fit a query best: BM25, exactly, without looking at most of them.

    score(node) = Σ over the query's terms t that the node has, in the order of the query:
                  w(t) · f / (f + (k1 (1 - b) + k1 b / average · length))        f: how often the node has t
    w(t)        = ln(1 + (N - n + 0.5) / (n + 0.5)) · (k1 + 1)                   n: nodes that have t, of N

with k1 = 1.2, b = 0.75; ``length`` is the node's number of terms, ``average`` that of the corpus. This is Okapi BM25
(Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009) with the logarithm that Lucene uses,
which is never negative. All is computed in this order in double precision, so the scores are equal to the bit on every
store.

A group of postings has a bound without a look at its nodes: none of them is shorter than its least length. So groups are
taken by what their nodes could score at most together with the other terms, and as soon as the next group could not reach
the last place any more, the answer is known (the idea of MaxScore and of impact-ordered indexes: Turtle and Flood, 1995;
Anh and Moffat, 2006). Bounds are rounded up, so nothing is missed.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from heapq import heappush, heapreplace
from typing import NamedTuple

from treestore.search.postings import Group, Places, length_class

K1 = 1.2
B = 0.75


class Corpus(NamedTuple):
    """What the scores of a search rest on: the number of nodes and of all their terms."""

    nodes: int
    terms: int

    @property
    def norm(self) -> tuple[float, float]:
        """``x, y``: the norm of a node is ``x + y * length``."""
        return K1 * (1 - B), K1 * B / (self.terms / self.nodes) if self.terms else 0.0

    def weight(self, found: int) -> float:
        """The weight of a term that so many nodes have."""
        return math.log(1 + (self.nodes - found + 0.5) / (found + 0.5)) * (K1 + 1)


class Part:
    """The postings of a segment that a query is about: for each of its terms the groups (none: no node has it). ``lengths``
    reads the lengths of the segment's nodes, at most once."""

    def __init__(self, groups: list[list[Group]], lengths: Callable[[], array[int]]) -> None:
        self.groups = groups
        self._read = lengths

    @cached_property
    def lengths(self) -> array[int]:
        return self._read()


class Found(NamedTuple):
    """A node that was found: its score, its place as the number of the part and the place in that, and by position in the
    query which of the terms it has."""

    score: float
    part: int
    place: int
    terms: tuple[int, ...]


def best(corpus: Corpus, parts: Sequence[Part], limit: int) -> list[Found]:
    """The ``limit`` nodes with the highest scores, highest first; of equal scores in order of part and place."""
    terms = len(parts[0].groups) if parts else 0
    found = [sum([len(places) for part in parts for _, _, places in part.groups[term]]) for term in range(terms)]
    weights = [corpus.weight(count) for count in found]
    cells: list[_Cell] = []
    for number, part in enumerate(parts):
        of_part: dict[int, _Cell] = {}
        for term, groups in enumerate(part.groups):
            for least, frequency, places in groups:
                of_class = length_class(least)
                cell = of_part.get(of_class)
                if cell is None:
                    cell = of_part[of_class] = _Cell(number, part, corpus.norm, weights)
                cell.add(term, least, frequency, places)
        cells += of_part.values()
    top = _Top(limit)
    work = [(bound, cell, term, group) for cell in cells for bound, term, group in cell.bounds()]
    work.sort(key=_bound, reverse=True)
    for bound, cell, term, group in work:
        if bound < top.least:
            break
        cell.score(term, group, top)
    return top.ranked()


def _bound(item: tuple[float, object, object, object]) -> float:
    return item[0]


class _Top:
    """The best nodes so far: those with the greatest ``(score, -part, -place, terms)``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, int, int, tuple[int, ...]]] = []
        self.least = -math.inf

    def needed(self, scores: Sequence[float]) -> float:
        """The least score that can be among the best when these are offered."""
        if len(scores) <= self._limit:
            return self.least
        return max(self.least, sorted(scores)[-self._limit])

    def offer(self, score: float, part: int, place: int, terms: tuple[int, ...]) -> None:
        """Keep a node if it is among the best."""
        item = (score, -part, -place, terms)
        if len(self._heap) < self._limit:
            heappush(self._heap, item)
        elif item > self._heap[0]:
            heapreplace(self._heap, item)
        if len(self._heap) == self._limit:
            self.least = self._heap[0][0]

    def ranked(self) -> list[Found]:
        """They all, the best first."""
        return [Found(score, -part, -place, terms) for score, part, place, terms in sorted(self._heap, reverse=True)]


class _Group(NamedTuple):
    """Nodes that have a term equally often, and the most that the term can add to their scores."""

    most: float
    frequency: int
    places: Places


class _Cell:
    """The nodes of one class of lengths in one part, with their groups by term."""

    def __init__(self, number: int, part: Part, norm: tuple[float, float], weights: Sequence[float]) -> None:
        self._number = number
        self._part = part
        self._norm = norm
        self._weights = weights
        self._groups: list[list[_Group]] = [[] for _ in weights]
        self._most = [0.0] * len(weights)
        self._frequencies: dict[int, dict[int, int]] = {}
        self._done: set[int] = set()

    def add(self, term: int, least: int, frequency: int, places: Places) -> None:
        """A group of the cell."""
        x, y = self._norm
        most = self._weights[term] * frequency / (frequency + (x + y * least)) * _UP
        self._groups[term].append(_Group(most, frequency, places))
        if most > self._most[term]:
            self._most[term] = most

    def bounds(self) -> Iterator[tuple[float, int, _Group]]:
        """Each group with its term and the most that its nodes can score."""
        total = sum(self._most) * _UP
        for term, groups in enumerate(self._groups):
            others = total - self._most[term]
            for group in groups:
                yield others + group.most, term, group

    def score(self, term: int, group: _Group, top: _Top) -> None:
        """Score the nodes of a group that can be among the best."""
        spare = sum(self._most) * _UP - self._most[term] + group.most - top.least
        needed: list[list[_Group]] = []
        for other, groups in enumerate(self._groups):
            if other != term and spare < self._most[other]:
                # Without the other term, or with less of it, they can't reach the last place.
                needed.append([its for its in groups if its.most >= self._most[other] - spare])
        done = self._done
        places = [place for place in _common([[group], *needed]) if place not in done]
        if places:
            done.update(places)
            self._score_all(places, top)

    def _score_all(self, places: list[int], top: _Top) -> None:
        """Score nodes, in the order that :func:`best` promises for sums; a term that a node does not have adds nothing."""
        lengths, (x, y) = self._part.lengths, self._norm
        norms = [x + y * lengths[place] for place in places]
        scores = [0.0] * len(places)
        having: list[list[int]] = []
        for term, weight in enumerate(self._weights):
            frequencies = self._frequencies_of(term, places)
            having.append(frequencies)
            scores = [score + weight * f / (f + norm) for score, f, norm in zip(scores, frequencies, norms, strict=True)]
        least = top.needed(scores)
        for at, score in enumerate(scores):
            if score >= least:
                terms = tuple([term for term, frequencies in enumerate(having) if frequencies[at]])
                top.offer(score, self._number, places[at], terms)

    def _frequencies_of(self, term: int, places: list[int]) -> list[int]:
        """How often nodes have a term."""
        groups = self._groups[term]
        known = self._frequencies.get(term)
        if known is None:
            if len(places) * _LOOKUP_COST < sum([len(group.places) for group in groups]):
                return [next((g.frequency for g in groups if _has(g.places, place)), 0) for place in places]
            known = self._frequencies[term] = {}
            for group in groups:
                known.update(dict.fromkeys(group.places, group.frequency))
        get = known.get
        return [get(place, 0) for place in places]


_UP = 1 + 1e-9  # more than all rounding of a sum of up to some thousand terms
_LOOKUP_COST = 64  # a binary search in the groups of a term takes about as long as noting so many nodes


def _has(places: Places, place: int) -> bool:
    at = bisect_left(places, place)
    return at < len(places) and places[at] == place


def _common(lists: list[list[_Group]]) -> list[int]:
    """The places that lie in a group of each list."""
    (_, fewest), *others = sorted([(sum([len(group.places) for group in groups]), groups) for groups in lists], key=_size)
    places = [place for group in fewest for place in group.places]
    for size, groups in others:
        if len(places) * _LOOKUP_COST < size:
            places = [place for place in places if any(_has(group.places, place) for group in groups)]
        else:
            able: set[int] = set()
            able.update(*[group.places for group in groups])
            places = [place for place in places if place in able]
    return places


def _size(item: tuple[int, object]) -> int:
    return item[0]
