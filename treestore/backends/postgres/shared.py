"""Operations answered of tables that the reasoning-service's code writes too.

A version whose nodes are as they were when they were derived is read as ever. Any other is derived of its rows in memory
(:mod:`.derived`), at the moment that the transaction sees, and nothing is written; so an answer is never older than the rows.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from treestore.backends.postgres import reads, rows
from treestore.backends.postgres.derived import Derived, Given, derive_rows
from treestore.backends.postgres.rows import Found
from treestore.backends.postgres.search import Held, match
from treestore.backends.postgres.session import Session
from treestore.backends.postgres.sql import nodes, records, versions
from treestore.errors import BrokenTree
from treestore.operations import Get, GetVersion, ListDocuments, Match, MatchAll, Operation, Scan, VersionRef
from treestore.records import DocumentSummary, PageText, SearchHit, Version
from treestore.search.query import check_searchable
from treestore.trees import content, timeline
from treestore.trees.derive import Steps
from treestore.trees.rules import MAX_INTEGER

R = TypeVar("R")
Key = tuple[Any, ...]


async def answer(session: Session, ask: Operation[R]) -> R:
    """As :func:`.reads.answer`, of tables of ours alone and of shared ones."""
    if not session.shared:
        return await reads.answer(session, ask)
    answered: Any
    if isinstance(ask, (*content.ANSWERED, Match)):
        answered = await _of_one(session, ask)
    elif isinstance(ask, GetVersion):
        found = await resolve(session, ask.policy_id, ask.version, deleted=ask.deleted)
        answered = await completed(session, found)
    elif isinstance(ask, Get) and ask.record is Version:
        answered = await get(session, ask.key)
    elif isinstance(ask, Scan) and ask.record is Version:
        answered = [await completed(session, found) for found in await _scan(session, ask)]
    elif isinstance(ask, ListDocuments):
        answered = [
            DocumentSummary(policy_id=found.version.policy_id, version=await completed(session, found), version_count=count)
            for found, count in await _documents(session, ask)
        ]
    elif isinstance(ask, MatchAll):
        answered = await _match_all(session, ask)
    else:
        answered = await reads.answer(session, ask)
    named: R = answered
    return named


# --- versions ------------------------------------------------------------------------------------------------------------


async def resolve(session: Session, policy_id: str, ref: VersionRef, *, deleted: bool = False) -> Found:
    """The version that is meant. Raises NotFound."""
    meaning = versions.how(ref, shared=True)
    if meaning is not None:
        row = await session.row(versions.version(meaning), {"policy_id": policy_id, **versions.meant(ref)})
        if row is not None:
            return rows.found_version(row)
    found = [rows.found_version(row) for row in await session.rows(versions.versions(shared=True), {"policy_id": policy_id})]
    version = timeline.resolve(policy_id, [one.version for one in found], ref, deleted=deleted)
    return next(one for one in found if one.version is version)


async def find(session: Session, key: Key) -> Found | None:
    """A version by its key, tombstones too."""
    row = await session.row(records.get(Version, shared=True), reads.key_values(Version, ("policy_id", "version_id"), key))
    return None if row is None else rows.found_version(row)


async def get(session: Session, key: Key) -> Version | None:
    """A version by its key, tombstones too, as it is."""
    found = await find(session, key)
    return None if found is None else await completed(session, found)


async def completed(session: Session, found: Found) -> Version:
    """A version with what follows from its nodes as they are."""
    if found.fits or found.version.deleted_at is not None:
        return found.version
    return await in_turns((await derived(session, found)).version(found))


async def _scan(session: Session, ask: Scan[Any]) -> list[Found]:
    return [rows.found_version(row) for row in await reads.scanned(session, ask)]


async def _documents(session: Session, ask: ListDocuments) -> list[tuple[Found, int]]:
    found = await reads.documents(session, ask)
    return [(rows.found_version(tuple(row)[:-1]), row["version_count"]) for row in found]


# --- content -------------------------------------------------------------------------------------------------------------


async def _of_one(session: Session, ask: Any) -> Any:
    found = await resolve(session, ask.policy_id, ask.version)
    ask = msgspec.structs.replace(ask, version=found.version.version_id)
    if found.fits:
        return await reads.answer(session.trusting(), ask)
    if isinstance(ask, Match):
        version = await completed(session, found)
        check_searchable(version)
        return await match(session, [version], ask.query, ask.limit, await _held(session, [found]))
    return content.answer(found.version, (await derived(session, found)).content, ask)


async def _match_all(session: Session, ask: MatchAll) -> list[SearchHit]:
    found = [one for one, _ in await _documents(session, ListDocuments(ask.at))]
    every = [(one, await completed(session, one)) for one in found]
    searchable = [(one, version) for one, version in every if version.analyzer]
    for _, version in searchable:
        check_searchable(version)
    held = await _held(session, [one for one, _ in searchable])
    return await match(session, [version for _, version in searchable], ask.query, ask.limit, held)


async def _held(session: Session, found: Sequence[Found]) -> dict[Key, Held]:
    """The postings and nodes of those that do not fit, made in memory."""
    held = {}
    for one in found:
        if not one.fits:
            its = await derived(session, one)
            held[_key(one)] = Held((await in_turns(its.packed())).segments, its.content.nodes)
    return held


def _key(found: Found) -> Key:
    return found.version.policy_id, found.version.version_id


async def derived(session: Session, found: Found) -> Derived:
    """The content of a version as derived of its rows now, or before if they are as they were then."""
    assert session.derived is not None
    key = _key(found)
    made = session.derived.get(key, found.now)
    if made is None:
        made = await load(session, key, await rows_of(session, key))
        session.derived.keep(key, found.now, made)
    if made.broken is not None:
        warnings.warn(BrokenTree(key[0], key[1], made.broken), stacklevel=2)
    return made


async def rows_of(session: Session, key: Key) -> list[Given]:
    """The rows of a version's nodes as the session's transaction sees them, in any order."""
    found = await session.rows(nodes.rows(), {"policy_id": key[0], "version_id": key[1]})
    return [(row["id"], rows.given(tuple(row)[:-1])) for row in found]


async def load(session: Session, key: Key, found: Sequence[Given]) -> Derived:
    """The content of a version, derived of its rows."""
    owner = {"policy_id": key[0], "version_id": key[1]}
    pages = []
    if any(node["ordinal"] is not None for _, node in found):
        of_pages = await session.rows(nodes.page_texts(versions.NAMED), {**owner, "first": 0, "last": MAX_INTEGER})
        pages = [rows.record(row, PageText) for row in of_pages]
    return await in_turns(derive_rows(key, found, pages))


async def in_turns(steps: Steps[R]) -> R:
    """The result of a computation, with pauses in which the event loop serves others."""
    try:
        while True:
            next(steps)
            await asyncio.sleep(0)
    except StopIteration as end:
        result: R = end.value
        return result
