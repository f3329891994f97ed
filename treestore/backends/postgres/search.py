"""Keyword search in a relational store: the rows of postings that a query needs, ranked here, and the best nodes."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from treestore.backends.postgres import rows
from treestore.backends.postgres.session import Session
from treestore.backends.postgres.sql import kept
from treestore.errors import Corrupted
from treestore.operations import Query, Segment
from treestore.records import Node, SearchHit, Version
from treestore.search import postings, query
from treestore.search.postings import SEGMENT_NODES, Group, segment_count, segment_size
from treestore.search.ranking import Corpus, Part, best
from treestore.trees.content import detached

T = TypeVar("T")

_LAST = "\U0010ffff"


class Held(NamedTuple):
    """The postings and the nodes of a version that are in memory, and not in the store."""

    segments: Sequence[Segment]
    nodes: Sequence[Node]


class _Segment(NamedTuple):
    """A segment of a version; ``held`` if it is in memory."""

    version: Version
    number: int
    held: Held | None = None

    @property
    def size(self) -> int:
        return segment_size(self.version.node_count, self.number)

    @property
    def packed(self) -> Segment:
        assert self.held is not None
        return self.held.segments[self.number]

    @property
    def rows(self) -> Sequence[tuple[str, bytes]]:
        return self.packed.rows

    def node(self, place: int) -> Node:
        assert self.held is not None
        return detached(self.held.nodes[self.number * SEGMENT_NODES + place])

    @property
    def name(self) -> str:
        return f"segment {self.number} of policy {self.version.policy_id!r} version {self.version.version_id!r}"


async def match(
    session: Session,
    versions: Sequence[Version],
    asked: Query,
    limit: int,
    held: Mapping[tuple[str, str], Held] = MappingProxyType({}),
) -> list[SearchHit]:
    """The nodes of some versions, which are one corpus, that fit a query best; of equal scores in the order of ``versions``,
    then in document order. ``held``: by policy and version id, what is in memory."""
    corpus = Corpus(sum(version.node_count for version in versions), sum(version.term_count for version in versions))
    segments = [
        _Segment(version, at, held.get((version.policy_id, version.version_id)))
        for version in versions
        for at in range(segment_count(version.node_count))
    ]
    if not segments:
        return []
    found = _Postings(session, segments)
    words = await found.wanted(asked)
    terms = query.distinct(words)
    await found.load(terms)
    having = [at for at in range(len(segments)) if any(found.groups[term][at] for term in terms)]
    if not having:
        return []
    lengths = await _lengths(session, [segments[at] for at in having])
    parts = [
        Part([found.groups[term][at] for term in terms], partial(_unpacked, segments[at], raw))
        for at, raw in zip(having, lengths, strict=True)
    ]
    ranked = best(corpus, parts, limit)
    nodes = await _nodes(session, [(segments[having[hit.part]], hit.place) for hit in ranked])
    return [
        SearchHit(node=node, score=hit.score, words=query.words_of(words, [terms[term] for term in hit.terms]))
        for hit, node in zip(ranked, nodes, strict=True)
    ]


class _Postings:
    """What is known of the postings of some segments. ``groups``: by term, for each segment."""

    def __init__(self, session: Session, segments: Sequence[_Segment]) -> None:
        self._session = session
        self._segments = segments
        self._rows: dict[str, list[bytes]] = {}
        self.groups: dict[str, list[list[Group]]] = {}

    async def load(self, terms: Iterable[str]) -> None:
        """Read the rows that terms are in or would be in, all at once."""
        missing = [term for term in dict.fromkeys(terms) if term not in self.groups]
        if not missing:
            return
        asked = [(segment, term) for term in missing for segment in self._segments]

        async def stored(places: Sequence[int]) -> list[Any]:
            values = {**_places([asked[at][0] for at in places]), "term": [asked[at][1] for at in places]}
            return [row["packed"] for row in await self._session.rows(kept.posting_rows(), values)]

        def in_memory(at: int) -> bytes:
            segment, term = asked[at]
            return segment.rows[bisect_right(segment.rows, term, key=itemgetter(0)) - 1][1]

        found = await _each([segment for segment, _ in asked], stored, in_memory)
        for at, term in enumerate(missing):
            count = len(self._segments)
            packed = found[at * count : (at + 1) * count]
            for segment, raw in zip(self._segments, packed, strict=True):
                if raw is None:
                    raise Corrupted(f"{segment.name} has no postings")
            self._rows[term] = packed
            self.groups[term] = [
                postings.find(raw, term, segment.size) for segment, raw in zip(self._segments, packed, strict=True)
            ]

    async def wanted(self, asked: Query) -> list[query.Wanted]:
        """What to look for. Codes that no node has whole are noted first, and what begins with them is read then."""
        await self.load(term for word in asked.words for term in (word.whole, *(part for _, part in word.parts)) if term)
        codes: dict[str, list[str]] = {}

        def note(code: str) -> list[str]:
            codes[code] = []
            return []

        words = query.wanted(asked, self._exists, note)
        if not codes:
            return words
        for code in codes:
            codes[code] = await self._beginning(code)
        return query.wanted(asked, self._exists, codes.__getitem__)

    def _exists(self, term: str) -> bool:
        return any(self.groups[term])

    async def _beginning(self, code: str) -> list[str]:
        """The terms that begin with a code, in order, as many as may stand for it."""

        async def stored(places: Sequence[int]) -> list[list[bytes]]:
            values = _places([self._segments[at] for at in places])
            values |= {"term": code, "last": code + _LAST, "limit": query.MAX_BEGINNING}
            following: list[list[bytes]] = [[] for _ in places]
            for row in await self._session.rows(kept.posting_rows_between(), values):
                following[row["at"] - 1].append(row["packed"])
            return following

        def in_memory(at: int) -> list[bytes]:
            return [packed for name, packed in self._segments[at].rows if code < name <= code + _LAST]

        terms: set[str] = set()
        for first, following in zip(self._rows[code], await _each(self._segments, stored, in_memory), strict=True):
            of_segment = [first, *following]
            names = [term for raw in of_segment for term in postings.row_blocks(raw)[0] if term.startswith(code)]
            terms.update(names[: query.MAX_BEGINNING])
        return sorted(terms)


async def _each(
    segments: Sequence[_Segment], stored: Callable[[Sequence[int]], Awaitable[Sequence[T]]], in_memory: Callable[[int], T]
) -> list[T]:
    """What is known of each segment, in order: what ``stored`` finds in the store at these places, or what is in memory."""
    places = [at for at, segment in enumerate(segments) if segment.held is None]
    found = iter(await stored(places) if places else ())
    return [next(found) if segment.held is None else in_memory(at) for at, segment in enumerate(segments)]


def _places(segments: Sequence[_Segment]) -> dict[str, Any]:
    return {
        "policy_id": [segment.version.policy_id for segment in segments],
        "version_id": [segment.version.version_id for segment in segments],
        "segment": [segment.number for segment in segments],
    }


async def _lengths(session: Session, segments: Sequence[_Segment]) -> list[bytes | None]:
    async def stored(places: Sequence[int]) -> list[bytes | None]:
        return [row["lengths"] for row in await session.rows(kept.lengths(), _places([segments[at] for at in places]))]

    return await _each(segments, stored, lambda at: segments[at].packed.lengths)


def _unpacked(segment: _Segment, raw: bytes | None) -> array[int]:
    if raw is None:
        raise Corrupted(f"{segment.name} has no lengths of nodes")
    return postings.unpack_lengths(raw, segment.size)


async def _nodes(session: Session, hits: Sequence[tuple[_Segment, int]]) -> list[Node]:
    """The nodes at places of segments, in order."""

    async def stored(places: Sequence[int]) -> list[Node]:
        asked = [hits[at] for at in places]
        ordinals = [segment.number * SEGMENT_NODES + place for segment, place in asked]
        found = await session.rows(kept.hits(), {**_places([segment for segment, _ in asked]), "ordinal": ordinals})
        for (segment, place), row in zip(asked, found, strict=True):
            if row["ordinal"] is None:
                raise Corrupted(f"{segment.name} has postings of a node at place {place} that is not there")
        found_nodes: list[Node] = rows.nodes(found, Node)
        return found_nodes

    return await _each([segment for segment, _ in hits], stored, lambda at: hits[at][0].node(hits[at][1]))


async def stored_segments(session: Session, version: Version) -> list[Segment]:
    """All postings of a version, as they lie in the store."""
    owner = {"policy_id": version.policy_id, "version_id": version.version_id}
    lengths = await session.rows(kept.kept("treestore_lengths", "segment", "lengths"), owner)
    by_segment: dict[int, list[tuple[str, bytes]]] = {row["segment"]: [] for row in lengths}
    for row in await session.rows(kept.kept("treestore_postings", "segment", "term", "packed"), owner):
        if row["segment"] not in by_segment:
            raise Corrupted(f"{_Segment(version, row['segment']).name} has postings but no lengths of nodes")
        by_segment[row["segment"]].append((row["term"], row["packed"]))
    if list(by_segment) != list(range(len(by_segment))):
        raise Corrupted(f"the segments of policy {version.policy_id!r} version {version.version_id!r} have gaps")
    return [Segment(tuple(by_segment[row["segment"]]), row["lengths"]) for row in lengths]
