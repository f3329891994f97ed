"""SQL that finds what is kept beside the nodes of a version: postings, lengths, page ranges.

Many things are asked at once, as arrays of equal length; the answers come in their order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Integer, Table, Text, and_, bindparam, column, func, select, true

from treestore import catalog
from treestore.backends.postgres.sql.statement import ONE, Statement, columns_of, integer, of_version, text_
from treestore.backends.postgres.tables import INTERVALS, LENGTHS, METADATA, NODES, POSTINGS


def _asked(*names: str) -> Any:
    """Arrays of equal length, given as parameters of these names, as rows; ``at`` is the place of each, from 1."""
    kinds: dict[str, Any] = {"segment": Integer, "depth": Integer, "position": Integer, "ordinal": Integer}
    arrays = [bindparam(name, type_=ARRAY(kinds.get(name, Text))) for name in names]
    columns = [column(name, kinds.get(name, Text)) for name in names]
    return func.unnest(*arrays).table_valued(*columns, with_ordinality="at", name="asked").render_derived()


def _in_segment(table: Table, asked: Any) -> ColumnElement[bool]:
    return and_(
        table.c.policy_id == asked.c.policy_id,
        table.c.version_id == asked.c.version_id,
        table.c.segment == asked.c.segment,
    )


@cache
def posting_rows() -> Statement:
    """For each term asked, in order: the row of postings where it is or would be, as its name and its bytes."""
    asked = _asked("policy_id", "version_id", "segment", "term")
    row = (
        select(POSTINGS.c.term, POSTINGS.c.packed)
        .where(_in_segment(POSTINGS, asked), POSTINGS.c.term <= asked.c.term)
        .order_by(POSTINGS.c.term.desc())
        .limit(ONE)
        .lateral("found")
    )
    return Statement(select(row.c.term, row.c.packed).select_from(asked.outerjoin(row, true())).order_by(asked.c.at))


@cache
def posting_rows_between() -> Statement:
    """The first ``limit`` rows of postings of each segment whose names are above ``term`` and not above ``last``."""
    asked = _asked("policy_id", "version_id", "segment")
    row = (
        select(POSTINGS.c.term, POSTINGS.c.packed)
        .where(_in_segment(POSTINGS, asked), POSTINGS.c.term > text_("term"), POSTINGS.c.term <= text_("last"))
        .order_by(POSTINGS.c.term)
        .limit(integer("limit"))
        .lateral("found")
    )
    return Statement(select(asked.c.at, row.c.packed).select_from(asked.join(row, true())).order_by(asked.c.at, row.c.term))


@cache
def lengths() -> Statement:
    """For each segment asked, in order: the packed lengths of its nodes."""
    asked = _asked("policy_id", "version_id", "segment")
    found = asked.outerjoin(LENGTHS, _in_segment(LENGTHS, asked))
    return Statement(select(LENGTHS.c.lengths).select_from(found).order_by(asked.c.at))


@cache
def hits() -> Statement:
    """For each node asked, in order: its row."""
    asked = _asked("policy_id", "version_id", "ordinal")
    there = and_(
        NODES.c.policy_id == asked.c.policy_id,
        NODES.c.version_id == asked.c.version_id,
        NODES.c.ordinal == asked.c.ordinal,
    )
    columns = columns_of(catalog.NODES, NODES)
    return Statement(select(*columns).select_from(asked.outerjoin(NODES, there)).order_by(asked.c.at))


@cache
def interval_rows() -> Statement:
    """For each row of page ranges asked, in order: its bytes."""
    asked = _asked("depth", "position")
    there = and_(of_version(INTERVALS), INTERVALS.c.depth == asked.c.depth, INTERVALS.c.position == asked.c.position)
    found = asked.outerjoin(INTERVALS, there)
    return Statement(select(INTERVALS.c.packed).select_from(found).order_by(asked.c.at))


@cache
def kept(name: str, *columns: str) -> Statement:
    """Columns of all that one of our tables keeps of a version, in the order of its key."""
    table = METADATA.tables[name]
    order = list(table.primary_key.columns)[2:]
    return Statement(select(*[table.c[column] for column in columns]).where(of_version(table)).order_by(*order))
