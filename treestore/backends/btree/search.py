"""Keyword search in the native store: the rows of postings that a query needs, ranked, and the nodes that come first."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import chain

from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.keyspace import ANALYZER, COUNTERS, LENGTHS, POSTINGS, posting_key
from treestore.backends.btree.layers import entries, lengths_at, row_at
from treestore.backends.btree.nodes import Nodes
from treestore.backends.btree.overlay import Entry
from treestore.backends.btree.policies import Content
from treestore.errors import Corrupted
from treestore.operations import Query, Segment
from treestore.records import Node, SearchHit
from treestore.search import postings, query
from treestore.search.postings import SEGMENT_NODES, Group, segment_count, segment_size
from treestore.search.ranking import Corpus, Part, best


def match(state: State, contents: Sequence[Content], asked: Query, limit: int) -> list[SearchHit]:
    """The nodes of some versions, which are one corpus, that fit a query best; of equal scores in the order of ``contents``,
    then in document order."""
    versions = [content.version for content in contents]
    corpus = Corpus(sum([version.node_count for version in versions]), sum([version.term_count for version in versions]))
    searched = [_Searched(state, content) for content in contents]
    groups: dict[str, list[list[Group]]] = {}

    def groups_of(term: str) -> list[list[Group]]:
        if term not in groups:
            groups[term] = list(chain.from_iterable([of_content.groups(term) for of_content in searched]))
        return groups[term]

    words = query.wanted(asked, lambda term: any(groups_of(term)), lambda code: _beginning(searched, code))
    terms = query.distinct(words)
    found = [groups_of(term) for term in terms]
    segments = [(of_content, at) for of_content in searched for at in range(of_content.segments)]
    parts = [
        Part([of_term[number] for of_term in found], partial(of_content.lengths, at))
        for number, (of_content, at) in enumerate(segments)
    ]
    hits = []
    names: dict[tuple[int, ...], tuple[str, ...]] = {}
    for hit in best(corpus, parts, limit):
        of_content, at = segments[hit.part]
        if hit.terms not in names:
            names[hit.terms] = query.words_of(words, [terms[term] for term in hit.terms])
        node = of_content.nodes.get(at * SEGMENT_NODES + hit.place)
        hits.append(SearchHit(node=node, score=hit.score, words=names[hit.terms]))
    return hits


def analyzers(state: State) -> dict[str, int]:
    """How many versions have postings of each version of the analyzer."""
    entries = state.scan(COUNTERS, ANALYZER, ANALYZER + b"\xff")
    return {key[len(ANALYZER) :].decode(): int.from_bytes(raw, "big") for key, raw in entries}


def stored_segments(state: State, content: Content) -> list[Segment]:
    """All postings of a version, as they lie in the store."""
    layers, number = content.place.postings, content.place.content
    rows: dict[int, list[tuple[str, bytes]]] = {}
    lengths = [raw for _, raw in entries(state.scan, LENGTHS, layers)]
    for key, row in entries(state.scan, POSTINGS, layers):
        segment = int.from_bytes(key[:2], "big")
        try:
            rows.setdefault(segment, []).append((key[2:].decode(), row))
        except UnicodeDecodeError as error:
            raise Corrupted(f"the key of a row of postings of content {number} can't be decoded") from error
        if len(key) < 2 or segment >= len(lengths):
            raise Corrupted(f"content {number} has a row of postings that belongs to no segment")
    return [Segment(tuple(rows.get(at, ())), raw) for at, raw in enumerate(lengths)]


def _beginning(searched: Sequence[_Searched], code: str) -> list[str]:
    """The terms that begin with a code, in order, as many as may stand for it."""
    found: set[str] = set()
    for of_content in searched:
        for at in range(of_content.segments):
            for count, term in enumerate(of_content.terms_from(at, code)):
                if count == query.MAX_BEGINNING or not term.startswith(code):
                    break
                found.add(term)
    return sorted(found)


class _Searched:
    """The postings of one version at a state, and its nodes. What was decoded of them is kept (:mod:`.kept`)."""

    def __init__(self, state: State, content: Content) -> None:
        self.segments = segment_count(content.place.nodes)
        self._state = state
        self._content = content
        self._kept = content.findings()

    @cached_property
    def nodes(self) -> Nodes[Node]:
        """The version's nodes."""
        return Nodes(self._state, self._content, Node)

    def groups(self, term: str) -> list[list[Group]]:
        """The nodes that have a term, segment by segment."""
        found = self._kept.groups.get(term)
        if found is None:
            size, content = self._content.place.nodes, self._content
            rows = [self._row(at, term)[1] for at in range(self.segments)]
            found = [postings.find(row, term, segment_size(size, at)) for at, row in enumerate(rows)]
            content.cache.keep_groups(self._kept, term, found)
        return found

    def lengths(self, at: int) -> array[int]:
        """The number of terms of each node of a segment."""
        found = self._kept.lengths.get(at)
        if found is None:
            found = lengths_of(self._state, self._content, at)
            self._content.cache.keep_lengths(self._kept, at, found)
        return found

    def _row(self, at: int, term: str) -> tuple[str, bytes]:
        """The name and the row of a segment where a term is or would be."""
        found = row_at(self._floor, self._content.place.postings, at, term)
        if found is None:
            raise Corrupted(f"segment {at} of content {self._content.place.content} has no postings")
        return found

    def _floor(self, low: bytes, key: bytes) -> Entry | None:
        found = self._state.floor(POSTINGS, key)
        return found if found is not None and found[0] >= low else None

    def terms_from(self, at: int, first: str) -> Iterator[str]:
        """The terms of a segment that are not below the first one, in order."""
        low = posting_key(0, at, self._row(at, first)[0])[4:]
        high = posting_key(0, at + 1, "")[4:]
        for _, row in entries(self._state.scan, POSTINGS, self._content.place.postings, low, high):
            yield from (term for term in postings.row_blocks(row)[0] if term >= first)


def lengths_of(state: State, content: Content, number: int) -> array[int]:
    """The number of terms of each node of a segment, read from the store."""
    raw = lengths_at(state.get, content.place.postings, number)
    if raw is None:
        raise Corrupted(f"segment {number} of content {content.place.content} has no lengths of nodes")
    return postings.unpack_lengths(raw, segment_size(content.place.nodes, number))
