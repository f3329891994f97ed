"""Operations answered from one state of the store in memory, in the plainest way: what the other stores must equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from treestore.backends.memory.search import match
from treestore.backends.memory.state import State
from treestore.errors import NotSupported
from treestore.operations import (
    Backup,
    Check,
    Compact,
    Get,
    GetVersion,
    InEffect,
    ListDocuments,
    Match,
    MatchAll,
    Operation,
    Scan,
    Stats,
)
from treestore.records import CheckReport, DocumentSummary, SearchHit, StoreStats, Version
from treestore.search import soundness as search_soundness
from treestore.search.query import check_searchable
from treestore.trees import soundness, timeline
from treestore.trees.content import ANSWERED, answer, detached

T = TypeVar("T", bound=msgspec.Struct)


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


def _of_content(state: State, ask: Any) -> Any:
    return answer(*state.find(ask.policy_id, ask.version), ask)


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
    **dict.fromkeys(ANSWERED, _of_content),
    Match: _match,
    MatchAll: _match_all,
    Get: _get,
    Scan: _scan,
    Stats: lambda state, _: _stats(state),
    Check: lambda state, _: _check(state),
    Backup: lambda _state, _: _refuse_backup(),
    Compact: lambda _state, _: 0,
}
