"""The store in memory: the readable reference, which every other store must equal.

All that it holds is one :class:`~.state.State` that is never changed once it can be seen. A write group makes the next state
beside it and puts that in its place as its last step: so a group is atomic, a reader needs no lock, and a snapshot is
nothing but a state that is kept. Nothing outlives the process.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeVar

from treestore.backends.memory.reads import READS
from treestore.backends.memory.state import State
from treestore.config import Settings
from treestore.errors import Closed, Conflict
from treestore.operations import (
    AmendNodes,
    Applied,
    Delete,
    DeleteRange,
    DropVersion,
    Operation,
    Put,
    ReplaceVersion,
    Write,
    WriteGroup,
    check_amended,
    unmet,
)
from treestore.records import Version
from treestore.search.postings import by_node
from treestore.trees.content import Content, detached

R = TypeVar("R")

GROUP_IDS_KEPT_SECONDS = 3600.0
"""So long the id of an applied group is remembered, as :class:`~treestore.operations.WriteGroup` promises."""


def _apply(state: State, write: Write) -> None:
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
        case ReplaceVersion(version, nodes, pages, segments):
            state.rows[Version].put(version)
            terms = by_node(segments, len(nodes)) if segments else []
            content = Content([detached(node) for node in nodes], [detached(page) for page in pages], terms)
            state.contents[version.policy_id, version.version_id] = content
        case AmendNodes(version, nodes, changes):
            content = _content_of(state, version)
            amended = list(content.nodes)
            for node in nodes:
                check_amended(node, amended[node.ordinal] if 0 <= node.ordinal < len(amended) else None)
                amended[node.ordinal] = detached(node)
            state.rows[Version].put(version)
            amended_terms = list(content.terms)
            for change in changes:
                amended_terms[change.ordinal] = change.after
            state.contents[version.policy_id, version.version_id] = Content(amended, content.pages, amended_terms)
        case DropVersion(version):
            _content_of(state, version)
            state.rows[Version].put(version)
            del state.contents[version.policy_id, version.version_id]


def _content_of(state: State, version: Version) -> Content:
    """What the version of this name holds now. Raises NotFound."""
    return state.find(version.policy_id, version.version_id)[1]


class _MemoryReader(ABC):
    """Both faces of a reader over the state that ``_current`` gives."""

    @abstractmethod
    def _current(self) -> State:
        """The state to be read. Raises Closed."""

    def read_one_now(self, operation: Operation[R]) -> R:
        """Answer one operation."""
        answer: R = READS[type(operation)](self._current(), operation)
        return answer

    def read_now(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Answer several operations at one state."""
        state = self._current()
        return [READS[type(operation)](state, operation) for operation in operations]

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
        self._state: State | None = backend._current()
        self._expires = time.monotonic() + max_age_seconds

    def _current(self) -> State:
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
        self._state: State | None = State.empty()
        self._writing = threading.Lock()
        self._applied: OrderedDict[bytes, float] = OrderedDict()

    def _current(self) -> State:
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
