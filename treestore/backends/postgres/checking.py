"""A check of a whole relational store: every version's nodes, pages, postings and page ranges, and that there is nothing else.

Everything derived, hashes included, is derived again from what was given, by the code that stored it. Where others write the
tables too, the columns that are theirs are their affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from treestore.backends.postgres import rows, shared
from treestore.backends.postgres.search import stored_segments
from treestore.backends.postgres.session import Session
from treestore.backends.postgres.sql import kept, records, whole
from treestore.backends.postgres.sql import nodes as sql
from treestore.backends.postgres.sql.versions import NAMED
from treestore.errors import TreestoreError
from treestore.operations import Segment
from treestore.records import CheckReport, Node, PageText, Version
from treestore.search import soundness as search_soundness
from treestore.search.postings import by_node
from treestore.trees import intervals, soundness
from treestore.trees.rules import MAX_INTEGER


async def check_store(session: Session) -> CheckReport:
    """Check everything at the moment that the session's transaction sees. What takes long runs in a thread."""
    problems: list[str] = []
    counts = {"versions": 0, "nodes": 0, "pages": 0}
    for key in await session.rows(whole.version_keys(), {}):
        counts["versions"] += 1
        try:
            version = await _version(session, (key["policy_id"], key["version_id"]))
            if version is None:
                counts["versions_underived"] = counts.get("versions_underived", 0) + 1
            else:
                problems += await _check_version(session, version, counts)
        except TreestoreError as error:
            problems.append(str(error))
    for row in [] if session.shared else await session.rows(whole.strays(), {}):
        owner = f"policy {row['policy_id']!r} version {row['version_id']!r}"
        problems.append(f"{row['name']}: {row['rows']} rows belong to {owner}, which does not exist")
    return CheckReport(ok=not problems, problems=problems, counts=counts)


async def _version(session: Session, key: tuple[str, str]) -> Version | None:
    """A version; None if it is derived of its rows whenever it is read, and can't be wrong."""
    if not session.shared:
        return rows.record(await session.row(records.get(Version), {"key_0": key[0], "key_1": key[1]}), Version)
    found = await shared.find(session, key)
    return found.version if found is not None and found.fits else None


async def _check_version(session: Session, version: Version, counts: dict[str, int]) -> list[str]:
    owner = {"policy_id": version.policy_id, "version_id": version.version_id}
    found = await session.rows(sql.with_relational(), owner)
    nodes = rows.nodes([tuple(row)[: len(Node.__struct_fields__)] for row in found], Node)
    of_pages = await session.rows(sql.page_texts(NAMED), {**owner, "first": 0, "last": MAX_INTEGER})
    pages = [rows.record(row, PageText) for row in of_pages]
    segments = await stored_segments(session, version)
    ranges = [tuple(row) for row in await session.rows(kept.kept("treestore_intervals", "depth", "position", "packed"), owner)]
    counts["nodes"] += len(nodes)
    counts["pages"] += len(pages)
    if version.deleted_at is not None and not (nodes or pages or segments or ranges):
        return soundness.problems(version, None, None)
    relational = [] if session.shared else [(row["content_hash"], row["section_path"]) for row in found]
    return await asyncio.to_thread(_problems, version, nodes, pages, segments, ranges, relational)


def _problems(
    version: Version,
    nodes: Sequence[Node],
    pages: Sequence[PageText],
    segments: Sequence[Segment],
    ranges: Sequence[tuple[Any, ...]],
    relational: Sequence[tuple[str, str]],
) -> list[str]:
    problems = soundness.problems(version, nodes, pages)
    name = f"policy {version.policy_id!r} version {version.version_id!r}"
    if problems:
        return problems
    if ranges != list(intervals.rows(nodes)):
        problems.append(f"{name}: the page ranges do not fit the nodes")
    try:
        terms = by_node(segments, len(nodes)) if segments else []
    except TreestoreError as error:
        return [*problems, f"{name}: {error}"]
    problems += search_soundness.problems(version, nodes, terms)
    for node, kept_of_node, row in zip(nodes, relational, rows.node_rows(nodes, version.updated_at), strict=False):
        for column, found, expected in zip(("content_hash", "section_path"), kept_of_node, (row[-3], row[-1]), strict=True):
            if found != expected:
                problems.append(f"{name}: {column} of node {node.node_id!r} is not what follows from the node")
    return problems
