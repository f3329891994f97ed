"""Operations answered from one committed state of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from treestore.backends.btree.engine import keycode
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.kept import NodeCache
from treestore.backends.btree.keyspace import (
    FAMILIES,
    LAYOUTS,
    PAGE_NUMBERS,
    PAGES,
    TEXTS,
    VERSIONS,
    Family,
    Layout,
    PageRow,
    decode,
    page_of,
    primary_key,
    two_numbers,
    under,
)
from treestore.backends.btree.nodes import Nodes, ordinals_on, text_at
from treestore.backends.btree.policies import Content, Policies
from treestore.backends.btree.search import match
from treestore.backends.btree.steps import Answer, Steps
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
    Match,
    MatchAll,
    OnPages,
    Operation,
    PageTexts,
    Scan,
    Stats,
    Subtree,
)
from treestore.records import DocumentSummary, Node, Outline, PageText, SearchHit, StoreStats, Version
from treestore.search.query import check_searchable

T = TypeVar("T", bound=msgspec.Struct)
N = TypeVar("N", Outline, Node)


class Reads:
    """Answers operations; ``policies`` are shared by all states, and the nodes that were read are kept in ``cache``."""

    def __init__(self, cache: NodeCache) -> None:
        self.cache = cache
        self.policies = Policies(cache)
        self._answers: dict[type[Operation[Any]], Callable[[State, Any], Any]] = {
            GetVersion: self.get_version,
            ListDocuments: self.list_documents,
            GetNodes: self.get_nodes,
            Children: self.children,
            Subtree: self.subtree,
            Ancestors: self.ancestors,
            OnPages: self.on_pages,
            Match: self.match,
            MatchAll: self.match_all,
            PageTexts: self.page_texts,
            Get: get_record,
            Scan: scan_records,
            Stats: stats,
        }

    def answer(self, state: State, operation: Operation[Any]) -> Answer[Any]:
        """The answer to one operation at a state, or the steps to a long one. Raises NotFound, InvalidInput, Corrupted,
        Unavailable, and so do the steps."""
        found = self._answers.get(type(operation))
        if found is None:
            raise InvalidInput(f"a snapshot can't answer {type(operation).__name__}; ask the store itself")
        return found(state, operation)

    def get_version(self, state: State, ask: GetVersion) -> Version:
        content = self.policies.find(state, ask.policy_id, ask.version, deleted=ask.deleted)
        version: Version = decode(Version, content.raw)  # a fresh one: its JSON may be changed by the caller
        return version

    def list_documents(self, state: State, ask: ListDocuments) -> Steps[list[DocumentSummary]]:
        found: list[DocumentSummary] = []
        for policy_id, policy in self.policies.scan(state, ask.after):
            if len(found) == ask.limit:
                break
            content = policy.find(policy_id, InEffect(ask.at, or_latest=True))
            version = decode(Version, content.raw)
            found.append(DocumentSummary(policy_id=policy_id, version=version, version_count=len(policy.by_start)))
            yield
        return found

    def get_nodes(self, state: State, ask: GetNodes[N]) -> list[N]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        return Nodes(state, content, ask.weight).named(ask.node_ids)

    def children(self, state: State, ask: Children[N]) -> Answer[list[N]]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        nodes = Nodes(state, content, ask.weight)
        if ask.parent_id is None:
            return nodes.walk(0, content.place.nodes - 1, 0)
        [parent] = Nodes(state, content, Outline).named((ask.parent_id,))
        return nodes.walk(parent.ordinal + 1, parent.last_ordinal, parent.depth + 1)

    def subtree(self, state: State, ask: Subtree[N]) -> Answer[list[N]]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        nodes = Nodes(state, content, ask.weight)
        first, last, depth = 0, content.place.nodes - 1, 0
        if ask.node_id is not None:
            [top] = nodes.named((ask.node_id,))
            first, last, depth = top.ordinal, top.last_ordinal, top.depth
        if ask.max_depth is None:
            return nodes.between(first, last)
        return nodes.walk(first, last, depth + ask.max_depth)

    def ancestors(self, state: State, ask: Ancestors[N]) -> list[N]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        nodes = Nodes(state, content, ask.weight)
        way = nodes.named((ask.node_id,))
        while (ordinal := way[-1].parent_ordinal) >= 0:
            way.append(nodes.get(ordinal))
        way.reverse()
        return way

    def on_pages(self, state: State, ask: OnPages[N]) -> Answer[list[N]]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        ordinals = ordinals_on(state, content, ask.first, ask.last)
        nodes = Nodes(state, content, ask.weight)
        if ordinals and ordinals[-1] - ordinals[0] == len(ordinals) - 1:
            return nodes.between(ordinals[0], ordinals[-1])
        return nodes.at(ordinals)

    def match(self, state: State, ask: Match) -> list[SearchHit]:
        content = self.policies.find(state, ask.policy_id, ask.version)
        check_searchable(content.version)
        return match(state, [content], ask.query, ask.limit)

    def match_all(self, state: State, ask: MatchAll) -> Steps[list[SearchHit]]:
        contents = []
        for policy_id, policy in self.policies.scan(state):
            content = policy.find(policy_id, InEffect(ask.at, or_latest=True))
            if content.version.analyzer:
                check_searchable(content.version)
                contents.append(content)
            yield
        return match(state, contents, ask.query, ask.limit)

    def page_texts(self, state: State, ask: PageTexts) -> Steps[list[PageText]]:
        return page_texts(state, self.policies.find(state, ask.policy_id, ask.version), ask.first, ask.last)


def page_texts(
    state: State, content: Content, first: int | None = None, last: int | None = None
) -> Steps[list[PageText]]:
    """The page texts of a version in the order given, of all pages or of those from ``first`` to ``last``."""
    number = content.place.parts.page_texts
    low, high = under(number)
    if first is not None:
        low = two_numbers(number, max(first, 0))
    if last is not None:
        high = two_numbers(number, last + 1)
    texts = state.cursor(TEXTS)
    found = []
    for position in sorted(int.from_bytes(raw, "big") for _, raw in state.scan(PAGE_NUMBERS, low, high)):
        raw = state.get(PAGES, two_numbers(number, position))
        if raw is None:
            raise Corrupted(f"content {number} has no page text at position {position}")
        found.append(page_of(decode(PageRow, raw), text_at(texts, content, content.place.nodes + position)))
        yield
    return found


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
    documents = versions = nodes = pages = 0
    policy = b""
    for key, raw in state.scan(LAYOUTS, b"", None):
        layout: Layout = decode(Layout, raw)
        versions, nodes, pages = versions + 1, nodes + layout.nodes, pages + layout.pages
        if key[:4] != policy:
            documents += 1
            policy = key[:4]
    tombstones = state.count(VERSIONS) - versions
    return StoreStats(
        documents=documents,
        versions=versions,
        nodes=nodes,
        size_bytes=0,
        backend={"kind": "btree", "tombstones": tombstones, "texts": state.count(TEXTS), "page_texts": pages},
    )
