"""The versions of policies as read from a state of the engine, decoded and kept.

Finding a policy's versions is what every question begins with, so they are kept decoded, as long as the policy's head (which
every change of the policy rewrites) is the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime

from treestore.backends.btree.engine import keycode
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.keyspace import HEADS, LAYOUTS, VERSIONS, Head, Layout, decode, number_key, row_prefix
from treestore.errors import Corrupted
from treestore.operations import InEffect, VersionRef
from treestore.records import Version
from treestore.trees import timeline

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

    def scan(self, state: State, after: str | None = None) -> Iterator[tuple[str, Policy]]:
        """The policies that have a version which is not deleted, by id in code point order, after ``after``."""
        low = b"" if after is None else after.encode() + b"\0"
        for key, _ in state.scan(HEADS, low, None):
            policy_id = key.decode()
            policy = self.get(state, policy_id)
            if policy is not None and policy.by_start:
                yield policy_id, policy

    def find(self, state: State, policy_id: str, ref: VersionRef, *, deleted: bool = False) -> Content:
        """The version that is meant. Raises NotFound."""
        policy = self.get(state, policy_id)
        if policy is None:
            raise timeline.missing_policy(policy_id)
        return policy.find(policy_id, ref, deleted=deleted)
