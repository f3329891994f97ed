"""Which nodes fit a query best: BM25, exactly, without looking at most of them.

    score(node) = Σ over the query's terms t that the node has, in the order of the query:
                  w(t) · f / (f + (k1 (1 - b) + k1 b / average · length))        f: how often the node has t
    w(t)        = ln(1 + (N - n + 0.5) / (n + 0.5)) · (k1 + 1)                   n: nodes that have t, of N

with k1 = 1.2, b = 0.75; ``length`` is the node's number of terms, ``average`` that of the corpus. This is Okapi BM25
(Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009) with the logarithm that Lucene uses,
which is never negative. All is computed in this order in double precision, so the scores are equal to the bit on every
store.

A group of postings has a bound without a look at its nodes: none of them is shorter than its least length. A node is looked
for in the groups of the one of its terms that can add most; so what the nodes of a group can score at most is the group's own
bound and those of the terms that can add less (MaxScore: Turtle and Flood, 1995). Groups are taken by that, and as soon as the
next one could not reach the last place any more, the answer is known (as with impact-ordered indexes: Anh and Moffat, 2006).
Bounds are rounded up, so nothing is missed. Of a query of very many terms, or with few postings, every node that has one is
scored, term by term.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from heapq import heappush, heapreplace
from typing import NamedTuple

from treestore.errors import Corrupted
from treestore.search.postings import Group, Places, length_class

K1 = 1.2
B = 0.75

FEW_POSTINGS = 125
"""Times the square of the number of terms: of so few, scoring all is faster than finding out which need not be scored."""

MANY_TERMS = 32
"""With more terms than so many, bounds leave hardly anything out, and finding that out costs more than scoring all."""


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
        self._lengths: array[int] | None = None

    @property
    def lengths(self) -> array[int]:
        if self._lengths is None:
            self._lengths = self._read()
        return self._lengths


class Found(NamedTuple):
    """A node that was found: its score, its place as the number of the part and the place in that, and by position in the
    query which of the terms it has."""

    score: float
    part: int
    place: int
    terms: tuple[int, ...]


def best(corpus: Corpus, parts: Sequence[Part], limit: int) -> list[Found]:
    """The ``limit`` nodes with the highest scores, highest first; of equal scores in order of part and place.

    Raises Corrupted for a place that no node of its part has.
    """
    try:
        return _best(corpus, parts, limit)
    except IndexError as error:
        raise Corrupted("the postings of a term have a place beyond the last node") from error


def _best(corpus: Corpus, parts: Sequence[Part], limit: int) -> list[Found]:
    terms = len(parts[0].groups) if parts else 0
    found = [sum([len(places) for part in parts for _, _, places in part.groups[term]]) for term in range(terms)]
    weights = [corpus.weight(count) for count in found]
    asked = sum(map(bool, found))
    if asked > MANY_TERMS or sum(found) <= FEW_POSTINGS * asked * asked:
        return _best_of_all(corpus, parts, weights, limit)
    top = _Top(limit)
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
    work = [(bound, cell, term, group) for cell in cells for bound, term, group in cell.bounds()]
    work.sort(key=_bound, reverse=True)
    for bound, cell, term, group in work:
        if bound < top.least:
            break
        cell.score(term, group, top)
    return top.ranked()


def _best_of_all(corpus: Corpus, parts: Sequence[Part], weights: Sequence[float], limit: int) -> list[Found]:
    """As :func:`best`, by scoring every node that has a term: in proportion to the postings, however many terms there are."""
    of_parts = [_scores(part, corpus.norm, weights) for part in parts]
    top: list[tuple[float, int, int, list[int]]] = []
    least = sorted([score for scores in of_parts for score in scores.values()])[-limit:][:1]
    for number, scores in enumerate(of_parts):
        having: dict[int, list[int]] = {place: [] for place, score in scores.items() if score >= least[0]}
        for term, groups in enumerate(parts[number].groups if having else ()):
            for _, _, places in groups:
                if len(places) > _LOOKUP_COST:
                    places = [place for place in having if _has(places, place)]
                for place in places:
                    if place in having:
                        having[place].append(term)
        top += [(scores[place], -number, -place, terms) for place, terms in having.items()]
    top.sort(reverse=True)
    return [Found(score, -part, -place, tuple(terms)) for score, part, place, terms in top[:limit]]


def _scores(part: Part, norm: tuple[float, float], weights: Sequence[float]) -> dict[int, float]:
    """The scores of all nodes of a part that have a term, by place."""
    x, y = norm
    if not any(part.groups):
        return {}
    lengths = part.lengths
    if sum([len(places) for groups in part.groups for _, _, places in groups]) > len(lengths):
        norms, of_all = [x + y * length for length in lengths], [0.0] * len(lengths)
        for weight, groups in zip(weights, part.groups, strict=True):
            for _, frequency, places in groups:
                most = weight * frequency
                for place in places:
                    of_all[place] += most / (frequency + norms[place])
        return {place: score for place, score in enumerate(of_all) if score}
    scores: dict[int, float] = {}
    score_of = scores.get
    for weight, groups in zip(weights, part.groups, strict=True):
        for _, frequency, places in groups:
            most = weight * frequency
            for place in places:
                scores[place] = score_of(place, 0.0) + most / (frequency + (x + y * lengths[place]))
    return scores


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

    def takes(self, score: float, part: int, place: int) -> bool:
        """Whether such a node would be among the best."""
        return len(self._heap) < self._limit or (score, -part, -place) > self._heap[0][:3]

    def offer(self, score: float, part: int, place: int, terms: tuple[int, ...]) -> None:
        """Keep a node that is among the best."""
        item = (score, -part, -place, terms)
        if len(self._heap) < self._limit:
            heappush(self._heap, item)
        else:
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
    """The nodes of one class of lengths in one part, with the groups of the terms that some of them have."""

    def __init__(self, number: int, part: Part, norm: tuple[float, float], weights: Sequence[float]) -> None:
        self._number = number
        self._part = part
        self._norm = norm
        self._weights = weights
        self._groups: dict[int, list[_Group]] = {}
        self._most: dict[int, float] = {}
        self._frequencies: dict[int, dict[int, int]] = {}
        self._done: set[int] = set()

    def add(self, term: int, least: int, frequency: int, places: Places) -> None:
        """A group of the cell. Terms come in the order of the query."""
        x, y = self._norm
        most = self._weights[term] * frequency / (frequency + (x + y * least)) * _UP
        self._groups.setdefault(term, []).append(_Group(most, frequency, places))
        self._most[term] = max(most, self._most.get(term, 0.0))

    @cached_property
    def _order(self) -> list[int]:
        """The terms, those first that can add most."""
        return sorted(self._most, key=self._most.__getitem__, reverse=True)

    @cached_property
    def _rest(self) -> dict[int, float]:
        """For each term what those behind it in the order can add together."""
        rest: dict[int, float] = {}
        total = 0.0
        for term in reversed(self._order):
            rest[term] = total
            total = (total + self._most[term]) * _UP
        return rest

    def bounds(self) -> Iterator[tuple[float, int, _Group]]:
        """Each group with its term, and the most that its nodes can score, but for those that have a term before it in the
        order."""
        for term, groups in self._groups.items():
            rest = self._rest[term]
            for group in groups:
                yield (rest + group.most) * _UP, term, group

    def score(self, term: int, group: _Group, top: _Top) -> None:
        """Score the nodes of a group that can be among the best."""
        spare = (self._rest[term] + group.most) * _UP - top.least
        # Without some of the other terms, or with less of them, they can't reach the last place.
        needed = [
            [its for its in self._groups[other] if its.most >= self._most[other] - spare]
            for other in self._order[self._order.index(term) + 1 :]
            if spare < self._most[other]
        ]
        done = self._done
        places = [place for place in _common([[group], *needed]) if place not in done]
        if places:
            done.update(places)
            self._score_all(places, term, group.frequency, top)

    def _score_all(self, places: list[int], first: int, frequency: int, top: _Top) -> None:
        """Score nodes that have a term equally often. Terms are looked up by what they can add, and nodes that can't be among
        the best are let go between; those that are left are scored in the order that :func:`best` promises for sums."""
        lengths, (x, y) = self._part.lengths, self._norm
        norms = [x + y * lengths[place] for place in places]
        weight = self._weights[first] * frequency
        sums = [weight / (frequency + norm) for norm in norms]
        having = {first: [frequency] * len(places)}
        rest = (sum(self._most.values()) - self._most[first]) * _UP
        for other in self._order:
            if other == first:
                continue
            able = [at for at, of_node in enumerate(sums) if of_node * _UP + rest >= top.least]
            if len(able) < len(places):
                places = [places[at] for at in able]
                norms, sums = ([values[at] for at in able] for values in (norms, sums))
                having = {term: [found[at] for at in able] for term, found in having.items()}
            weight = self._weights[other]
            found = having[other] = self._frequencies_of(other, places)
            sums = [of_node + weight * f / (f + norm) for of_node, f, norm in zip(sums, found, norms, strict=True)]
            rest = max(rest - self._most[other], 0.0) + _TINY
        if len(having) > 2:  # the sum of two is the same in either order
            sums = self._exact(having, norms)
        least = top.needed(sums)
        for at, score in enumerate(sums):
            if score >= least and top.takes(score, self._number, places[at]):
                terms = tuple([term for term in self._groups if having[term][at]])
                top.offer(score, self._number, places[at], terms)

    def _exact(self, having: Mapping[int, Sequence[int]], norms: Sequence[float]) -> list[float]:
        """The scores of nodes by how often they have each term; a term that a node does not have adds nothing."""
        scores = [0.0] * len(norms)
        for term in self._groups:
            weight = self._weights[term]
            scores = [score + weight * f / (f + norm) for score, f, norm in zip(scores, having[term], norms, strict=True)]
        return scores

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
_TINY = 1e-9
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
