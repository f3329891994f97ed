"""Operations answered by a relational store.

Most are one statement, which finds the version that is meant besides (:func:`quick`). Where that gives nothing it can't tell
whether there is nothing to give or something that was named does not exist; and some operations take several statements.
These are for a transaction that sees one moment (:func:`answer`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from treestore.backends.postgres import rows
from treestore.backends.postgres.search import match
from treestore.backends.postgres.session import Session
from treestore.backends.postgres.sql import kept, records, versions, whole
from treestore.backends.postgres.sql import nodes as sql
from treestore.backends.postgres.sql.statement import Statement
from treestore.backends.postgres.tables import BY_RECORD
from treestore.catalog import TABLES
from treestore.errors import Corrupted, InvalidInput
from treestore.operations import (
    Ancestors,
    Children,
    Get,
    GetNodes,
    GetVersion,
    ListDocuments,
    Match,
    MatchAll,
    OnPages,
    Operation,
    PageTexts,
    Scan,
    Stats,
    Subtree,
    VersionRef,
)
from treestore.records import DocumentSummary, Node, Outline, PageText, SearchHit, StoreStats, Version
from treestore.search.query import check_searchable
from treestore.trees import intervals, timeline
from treestore.trees.rules import MAX_DEPTH, MAX_INTEGER

R = TypeVar("R")
N = TypeVar("N", Outline, Node)
T = TypeVar("T", bound=msgspec.Struct)


def quick(ask: Operation[R], *, shared: bool) -> Callable[[Session, Operation[R]], Awaitable[R | None]] | None:
    """What gives the answer to an operation by one statement, or None if that tells nothing. None if there is no such."""
    return None if shared and isinstance(ask, _OF_RECORDS) else _QUICK.get(type(ask))


async def answer(session: Session, ask: Operation[R]) -> R:
    """The answer to an operation at the moment that the session's transaction sees.

    Raises NotFound, InvalidInput, NotSearchable, Corrupted, and errors of the driver.
    """
    operation: Any = ask
    if isinstance(ask, (GetNodes, Children, Subtree, Ancestors, PageTexts)):
        by_one = _QUICK[type(ask)]
        named = await by_one(session, operation)
        if named is None:
            version = await resolve(session, operation.policy_id, operation.version)
            operation = msgspec.structs.replace(operation, version=version.version_id)
            named = await by_one(session, operation)
            if named is None:
                named = await _nothing(session, operation, version)
        answered: R = named
        return answered
    found: R = await _whole(operation)(session, operation)
    return found


def _whole(ask: Operation[Any]) -> Callable[[Session, Any], Awaitable[Any]]:
    by = _ANSWERS.get(type(ask))
    if by is None:
        raise InvalidInput(f"a snapshot can't answer {type(ask).__name__}; ask the store itself")
    return by


async def resolve(session: Session, policy_id: str, ref: VersionRef, *, deleted: bool = False) -> Version:
    """The version that is meant, of tables that nobody else writes. Raises NotFound."""
    meaning = versions.how(ref)
    if meaning is not None:
        row = await session.row(versions.version(meaning), {"policy_id": policy_id, **versions.meant(ref)})
        if row is not None:
            return rows.record(row, Version)
    found = await session.rows(versions.versions(), {"policy_id": policy_id})
    return timeline.resolve(policy_id, [rows.record(row, Version) for row in found], ref, deleted=deleted)


async def _nothing(session: Session, ask: Any, version: Version) -> list[Any]:
    """The answer where no row was found. Raises NotFound for nodes that are not there."""
    asked: tuple[Any, ...]
    match ask:
        case GetNodes(node_ids=node_ids):
            asked = node_ids
        case Children(parent_id=None) | Subtree(node_id=None) | PageTexts():
            return []
        case Children(parent_id=node_id) | Subtree(node_id=node_id) | Ancestors(node_id=node_id):
            asked = (node_id,)
    values = {"policy_id": version.policy_id, "version_id": version.version_id, "node_id": list(asked)}
    found = rows.nodes(await session.rows(sql.nodes(Outline, versions.NAMED, one=False), values), Outline)
    missing = [node_id for node_id in asked if node_id not in {node.node_id for node in found}]
    if missing:
        raise timeline.missing_nodes(version, missing)
    return []


# --- by one statement ----------------------------------------------------------------------------------------------------


def _of(ask: Any) -> dict[str, Any]:
    """The parameters that name the version."""
    return {"policy_id": ask.policy_id, **versions.meant(ask.version)}


async def _get_nodes(session: Session, ask: GetNodes[N]) -> list[N] | None:
    meaning = versions.how(ask.version, shared=session.shared)
    if meaning is None or not ask.node_ids:
        return None
    if len(ask.node_ids) == 1:
        one = sql.nodes(ask.weight, meaning, one=True)
        return rows.nodes(await session.rows(one, {**_of(ask), "node_id": ask.node_ids[0]}), ask.weight) or None
    statement = sql.nodes(ask.weight, meaning, one=False)
    found = rows.nodes(await session.rows(statement, {**_of(ask), "node_id": list(set(ask.node_ids))}), ask.weight)
    by_id = {node.node_id: node for node in found}
    if any(node_id not in by_id for node_id in ask.node_ids):
        return None
    return [by_id[node_id] for node_id in ask.node_ids]


async def _children(session: Session, ask: Children[N]) -> list[N] | None:
    meaning = versions.how(ask.version, shared=session.shared)
    if meaning is None:
        return None
    statement = sql.children(ask.weight, meaning, of_node=ask.parent_id is not None)
    return await _nodes(session, statement, {**_of(ask), "node_id": ask.parent_id}, ask.weight)


async def _subtree(session: Session, ask: Subtree[N]) -> list[N] | None:
    meaning = versions.how(ask.version, shared=session.shared)
    if meaning is None:
        return None
    statement = sql.subtree(ask.weight, meaning, of_node=ask.node_id is not None, bounded=ask.max_depth is not None)
    values = {**_of(ask), "node_id": ask.node_id, "max_depth": min(ask.max_depth or 0, MAX_DEPTH)}
    return await _nodes(session, statement, values, ask.weight, ordered=ask.max_depth is None)


async def _ancestors(session: Session, ask: Ancestors[N]) -> list[N] | None:
    meaning = versions.how(ask.version, shared=session.shared)
    if meaning is None:
        return None
    return await _nodes(session, sql.ancestors(ask.weight, meaning), {**_of(ask), "node_id": ask.node_id}, ask.weight)


async def _nodes(
    session: Session, statement: Statement, values: Mapping[str, Any], weight: type[N], *, ordered: bool = False
) -> list[N] | None:
    found = rows.nodes(await session.rows(statement, values), weight)
    if not ordered:
        found.sort(key=_ordinal)
    return found or None


_ordinal = attrgetter("ordinal")


async def _page_texts(session: Session, ask: PageTexts) -> list[PageText] | None:
    meaning = versions.how(ask.version, shared=session.shared)
    if meaning is None:
        return None
    first = 0 if ask.first is None else ask.first
    last = MAX_INTEGER if ask.last is None else ask.last
    found = await session.rows(sql.page_texts(meaning), {**_of(ask), "first": first, "last": last})
    return [rows.record(row, PageText) for row in found] or None


async def _get_version(session: Session, ask: GetVersion) -> Version | None:
    meaning = versions.how(ask.version, shared=session.shared)
    row = None if meaning is None else await session.row(versions.version(meaning), _of(ask))
    if row is None or not session.shared:
        return None if row is None else rows.record(row, Version)
    found = rows.found_version(row)
    return found.version if found.fits else None


async def documents(session: Session, ask: ListDocuments) -> list[Any]:
    """The rows of the policies' versions that are in effect or latest, each with the number of versions at its end."""
    statement = versions.documents(after=ask.after is not None, limited=ask.limit is not None, shared=session.shared)
    return await session.rows(statement, {"at": ask.at.replace(tzinfo=None), "after": ask.after, "limit": ask.limit})


async def _list_documents(session: Session, ask: ListDocuments) -> list[DocumentSummary]:
    found = []
    for row in await documents(session, ask):
        version = rows.record(tuple(row)[:-1], Version)
        found.append(DocumentSummary(policy_id=version.policy_id, version=version, version_count=row["version_count"]))
    return found


def check_plain(record: type[msgspec.Struct]) -> None:
    """Raise InvalidInput for a record that has no plain table."""
    if record not in BY_RECORD:
        raise InvalidInput(f"{record.__name__} is not the record of a plain table")


def key_values(record: type[msgspec.Struct], fields: tuple[str, ...], key: tuple[Any, ...]) -> dict[str, Any]:
    """The parameters for the first fields of a key or an index."""
    kinds = TABLES[record].columns
    naive = [
        value.replace(tzinfo=None) if kinds[name].kind == "time" and value is not None else value
        for name, value in zip(fields, key, strict=False)
    ]
    return {f"key_{at}": value for at, value in enumerate(naive)}


async def get(session: Session, record: type[T], key: tuple[Any, ...]) -> T | None:
    """One record of a plain table."""
    check_plain(record)
    row = await session.row(records.get(record), key_values(record, TABLES[record].key, key))
    return None if row is None else rows.record(row, record)


async def scanned(session: Session, ask: Scan[Any]) -> list[Any]:
    """The rows of records of a plain table, in order."""
    check_plain(ask.record)
    table = TABLES[ask.record]
    fields = table.key if ask.index is None else (*table.indexes[ask.index], *table.key)
    record: type[msgspec.Struct] = ask.record
    limited, shared = ask.limit is not None, session.shared and record is Version
    statement = records.scan(
        record, ask.index, len(ask.prefix), reverse=ask.reverse, limited=limited, shared=shared
    )
    return await session.rows(statement, {**key_values(ask.record, fields, ask.prefix), "limit": ask.limit})


async def _scan(session: Session, ask: Scan[T]) -> list[T]:
    return [rows.record(row, ask.record) for row in await scanned(session, ask)]


async def _get(session: Session, ask: Get[T]) -> T | None:
    return await get(session, ask.record, ask.key)


# --- by several ----------------------------------------------------------------------------------------------------------


async def _version_in_full(session: Session, ask: GetVersion) -> Version:
    return await resolve(session, ask.policy_id, ask.version, deleted=ask.deleted)


async def _on_pages(session: Session, ask: OnPages[N]) -> list[N]:
    version = await resolve(session, ask.policy_id, ask.version)
    owner = {"policy_id": version.policy_id, "version_id": version.version_id}
    ordinals = await _ordinals_on(session, owner, ask.first, ask.last)
    if not ordinals:
        return []
    found = await _nodes(session, sql.nodes_at(ask.weight), {**owner, "ordinal": ordinals}, ask.weight)
    if found is None or len(found) != len(ordinals):
        raise Corrupted(f"the page ranges of policy {owner['policy_id']!r} name nodes that are not there")
    return found


async def _ordinals_on(session: Session, owner: Mapping[str, Any], first: int, last: int) -> list[int]:
    """The nodes that meet pages: a search of the packed ranges, level by level, each read at once."""
    known: dict[tuple[int, int], bytes] = {}
    missing: list[tuple[int, int]] = [(0, 0)]
    ordinals: list[int] = []

    def read(depth: int, position: int) -> bytes:
        row = known.get((depth, position))
        if row is None:
            missing.append((depth, position))
            return bytes([known[0, 0][0] - depth])  # nothing in it, for now
        return row

    while missing:
        depths, positions = [list(each) for each in zip(*missing, strict=True)]
        found = await session.rows(kept.interval_rows(), {**owner, "depth": depths, "position": positions})
        for place, row in zip(missing, found, strict=True):
            if not row["packed"]:
                raise Corrupted(f"policy {owner['policy_id']!r} lacks row {place[1]} of page ranges at depth {place[0]}")
            known[place] = row["packed"]
        missing.clear()
        try:
            ordinals = intervals.search(read, first, last)
        except ValueError as error:
            raise Corrupted(f"the page ranges of policy {owner['policy_id']!r} contradict themselves") from error
    return ordinals


async def _match(session: Session, ask: Match) -> list[SearchHit]:
    version = await resolve(session, ask.policy_id, ask.version)
    check_searchable(version)
    return await match(session, [version], ask.query, ask.limit)


async def _match_all(session: Session, ask: MatchAll) -> list[SearchHit]:
    documents = await _list_documents(session, ListDocuments(ask.at))
    searchable = [document.version for document in documents if document.version.analyzer]
    for version in searchable:
        check_searchable(version)
    return await match(session, searchable, ask.query, ask.limit)


async def _stats(session: Session, ask: Stats) -> StoreStats:
    counts = await session.row(whole.counts(shared=session.shared), {})
    return StoreStats(
        documents=counts["documents"],
        versions=counts["versions"],
        nodes=counts["nodes"],
        size_bytes=0,
        backend={"kind": "postgresql", "tombstones": counts["tombstones"]},
    )


_QUICK: dict[type[Operation[Any]], Callable[[Session, Any], Awaitable[Any]]] = {
    GetVersion: _get_version,
    ListDocuments: _list_documents,
    GetNodes: _get_nodes,
    Children: _children,
    Subtree: _subtree,
    Ancestors: _ancestors,
    PageTexts: _page_texts,
    Get: _get,
    Scan: _scan,
    Stats: _stats,
}

_OF_RECORDS = (Get, Scan, ListDocuments)

_ANSWERS: dict[type[Operation[Any]], Callable[[Session, Any], Awaitable[Any]]] = {
    GetVersion: _version_in_full,
    ListDocuments: _list_documents,
    OnPages: _on_pages,
    Match: _match,
    MatchAll: _match_all,
    Get: _get,
    Scan: _scan,
    Stats: _stats,
}
