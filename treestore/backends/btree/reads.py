"""Operations answered from one committed state of the engine.

Finding a policy's versions is what every question begins with, so they are kept decoded, as long as the policy's head (which
every change of the policy rewrites) is the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from treestore.backends.btree.engine import keycode
from treestore.backends.btree.engine.cursor import Cursor
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.keyspace import (
    FAMILIES,
    HEADS,
    LAYOUTS,
    NO_TEXT,
    NODE_IDS,
    NODES,
    PAGE_NUMBERS,
    PAGES,
    TEXTS,
    VERSIONS,
    Family,
    Head,
    Layout,
    PageRow,
    decode,
    decode_node,
    decode_outline,
    number_key,
    page_of,
    primary_key,
    row_prefix,
    row_text_hash,
    two_numbers,
    under,
)
from treestore.catalog import TABLES
from treestore.errors import Corrupted, InvalidInput
from treestore.operations import (
    Ancestors,
    Children,
    Get,
    GetNodes,
    GetVersion,
    InEffect,
    ListDocuments,
    Operation,
    PageTexts,
    Scan,
    Stats,
    Subtree,
    VersionRef,
)
from treestore.records import DocumentSummary, Node, Outline, PageText, StoreStats, Version
from treestore.trees import timeline

T = TypeVar("T", bound=msgspec.Struct)
N = TypeVar("N", Outline, Node)

_KEPT_POLICIES = 1024  # decoded policies; beyond it the one that was read first goes


class Content:
    """One version and the place of its nodes."""

    __slots__ = ("layout", "prefix", "raw", "texts_key", "version")

    def __init__(self, version: Version, raw: bytes, layout: Layout | None, texts_key: int) -> None:
        self.version = version
        self.raw = raw
        self.layout = layout
        self.texts_key = texts_key
        self.prefix = row_prefix(version.policy_id, version.version_id)

    @property
    def place(self) -> Layout:
        """The layout of a version that is not deleted."""
        if self.layout is None:
            raise Corrupted(f"policy {self.version.policy_id!r} version {self.version.version_id!r} has no content")
        return self.layout


class Policy:
    """The versions of one policy at the time of one head, decoded. ``by_start`` are those that are not deleted, in the
    order in which they come into effect (of equal starts the one that wins last), with the moments beside them."""

    def __init__(self, state: State, policy_id: str, head: Head) -> None:
        self.number = head.number
        self.contents: dict[str, Content] = {}
        for _, raw in state.scan(VERSIONS, *keycode.prefix_range((policy_id,))):
            version = decode(Version, raw)
            layout = state.get(LAYOUTS, number_key(head.number, version.version_id.encode()))
            place = None if layout is None else decode(Layout, layout)
            self.contents[version.version_id] = Content(version, raw, place, head.number)
        live = [c for c in self.contents.values() if c.version.deleted_at is None]
        self.by_start = sorted(live, key=lambda c: (_start(c.version), timeline.by_ingestion(c.version)))
        self.starts = [_start(c.version) for c in self.by_start]
        self.newest = max((c.version.ingested_at for c in live), default=None)

    @property
    def versions(self) -> list[Version]:
        """All versions, tombstones too, by version id."""
        return [content.version for content in self.contents.values()]

    def find(self, policy_id: str, ref: VersionRef, *, deleted: bool = False) -> Content:
        """The version that is meant. Raises NotFound."""
        if type(ref) is InEffect and ref.known_at is None:
            at = max(ref.at, self.newest) if ref.or_latest and self.newest else ref.at  # as timeline.moment says
            i = bisect_right(self.starts, at)
            if i:
                return self.by_start[i - 1]
        elif type(ref) is str:
            content = self.contents.get(ref)
            if content is not None and content.version.deleted_at is None:
                return content
        version = timeline.resolve(policy_id, self.versions, ref, deleted=deleted)
        return self.contents[version.version_id]


def _start(version: Version) -> datetime:
    return version.effective_date or version.ingested_at


class Policies:
    """Decoded policies by id. Any thread may use it: an entry counts only together with the head that it was made from."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, Policy]] = {}

    def get(self, state: State, policy_id: str) -> Policy | None:
        """The policy in this state; None if there never was one."""
        raw = state.get(HEADS, policy_id.encode())
        if raw is None:
            return None
        known = self._known.get(policy_id)
        if known is not None and known[0] == raw:
            return known[1]
        policy = Policy(state, policy_id, decode(Head, raw))
        while len(self._known) >= _KEPT_POLICIES:
            self._known.pop(next(iter(self._known), ""), None)
        self._known[policy_id] = raw, policy
        return policy

    def find(self, state: State, policy_id: str, ref: VersionRef, *, deleted: bool = False) -> Content:
        """The version that is meant. Raises NotFound."""
        policy = self.get(state, policy_id)
        if policy is None:
            raise timeline.missing_policy(policy_id)
        return policy.find(policy_id, ref, deleted=deleted)


# --- nodes ---------------------------------------------------------------------------------------------------------------


class Nodes(Generic[N]):
    """Reads nodes of one version, whole or as outlines, by ordinal."""

    __slots__ = ("_content", "_number", "_prefix", "_rows", "_texts")

    def __init__(self, state: State, content: Content, weight: type[N]) -> None:
        self._content = content
        self._number = content.place.content
        self._prefix = content.prefix
        self._rows = state.cursor(NODES)
        self._texts = state.cursor(TEXTS) if weight is Node else None

    def get(self, ordinal: int) -> N:
        """The node at an ordinal, which must be one of the version's."""
        row = self._rows.get(two_numbers(self._number, ordinal))
        if row is None:
            raise Corrupted(f"content {self._number} has no node at ordinal {ordinal}")
        node: Any
        if self._texts is None:
            node = decode_outline(self._prefix, row)
        elif row_text_hash(row) is None:
            node = decode_node(self._prefix, row, NO_TEXT)
        else:
            node = decode_node(self._prefix, row, _text(self._texts, self._content, ordinal))
        found: N = node
        return found

    def walk(self, first: int, last: int, depth: int) -> list[N]:
        """The nodes from ``first`` to ``last`` that are not below ``depth``, skipping what is below a node there."""
        found: list[N] = []
        ordinal = first
        while ordinal <= last:
            node = self.get(ordinal)
            found.append(node)
            ordinal = node.last_ordinal + 1 if node.depth == depth else ordinal + 1
        return found


def _text(texts: Cursor, content: Content, index: int) -> bytes:
    text = texts.get(two_numbers(content.texts_key, content.place.text_number(index)))
    if text is None:
        raise Corrupted(f"a text of policy {content.version.policy_id!r} version {content.version.version_id!r} is missing")
    return text


def _ordinals(state: State, content: Content, node_ids: Sequence[str]) -> list[int]:
    """The ordinals of named nodes, in the order asked. One NotFound names all that are missing."""
    number = content.place.content
    found = [state.get(NODE_IDS, number_key(number, node_id.encode())) for node_id in node_ids]
    missing = [node_id for node_id, raw in zip(node_ids, found, strict=True) if raw is None]
    if missing:
        raise timeline.missing_nodes(content.version, missing)
    return [int.from_bytes(raw, "big") for raw in found if raw is not None]


def _run(state: State, content: Content, weight: type[N], first: int, last: int) -> list[N]:
    """The nodes with ordinals ``first``…``last``, all of them, by one scan of the rows and one of each run of texts."""
    number = content.place.content
    rows = state.scan(NODES, two_numbers(number, first), two_numbers(number, last + 1))
    found: list[Any]
    prefix = content.prefix
    if weight is Node:
        texts = texts_of(state, content, first, last)
        found = [
            decode_node(prefix, row, NO_TEXT if row_text_hash(row) is None else text)
            for (_, row), text in zip(rows, texts, strict=True)
        ]
    else:
        found = [decode_outline(prefix, row) for _, row in rows]
    if len(found) != last - first + 1:
        raise Corrupted(f"content {number} has {len(found)} nodes at ordinals {first} to {last}")
    return found


def texts_of(state: State, content: Content, first: int, last: int) -> Iterator[bytes]:
    """The texts with indexes ``first``…``last`` in MessagePack; NO_TEXT where the number has none."""
    key = content.texts_key
    for run in content.place.texts:
        start, end = max(first, run.first), min(last + 1, run.first + run.length)
        if start >= end:
            continue
        number = run.number + start - run.first
        stop = number + end - start
        for raw_key, text in state.scan(TEXTS, two_numbers(key, number), two_numbers(key, stop)):
            at = int.from_bytes(raw_key[4:], "big")
            while number < at:
                yield NO_TEXT
                number += 1
            yield text
            number += 1
        while number < stop:
            yield NO_TEXT
            number += 1


class Reads:
    """Answers operations; ``policies`` are shared by all states."""

    def __init__(self) -> None:
        self.policies = Policies()
        self._answers: dict[type[Operation[Any]], Callable[[State, Any], Any]] = {
            GetVersion: self.get_version,
            ListDocuments: self.list_documents,
            GetNodes: self.get_nodes,
            Children: self.children,
            Subtree: self.subtree,
            Ancestors: self.ancestors,
            PageTexts: self.page_texts,
            Get: get_record,
            Scan: scan_records,
            Stats: stats,
        }

    def answer(self, state: State, operation: Operation[Any]) -> Any:
        """The answer to one operation at a state. Raises NotFound, InvalidInput, Corrupted, Unavailable."""
        found = self._answers.get(type(operation))
        if found is None:
            raise InvalidInput(f"a snapshot can't answer {type(operation).__name__}; ask the store itself")
        return found(state, operation)

    def get_version(self, state: State, ask: GetVersion) -> Version:
        content = self.policies.find(state, ask.policy_id, ask.version, deleted=ask.deleted)
        version: Version = decode(Version, content.raw)  # a fresh one: its JSON may be changed by the caller
        return version

    def list_documents(self, state: State, ask: ListDocuments) -> list[DocumentSummary]:
        found: list[DocumentSummary] = []
        low = b"" if ask.after is None else ask.after.encode() + b"\0"
        for key, _ in state.scan(HEADS, low, None):
            if len(found) == ask.limit:
                break
            policy_id = key.decode()
            policy = self.policies.get(state, policy_id)
            if policy is not None and policy.by_start:
                content = policy.find(policy_id, InEffect(ask.at, or_latest=True))
                version = decode(Version, content.raw)
                found.append(DocumentSummary(policy_id=policy_id, version=version, version_count=len(policy.by_start)))
        return found

    def get_nodes(self, state: State, ask: GetNodes[N]) -> list[N]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        ordinals = _ordinals(state, content, ask.node_ids)
        nodes = Nodes(state, content, ask.weight)
        return [nodes.get(ordinal) for ordinal in ordinals]

    def children(self, state: State, ask: Children[N]) -> list[N]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        nodes = Nodes(state, content, ask.weight)
        if ask.parent_id is None:
            return nodes.walk(0, content.place.nodes - 1, 0)
        [ordinal] = _ordinals(state, content, [ask.parent_id])
        parent = Nodes(state, content, Outline).get(ordinal)
        return nodes.walk(ordinal + 1, parent.last_ordinal, parent.depth + 1)

    def subtree(self, state: State, ask: Subtree[N]) -> list[N]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        place = content.place
        first, last, depth = 0, place.nodes - 1, 0
        if ask.node_id is not None:
            [first] = _ordinals(state, content, [ask.node_id])
            top = Nodes(state, content, Outline).get(first)
            last, depth = top.last_ordinal, top.depth
        if ask.max_depth is None:
            return _run(state, content, ask.weight, first, last) if last >= first else []
        return Nodes(state, content, ask.weight).walk(first, last, depth + ask.max_depth)

    def ancestors(self, state: State, ask: Ancestors[N]) -> list[N]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        [ordinal] = _ordinals(state, content, [ask.node_id])
        nodes = Nodes(state, content, ask.weight)
        way: list[N] = []
        while ordinal >= 0:
            node = nodes.get(ordinal)
            way.append(node)
            ordinal = node.parent_ordinal
        way.reverse()
        return way

    def page_texts(self, state: State, ask: PageTexts) -> list[PageText]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        place = content.place
        low, high = under(place.content)
        if ask.first is not None:
            low = two_numbers(place.content, max(ask.first, 0))
        if ask.last is not None:
            high = two_numbers(place.content, ask.last + 1)
        positions = sorted(int.from_bytes(raw, "big") for _, raw in state.scan(PAGE_NUMBERS, low, high))
        return [self._page(state, content, position) for position in positions]

    def _page(self, state: State, content: Content, position: int) -> PageText:
        raw = state.get(PAGES, two_numbers(content.place.content, position))
        if raw is None:
            raise Corrupted(f"content {content.place.content} has no page text at position {position}")
        return page_of(decode(PageRow, raw), _text(state.cursor(TEXTS), content, content.place.nodes + position))


# --- plain tables --------------------------------------------------------------------------------------------------------


def family_of(record: type[msgspec.Struct]) -> Family:
    """Where a plain table lies. Raises InvalidInput for a record that has none."""
    family = FAMILIES.get(record)
    if family is None:
        raise InvalidInput(f"{record.__name__} is not the record of a plain table")
    return family


def get_record(state: State, ask: Get[T]) -> T | None:
    """One record of a plain table."""
    raw = state.get(family_of(ask.record).tree, keycode.encode(ask.key))
    found: T | None = None if raw is None else decode(ask.record, raw)
    return found


def scan_records(state: State, ask: Scan[T]) -> list[T]:
    """Records of a plain table in the order of its key or of an index."""
    family = family_of(ask.record)
    tree = family.tree if ask.index is None else family.indexes[ask.index]
    scan = state.scan_back if ask.reverse else state.scan
    found: list[T] = []
    for key, raw in scan(tree, *keycode.prefix_range(ask.prefix)):
        if len(found) == ask.limit:
            break
        if ask.index is not None:
            stored = state.get(family.tree, primary_key(TABLES[ask.record], ask.index, key))
            if stored is None:
                raise Corrupted(f"{TABLES[ask.record].name}: index {ask.index} names a record that is not there")
            raw = stored
        found.append(decode(ask.record, raw))
    return found


# --- counts --------------------------------------------------------------------------------------------------------------


def stats(state: State, ask: Stats) -> StoreStats:
    """Counts of what is in the store at a state; ``backend`` and the size are the store's to add."""
    documents = 0
    low = b""
    for key, _ in state.scan(LAYOUTS, low, None):
        if key[:4] != low:
            documents += 1
            low = key[:4]
    versions = state.count(LAYOUTS)
    tombstones = state.count(VERSIONS) - versions
    return StoreStats(
        documents=documents,
        versions=versions,
        nodes=state.count(NODES),
        size_bytes=0,
        backend={"kind": "btree", "tombstones": tombstones, "texts": state.count(TEXTS), "page_texts": state.count(PAGES)},
    )
