"""Keyword search in the native store: the rows of postings that a query needs, ranked, and the nodes that come first."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import partial

from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.keyspace import ANALYZER, COUNTERS, LENGTHS, POSTINGS, posting_key, two_numbers, under
from treestore.backends.btree.nodes import Nodes
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
    corpus = Corpus(sum(version.node_count for version in versions), sum(version.term_count for version in versions))
    segments = [_Segment(state, content, at) for content in contents for at in range(segment_count(content.place.nodes))]
    groups: dict[str, list[list[Group]]] = {}

    def groups_of(term: str) -> list[list[Group]]:
        if term not in groups:
            groups[term] = [segment.groups(term) for segment in segments]
        return groups[term]

    words = query.wanted(asked, lambda term: any(groups_of(term)), lambda code: _beginning(segments, code))
    terms = query.distinct(words)
    found = [groups_of(term) for term in terms]
    parts = [Part([of_term[at] for of_term in found], segment.lengths) for at, segment in enumerate(segments)]
    hits = []
    for hit in best(corpus, parts, limit):
        segment = segments[hit.part]
        node = Nodes(state, segment.content, Node).get(segment.number * SEGMENT_NODES + hit.place)
        having = query.words_of(words, [terms[term] for term in hit.terms])
        hits.append(SearchHit(node=node, score=hit.score, words=having))
    return hits


def analyzers(state: State) -> dict[str, int]:
    """How many versions have postings of each version of the analyzer."""
    entries = state.scan(COUNTERS, ANALYZER, ANALYZER + b"\xff")
    return {key[len(ANALYZER) :].decode(): int.from_bytes(raw, "big") for key, raw in entries}


def stored_segments(state: State, content: Content) -> list[Segment]:
    """All postings of a version, as they lie in the store."""
    rows: dict[int, list[tuple[str, bytes]]] = {}
    lengths = [raw for _, raw in state.scan(LENGTHS, *under(content.place.content))]
    for key, row in state.scan(POSTINGS, *under(content.place.content)):
        segment = int.from_bytes(key[4:6], "big")
        try:
            rows.setdefault(segment, []).append((key[6:].decode(), row))
        except UnicodeDecodeError as error:
            raise Corrupted(f"the key of a row of postings of content {content.place.content} can't be decoded") from error
        if len(key) < 6 or segment >= len(lengths):
            raise Corrupted(f"content {content.place.content} has a row of postings that belongs to no segment")
    return [Segment(tuple(rows.get(at, ())), raw) for at, raw in enumerate(lengths)]


def _beginning(segments: Sequence[_Segment], code: str) -> list[str]:
    """The terms that begin with a code, in order, as many as may stand for it."""
    found: set[str] = set()
    for segment in segments:
        for count, term in enumerate(segment.terms_from(code)):
            if count == query.MAX_BEGINNING or not term.startswith(code):
                break
            found.add(term)
    return sorted(found)


class _Segment:
    """The postings of one segment of a version at a state."""

    def __init__(self, state: State, content: Content, number: int) -> None:
        self.content = content
        self.number = number
        self._state = state
        self.lengths = partial(lengths_of, state, content, number)

    def _row(self, term: str) -> tuple[bytes, bytes]:
        """The key and the row where a term is or would be."""
        key = posting_key(self.content.place.content, self.number, term)
        entry = self._state.floor(POSTINGS, key)
        if entry is None or entry[0][:6] != key[:6]:
            raise Corrupted(f"segment {self.number} of content {self.content.place.content} has no postings")
        return entry

    def groups(self, term: str) -> list[Group]:
        """The nodes that have a term."""
        return postings.find(self._row(term)[1], term, segment_size(self.content.place.nodes, self.number))

    def terms_from(self, first: str) -> Iterator[str]:
        """The terms that are not below the first one, in order."""
        low, _ = self._row(first)
        high = posting_key(self.content.place.content, self.number + 1, "")
        for _, row in self._state.scan(POSTINGS, low, high):
            yield from (term for term in postings.row_blocks(row)[0] if term >= first)


def lengths_of(state: State, content: Content, number: int) -> array[int]:
    """The number of terms of each node of a segment."""
    raw = state.get(LENGTHS, two_numbers(content.place.content, number))
    if raw is None:
        raise Corrupted(f"segment {number} of content {content.place.content} has no lengths of nodes")
    return postings.unpack_lengths(raw, segment_size(content.place.nodes, number))
