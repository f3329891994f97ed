"""Operations answered from one state of the store in memory, in the plainest way: what the other stores must equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from treestore.backends.memory.search import match
from treestore.backends.memory.state import Content, State, detached
from treestore.errors import NotSupported
from treestore.operations import (
    Ancestors,
    Backup,
    Check,
    Children,
    Compact,
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
from treestore.records import CheckReport, DocumentSummary, Node, Outline, PageText, SearchHit, StoreStats, Version
from treestore.search import soundness as search_soundness
from treestore.search.query import check_searchable
from treestore.trees import soundness, timeline

T = TypeVar("T", bound=msgspec.Struct)
N = TypeVar("N", Outline, Node)


def _get_version(state: State, ask: GetVersion) -> Version:
    versions = state.versions_of(ask.policy_id)
    return detached(timeline.resolve(ask.policy_id, versions, ask.version, deleted=ask.deleted))


def _list_documents(state: State, ask: ListDocuments) -> list[DocumentSummary]:
    summaries: list[DocumentSummary] = []
    for policy_id in sorted({policy_id for policy_id, _ in state.contents}):
        if len(summaries) == ask.limit:
            break
        if ask.after is None or policy_id > ask.after:
            versions = state.versions_of(policy_id)
            version = timeline.resolve(policy_id, versions, InEffect(ask.at, or_latest=True))
            count = sum(version.deleted_at is None for version in versions)
            summaries.append(DocumentSummary(policy_id=policy_id, version=detached(version), version_count=count))
    return summaries


def _get_nodes(state: State, ask: GetNodes[N]) -> list[N]:
    version, content = state.find(ask.policy_id, ask.version)
    missing = [node_id for node_id in ask.node_ids if node_id not in content.ordinal_of]
    if missing:
        raise timeline.missing_nodes(version, missing)
    nodes = content.in_weight(ask.weight)
    return [detached(nodes[content.ordinal_of[node_id]]) for node_id in ask.node_ids]


def _children(state: State, ask: Children[N]) -> list[N]:
    version, content = state.find(ask.policy_id, ask.version)
    parent = -1 if ask.parent_id is None else _ordinal(version, content, ask.parent_id)
    return [detached(node) for node in content.in_weight(ask.weight) if node.parent_ordinal == parent]


def _subtree(state: State, ask: Subtree[N]) -> list[N]:
    version, content = state.find(ask.policy_id, ask.version)
    nodes = content.in_weight(ask.weight)
    depth = 0
    if ask.node_id is not None:
        top = nodes[_ordinal(version, content, ask.node_id)]
        nodes, depth = nodes[top.ordinal : top.last_ordinal + 1], top.depth
    return [detached(node) for node in nodes if ask.max_depth is None or node.depth - depth <= ask.max_depth]


def _ancestors(state: State, ask: Ancestors[N]) -> list[N]:
    version, content = state.find(ask.policy_id, ask.version)
    nodes = content.in_weight(ask.weight)
    way = [nodes[_ordinal(version, content, ask.node_id)]]
    while way[-1].parent_ordinal >= 0:
        way.append(nodes[way[-1].parent_ordinal])
    return [detached(node) for node in reversed(way)]


def _ordinal(version: Version, content: Content, node_id: str) -> int:
    if node_id not in content.ordinal_of:
        raise timeline.missing_nodes(version, [node_id])
    return content.ordinal_of[node_id]


def _on_pages(state: State, ask: OnPages[N]) -> list[N]:
    _, content = state.find(ask.policy_id, ask.version)
    return [
        detached(node)
        for node in content.in_weight(ask.weight)
        if node.page_start is not None
        and node.page_end is not None
        and node.page_start <= ask.last
        and node.page_end >= ask.first
    ]


def _match(state: State, ask: Match) -> list[SearchHit]:
    version, content = state.find(ask.policy_id, ask.version)
    check_searchable(version)
    return match([(version, content)], ask.query, ask.limit)


def _match_all(state: State, ask: MatchAll) -> list[SearchHit]:
    documents = _list_documents(state, ListDocuments(ask.at))
    found = [state.find(document.policy_id, document.version.version_id) for document in documents]
    searchable = [(version, content) for version, content in found if version.analyzer]
    for version, _ in searchable:
        check_searchable(version)
    return match(searchable, ask.query, ask.limit)


def _page_texts(state: State, ask: PageTexts) -> list[PageText]:
    _, content = state.find(ask.policy_id, ask.version)
    return [
        detached(page)
        for page in content.pages
        if (ask.first is None or page.page >= ask.first) and (ask.last is None or page.page <= ask.last)
    ]


def _get(state: State, ask: Get[T]) -> T | None:
    record: T | None = state.plain(ask.record).records.get(ask.key)
    return None if record is None else detached(record)


def _scan(state: State, ask: Scan[T]) -> list[T]:
    rows = state.plain(ask.record)
    keys = rows.under(ask.prefix) if ask.index is None else rows.under_index(ask.index, ask.prefix)
    ordered = keys[::-1] if ask.reverse else keys
    return [detached(rows.records[key]) for key in ordered[: ask.limit]]


def _stats(state: State) -> StoreStats:
    return StoreStats(
        documents=len({policy_id for policy_id, _ in state.contents}),
        versions=len(state.contents),
        nodes=sum(len(content.nodes) for content in state.contents.values()),
        size_bytes=0,
        backend={"kind": "memory", "tombstones": len(state.rows[Version].records) - len(state.contents)},
    )


def _check(state: State) -> CheckReport:
    problems = [problem for rows in state.rows.values() for problem in rows.problems()]
    counts = {"versions": len(state.rows[Version].records), "nodes": 0, "pages": 0}
    for key, version in state.rows[Version].records.items():
        content = state.contents.get(key)
        if content is None:
            problems += soundness.problems(version, None, None)
        else:
            problems += soundness.problems(version, content.nodes, content.pages)
            problems += search_soundness.problems(version, content.nodes, content.terms)
            counts["nodes"] += len(content.nodes)
            counts["pages"] += len(content.pages)
    strays = state.contents.keys() - state.rows[Version].records.keys()
    problems += [f"policy {policy!r} version {version!r}: nodes without a version" for policy, version in sorted(strays)]
    return CheckReport(ok=not problems, problems=problems, counts=counts)


def _refuse_backup() -> int:
    raise NotSupported("a memory store has no folder to back up; its documents can be exported")


READS: dict[type[Operation[Any]], Callable[[State, Any], Any]] = {
    GetVersion: _get_version,
    ListDocuments: _list_documents,
    GetNodes: _get_nodes,
    Children: _children,
    Subtree: _subtree,
    Ancestors: _ancestors,
    OnPages: _on_pages,
    Match: _match,
    MatchAll: _match_all,
    PageTexts: _page_texts,
    Get: _get,
    Scan: _scan,
    Stats: lambda state, _: _stats(state),
    Check: lambda state, _: _check(state),
    Backup: lambda _state, _: _refuse_backup(),
    Compact: lambda _state, _: 0,
}
