"""Nodes that were read of late, kept as records: what is asked for again is neither looked up nor decoded again.

Records are frozen, so callers may share them; of a node with JSON values, which a caller could change, each gets a copy. What
was decoded to find nodes, by what they say or by their pages, is kept with them. What is kept belongs to one content and is
the same at all moments whose readers use it; :mod:`.policies` sees to that.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Collection, Sequence
from sys import getsizeof
from typing import Any, Generic, TypeVar, cast

import msgspec

from treestore.records import Node, Outline
from treestore.search.postings import Group

N = TypeVar("N", Outline, Node)
K = TypeVar("K")
V = TypeVar("V")

_NODE_BYTES = 1050  # a node in memory, and its place here, beside its title, summaries and text
_USUAL_BYTES = 2048  # a whole node, for guessing how much an answer would take
_FINDINGS_BYTES = 500  # what is kept of searches in a content, before there is anything
_TERM_BYTES = 250  # a term and its place here
_SEGMENT_BYTES = 100  # its list of groups in a segment
_GROUP_BYTES = 100  # a group without its places
_PAGES_BYTES = 250  # first and last page and their place here
_INTEGER_BYTES = 32
_FEW = 64  # nodes of a small document that may be amended before all are read anew
_ADMITTED = 16  # where there is no room, one node of so many is kept
_TOGETHER = 256  # nodes that are kept at once; others who keep wait for so many
_REPORTED = 1024 * 1024  # bytes; the room that is taken is reported in such steps

_encode_json = msgspec.msgpack.Encoder().encode
_decode_json = msgspec.msgpack.Decoder().decode
_replace = msgspec.structs.replace


class Pattern(Generic[N]):
    """What a node with JSON values is copied from: the node without them, and they in MessagePack."""

    __slots__ = ("json", "node")

    def __init__(self, node: N) -> None:
        self.json = _encode_json((node.metadata, node.extra))
        self.node: N = _replace(node, metadata=None, extra=None)

    def copy(self) -> N:
        """A node that nobody else has."""
        metadata, extra = _decode_json(self.json)
        return _replace(self.node, metadata=metadata, extra=extra)


class Kept(Generic[N]):
    """Nodes of one content and weight: by ordinal those to be shared in ``nodes`` (else None) and the others in ``patterns``;
    ``ordinals`` by node id. ``seen`` marks those that were read before: what is read only once is not worth its keep.
    ``amended`` are those that are not the same at all moments whose readers use this; :class:`KeptFindings` has them. ``hot``:
    some were asked for since the cache last looked."""

    __slots__ = ("amended", "dropped", "hand", "hot", "nodes", "ordinals", "patterns", "seen", "size")

    def __init__(self, count: int) -> None:
        self.nodes: list[N | None] = [None] * count
        self.patterns: dict[int, Pattern[N]] = {}
        self.ordinals: dict[str, int] = {}
        self.seen = bytearray(count)
        self.amended: set[int] = set()
        self.size = getsizeof(self.nodes) + getsizeof(self.seen)
        self.hand = 0
        self.hot = True
        self.dropped = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing left to be given up."""
        return not self.ordinals

class KeptFindings:
    """What was decoded of one content as it is at one head. ``amended`` are nodes that :class:`Kept` must not have, by weight
    and ordinal; the others are to find nodes by. Of its postings: by term the groups of each segment
    (:data:`treestore.search.postings.Group`), and by segment how long its nodes are. By first and last page: the ordinals of
    the nodes that lie there."""

    __slots__ = ("amended", "dropped", "groups", "hot", "lengths", "on_pages", "size")

    def __init__(self) -> None:
        self.amended: dict[tuple[type[Outline], int], Outline | Pattern[Any]] = {}
        self.groups: dict[str, list[list[Group]]] = {}
        self.lengths: dict[int, array[int]] = {}
        self.on_pages: dict[tuple[int, int], Sequence[int]] = {}
        self.size = _FINDINGS_BYTES
        self.hot = True
        self.dropped = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing left to be given up."""
        return not (self.amended or self.groups or self.lengths or self.on_pages)

    def node(self, weight: type[N], ordinal: int) -> N | None:
        """One of the nodes that are amended, if it is kept."""
        found = self.amended.get((weight, ordinal))
        return cast(N | None, found.copy() if isinstance(found, Pattern) else found)


class NodeCache:
    """All that is kept. It takes ``budget`` bytes at most, by an estimate; ``report`` is told how many it takes. Of one answer
    ``most_at_once`` nodes are kept, so that a large one does not drive out all others.

    Once it is full, few of the nodes that are read are let in, in the place of others. If all were, then questions that come
    again in turn, about a little more than there is room for, would find nothing kept at all.

    Any thread may use it. What is in the cache is read without a lock: setting a place of a list is atomic.
    """

    def __init__(self, budget: int, report: Callable[[int], None] = lambda _: None) -> None:
        self.budget = budget
        self.most_at_once = budget // 4 // _USUAL_BYTES
        self.used = 0
        self._report = report
        self._reported = 0
        self._refused = 0
        self._lock = threading.Lock()
        self._queue: dict[Kept[Any] | KeptFindings, None] = {}  # in the order in which they give up nodes

    def has_spare(self, count: int) -> bool:
        """Whether so many nodes more leave room enough for others: then a larger answer is kept, too."""
        return self.used + count * _USUAL_BYTES <= self.budget * 7 // 8

    def begin(self, count: int) -> Kept[N]:
        """A place for the nodes of a content."""
        kept: Kept[N] = Kept(count)
        with self._lock:
            self._queue[kept] = None
            self._take(kept.size)
        return kept

    def keep(self, kept: Kept[N], node: N) -> None:
        """Keep a node from now on."""
        size = _size(node)
        if self._admits(size):
            with self._lock:
                self._take(_put(kept, node, size))

    def keep_all(self, kept: Kept[N], nodes: Sequence[N]) -> None:
        """Keep the nodes of an answer, which takes half the time of keeping each."""
        for start in range(0, len(nodes), _TOGETHER):
            some = nodes[start : start + _TOGETHER]
            sizes = [_size(node) for node in some]
            if self.used + sum(sizes) > self.budget:
                for node in some:
                    self.keep(kept, node)
                continue
            with self._lock:
                self._take(sum([_put(kept, node, size) for node, size in zip(some, sizes, strict=True)]))

    def _admits(self, size: int) -> bool:
        """Whether something is kept that takes so many bytes."""
        if self.used + size > self.budget:
            self._refused += 1
            return self._refused % _ADMITTED == 0
        return True

    def begin_findings(self) -> KeptFindings:
        """A place for what is decoded to find nodes of a content."""
        kept = KeptFindings()
        with self._lock:
            self._queue[kept] = None
            self._take(kept.size)
        return kept

    def keep_amended(self, kept: KeptFindings, node: Outline) -> None:
        """Keep a node from now on that was amended."""
        value = node if node.metadata is None and node.extra is None else Pattern(node)
        size = _size(node) + (len(value.json) if isinstance(value, Pattern) else 0)
        self._keep(kept, kept.amended, (type(node), node.ordinal), value, size)

    def keep_groups(self, kept: KeptFindings, term: str, groups: list[list[Group]]) -> None:
        """Keep the groups of a term from now on, segment by segment."""
        sizes = [_GROUP_BYTES + getsizeof(places) for of_segment in groups for _, _, places in of_segment]
        self._keep(kept, kept.groups, term, groups, _TERM_BYTES + _SEGMENT_BYTES * len(groups) + sum(sizes))

    def keep_lengths(self, kept: KeptFindings, segment: int, lengths: array[int]) -> None:
        """Keep from now on how long the nodes of a segment are."""
        self._keep(kept, kept.lengths, segment, lengths, getsizeof(lengths))

    def keep_pages(self, kept: KeptFindings, pages: tuple[int, int], ordinals: Sequence[int]) -> None:
        """Keep from now on which nodes lie on some pages."""
        self._keep(kept, kept.on_pages, pages, ordinals, _PAGES_BYTES + getsizeof(ordinals) + _INTEGER_BYTES * len(ordinals))

    def _keep(self, kept: KeptFindings, known: dict[K, V], key: K, value: V, size: int) -> None:
        if size <= self.budget // 4 and self._admits(size):
            with self._lock:
                if not kept.dropped and key not in known:
                    known[key] = value
                    kept.size += size
                    self._take(size)

    def amend(self, kept: Kept[Any], ordinals: Collection[int]) -> bool:
        """Some nodes are others from now on. Readers of an earlier moment may still use what is kept, so these are not kept
        there again, but apart (:meth:`keep_amended`). False, and nothing is kept any more, where they have become too many."""
        with self._lock:
            kept.amended.update(ordinals)
            for ordinal in ordinals:
                self._give_up(kept, ordinal)
            self._take(0)
        if len(kept.amended) > max(len(kept.nodes) // 8, _FEW):
            self.drop(kept)
        return not kept.dropped

    def drop(self, kept: Kept[Any] | KeptFindings) -> None:
        """Nobody will ask for these any more."""
        with self._lock:
            if not kept.dropped:
                kept.dropped = True
                del self._queue[kept]
                self._take(-kept.size)

    def _take(self, size: int) -> None:
        """So many bytes more are in use. Where they are too many, nodes are given up: of what was not asked for since the
        last time first, and there in turn."""
        self.used += size
        while self.used > self.budget and self._queue:
            kept = next(iter(self._queue))
            if kept.hot or not self._sweep(kept):
                kept.hot = False
                del self._queue[kept]
                if kept.empty:
                    kept.dropped = True
                    self.used -= kept.size
                else:
                    self._queue[kept] = None
        if abs(self.used - self._reported) > _REPORTED:
            self._reported = self.used
            self._report(self.used)

    def _sweep(self, kept: Kept[Any] | KeptFindings) -> bool:
        """Give up nodes from the hand on until the budget suffices, or all that was decoded for searches; whether it does."""
        if isinstance(kept, KeptFindings):
            kept.amended.clear()
            kept.groups.clear()
            kept.lengths.clear()
            kept.on_pages.clear()
            self.used -= kept.size - _FINDINGS_BYTES
            kept.size = _FINDINGS_BYTES
            return self.used <= self.budget
        for ordinal in range(kept.hand, len(kept.nodes)):
            self._give_up(kept, ordinal)
            if self.used <= self.budget:
                kept.hand = ordinal + 1
                return True
        kept.hand = 0
        return False

    def _give_up(self, kept: Kept[Any], ordinal: int) -> None:
        node: Outline | None = kept.nodes[ordinal]
        if node is not None:
            kept.nodes[ordinal] = None
            size = _size(node)
        elif ordinal in kept.patterns:
            pattern = kept.patterns.pop(ordinal)
            node, size = pattern.node, _size(pattern.node) + len(pattern.json)
        else:
            return
        del kept.ordinals[node.node_id]
        kept.size -= size
        self.used -= size


def _put(kept: Kept[N], node: N, size: int) -> int:
    """Keep a node where it is to be kept. Returns how many bytes that takes."""
    ordinal = node.ordinal
    if kept.dropped or kept.nodes[ordinal] is not None or ordinal in kept.patterns or ordinal in kept.amended:
        return 0
    if node.metadata is None and node.extra is None:
        kept.nodes[ordinal] = node
    else:
        pattern = kept.patterns[ordinal] = Pattern(node)
        size += len(pattern.json)
    kept.ordinals[node.node_id] = ordinal
    kept.size += size
    return size


def _size(node: Outline) -> int:
    """About how many bytes of memory a node takes."""
    size = _NODE_BYTES + getsizeof(node.title) + getsizeof(node.summary) + getsizeof(node.prefix_summary)
    return size + getsizeof(node.text) if isinstance(node, Node) else size
