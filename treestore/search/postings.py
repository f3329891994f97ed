"""Postings: which nodes of a version have a term and how often, packed into rows; the same bytes on every store.

A version is cut into *segments* of :data:`SEGMENT_NODES` successive nodes. In a segment a term has one *block*: its nodes,
grouped by how long they are (:func:`length_class`) and by how often they have the term. A group is what ranking can judge
without a look at its nodes, so most of a common term's nodes are never looked at.

    block   = MessagePack [[least length, frequency, nodes], …], ascending by class of length, then by frequency
              least length: no node of the group is shorter; of the same class
              nodes: their places in the segment, ascending, as 16-bit little-endian integers; a single one as an integer
    row     = MessagePack [[term, …], [block, …]]: successive terms, ascending by code points, and their blocks
    lengths = the number of terms of each node of the segment: little-endian integers of 16 bits, or of 32 if one needs it

A row lies under its first term; the first row of a segment under the empty string. So the row that a term is in, or would be
in, is the last one whose name is not above the term. Rows are closed at :data:`ROW_BYTES`; a block larger than that has a row
for itself.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import msgspec

from treestore.errors import Corrupted
from treestore.operations import Segment, TermChange
from treestore.records import Node
from treestore.search.analyzer import node_terms

SEGMENT_NODES = 1 << 14
"""Nodes of a segment. More make a search cheaper (fewer blocks to find), fewer an amendment (smaller blocks to rewrite)."""

ROW_BYTES = 1800
"""About the size at which a row is closed: such a row lies in a leaf of the native store, and is decoded in microseconds."""

FULL_ROW_BYTES = 2000
"""The size above which a row that an amendment makes longer is divided."""

Places = Sequence[int]
Part = tuple[int, int, int | bytes]
Block = Sequence[Part]
Group = tuple[int, int, Places]
"""``(least length, frequency, places in the segment)`` of nodes that have a term equally often and are about equally long."""

_encode = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(tuple[list[str], list[msgspec.Raw]]).decode
_decode_block = msgspec.msgpack.Decoder(list[Part]).decode


def length_class(length: int) -> int:
    """The class of a node by its number of terms: one for each doubling."""
    return length.bit_length()


def segment_count(nodes: int) -> int:
    """How many segments a version of so many nodes has."""
    return -(-nodes // SEGMENT_NODES)


def segment_size(nodes: int, segment: int) -> int:
    """How many nodes a segment of a version of ``nodes`` nodes has."""
    return min(SEGMENT_NODES, nodes - segment * SEGMENT_NODES)


# --- packing -------------------------------------------------------------------------------------------------------------


class Packed(msgspec.Struct, frozen=True):
    """The postings of a version: its segments, and the number of terms of all its nodes."""

    segments: list[Segment]
    term_count: int


def pack(nodes: Sequence[Node]) -> Generator[None, None, Packed]:
    """The postings of nodes in document order; yields about every millisecond."""
    segments: list[Segment] = []
    total = 0
    for start in range(0, len(nodes), SEGMENT_NODES):
        lengths: list[int] = []
        # Bytes, and blocks that are tuples: the garbage collector would look at each of as many lists again and again.
        places: defaultdict[int, defaultdict[str, bytearray]] = defaultdict(lambda: defaultdict(bytearray))
        work = 0
        for place, node in enumerate(nodes[start : start + SEGMENT_NODES]):
            terms = node_terms(node, node.text)
            lengths.append(len(terms))
            of_class = places[length_class(len(terms))]
            packed = place.to_bytes(2, "little")
            for term in terms:
                of_class[term].extend(packed)
            work += 64 + len(terms)
            if work > _SLICE:
                work = 0
                yield
        total += sum(lengths)
        blocks = yield from _blocks(places, lengths)
        rows = []
        ascending = sorted(blocks)
        for row in _rows(zip(ascending, map(blocks.__getitem__, ascending), strict=True)):
            rows.append(row)
            yield
        segments.append(Segment(tuple(rows), pack_lengths(lengths)))
    return Packed(segments, total)


_SLICE = 4096  # terms to be counted, or blocks to be packed, between two yields


def _blocks(
    places: Mapping[int, Mapping[str, bytearray]], lengths: Sequence[int]
) -> Generator[None, None, dict[str, tuple[Part, ...]]]:
    """The blocks of a segment by term. ``places``: by class and term, packed, each as often as the node has the term."""
    blocks: dict[str, tuple[Part, ...]] = {}
    work = 0
    for of_class in sorted(places):
        least = min([length for length in lengths if length_class(length) == of_class])
        for term, packed in places[of_class].items():
            count = len(packed) // 2
            if count == 1:
                block: tuple[Part, ...] = ((least, 1, int.from_bytes(packed, "little")),)
            elif len(set(found := _little_endian(array("H", packed)))) == count:
                block = ((least, 1, bytes(packed)),)
            else:
                block = tuple([(least, frequency, pack_places(group)) for frequency, group in _by_frequency(found)])
            work += 4 + count
            if work > _SLICE:
                work = 0
                yield
            if term in blocks:
                blocks[term] += block
            else:
                blocks[term] = block
    return blocks


def _by_frequency(found: Sequence[int]) -> Sequence[tuple[int, list[int]]]:
    """Places (ascending, repeated as often as the node has the term) by how often they are repeated."""
    groups: dict[int, list[int]] = {}
    last, frequency = found[0], 0
    for place in chain(found, _END):
        if place == last:
            frequency += 1
            continue
        if frequency in groups:
            groups[frequency].append(last)
        else:
            groups[frequency] = [last]
        last, frequency = place, 1
    return sorted(groups.items())


_END = (-1,)  # no place


def _rows(blocks: Iterable[tuple[str, Block | msgspec.Raw]]) -> Iterator[tuple[str, bytes]]:
    """Blocks in order of their terms as rows, each with the name that it lies under; at least one."""
    name = ""
    terms: list[str] = []
    packed: list[Block | msgspec.Raw] = []
    size = 0
    for term, block in blocks:
        more = len(term) + 6
        if not isinstance(block, msgspec.Raw):
            for _, _, group in block:
                more += 4 if isinstance(group, int) else 6 + len(group)
        else:
            more += len(block)
        if terms and size + more > ROW_BYTES:
            yield name, _encode((terms, packed))
            name, terms, packed, size = term, [], [], 0
        terms.append(term)
        packed.append(block)
        size += more
    yield name, _encode((terms, packed))


def recut(rows: Iterable[tuple[str, bytes]], names: Sequence[str]) -> Generator[None, None, dict[str, bytes]]:
    """The rows of a segment cut anew, by name: under these names, the first of which is the empty string, and others where a
    row is too long. One that gets no term is empty. Pauses after each row. Raises Corrupted."""
    cut: list[tuple[list[str], list[msgspec.Raw]]] = [([], []) for _ in names]
    at = 0
    for _, row in rows:
        for term, block in zip(*row_blocks(row), strict=True):
            while at + 1 < len(names) and names[at + 1] <= term:
                at += 1
            cut[at][0].append(term)
            cut[at][1].append(block)
        yield
    found: dict[str, bytes] = {}
    for name, (terms, blocks) in zip(names, cut, strict=True):
        found |= _divided(name, terms, blocks)
    return found


def _divided(name: str, terms: list[str], blocks: Sequence[Block | msgspec.Raw]) -> dict[str, bytes]:
    """A row, or several where it is too long, by name."""
    whole = _encode((terms, blocks))
    if len(whole) <= FULL_ROW_BYTES:
        return {name: whole}
    return {first or name: row for first, row in _rows(zip(terms, blocks, strict=True))}


def pack_places(places: Sequence[int]) -> int | bytes:
    """Places as they lie in a block."""
    return places[0] if len(places) == 1 else _little_endian(array("H", places)).tobytes()


def pack_lengths(lengths: Sequence[int]) -> bytes:
    """The lengths of a segment's nodes."""
    return _little_endian(array("H" if max(lengths, default=0) < 1 << 16 else "I", lengths)).tobytes()


def unpack_lengths(raw: bytes, count: int) -> array[int]:
    """The lengths of ``count`` nodes. Raises Corrupted."""
    for kind in "HI":
        if len(raw) == count * array(kind).itemsize:
            return _little_endian(array(kind, raw))
    raise Corrupted(f"the lengths of {count} nodes take {len(raw)} bytes")


def _little_endian(values: array[int]) -> array[int]:
    if sys.byteorder == "big":
        values.byteswap()
    return values


# --- reading -------------------------------------------------------------------------------------------------------------


def row_blocks(raw: bytes) -> tuple[list[str], list[msgspec.Raw]]:
    """The terms of a row and their blocks, still packed. Raises Corrupted."""
    try:
        terms, blocks = _decode_row(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupted(f"a row of postings can't be decoded: {error}") from error
    if len(terms) != len(blocks):
        raise Corrupted(f"a row of postings has {len(terms)} terms and {len(blocks)} blocks")
    return terms, blocks


def find(raw: bytes, term: str, count: int) -> list[Group]:
    """The groups of a term in the row where it is or would be, of a segment of ``count`` nodes; empty if it is not there.

    Raises Corrupted.
    """
    terms, blocks = row_blocks(raw)
    at = bisect_left(terms, term)
    return groups(blocks[at], count) if at < len(terms) and terms[at] == term else []


def groups(block: msgspec.Raw, count: int) -> list[Group]:
    """What a block of a segment of ``count`` nodes says, by length and frequency. Raises Corrupted.

    Of many places only the last one is looked at, which is the greatest, unless the block is damaged.
    """
    found: list[Group] = []
    last = (0, 0)
    for least, frequency, packed in _unpacked(block):
        places = _places(packed)
        key = length_class(least), frequency
        if least < 1 or frequency < 1 or key <= last or not places or not 0 <= places[-1] < count:
            raise Corrupted("a block of postings says what can't be")
        last = key
        found.append((least, frequency, places))
    return found


EMPTY_ROW = _encode(((), ()))


def _unpacked(block: msgspec.Raw) -> Block:
    try:
        return _decode_block(block)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Corrupted(f"a block of postings can't be decoded: {error}") from error


def _places(packed: int | bytes) -> Places:
    if isinstance(packed, int):
        return (packed,)
    if len(packed) % 2:
        raise Corrupted("a block of postings has half a place")
    return _little_endian(array("H", packed))


def by_node(segments: Sequence[Segment], count: int) -> list[dict[str, int]]:
    """How often each of ``count`` nodes has each of its terms: what the postings of a version say, node by node.

    Everything is read and proved. Raises Corrupted where the postings contradict themselves or the lengths.
    """
    nodes: list[dict[str, int]] = []
    if len(segments) != segment_count(count):
        raise Corrupted(f"{count} nodes have {len(segments)} segments of postings")
    for at, segment in enumerate(segments):
        lengths = list(unpack_lengths(segment.lengths, segment_size(count, at)))
        terms: list[dict[str, int]] = [{} for _ in lengths]
        names = [name for name, _ in segment.rows]
        if names[:1] != [""]:
            raise Corrupted("the first row of a segment is not under the empty string")
        last = ""
        for number, (name, row) in enumerate(segment.rows):
            for term, block in zip(*row_blocks(row), strict=True):
                if term <= last or term < name or (number + 1 < len(names) and term >= names[number + 1]):
                    raise Corrupted(f"the term {term!r} is out of order")
                last = term
                _add_block(terms, lengths, term, groups(block, len(lengths)))
        if any(sum(of_node.values()) != length for of_node, length in zip(terms, lengths, strict=True)):
            raise Corrupted("the lengths of nodes are not the numbers of their terms")
        nodes += terms
    return nodes


def _add_block(terms: list[dict[str, int]], lengths: Sequence[int], term: str, block: list[Group]) -> None:
    for least, frequency, places in block:
        last = -1
        for place in places:
            if not last < place < len(terms) or term in terms[place]:
                raise Corrupted(f"the term {term!r} has a place twice or out of order")
            if lengths[place] < least or length_class(lengths[place]) != length_class(least):
                raise Corrupted(f"the term {term!r} has a node in a wrong group")
            terms[place][term] = frequency
            last = place


# --- amending ------------------------------------------------------------------------------------------------------------


def amended(row_of: Callable[[str], tuple[str, bytes]], change: TermChange) -> dict[str, bytes | None]:
    """The rows of a segment, by name, that a change of one node's terms makes new or takes away (None).

    ``row_of`` finds the row that a term is or would be in: its name and the row. Raises Corrupted.
    """
    place = change.ordinal % SEGMENT_NODES
    old, new = sum(change.before.values()), sum(change.after.values())
    rows: dict[str, dict[str, Block | msgspec.Raw]] = {}
    for term in change.before.keys() | change.after.keys():
        before, after = change.before.get(term, 0), change.after.get(term, 0)
        if before == after and length_class(old) == length_class(new) and old <= new:
            continue
        name, raw = row_of(term)
        if name not in rows:
            rows[name] = dict(zip(*row_blocks(raw), strict=True))
        block = _Changing(rows[name].pop(term, None))
        if before:
            block.remove(old, before, place)
        if after:
            block.add(new, after, place)
        if block.groups:
            rows[name][term] = block.block()
    changed: dict[str, bytes | None] = {}
    for name, blocks in rows.items():
        terms = sorted(blocks)
        changed |= _divided(name, terms, [blocks[term] for term in terms]) if terms or not name else {name: None}
    return changed


class _Changing:
    """A block while it is changed. Only the groups that change are unpacked: those of a common term are long."""

    def __init__(self, block: Block | msgspec.Raw | None) -> None:
        found = _unpacked(block) if isinstance(block, msgspec.Raw) else block or []
        self.groups = {(length_class(least), frequency): (least, packed) for least, frequency, packed in found}

    def remove(self, length: int, frequency: int, place: int) -> None:
        """Take a node away that is so long and has the term so often. Raises Corrupted if it is not there."""
        key = length_class(length), frequency
        least, packed = self.groups.pop(key, (0, b""))
        places = array("H", _places(packed))
        at = bisect_left(places, place)
        if at == len(places) or places[at] != place:
            raise Corrupted(f"the postings of a term lack the node at place {place}")
        del places[at]
        if places:
            self.groups[key] = least, pack_places(places)

    def add(self, length: int, frequency: int, place: int) -> None:
        """Add a node."""
        key = length_class(length), frequency
        least, packed = self.groups.get(key, (length, b""))
        places = array("H", _places(packed))
        places.insert(bisect_left(places, place), place)
        self.groups[key] = min(least, length), pack_places(places)

    def block(self) -> Block:
        """The block as it is then."""
        return [(self.groups[key][0], key[1], self.groups[key][1]) for key in sorted(self.groups)]


def amended_lengths(raw: bytes, count: int, change: TermChange) -> bytes:
    """The lengths of a segment of ``count`` nodes after a change. Raises Corrupted."""
    lengths = list(unpack_lengths(raw, count))
    lengths[change.ordinal % SEGMENT_NODES] = sum(change.after.values())
    return pack_lengths(lengths)
