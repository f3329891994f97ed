"""Which of a node's children are which of another's: two lists of siblings matched by what they say.

Ids are preorder numbers in many trees and shift with every insertion, so they decide last. Siblings that say the same (equal
``node_hash``, hence in everything below too) are matched first: each that is the only one of its kind on both sides, wherever
it stands; the longest run of these that kept its order makes the anchors, as in patience diff (Bram Cohen). Of several that
say the same, those on the same pages are matched if pages were kept, those of the same ids if these were, else those in the
same gap between anchors, from both ends.
What is left is matched by the same own content, or the same title and id. Weaker evidence, the same title, text or summaries,
is looked at separately, when the document was searched for something better. In each case first within a gap, then anywhere
among the siblings, in order.

All is near-linear: 50,000 siblings that all differ, or that are all the same, take a fraction of a second.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import lt

from treestore.records import Outline
from treestore.trees.hashes import text_hash

_EMPTY_TEXT = text_hash("")

Pair = tuple[int, int]
"""Places in the two lists."""

Evidence = Callable[[Outline], Hashable]
"""What a node is recognised by; ``None`` if it has nothing of the kind."""


def has_text(node: Outline) -> bool:
    """Whether a node has a text that is not empty."""
    return node.text_hash is not None and node.text_hash != _EMPTY_TEXT


def own_content(node: Outline) -> Hashable:
    """What a node says itself, its children left out; ``None`` if it says nothing."""
    if node.title or node.summary or node.prefix_summary or has_text(node):
        return node.title, node.summary, node.prefix_summary, node.text_hash
    return None


def pages(node: Outline) -> Hashable:
    """The pages that a node lies on; ``None`` if it says none."""
    return None if node.page_start is None else (node.page_start, node.page_end)


def _id(node: Outline) -> Hashable:
    return node.node_id


def _title(node: Outline) -> Hashable:
    return node.title or None


def _text(node: Outline) -> Hashable:
    return node.text_hash if has_text(node) else None


def _summaries(node: Outline) -> Hashable:
    return (node.summary, node.prefix_summary) if node.summary or node.prefix_summary else None


def _title_and_id(node: Outline) -> Hashable:
    return (node.title, node.node_id) if node.title else None


_STRONG: tuple[Evidence, ...] = (own_content, _title_and_id)
_WEAK: tuple[Evidence, ...] = (_title, _text, _summaries)  # a section and the first one in it often have one text


def longest_increasing(values: Sequence[int]) -> list[int]:
    """The positions, ascending, of a longest strictly increasing subsequence (patience sorting; Fredman 1975)."""
    if all(map(lt, values, values[1:])):  # the usual case
        return list(range(len(values)))
    tails: list[int] = []  # by length, the least value that a subsequence of it ends with
    ends: list[int] = []  # and its position
    before = [-1] * len(values)
    for position, value in enumerate(values):
        length = bisect_left(tails, value)
        if length:
            before[position] = ends[length - 1]
        tails[length : length + 1] = [value]
        ends[length : length + 1] = [position]
    found: list[int] = []
    position = ends[-1] if ends else -1
    while position >= 0:
        found.append(position)
        position = before[position]
    found.reverse()
    return found


def match(
    before: Sequence[Outline],
    after: Sequence[Outline],
    pairs: dict[int, int],
    free: tuple[list[int], list[int]],
    *,
    weakly: bool = False,
) -> None:
    """Add to ``pairs`` (places in ``before`` to places in ``after``) those of the ``free`` places, ascending on both sides,
    that belong together, and take them out of ``free``: those that say the same themselves or, ``weakly``, a part of it."""
    siblings = _Siblings(before, after, pairs, free)
    if not weakly:
        siblings.by_identity()
    for evidence in _WEAK if weakly else _STRONG:
        if free[0] and free[1]:
            siblings.by(evidence)


class _Siblings:
    """The two lists, and what of them is matched and free so far."""

    def __init__(
        self, before: Sequence[Outline], after: Sequence[Outline], pairs: dict[int, int], free: tuple[list[int], list[int]]
    ) -> None:
        self.before = before
        self.after = after
        self.pairs = pairs
        self.free = free

    def by_identity(self) -> None:
        """Match those that say the same, down to the last node."""
        self._take(_from_both_ends(*self.free, self._unchanged))
        self._take(self._certain())
        identities = {self.before[i].node_hash for i in self.free[0]}
        if any(self.after[j].node_hash in identities for j in self.free[1]):
            self._take(self._trimmed())
            self.by(_identity)

    def _certain(self) -> list[Pair]:
        """Those that say the same and are alone in that on both sides, or are told apart by their pages or ids."""
        kinds = _by_kind(self.before, self.free[0]), _by_kind(self.after, self.free[1])
        found: list[Pair] = []
        for identity, ours in kinds[0].items():
            theirs = kinds[1].get(identity, ())
            if len(ours) == len(theirs) == 1:
                found.append((ours[0], theirs[0]))
            elif theirs:
                found += self._kept(ours, theirs, pages) or self._kept(ours, theirs, _id)
        return found

    def _kept(self, ours: Sequence[int], theirs: Sequence[int], number: Evidence) -> list[Pair]:
        """Of nodes that say the same, those with the same number, if numbers were kept: none is left over on one side."""
        by_number = {number(self.before[i]): i for i in ours}
        numbers = {number(self.after[j]): j for j in theirs}
        kept = [(i, numbers[what]) for what, i in by_number.items() if what is not None and what in numbers]
        told_apart = len(by_number) == len(ours) and len(numbers) == len(theirs)
        return kept if told_apart and len(kept) == min(len(ours), len(theirs)) else []

    def _trimmed(self) -> list[Pair]:
        """Those that say the same at the beginnings and the ends of each gap."""
        gaps: dict[int, tuple[list[int], list[int]]] = {}
        for side, numbers in enumerate(self._gaps()):
            for place, gap in zip(self.free[side], numbers, strict=True):
                gaps.setdefault(gap, ([], []))[side].append(place)
        found: list[Pair] = []
        for ours, theirs in gaps.values():
            found += _from_both_ends(ours, theirs, self._same)
        return found

    def _same(self, ours: int, theirs: int) -> bool:
        return self.before[ours].node_hash == self.after[theirs].node_hash

    def _unchanged(self, ours: int, theirs: int) -> bool:
        before, after = self.before[ours], self.after[theirs]
        if before.node_hash != after.node_hash or before.node_id != after.node_id:
            return False
        return before.page_start == after.page_start and before.page_end == after.page_end

    def by(self, evidence: Evidence) -> None:
        """Match those of equal evidence: in the same gap, then anywhere, in order."""
        ours = {i: what for i in self.free[0] if (what := evidence(self.before[i])) is not None}
        theirs = {j: what for j in self.free[1] if (what := evidence(self.after[j])) is not None}
        several = len(set(ours.values())) < len(ours) or len(set(theirs.values())) < len(theirs)
        if several and not set(ours.values()).isdisjoint(theirs.values()):
            gap_of = [dict(zip(free, gaps, strict=True)) for free, gaps in zip(self.free, self._gaps(), strict=True)]
            near = _in_order(
                [(i, (gap_of[0][i], what)) for i, what in ours.items()],
                [(j, (gap_of[1][j], what)) for j, what in theirs.items()],
            )
            self._take(near)
            for i, j in near:
                del ours[i], theirs[j]
        self._take(_in_order(ours.items(), theirs.items()))

    def _gaps(self) -> tuple[list[int], list[int]]:
        """For each free place of both sides, the number of the gap between anchors that it lies in."""
        pairs = sorted(self.pairs.items())
        anchors = [pairs[position] for position in longest_increasing([j for _, j in pairs])]
        ours, theirs = [i for i, _ in anchors], [j for _, j in anchors]
        return [bisect_right(ours, i) for i in self.free[0]], [bisect_right(theirs, j) for j in self.free[1]]

    def _take(self, found: list[Pair]) -> None:
        if found:
            self.pairs.update(found)
            taken = {i for i, _ in found}, {j for _, j in found}
            for side in (0, 1):
                self.free[side][:] = [place for place in self.free[side] if place not in taken[side]]


def _identity(node: Outline) -> Hashable:
    return node.node_hash


def _by_kind(nodes: Sequence[Outline], places: Iterable[int]) -> dict[bytes, list[int]]:
    kinds: dict[bytes, list[int]] = {}
    for place in places:
        kinds.setdefault(nodes[place].node_hash, []).append(place)
    return kinds


def _in_order(ours: Iterable[tuple[int, Hashable]], theirs: Iterable[tuple[int, Hashable]]) -> list[Pair]:
    """Places of equal evidence, the first with the first, the second with the second…"""
    waiting: dict[Hashable, deque[int]] = {}
    for place, what in theirs:
        waiting.setdefault(what, deque()).append(place)
    return [(place, same.popleft()) for place, what in ours if (same := waiting.get(what))]


def _from_both_ends(ours: Sequence[int], theirs: Sequence[int], same: Callable[[int, int], bool]) -> list[Pair]:
    """Pairs from the beginnings on, and from the ends back, as far as they are the same."""
    length = min(len(ours), len(theirs))
    front = 0
    while front < length and same(ours[front], theirs[front]):
        front += 1
    back = 0
    while front + back < length and same(ours[-1 - back], theirs[-1 - back]):
        back += 1
    found = list(zip(ours[:front], theirs[:front], strict=True))
    return found + list(zip(ours[len(ours) - back :], theirs[len(theirs) - back :], strict=True))
