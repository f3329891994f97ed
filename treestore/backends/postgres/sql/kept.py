"""SQL that finds what is kept beside the nodes of a version: postings, lengths, page ranges.

Many things are asked at once, as arrays of equal length; the answers come in their order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, select, true

from treestore import catalog
from treestore.backends.postgres.sql.nodes import apart, the_one
from treestore.backends.postgres.sql.statement import ONE, Statement, asked, columns_of, integer, of_version, text_
from treestore.backends.postgres.tables import INTERVALS, LENGTHS, METADATA, NODES, POSTINGS


def _in_segment(table: Table, places: Any) -> ColumnElement[bool]:
    return and_(
        table.c.policy_id == places.c.policy_id,
        table.c.version_id == places.c.version_id,
        table.c.segment == places.c.segment,
    )


@cache
def posting_rows() -> Statement:
    """For each term asked, in order: the row of postings where it is or would be, as its name and its bytes."""
    places = asked("policy_id", "version_id", "segment", "term")
    row = (
        select(POSTINGS.c.term, POSTINGS.c.packed)
        .where(_in_segment(POSTINGS, places), POSTINGS.c.term <= places.c.term)
        .order_by(POSTINGS.c.term.desc())
        .limit(ONE)
        .lateral("found")
    )
    return Statement(select(row.c.term, row.c.packed).select_from(places.outerjoin(row, true())).order_by(places.c.at))


@cache
def posting_rows_between() -> Statement:
    """The first ``limit`` rows of postings of each segment whose names are above ``term`` and not above ``last``."""
    places = asked("policy_id", "version_id", "segment")
    row = (
        select(POSTINGS.c.term, POSTINGS.c.packed)
        .where(_in_segment(POSTINGS, places), POSTINGS.c.term > text_("term"), POSTINGS.c.term <= text_("last"))
        .order_by(POSTINGS.c.term)
        .limit(integer("limit"))
        .lateral("found")
    )
    return Statement(select(places.c.at, row.c.packed).select_from(places.join(row, true())).order_by(places.c.at, row.c.term))


@cache
def lengths() -> Statement:
    """For each segment asked, in order: the packed lengths of its nodes."""
    places = asked("policy_id", "version_id", "segment")
    found = places.outerjoin(LENGTHS, _in_segment(LENGTHS, places))
    return Statement(select(LENGTHS.c.lengths).select_from(found).order_by(places.c.at))


@cache
def hits() -> Statement:
    """For each node asked, in order: its row."""
    places = asked("policy_id", "version_id", "ordinal")
    of_version = NODES.c.policy_id == places.c.policy_id, NODES.c.version_id == places.c.version_id
    there = select(*columns_of(catalog.NODES, NODES)).where(*of_version)
    found = apart(the_one(there, NODES.c.ordinal, places.c.ordinal), "found")
    return Statement(select(*found.c).select_from(places.outerjoin(found, true())).order_by(places.c.at))


@cache
def interval_rows() -> Statement:
    """For each row of page ranges asked, in order: its bytes."""
    places = asked("depth", "position")
    there = and_(of_version(INTERVALS), INTERVALS.c.depth == places.c.depth, INTERVALS.c.position == places.c.position)
    found = places.outerjoin(INTERVALS, there)
    return Statement(select(INTERVALS.c.packed).select_from(found).order_by(places.c.at))


@cache
def kept(name: str, *columns: str) -> Statement:
    """Columns of all that one of our tables keeps of a version, in the order of its key."""
    table = METADATA.tables[name]
    order = list(table.primary_key.columns)[2:]
    return Statement(select(*[table.c[column] for column in columns]).where(of_version(table)).order_by(*order))
