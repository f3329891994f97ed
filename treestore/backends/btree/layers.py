"""Postings in layers: what a version is searched by lies under one content number or, if much of it is an earlier version's,
under several.

The rows under the first number take the place of those with the same name under the numbers behind it. So few changes are
few rows, and what is below them is left to the other versions. A row without terms stands for one that is gone. Under the last
number are all rows of some version.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

from treestore.backends.btree.keyspace import LENGTHS, POSTINGS, number_key, posting_key, two_numbers, under
from treestore.backends.btree.overlay import Entry
from treestore.operations import Segment
from treestore.search.postings import recut

Layers = tuple[int, ...]
Scan = Callable[[int, bytes, bytes | None], Iterator[Entry]]

MOST_LAYERS = 3
"""A search looks into each of them, for each of its terms."""


def row_at(
    floor: Callable[[bytes, bytes], Entry | None], layers: Layers, segment: int, term: str
) -> tuple[str, bytes] | None:
    """The name and the row of a segment where a term is or would be. ``floor`` finds the entry with the greatest key between
    two keys, both inclusive."""
    best: Entry | None = None
    for number in layers:
        found = floor(posting_key(number, segment, ""), posting_key(number, segment, term))
        if found is not None and (best is None or found[0][4:] > best[0]):
            best = found[0][4:], found[1]
    return None if best is None else (best[0][2:].decode(), best[1])


def lengths_at(get: Callable[[int, bytes], bytes | None], layers: Layers, segment: int) -> bytes | None:
    """The lengths of a segment's nodes, packed."""
    found = (get(LENGTHS, two_numbers(number, segment)) for number in layers)
    return next((raw for raw in found if raw is not None), None)


def entries(scan: Scan, tree: int, layers: Layers, low: bytes = b"", high: bytes | None = None) -> Iterator[Entry]:
    """What a version has in one of the two trees, in order: keys without the content number, from ``low`` (inclusive) to
    ``high`` (exclusive; None: to the end), and values."""

    def layer(depth: int, number: int) -> Iterator[tuple[bytes, int, bytes]]:
        end = under(number)[1] if high is None else number_key(number, high)
        return ((key[4:], depth, raw) for key, raw in scan(tree, number_key(number, low), end))

    last = None
    for key, _, raw in heapq.merge(*[layer(depth, number) for depth, number in enumerate(layers)]):
        if key != last:
            yield key, raw
        last = key


class Segments(NamedTuple):
    """Entries of the two trees, keys without the content number."""

    rows: dict[bytes, bytes]
    lengths: dict[bytes, bytes]


def all_of(segments: Sequence[Segment]) -> Segments:
    """All entries of segments."""
    rows = {_row_key(at, name): row for at, segment in enumerate(segments) for name, row in segment.rows}
    return Segments(rows, {_lengths_key(at): segment.lengths for at, segment in enumerate(segments)})


def changed(scan: Scan, layers: Layers, segments: Sequence[Segment]) -> Generator[None, None, Segments | None]:
    """The entries of segments, cut as they are in layers, that differ from those; None where most do, or there are not as many
    segments. Pauses now and then."""
    lengths = dict(entries(scan, LENGTHS, layers))
    if len(lengths) != len(segments):
        return None
    new = Segments({}, {})
    size = 0
    for at, segment in enumerate(segments):
        stored = dict(entries(scan, POSTINGS, layers, _row_key(at, ""), _row_key(at + 1, "")))
        yield
        names = [key[2:].decode() for key in stored]
        if names[:1] != [""]:
            return None
        for name, row in (yield from recut(segment.rows, names)).items():
            size += len(row)
            if stored.get(_row_key(at, name)) != row:
                new.rows[_row_key(at, name)] = row
        if lengths.get(_lengths_key(at)) != segment.lengths:
            new.lengths[_lengths_key(at)] = segment.lengths
    return new if 2 * sum(map(len, new.rows.values())) <= size else None


def _row_key(segment: int, name: str) -> bytes:
    return posting_key(0, segment, name)[4:]


def _lengths_key(segment: int) -> bytes:
    return two_numbers(0, segment)[4:]
