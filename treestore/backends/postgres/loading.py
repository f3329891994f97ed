"""Rows loaded into the tables in bulk: a version's nodes, and what is kept beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from treestore.backends.postgres import rows
from treestore.backends.postgres.session import Session
from treestore.backends.postgres.sql import groups
from treestore.backends.postgres.tables import INTERVALS, LENGTHS, NODES, PAGE_TEXTS, POSTINGS
from treestore.operations import ReplaceVersion, Segment
from treestore.records import Node
from treestore.trees import intervals

BULK_ROWS = 20_000
"""Rows loaded by one statement: few enough not to use up the time of a statement, enough that the server seldom waits."""


async def load_content(session: Session, write: ReplaceVersion) -> None:
    """Add a version's nodes and what is kept beside them; nothing is there yet."""
    version = write.version
    owner = (version.policy_id, version.version_id)
    await _load(session, NODES.name, rows.NODE_COLUMNS, rows.node_rows(write.nodes, version.updated_at))
    await _load(session, PAGE_TEXTS.name, rows.PAGE_COLUMNS, rows.page_rows(*owner, write.pages))
    await load_kept(session, owner, write.nodes, write.segments)


async def load_kept(
    session: Session, owner: tuple[str, str], nodes: Sequence[Node], segments: Sequence[Segment]
) -> None:
    """Add what is kept beside a version's nodes: postings, if it has any, and page ranges."""
    numbered = list(enumerate(segments))
    names = ("policy_id", "version_id", "segment", "term", "packed")
    packed = ((*owner, at, term, row) for at, segment in numbered for term, row in segment.rows)
    await _load(session, POSTINGS.name, names, packed)
    lengths = ((*owner, at, segment.lengths) for at, segment in numbered)
    await _load(session, LENGTHS.name, ("policy_id", "version_id", "segment", "lengths"), lengths)
    ranges = ((*owner, *row) for row in intervals.rows(nodes))
    await _load(session, INTERVALS.name, ("policy_id", "version_id", "depth", "position", "packed"), ranges)


async def _load(session: Session, table: str, columns: tuple[str, ...], found: Iterable[Sequence[Any]]) -> None:
    for some in _cut(found):
        await session.load(table, columns, some, groups.insert_row(table, columns))


def _cut(found: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    waiting = iter(found)
    while some := list(islice(waiting, BULK_ROWS)):
        yield some
