"""Write groups applied in one transaction of a relational store.

First the rows of all policies that a group is about are locked, in order. So groups on one policy follow each other, each
sees all that those before it did, and no two wait for each other in a circle; groups on others run beside them. Then the
group's id is noted, where a group that was applied before is found out; then come the expectations and the writes.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from treestore.backends.postgres import deriving, rows, shared
from treestore.backends.postgres.loading import load_content
from treestore.backends.postgres.reads import check_plain, get, key_values, resolve
from treestore.backends.postgres.session import Session
from treestore.backends.postgres.sql import groups, kept, nodes, records
from treestore.backends.postgres.tables import LENGTHS, POSTINGS, THEIRS
from treestore.catalog import TABLES, VERSIONS
from treestore.errors import Conflict, Corrupted
from treestore.operations import (
    Absent,
    AmendNodes,
    Delete,
    DeleteRange,
    DropVersion,
    Expectation,
    FieldEquals,
    Present,
    Put,
    RangeEmpty,
    ReplaceVersion,
    TermChange,
    Write,
    WriteGroup,
    check_amended,
    unmet,
)
from treestore.records import Node, Outline, Version
from treestore.search import postings
from treestore.search.postings import SEGMENT_NODES, segment_size

_KEPT_MILLISECONDS = 3_600_000


async def apply(session: Session, group: WriteGroup) -> bool:
    """Apply a group in the session's transaction. False: it had been applied before, and nothing was done.

    Raises Conflict, InvalidInput, NotFound, and errors of the driver; the transaction is to be rolled back then.
    """
    policies = _policies(group)
    if policies is None:
        await session.command(groups.LOCK_ALL)
    elif policies:
        await session.run(groups.lock(), {"policy_ids": policies})
    if not await _remember(session, _first_policy(group), group.group_id):
        return False
    there = await _lock(session, group) if session.shared else set()
    for expects in group.expects:
        await _check(session, expects)
    for write in group.writes:
        new = session.shared and _key_of(write) not in there
        if new and isinstance(write, (Put, ReplaceVersion)):
            await _claim(session, write)
        await _write(session, write)
        if session.shared:
            await _note(session, write, row_alone=isinstance(write, Put) and not new)
    return True


async def _lock(session: Session, group: WriteGroup) -> set[tuple[Any, ...]]:
    """Lock the versions that a group is about, with the nodes of those whose content it changes. Returns those that are
    there."""
    about, changed = set(), set()
    for part in (*group.expects, *group.writes):
        keys = await _versions_of(session, part)
        about.update(keys)
        if isinstance(part, (ReplaceVersion, AmendNodes, DropVersion, Delete, DeleteRange)):
            changed.update(keys)
    return await deriving.lock(session, about, changed) if about else set()


def _key_of(write: Write) -> tuple[Any, ...] | None:
    """The key of the version that a write puts or changes; None if it is about others."""
    version = getattr(write, "record" if isinstance(write, Put) else "version", None)
    return TABLES[Version].key_of(version) if isinstance(version, Version) else None


async def _claim(session: Session, write: Put | ReplaceVersion) -> None:
    """Insert a version that was not there. Raises Conflict if somebody else has done so meanwhile."""
    version = write.record if isinstance(write, Put) else write.version
    if isinstance(version, Version) and await session.row(records.claim(Version), rows.values(version)) is None:
        raise Conflict(f"{VERSIONS.name} {_key_of(write)!r} exists")


async def _versions_of(session: Session, part: Expectation | Write) -> list[Any]:
    """The keys of the versions that a part of a group is about."""
    match part:
        case DeleteRange(record, prefix) if record is Version:
            values = key_values(record, TABLES[record].key, prefix)
            return [tuple(row) for row in await session.rows(records.keys_under(record, len(prefix)), values)]
        case Absent() | Present() | FieldEquals() | Delete():
            return [part.key] if part.record is Version else []
        case Put() | ReplaceVersion() | AmendNodes() | DropVersion():
            key = _key_of(part)
            return [] if key is None else [key]
    return []


async def _note(session: Session, write: Write, *, row_alone: bool) -> None:
    """After a write: what is ours of the version is that of its nodes; or its row is ours, whatever its nodes are."""
    key = _key_of(write)
    if key is not None:
        await (deriving.note_row if row_alone else deriving.note)(session, (key[0], key[1]))


def _policies(group: WriteGroup) -> list[str] | None:
    """The policies that a group is about, in order; None for all."""
    found = {_policy(about) for about in (*group.expects, *group.writes)}
    return None if None in found else sorted(policy for policy in found if policy is not None)


def _policy(about: Expectation | Write) -> str | None:
    """The policy that a part of a group is about; None for all."""
    match about:
        case Put(record):
            key = TABLES[type(record)].key_of(record) if type(record) in TABLES else ("",)
        case ReplaceVersion(version) | AmendNodes(version) | DropVersion(version):
            key = (version.policy_id,)
        case DeleteRange(_, prefix) | RangeEmpty(_, prefix):
            key = prefix
        case _:
            key = about.key
    return key[0] if key else None


def _first_policy(group: WriteGroup) -> str:
    """Under which policy a group's id is kept: that of its first write."""
    return next(map(_policy, group.writes), None) or ""


async def _remember(session: Session, policy_id: str, group_id: bytes) -> bool:
    """Note a group's id; False if it is there already. Ids are those of :func:`treestore.operations.new_group_id`, which
    begin with the time, so the old ones are found by their ids."""
    oldest = max(time.time_ns() // 1_000_000 - _KEPT_MILLISECONDS, 0) << 80
    values = {"policy_id": policy_id, "group_id": group_id, "oldest": oldest.to_bytes(16, "big")}
    return await session.row(groups.remember(), values) is not None


async def _check(session: Session, expects: Expectation) -> None:
    """Raise Conflict if an expectation does not hold."""
    found: msgspec.Struct | None = None
    some = False
    if isinstance(expects, RangeEmpty):
        check_plain(expects.record)
        statement = records.any_under(expects.record, len(expects.prefix))
        values = key_values(expects.record, TABLES[expects.record].key, expects.prefix)
        some = await session.row(statement, values) is not None
    else:
        of_shared = session.shared and expects.record is Version
        found = await (shared.get(session, expects.key) if of_shared else get(session, expects.record, expects.key))
    reason = unmet(expects, lambda *_: found, lambda *_: some)
    if reason is not None:
        raise Conflict(reason)


async def _write(session: Session, write: Write) -> None:
    match write:
        case Put(record):
            await _put(session, record)
        case Delete(record, key):
            await _delete(session, record, key)
        case DeleteRange(record, prefix):
            check_plain(record)
            values = key_values(record, TABLES[record].key, prefix)
            for row in await session.rows(records.keys_under(record, len(prefix)), values):
                await _delete(session, record, tuple(row))
        case ReplaceVersion(version):
            await _put(session, version)
            await session.run(groups.drop_content(), _owner(version))
            await load_content(session, write)
        case AmendNodes(version):
            if session.shared:
                await deriving.ensure_derived(session, (version.policy_id, version.version_id))
            await _amend(session, write)
            await _put(session, version, keep=THEIRS[VERSIONS.name])
        case DropVersion(version):
            await _stored(session, version)
            await session.run(groups.drop_content(), _owner(version))
            await _put(session, version, keep=THEIRS[VERSIONS.name])


def _owner(version: Version) -> dict[str, Any]:
    return {"policy_id": version.policy_id, "version_id": version.version_id}


async def _put(session: Session, record: msgspec.Struct, *, keep: frozenset[str] = frozenset()) -> None:
    check_plain(type(record))
    await session.run(records.put(type(record), keep=keep), rows.values(record))


async def _delete(session: Session, record: type[msgspec.Struct], key: tuple[Any, ...]) -> None:
    check_plain(record)
    if record is Version:
        await session.run(groups.drop_content(), dict(zip(TABLES[Version].key, key, strict=True)))
    await session.run(records.remove(record), key_values(record, TABLES[record].key, key))


async def _stored(session: Session, version: Version) -> Version:
    """The row of a version that has content. Raises NotFound."""
    if session.shared:
        return (await shared.resolve(session, version.policy_id, version.version_id)).version
    return await resolve(session, version.policy_id, version.version_id)


# --- amending ------------------------------------------------------------------------------------------------------------

_AMENDED = tuple(name for name in rows.NODE_COLUMNS if name not in ("policy_id", "version_id", "ordinal", "section_path"))
_WITHOUT_TEXT = tuple(name for name in _AMENDED if name != "text")


async def _amend(session: Session, write: AmendNodes) -> None:
    version = await _stored(session, write.version)
    owner = _owner(version)
    ordinals = [node.ordinal for node in write.nodes if 0 <= node.ordinal < version.node_count]
    found = rows.nodes(await session.rows(nodes.nodes_at(Outline), {**owner, "ordinal": ordinals}), Outline)
    before = {node.ordinal: node for node in found}
    for node in write.nodes:
        check_amended(node, before.get(node.ordinal))
    for node in write.nodes:
        await _amend_node(session, owner, before[node.ordinal], node, write.version)
    for change in write.terms:
        await _amend_postings(session, version, change)


async def _amend_node(session: Session, owner: dict[str, Any], before: Outline, node: Node, version: Version) -> None:
    columns = _WITHOUT_TEXT if node.text_hash == before.text_hash else _AMENDED
    row = dict(zip(rows.NODE_COLUMNS, rows.node_row(node, rows.naive(version.updated_at)), strict=False))
    changed = {name: row[name] for name in columns}
    await session.run(groups.amend_node(columns), {**changed, **owner, "at_ordinal": node.ordinal})
    if node.title != before.title:
        above = await session.row(groups.titles_of(), {**owner, "ordinal": node.parent_ordinal})
        titles = rows.titles(None if above is None else above["section_path"], node.title)
        found = await session.rows(groups.titles_below(), {**owner, "ordinal": node.ordinal, "titles": titles})
        await session.run_each(groups.entitle(), [{**owner, **row} for row in found])


async def _amend_postings(session: Session, version: Version, change: TermChange) -> None:
    """Change the rows of postings that a change of one node's terms is about."""
    segment = change.ordinal // SEGMENT_NODES
    owner = {**_owner(version), "segment": segment}
    terms = sorted(change.before.keys() | change.after.keys())
    asked = {name: [value] * len(terms) for name, value in owner.items()}
    found = await session.rows(kept.posting_rows(), {**asked, "term": terms})
    row_of = {term: (row["term"], row["packed"]) for term, row in zip(terms, found, strict=True)}
    lengths = (await session.rows(kept.lengths(), {name: [value] for name, value in owner.items()}))[0]["lengths"]
    if lengths is None or any(name is None for name, _ in row_of.values()):
        raise Corrupted(f"policy {version.policy_id!r} version {version.version_id!r}: segment {segment} has no postings")
    changed = postings.amended(row_of.__getitem__, change)
    removed = [{**owner, "term": name} for name, packed in changed.items() if packed is None]
    put = [{**owner, "term": name, "packed": packed} for name, packed in changed.items() if packed is not None]
    await session.run_each(groups.remove_posting_row(), removed)
    await session.run_each(groups.put_kept(POSTINGS.name), put)
    size = segment_size(version.node_count, segment)
    packed = postings.amended_lengths(lengths, size, change)
    await session.run(groups.put_kept(LENGTHS.name), {**owner, "lengths": packed})
