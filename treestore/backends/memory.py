"""The store in memory: the readable reference, which every other store must equal.

All that it holds is one :class:`_State` that is never changed once it can be seen. A write group makes the next state
beside it and puts that in its place as its last step: so a group is atomic, a reader needs no lock, and a snapshot is
nothing but a state that is kept. Nothing outlives the process.

Records are immutable, but the JSON inside them is not. Records are copied on the way in and on the way out where they hold
any, so that nobody outside can change what is stored.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from treestore.catalog import TABLES, Table
from treestore.config import Settings
from treestore.errors import Closed, Conflict, InvalidInput, Unavailable
from treestore.operations import (
    AmendNodes,
    Ancestors,
    Applied,
    Backup,
    Check,
    Children,
    Compact,
    Delete,
    DeleteRange,
    DropVersion,
    Get,
    GetNodes,
    GetVersion,
    InEffect,
    ListDocuments,
    Operation,
    PageTexts,
    Put,
    ReplaceVersion,
    Scan,
    Stats,
    Subtree,
    VersionRef,
    Write,
    WriteGroup,
    unmet,
)
from treestore.records import CheckReport, DocumentSummary, Node, Outline, PageText, StoreStats, Version
from treestore.trees import soundness, timeline

R = TypeVar("R")
T = TypeVar("T", bound=msgspec.Struct)
N = TypeVar("N", Outline, Node)
Key = tuple[Any, ...]

GROUP_IDS_KEPT_SECONDS = 3600.0
"""So long the id of an applied group is remembered, as :class:`~treestore.operations.WriteGroup` promises."""


class _Rows:
    """The records of one plain table, by primary key; and in order: the keys, and each index's entries.

    An index entry is the index's fields followed by the primary key.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.records: dict[Key, Any] = {}
        self.keys: list[Key] = []
        self.indexes: dict[str, list[Key]] = {name: [] for name in table.indexes}

    def copy(self) -> _Rows:
        """The same rows, to be changed apart from these."""
        other = _Rows(self.table)
        other.records = dict(self.records)
        other.keys = list(self.keys)
        other.indexes = {name: list(entries) for name, entries in self.indexes.items()}
        return other

    def put(self, record: msgspec.Struct) -> None:
        key = self.table.key_of(record)
        self.delete(key)
        self.records[key] = _detached(record)
        insort(self.keys, key)
        for name, entries in self.indexes.items():
            insort(entries, self._entry(name, record))

    def delete(self, key: Key) -> None:
        record = self.records.pop(key, None)
        if record is not None:
            self.keys.remove(key)
            for name, entries in self.indexes.items():
                entries.remove(self._entry(name, record))

    def under(self, prefix: Key) -> list[Key]:
        """The primary keys that begin with ``prefix``, in order."""
        return _beginning_with(prefix, self.keys)

    def under_index(self, name: str, prefix: Key) -> list[Key]:
        """The primary keys whose entry in an index begins with ``prefix``, in the order of the index."""
        return [entry[-len(self.table.key) :] for entry in _beginning_with(prefix, self.indexes[name])]

    def _entry(self, name: str, record: msgspec.Struct) -> Key:
        return tuple(getattr(record, column) for column in self.table.indexes[name]) + self.table.key_of(record)

    def problems(self) -> list[str]:
        """What is wrong with the order of the keys or with the indexes, one line each."""
        found = []
        if self.keys != sorted(self.records):
            found.append(f"{self.table.name}: the keys in order are not those of the records")
        for name, entries in self.indexes.items():
            if entries != sorted(self._entry(name, record) for record in self.records.values()):
                found.append(f"{self.table.name}: index {name} does not have one entry for each record")
        return found


def _beginning_with(prefix: Key, ordered: list[Key]) -> list[Key]:
    """The tuples that begin with ``prefix`` in a list of tuples in order: they stand together."""
    first = last = bisect_left(ordered, prefix)
    while last < len(ordered) and ordered[last][: len(prefix)] == prefix:
        last += 1
    return ordered[first:last]


class _Content:
    """The nodes of one version in document order, and its page texts in the order given."""

    def __init__(self, nodes: Sequence[Node], pages: Sequence[PageText]) -> None:
        self.nodes = nodes
        self.pages = pages

    @cached_property
    def outlines(self) -> list[Outline]:
        return [Outline(**{name: getattr(node, name) for name in Outline.__struct_fields__}) for node in self.nodes]

    @cached_property
    def ordinal_of(self) -> dict[str, int]:
        return {node.node_id: ordinal for ordinal, node in enumerate(self.nodes)}

    def in_weight(self, weight: type[N]) -> Sequence[N]:
        """The nodes, whole or without their texts. They are as stored: copy those that leave the store."""
        found: Any = self.nodes if weight is Node else self.outlines
        chosen: Sequence[N] = found
        return chosen


class _State:
    """All that the store holds at one moment."""

    def __init__(self, rows: dict[type[msgspec.Struct], _Rows], contents: dict[tuple[str, str], _Content]) -> None:
        self.rows = rows
        self.contents = contents

    @classmethod
    def empty(cls) -> _State:
        return cls({record: _Rows(table) for record, table in TABLES.items() if record not in (Node, PageText)}, {})

    def copy(self) -> _State:
        return _State({record: rows.copy() for record, rows in self.rows.items()}, dict(self.contents))

    def plain(self, record: type[msgspec.Struct]) -> _Rows:
        """The rows of a plain table. Raises InvalidInput for a record that has none."""
        if record not in self.rows:
            raise InvalidInput(f"{record.__name__} is not the record of a plain table")
        return self.rows[record]

    def record(self, record: type[msgspec.Struct], key: Key) -> msgspec.Struct | None:
        """One record of a plain table by its primary key, as stored."""
        return self.plain(record).records.get(key)

    def versions_of(self, policy_id: str) -> list[Version]:
        """All versions of a policy, tombstones too, by version id."""
        rows = self.rows[Version]
        return [rows.records[key] for key in rows.under((policy_id,))]

    def find(self, policy_id: str, ref: VersionRef) -> tuple[Version, _Content]:
        """The version that is meant, and what it holds. Raises NotFound."""
        version = timeline.resolve(policy_id, self.versions_of(policy_id), ref)
        return version, self.contents[policy_id, version.version_id]


def _detached(record: T) -> T:
    """The record with JSON of its own, or itself where it holds none."""
    changed = {
        name: _decode_json(_encode_json(getattr(record, name)))
        for name in ("metadata", "extra")
        if getattr(record, name, None) is not None
    }
    if isinstance(record, Version) and record.pageindex is not None:
        fields = _decode_json(_encode_json(record.pageindex.fields))
        changed["pageindex"] = msgspec.structs.replace(record.pageindex, fields=fields)
    return msgspec.structs.replace(record, **changed) if changed else record


_encode_json = msgspec.msgpack.Encoder().encode
_decode_json = msgspec.msgpack.Decoder().decode


# --- reads ---------------------------------------------------------------------------------------------------------------


def _get_version(state: _State, ask: GetVersion) -> Version:
    versions = state.versions_of(ask.policy_id)
    return _detached(timeline.resolve(ask.policy_id, versions, ask.version, deleted=ask.deleted))


def _list_documents(state: _State, ask: ListDocuments) -> list[DocumentSummary]:
    summaries: list[DocumentSummary] = []
    for policy_id in sorted({policy_id for policy_id, _ in state.contents}):
        if len(summaries) == ask.limit:
            break
        if ask.after is None or policy_id > ask.after:
            versions = state.versions_of(policy_id)
            version = timeline.resolve(policy_id, versions, InEffect(ask.at, or_latest=True))
            count = sum(version.deleted_at is None for version in versions)
            summaries.append(DocumentSummary(policy_id=policy_id, version=_detached(version), version_count=count))
    return summaries


def _get_nodes(state: _State, ask: GetNodes[N]) -> list[N]:
    version, content = state.find(ask.policy_id, ask.version)
    missing = [node_id for node_id in ask.node_ids if node_id not in content.ordinal_of]
    if missing:
        raise timeline.missing_nodes(version, missing)
    nodes = content.in_weight(ask.weight)
    return [_detached(nodes[content.ordinal_of[node_id]]) for node_id in ask.node_ids]


def _children(state: _State, ask: Children[N]) -> list[N]:
    version, content = state.find(ask.policy_id, ask.version)
    parent = -1 if ask.parent_id is None else _ordinal(version, content, ask.parent_id)
    return [_detached(node) for node in content.in_weight(ask.weight) if node.parent_ordinal == parent]


def _subtree(state: _State, ask: Subtree[N]) -> list[N]:
    version, content = state.find(ask.policy_id, ask.version)
    nodes = content.in_weight(ask.weight)
    depth = 0
    if ask.node_id is not None:
        top = nodes[_ordinal(version, content, ask.node_id)]
        nodes, depth = nodes[top.ordinal : top.last_ordinal + 1], top.depth
    return [_detached(node) for node in nodes if ask.max_depth is None or node.depth - depth <= ask.max_depth]


def _ancestors(state: _State, ask: Ancestors[N]) -> list[N]:
    version, content = state.find(ask.policy_id, ask.version)
    nodes = content.in_weight(ask.weight)
    way = [nodes[_ordinal(version, content, ask.node_id)]]
    while way[-1].parent_ordinal >= 0:
        way.append(nodes[way[-1].parent_ordinal])
    return [_detached(node) for node in reversed(way)]


def _ordinal(version: Version, content: _Content, node_id: str) -> int:
    if node_id not in content.ordinal_of:
        raise timeline.missing_nodes(version, [node_id])
    return content.ordinal_of[node_id]


def _page_texts(state: _State, ask: PageTexts) -> list[PageText]:
    _, content = state.find(ask.policy_id, ask.version)
    return [
        _detached(page)
        for page in content.pages
        if (ask.first is None or page.page >= ask.first) and (ask.last is None or page.page <= ask.last)
    ]


def _get(state: _State, ask: Get[T]) -> T | None:
    record: T | None = state.plain(ask.record).records.get(ask.key)
    return None if record is None else _detached(record)


def _scan(state: _State, ask: Scan[T]) -> list[T]:
    rows = state.plain(ask.record)
    keys = rows.under(ask.prefix) if ask.index is None else rows.under_index(ask.index, ask.prefix)
    ordered = keys[::-1] if ask.reverse else keys
    return [_detached(rows.records[key]) for key in ordered[: ask.limit]]


def _stats(state: _State) -> StoreStats:
    return StoreStats(
        documents=len({policy_id for policy_id, _ in state.contents}),
        versions=len(state.contents),
        nodes=sum(len(content.nodes) for content in state.contents.values()),
        size_bytes=0,
        backend={"kind": "memory", "tombstones": len(state.rows[Version].records) - len(state.contents)},
    )


def _check(state: _State) -> CheckReport:
    problems = [problem for rows in state.rows.values() for problem in rows.problems()]
    counts = {"versions": len(state.rows[Version].records), "nodes": 0, "pages": 0}
    for key, version in state.rows[Version].records.items():
        content = state.contents.get(key)
        if content is None:
            problems += soundness.problems(version, None, None)
        else:
            problems += soundness.problems(version, content.nodes, content.pages)
            counts["nodes"] += len(content.nodes)
            counts["pages"] += len(content.pages)
    strays = state.contents.keys() - state.rows[Version].records.keys()
    problems += [f"policy {policy!r} version {version!r}: nodes without a version" for policy, version in sorted(strays)]
    return CheckReport(ok=not problems, problems=problems, counts=counts)


def _refuse_backup() -> int:
    raise Unavailable("a memory store has no folder to back up; its documents can be exported")


_READS: dict[type[Operation[Any]], Callable[[_State, Any], Any]] = {
    GetVersion: _get_version,
    ListDocuments: _list_documents,
    GetNodes: _get_nodes,
    Children: _children,
    Subtree: _subtree,
    Ancestors: _ancestors,
    PageTexts: _page_texts,
    Get: _get,
    Scan: _scan,
    Stats: lambda state, _: _stats(state),
    Check: lambda state, _: _check(state),
    Backup: lambda _state, _: _refuse_backup(),
    Compact: lambda _state, _: 0,
}


# --- writes --------------------------------------------------------------------------------------------------------------


def _apply(state: _State, write: Write) -> None:
    """Change a state that nobody else sees yet."""
    match write:
        case Put(record):
            state.plain(type(record)).put(record)
        case Delete(record, key):
            state.plain(record).delete(key)
            state.contents.pop(key, None) if record is Version else None
        case DeleteRange(record, prefix):
            for key in state.plain(record).under(prefix):
                _apply(state, Delete(record, key))
        case ReplaceVersion(version, nodes, pages):
            state.rows[Version].put(version)
            content = _Content([_detached(node) for node in nodes], [_detached(page) for page in pages])
            state.contents[version.policy_id, version.version_id] = content
        case AmendNodes(version, nodes):
            content = _content_of(state, version)
            amended = list(content.nodes)
            for node in nodes:
                if not 0 <= node.ordinal < len(amended) or amended[node.ordinal].node_id != node.node_id:
                    raise InvalidInput("there is no such node at this ordinal", field="ordinal", node=node.node_id)
                amended[node.ordinal] = _detached(node)
            state.rows[Version].put(version)
            state.contents[version.policy_id, version.version_id] = _Content(amended, content.pages)
        case DropVersion(version):
            _content_of(state, version)
            state.rows[Version].put(version)
            del state.contents[version.policy_id, version.version_id]


def _content_of(state: _State, version: Version) -> _Content:
    """What the version of this name holds now. Raises NotFound."""
    return state.find(version.policy_id, version.version_id)[1]


class _MemoryReader(ABC):
    """Both faces of a reader over the state that ``_current`` gives."""

    @abstractmethod
    def _current(self) -> _State:
        """The state to be read. Raises Closed."""

    def read_one_now(self, operation: Operation[R]) -> R:
        """Answer one operation."""
        answer: R = _READS[type(operation)](self._current(), operation)
        return answer

    def read_now(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Answer several operations at one state."""
        state = self._current()
        return [_READS[type(operation)](state, operation) for operation in operations]

    @abstractmethod
    def close_now(self) -> None:
        """Let go of what is read."""

    async def read_one(self, operation: Operation[R]) -> R:
        """As :meth:`read_one_now`."""
        return self.read_one_now(operation)

    async def read(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """As :meth:`read_now`."""
        return self.read_now(operations)

    async def close(self) -> None:
        """As :meth:`close_now`."""
        self.close_now()


class MemorySnapshot(_MemoryReader):
    """One state, kept until it is closed, or too old, or the store is closed."""

    def __init__(self, backend: MemoryBackend, max_age_seconds: float) -> None:
        self._backend = backend
        self._state: _State | None = backend._current()
        self._expires = time.monotonic() + max_age_seconds

    def _current(self) -> _State:
        self._backend._current()  # raises Closed if the store is
        if self._state is not None and time.monotonic() >= self._expires:
            self._state = None
            raise Closed("the snapshot reached its maximum age and was closed; take a new one")
        if self._state is None:
            raise Closed("the snapshot is closed")
        return self._state

    def close_now(self) -> None:
        """Let go of the state. May be called again."""
        self._state = None


class MemoryBackend(_MemoryReader):
    """A new, empty store in memory, for any number of threads and event loops."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state: _State | None = _State.empty()
        self._writing = threading.Lock()
        self._applied: OrderedDict[bytes, float] = OrderedDict()

    def _current(self) -> _State:
        if self._state is None:
            raise Closed("the store is closed")
        return self._state

    def write_now(self, group: WriteGroup) -> Applied:
        """Apply a group whole, or raise and apply nothing of it."""
        with self._writing:
            state = self._current()
            if group.group_id in self._applied:
                return Applied(group.group_id, repeated=True)
            for expects in group.expects:
                reason = unmet(expects, state.record, lambda record, prefix: bool(state.plain(record).under(prefix)))
                if reason is not None:
                    raise Conflict(reason)
            following = state.copy()
            for write in group.writes:
                _apply(following, write)
            self._remember(group.group_id)
            self._state = following
        return Applied(group.group_id)

    def _remember(self, group_id: bytes) -> None:
        now = time.monotonic()
        self._applied[group_id] = now
        while now - next(iter(self._applied.values())) > GROUP_IDS_KEPT_SECONDS:
            self._applied.popitem(last=False)

    def snapshot_now(self) -> MemorySnapshot:
        """The present state, as a reader of its own."""
        return MemorySnapshot(self, self._settings.snapshot_max_age_seconds)

    def close_now(self) -> None:
        """Forget everything. May be called again."""
        with self._writing:
            self._state = None

    async def write(self, group: WriteGroup) -> Applied:
        """As :meth:`write_now`."""
        return self.write_now(group)

    async def snapshot(self) -> MemorySnapshot:
        """As :meth:`snapshot_now`."""
        return self.snapshot_now()
