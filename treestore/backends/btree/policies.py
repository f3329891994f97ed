"""The versions of policies as read from a state of the engine, decoded and kept.

Finding a policy's versions is what every question begins with, so they are kept decoded, as long as the policy's head (which
every change of the policy rewrites) is the same. Where it is another, the nodes that are kept (:mod:`.kept`) go over to what
is decoded anew, but for those that were amended in between. Which those are is noted of each group before it is committed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from treestore.backends.btree.engine import keycode
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.kept import Kept, KeptFindings, NodeCache
from treestore.backends.btree.keyspace import HEADS, LAYOUTS, VERSIONS, Head, Layout, decode, number_key, row_prefix
from treestore.errors import Corrupted
from treestore.operations import InEffect, VersionRef
from treestore.records import Node, Outline, Version
from treestore.trees import timeline

N = TypeVar("N", Outline, Node)

_KEPT_POLICIES = 1024  # decoded policies; beyond it the one that was read first goes
_KEPT_STEPS = 1024  # groups of which it is known what they amended; beyond it the oldest goes


class Content:
    """One version, its policy's ``number`` and the places of what it has. Nodes that are read are kept in ``cache``, and so is
    what searches decode."""

    __slots__ = ("_findings", "_kept", "cache", "layout", "number", "prefix", "raw", "version")

    def __init__(self, version: Version, raw: bytes, layout: Layout | None, number: int, cache: NodeCache) -> None:
        self.version = version
        self.raw = raw
        self.layout = layout
        self.number = number
        self.prefix = row_prefix(version.policy_id, version.version_id)
        self.cache = cache
        self._kept: dict[type[Outline], Kept[Any]] = {}
        self._findings: KeptFindings | None = None

    @property
    def place(self) -> Layout:
        """The layout of a version that is not deleted."""
        if self.layout is None:
            raise Corrupted(f"policy {self.version.policy_id!r} version {self.version.version_id!r} has no content")
        return self.layout

    def kept(self, weight: type[N]) -> Kept[N]:
        """The nodes of this weight that are kept."""
        kept = self._kept.get(weight)
        if kept is None or kept.dropped:
            kept = self._kept[weight] = self.cache.begin(self.place.nodes)
        kept.hot = True
        return kept

    def findings(self) -> KeptFindings:
        """What is kept of searches. An amendment may change what they find: it is of the content as it is at this head."""
        kept = self._findings
        if kept is None or kept.dropped:
            kept = self._findings = self.cache.begin_findings()
        kept.hot = True
        return kept

    def take_over(self, old: Content, amended: Collection[int]) -> None:
        """Go on with what is kept of the same content as it was before some of its nodes were amended."""
        for weight, kept in old._kept.copy().items():
            if self.cache.amend(kept, amended):
                self._kept[weight] = kept
        if amended:
            old._let_findings_go()
        else:
            self._findings = old._findings

    def let_go(self) -> None:
        """It is not asked any more. Whoever is still reading it goes on."""
        for kept in self._kept.copy().values():
            self.cache.drop(kept)
        self._let_findings_go()

    def _let_findings_go(self) -> None:
        if self._findings is not None:
            self.cache.drop(self._findings)


class Policy:
    """The versions of one policy at the time of one head, decoded. ``by_start`` are those that are not deleted, in the
    order in which they come into effect (of equal starts the one that wins last), with the moments beside them."""

    def __init__(self, state: State, policy_id: str, head: Head, cache: NodeCache) -> None:
        self.number = head.number
        self.contents: dict[str, Content] = {}
        for _, raw in state.scan(VERSIONS, *keycode.prefix_range((policy_id,))):
            version = decode(Version, raw)
            layout = state.get(LAYOUTS, number_key(head.number, version.version_id.encode()))
            place = None if layout is None else decode(Layout, layout)
            self.contents[version.version_id] = Content(version, raw, place, head.number, cache)
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


class _Known(NamedTuple):
    """A policy that was decoded: its head then, and the last moment at which its head was seen to be the same."""

    epoch: int
    head: bytes
    policy: Policy


class _Step(NamedTuple):
    """What a group, if it is committed, makes of a policy: of which head it begins, and the nodes it amends by content."""

    before: bytes
    amended: dict[int, set[int]]


class Policies:
    """Decoded policies by id. Any thread may use it: an entry counts only together with the head that it was made from."""

    def __init__(self, cache: NodeCache) -> None:
        self._cache = cache
        self._known: dict[str, _Known] = {}
        self._steps: dict[tuple[bytes, bytes], _Step] = {}  # by policy id and head after it

    def get(self, state: State, policy_id: str) -> Policy | None:
        """The policy in this state; None if there never was one."""
        known = self._known.get(policy_id)
        if known is not None and known.epoch == state.epoch:
            return known.policy
        raw = state.get(HEADS, policy_id.encode())
        if raw is None:
            return None
        if known is not None and known.head == raw:
            policy = known.policy
        else:
            policy = Policy(state, policy_id, decode(Head, raw), self._cache)
            if known is not None:
                self._hand_over(policy_id.encode(), known, raw, policy)
            self._known.pop(policy_id, None)
            while len(self._known) >= _KEPT_POLICIES:
                self._let_go(next(iter(self._known), ""))
        self._known[policy_id] = _Known(state.epoch, raw, policy)
        return policy

    def _let_go(self, policy_id: str) -> None:
        known = self._known.pop(policy_id, None)
        if known is not None:
            for content in known.policy.contents.values():
                content.let_go()

    def note(self, state: State, changes: Iterable[TreeChange], amended: dict[int, set[int]]) -> None:
        """A group that changes a state so is about to be committed; ``amended`` are the ordinals of nodes that it replaces, by
        content number. Of one that is not, after all, too much is noted."""
        heads = next((change for change in changes if change.tree == HEADS), None)
        if heads is None:
            return
        for policy, after in zip(heads.keys, heads.values, strict=True):
            before = state.get(HEADS, policy)
            if before is not None and after is not None:
                while len(self._steps) >= _KEPT_STEPS:
                    self._steps.pop(next(iter(self._steps), (b"", b"")), None)
                self._steps[policy, after] = _Step(before, amended)

    def _hand_over(self, policy_id: bytes, known: _Known, head: bytes, policy: Policy) -> None:
        """Let a policy go on with what is kept of it as it was at an earlier head, if all steps in between are known."""
        amended: dict[int, set[int]] = {}
        for _ in range(_KEPT_STEPS):
            step = self._steps.get((policy_id, head))
            if step is None or head == known.head:
                break
            for number, ordinals in step.amended.items():
                amended.setdefault(number, set()).update(ordinals)
            head = step.before
        known_way = head == known.head
        contents = {new.layout.content: new for new in policy.contents.values() if new.layout is not None and known_way}
        for old in known.policy.contents.values():
            new = None if old.layout is None else contents.get(old.layout.content)
            if new is None:
                old.let_go()
            else:
                new.take_over(old, amended.get(new.place.content, ()))

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
