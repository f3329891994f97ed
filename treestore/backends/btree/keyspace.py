"""Every tree of the native store: what its keys and values are. All that lies in a store can be found from this page.

    COUNTERS      name                               -> numbers of 8 bytes: the next policy or content number;
                                                        the generation of group ids and when it began, in seconds;
                                                        how many versions have postings of an analyzer
    VERSIONS      (policy id, version id)            -> Version
    BY_INGESTION  (policy id, ingested at, version id) -> empty
    HEADS         policy id                          -> Head: the policy's number, its next text and row, its changes
    LAYOUTS       (policy number, version id)        -> Layout: the places of all that a version has
    NODES         (policy number, row number)        -> a node's row: its fields but policy, version and text
    NODE_IDS      (content number, node id)          -> ordinal
    TEXTS         (policy number, text number)       -> a text, of a node or a page
    PAGES         (content number, position)         -> PageRow: a page text but its content
    PAGE_NUMBERS  (content number, page)             -> position
    GROUPS        (generation, group id)             -> empty: the groups applied of late
    POSTINGS      (content number, segment, term)    -> the row of postings that begins with the term, see
                                                        treestore.search.postings
    LENGTHS       (content number, segment)          -> the number of terms of each node of the segment
    INTERVALS     (content number, depth, index)     -> a row of the page ranges, see treestore.trees.intervals

A *content* is the tree that one store call wrote; replacing a version makes a new one. Versions of a policy share what is
equal; a layout says where all that a version has lies, and what no layout of the policy names any more is deleted.

- Rows and texts have numbers of their own: a layout maps a version's indexes to them, in runs (:mod:`.runs`). A row's index
  is its ordinal, a text's too, and a page's is the number of nodes plus its position.
- Node ids, page texts and page intervals are *parts* (:data:`PART_TREES`), each shared as a whole, by its content number.
- Postings lie under several content numbers, of which the first count most (:mod:`.layers`).

Keys of numbers are big-endian, 4 bytes each; tuples of others are encoded by :mod:`.engine.keycode`. Values are
MessagePack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, NamedTuple, cast

import msgspec
from msgspec.structs import astuple

from treestore.backends.btree.engine import keycode
from treestore.backends.btree.runs import Runs
from treestore.catalog import Table
from treestore.errors import Corrupted
from treestore.records import Node, Outline, PageText, Version

COUNTERS, VERSIONS, BY_INGESTION, HEADS, LAYOUTS, NODES, NODE_IDS, TEXTS, PAGES, PAGE_NUMBERS, GROUPS = range(1, 12)
POSTINGS, LENGTHS, INTERVALS = range(12, 15)
TREES = {
    COUNTERS: "counters",
    VERSIONS: "versions",
    BY_INGESTION: "versions by ingestion",
    HEADS: "heads",
    LAYOUTS: "layouts",
    NODES: "nodes",
    NODE_IDS: "node ids",
    TEXTS: "texts",
    PAGES: "pages",
    PAGE_NUMBERS: "page numbers",
    GROUPS: "groups",
    POSTINGS: "postings",
    LENGTHS: "lengths of nodes",
    INTERVALS: "page intervals",
}
MAX_NUMBER = 2**32 - 1

NEXT_POLICY, NEXT_CONTENT, GENERATION = b"policy", b"content", b"generation"
ANALYZER = b"analyzer "
"""Begins the name of the counter of versions that an analyzer made the postings of; its version follows."""

two_numbers = Struct(">II").pack
"""The key of two numbers, such as (content number, ordinal)."""

one_number = Struct(">I").pack
"""A number as a value."""

_segment_key = Struct(">IH").pack


def posting_key(content: int, segment: int, term: str) -> bytes:
    """The key of a row of postings: content number, segment, the first term in UTF-8."""
    return _segment_key(content, segment) + term.encode()


interval_key = Struct(">IBI").pack
"""The key of a row of page intervals: content number, depth, index."""


def number_key(number: int, tail: bytes = b"") -> bytes:
    """The key of a number and what follows it."""
    return number.to_bytes(4, "big") + tail


def under(number: int) -> tuple[bytes, bytes | None]:
    """The range of all keys that begin with a number: low inclusive, high exclusive (None: no end)."""
    return number_key(number), number_key(number + 1) if number < MAX_NUMBER else None


# --- plain tables --------------------------------------------------------------------------------------------------------


class Family(NamedTuple):
    """Where the records of a plain table and the entries of its indexes lie."""

    tree: int
    indexes: dict[str, int]


FAMILIES: dict[type[msgspec.Struct], Family] = {Version: Family(VERSIONS, {"ingested": BY_INGESTION})}


def index_fields(table: Table, name: str) -> tuple[str, ...]:
    """The fields of an index's key: its own and those of the primary key that are not among them."""
    own = table.indexes[name]
    return own + tuple(column for column in table.key if column not in own)


def index_key(table: Table, name: str, record: msgspec.Struct) -> bytes:
    """The key of a record's entry in an index."""
    return keycode.encode(tuple(getattr(record, column) for column in index_fields(table, name)))


def primary_key(table: Table, name: str, entry: bytes) -> bytes:
    """The primary key, encoded, of the record that an index entry is about."""
    values = dict(zip(index_fields(table, name), keycode.decode(entry), strict=True))
    return keycode.encode(tuple(values[column] for column in table.key))


# --- values --------------------------------------------------------------------------------------------------------------


class Head(msgspec.Struct, frozen=True, array_like=True):
    """A policy: its number in keys, the next text number, the next row number and how many groups have changed anything of
    it."""

    number: int
    next_text: int = 0
    next_row: int = 0
    changes: int = 0


class Parts(NamedTuple):
    """The content numbers under which the parts of a version lie that are shared as a whole: its node ids, its page texts and
    its page intervals."""

    node_ids: int
    page_texts: int
    intervals: int


PART_TREES = ((NODE_IDS,), (PAGES, PAGE_NUMBERS), (INTERVALS,))
"""The trees of each of the :class:`Parts`, in their order."""


class Layout(msgspec.Struct, frozen=True, array_like=True):
    """Where a version's content lies. ``content`` is its own number, ``texts`` and ``rows`` say under which numbers of the
    policy its texts and rows lie, ``parts`` and ``postings`` under which content numbers the rest (:mod:`.layers`). An index
    whose node has no text has a number all the same, under which nothing lies."""

    content: int
    nodes: int
    pages: int
    texts: Runs
    rows: Runs
    parts: Parts
    postings: tuple[int, ...]


class PageRow(msgspec.Struct, frozen=True, array_like=True):
    """A page text but its content; ``content_hash`` is the content's SHA-256."""

    page: int
    content_hash: bytes
    extra: dict[str, Any] | None = None


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
_kinds: list[type[msgspec.Struct]] = [Head, Layout, PageRow, *FAMILIES]
_decoders: dict[type[msgspec.Struct], msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in _kinds
}
"""Made at import: msgspec prepares a type at the first use, and two threads must not do that at once."""


def decode(kind: type[msgspec.Struct], raw: bytes) -> Any:
    """A record or value from its bytes. Raises Corrupted."""
    try:
        return _decoders[kind].decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupted(f"a stored {kind.__name__} can't be decoded: {error}") from error


# --- rows of nodes -------------------------------------------------------------------------------------------------------
# A node is stored as the MessagePack array that msgspec makes of it, without the array's header and its first two fields
# (policy and version), which are put in front again for reading, and without its last one (the text), which lies apart. So
# one decoding makes an Outline of header and row, or a Node of header, row and text.

NO_TEXT = b"\xc0"
_HEADER = 3  # bytes of an array's header for 16 to 65,535 fields
_HASH_MARK = b"\xc4\x20"  # in front of 32 bytes

_decode_text = msgspec.msgpack.Decoder(str).decode
_decode_outline = msgspec.msgpack.Decoder(Outline).decode
_decode_node = msgspec.msgpack.Decoder(Node).decode
_decode_outlines = msgspec.msgpack.Decoder(list[Outline]).decode
_decode_nodes = msgspec.msgpack.Decoder(list[Node]).decode


class Prefix(NamedTuple):
    """What is put in front of a version's rows: for outlines, for whole nodes."""

    outline: bytes
    node: bytes


def row_prefix(policy_id: str, version_id: str) -> Prefix:
    """The beginning of the array of each node of a version."""
    names = encode(policy_id) + encode(version_id)
    outline, node = len(Outline.__struct_fields__), len(Node.__struct_fields__)
    return Prefix(b"\xdc" + outline.to_bytes(2, "big") + names, b"\xdc" + node.to_bytes(2, "big") + names)


def encode_row(node: Node) -> bytes:
    """A node's row."""
    return encode(astuple(node)[2:-1])[_HEADER:]


def decode_outline(prefix: Prefix, row: bytes) -> Outline:
    """A node without its text. Raises Corrupted."""
    try:
        return _decode_outline(prefix.outline + row)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupted(f"a stored node can't be decoded: {error}") from error


def decode_node(prefix: Prefix, row: bytes, text: bytes) -> Node:
    """A whole node. Raises Corrupted."""
    try:
        return _decode_node(b"".join((prefix.node, row, text)))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupted(f"a stored node can't be decoded: {error}") from error


def decode_outlines(prefix: Prefix, rows: Sequence[bytes]) -> list[Outline]:
    """Nodes without their texts, at once, which takes less time for each. Raises Corrupted."""
    parts = [prefix.outline] * (2 * len(rows))
    parts[1::2] = rows
    return cast(list[Outline], _decoded(_decode_outlines, parts, len(rows)))


def decode_nodes(prefix: Prefix, rows: Sequence[bytes], texts: Sequence[bytes]) -> list[Node]:
    """Whole nodes, at once; rows and as many texts. The text of a row that names none does not count. Raises Corrupted."""
    if not all(map(has_text, rows)):
        texts = [text if has_text(row) else NO_TEXT for row, text in zip(rows, texts, strict=True)]
    parts = [prefix.node] * (3 * len(rows))
    parts[1::3] = rows
    parts[2::3] = texts
    return cast(list[Node], _decoded(_decode_nodes, parts, len(rows)))


def _decoded(decoder: Callable[[bytes], list[Any]], parts: list[bytes], count: int) -> list[Any]:
    try:
        return decoder(b"".join((b"\xdd", count.to_bytes(4, "big"), *parts)))  # the header of an array
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupted(f"a stored node can't be decoded: {error}") from error


def has_text(row: bytes) -> bool:
    """Whether a row has a ``text_hash``, its last field, which says that its node has a text."""
    return row[-34:-32] == _HASH_MARK


def row_text_hash(row: bytes) -> bytes | None:
    """The ``text_hash`` of a row, which is its last field, without decoding the others."""
    return row[-32:] if has_text(row) else None


def row_tree_hash(row: bytes) -> bytes:
    """The ``tree_hash`` of a row, which is its last field but one."""
    return row[-66:-34] if has_text(row) else row[-33:-1]


def decode_text(raw: bytes) -> str:
    """A text. Raises Corrupted."""
    try:
        return _decode_text(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupted(f"a stored text can't be decoded: {error}") from error


def page_of(row: PageRow, content: bytes) -> PageText:
    """A page text from its row and its content in MessagePack. Raises Corrupted."""
    try:
        return PageText(page=row.page, content=_decode_text(content), extra=row.extra)
    except msgspec.MsgspecError as error:
        raise Corrupted(f"the stored text of page {row.page} can't be decoded: {error}") from error
