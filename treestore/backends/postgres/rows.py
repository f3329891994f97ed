"""Records as rows of the relational tables, and back.

A row's values stand in the order of the record's fields. JSON is text, times are without a zone and in UTC. ``None`` in a
column that a record's field can't be (rows that other programs wrote lack ours) leaves the field's default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar, get_type_hints
from zlib import crc32

import msgspec

from treestore import catalog
from treestore.backends.postgres.tables import TITLES_LENGTH
from treestore.errors import Corrupted
from treestore.records import Fact, Node, Outline, PageText, Version
from treestore.trees import timeline

T = TypeVar("T", bound=msgspec.Struct)
N = TypeVar("N", Outline, Node)
Row = Sequence[Any]

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)

_encode_json = msgspec.json.Encoder().encode


def naive(moment: datetime) -> datetime:
    """A moment in UTC, without its zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def _as_json(value: Any) -> str:
    return _encode_json(value).decode()


class _Codec:
    """How the fields of a record that are no plain values become those of its columns, and back."""

    def __init__(self, table: catalog.Table, record: type[msgspec.Struct]) -> None:
        hints = get_type_hints(record)
        self.names = tuple(table.columns[name].name for name in record.__struct_fields__)
        self.out: list[tuple[int, Callable[[Any], Any]]] = []
        self.into: list[tuple[int, Callable[[Any], Any]]] = []
        for at, name in enumerate(record.__struct_fields__):
            kind = table.columns[name].kind
            if kind == "json":
                self.out.append((at, msgspec.json.Decoder(hints[name]).decode))
                self.into.append((at, _as_json))
            elif kind == "time":
                self.out.append((at, _aware))
                self.into.append((at, naive))
            elif kind == "bytes" and hints[name] is str:
                self.out.append((at, bytes.decode))
                self.into.append((at, str.encode))

    def decoded(self, row: Row) -> list[Any]:
        """The values of the fields. Raises Corrupted."""
        values = list(row)
        try:
            for at, decode in self.out:
                if values[at] is not None:
                    values[at] = decode(values[at])
        except (ValueError, RecursionError) as error:
            raise Corrupted(f"a stored value of {self.names[at]} can't be decoded: {error}") from error
        return values

    def encoded(self, record: msgspec.Struct) -> list[Any]:
        """The values of the columns."""
        values = list(msgspec.structs.astuple(record))
        for at, encode in self.into:
            if values[at] is not None:
                values[at] = encode(values[at])
        return values


_CODECS: dict[type[msgspec.Struct], _Codec] = {
    **{record: _Codec(table, record) for record, table in catalog.TABLES.items()},
    Outline: _Codec(catalog.NODES, Outline),
}
"""Made at import, as msgspec prepares a type at its first use, and two threads must not do that at once."""

_LISTS: dict[type[msgspec.Struct], Any] = {Outline: list[Outline], Node: list[Node]}
_UPDATED_AT = Node.__struct_fields__.index("updated_at")
_special = itemgetter(*[at for at, _ in _CODECS[Outline].out])
_NOTHING = (None,) * len(_CODECS[Outline].out)
"""Most nodes have nothing in the columns that are to be decoded; to find out by what runs in C costs next to nothing."""
for _list in _LISTS.values():
    msgspec.convert([], _list)


# --- out of the store ----------------------------------------------------------------------------------------------------


def nodes(rows: Iterable[Row], weight: type[N]) -> list[N]:
    """Nodes, in the order of their rows. Raises Corrupted."""
    plain: list[Row] = list(map(tuple, rows))
    if not {_NOTHING}.issuperset(map(_special, plain)):
        decoded = _CODECS[weight].decoded
        plain = [row if _special(row) == _NOTHING else decoded(row) for row in plain]
    try:
        found: list[N] = msgspec.convert(plain, _LISTS[weight])
    except msgspec.ValidationError as error:
        raise Corrupted(f"a stored node is not one: {error}") from error
    return found


def record(row: Row, kind: type[T]) -> T:
    """A record of a plain table, or a page text. Raises Corrupted."""
    values = zip(kind.__struct_fields__, _CODECS[kind].decoded(row), strict=False)
    try:
        return kind(**{name: value for name, value in values if value is not None})
    except TypeError as error:
        raise Corrupted(f"a stored {kind.__name__} is not one: {error}") from error


def given(row: Row) -> dict[str, Any]:
    """The fields of a node, whoever wrote its row; None where it lacks something. Raises Corrupted."""
    return dict(zip(Node.__struct_fields__, _CODECS[Node].decoded(row), strict=True))


class Fingerprint(NamedTuple):
    """What tells whether the nodes of a version are as they were: their number, their greatest id, and the sum of hashes of
    their ``updated_at``."""

    number: int | None
    newest_id: int | None
    updates: int | None


class Found(NamedTuple):
    """A version of tables that others write too: the record as far as its row tells; what its nodes were when what is ours
    was derived of them, and what they are ``now``; why they form no tree, if it was found so then."""

    version: Version
    was: Fingerprint
    now: Fingerprint
    broken: str | None
    searchable: bool
    revision: int
    """The row's own, which only treestore counts up."""

    @property
    def known(self) -> bool:
        """Whether the nodes are as they were."""
        return self.was == self.now

    @property
    def fits(self) -> bool:
        """Whether all that is ours of the version is that of its nodes."""
        return self.known and self.broken is None


_AT = {name: at for at, name in enumerate(Version.__struct_fields__)}
_TOKENS = 1 << 30


def found_version(row: Row) -> Found:
    """A version from its row with what its nodes were and are now (:func:`.sql.versions.with_fingerprint`).

    What the reasoning-service's code does not write is made up for: a tombstone that has nodes again is none, an ingestion
    or an effective date that no fact tells of is one. Where its nodes or its row are not as treestore left them ``revision``
    is another one too, so that nobody writes what was decided before. Raises Corrupted.
    """
    end = len(_AT)
    values, (*was, broken, row_was, row_now), now = list(row[:end]), row[end : end + 6], Fingerprint(*row[end + 6 : end + 9])
    searchable = values[_AT["analyzer"]] != ""
    if now.number and values[_AT["deleted_at"]] is not None:
        values[_AT["deleted_at"]], searchable = None, True
    if values[_AT["updated_at"]] is None:
        values[_AT["updated_at"]] = max(values[_AT["created_at"]], values[_AT["ingested_at"]])
    version = record(values, Version)
    changed: dict[str, Any] = {"facts": _facts(version)}
    found = Found(version, Fingerprint(*was), now, broken, searchable, version.revision)
    if not found.known or row_was != row_now:
        changed["revision"] = _TOKENS | crc32(repr((version.revision, now, row_now)).encode()) >> 2
    return found._replace(version=msgspec.structs.replace(version, **changed))


def _facts(version: Version) -> tuple[Fact, ...]:
    """A version's facts, with those that its row tells besides."""
    if version.deleted_at is not None:
        return version.facts
    facts = list(version.facts)
    if not facts:
        facts.append(Fact(recorded_at=min(version.created_at, version.ingested_at), kind="ingested"))
    told = timeline.known(msgspec.structs.replace(version, facts=tuple(facts)), _END_OF_TIME)
    if told is None or told.ingested_at != version.ingested_at:
        facts.append(Fact(recorded_at=version.ingested_at, kind="ingested"))
    if (told and told.effective_date) != version.effective_date:
        recorded = version.ingested_at if version.facts else facts[0].recorded_at
        facts.append(Fact(recorded_at=recorded, kind="effective", effective_date=version.effective_date))
    return tuple(facts)


# --- into the store ------------------------------------------------------------------------------------------------------


def columns(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The names of a record's columns, in the order of its fields."""
    return _CODECS[kind].names


def values(one: msgspec.Struct) -> dict[str, Any]:
    """A record's values by the names of their columns."""
    codec = _CODECS[type(one)]
    return dict(zip(codec.names, codec.encoded(one), strict=True))


NODE_COLUMNS = (*_CODECS[Node].names, "content_hash", "updated_at", "section_path")
"""The columns of a row of :func:`node_rows`."""


def node_rows(nodes: Iterable[Node], stamp: datetime) -> Iterator[Row]:
    """Rows of a version's nodes, which are in document order, with the columns that the reasoning-service's code reads.

    ``stamp`` is the moment of writing for nodes that were never amended.
    """
    above: list[str] = []
    moment = naive(stamp)
    for node in nodes:
        del above[node.depth :]
        above.append(titles(above[-1] if above else None, node.title))
        yield (*node_row(node, moment), above[-1])


def node_row(node: Node, moment: datetime) -> Row:
    """A node's row without its path of titles. ``moment``: that of writing, in UTC without a zone."""
    row: Row = msgspec.structs.astuple(node)
    if _special(row) != _NOTHING:
        row = _CODECS[Node].encoded(node)
    return (*row, content_hash(node), row[_UPDATED_AT] or moment)


def titles(above: str | None, title: str) -> str:
    """A node's path of titles, from that of the node above it; None for a root."""
    return (title if above is None else f"{above} > {title}")[:TITLES_LENGTH]


def content_hash(node: Node) -> str:
    """What the reasoning-service keeps as ``content_hash``: SHA-256 of text, or else summary, or else title, in hex."""
    if node.text and node.text_hash is not None:
        return node.text_hash.hex()
    return sha256((node.text or node.summary or node.title).encode()).hexdigest()


PAGE_COLUMNS = ("policy_id", "version_id", "position", *_CODECS[PageText].names)


def page_rows(policy_id: str, version_id: str, pages: Iterable[PageText]) -> Iterator[Row]:
    """Rows of a version's page texts, in the order given."""
    for position, page in enumerate(pages):
        yield (policy_id, version_id, position, *_CODECS[PageText].encoded(page))
