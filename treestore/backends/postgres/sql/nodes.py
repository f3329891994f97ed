"""SQL that finds nodes and page texts of a version.

Trees are walked by recursive common table expressions. Each step goes to a greater ordinal on the way down and to a smaller
one on the way up, so a walk ends even where damaged rows form a cycle, and the depth is bounded besides. A whole subtree is
one range of ordinals.

Every index on nodes begins with policy and version, and PostgreSQL, which takes the columns for independent of each other and
all documents for equally long, often expects a single row for these two. Then all indexes look alike to it, and it may read
a document of 50,000 nodes to find one. So statements are written such that only one index does without sorting, and sorting
is off (:func:`.groups.preparation`): the third column is asked for as a range of one value (:func:`exactly`), in its order,
and each step of a walk is a subquery of its own (``OFFSET 0`` and ``LIMIT`` keep the planner from merging it with others).
What is read so is put in document order by whoever asked.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Integer, Select, literal_column, select, true
from sqlalchemy.sql.selectable import CTE

from treestore import catalog
from treestore.backends.postgres.sql.statement import ONE, POLICY, Statement, asked, columns_of, integer, of_version, text_
from treestore.backends.postgres.sql.versions import How, chosen
from treestore.backends.postgres.tables import NODES, PAGE_TEXTS
from treestore.records import Outline


def exactly(found: Select[Any], column: Any, value: Any) -> Select[Any]:
    """The rows that have a value in a column, by the index that the column is the last one of."""
    return found.where(column.between(value, value)).order_by(column)


def the_one(found: Select[Any], column: Any, value: Any) -> Select[Any]:
    """As :func:`exactly`, where at most one row has the value."""
    return exactly(found, column, value).limit(ONE)


def apart(found: Select[Any], name: str) -> Any:
    """A subquery for each row that stands before it, planned for itself."""
    return found.offset(literal_column("0", Integer)).lateral(name)


@cache
def nodes(weight: type[Outline], meaning: How, *, one: bool) -> Statement:
    """The named node, or nodes, in any order."""
    columns = columns_of(catalog.NODES, NODES, weight)
    version = of_version(NODES, chosen(meaning))
    if one:
        return Statement(the_one(select(*columns).where(version), NODES.c.node_id, text_("node_id")))
    names = asked("node_id")
    found = apart(the_one(select(*columns).where(version), NODES.c.node_id, names.c.node_id), "found")
    return Statement(select(*found.c).select_from(names.join(found, true())))


@cache
def nodes_at(weight: type[Outline]) -> Statement:
    """The nodes of a version at the given ordinals, in any order."""
    places = asked("ordinal")
    columns = columns_of(catalog.NODES, NODES, weight)
    found = apart(the_one(select(*columns).where(of_version(NODES)), NODES.c.ordinal, places.c.ordinal), "found")
    return Statement(select(*found.c).select_from(places.join(found, true())))


@cache
def children(weight: type[Outline], meaning: How, *, of_node: bool) -> Statement:
    """The children of a node, or the roots, in any order."""
    found = select(*columns_of(catalog.NODES, NODES, weight)).where(of_version(NODES, chosen(meaning)))
    return Statement(_below(found, of_node))


def _below(found: Select[Any], of_node: bool) -> Select[Any]:
    parent = NODES.c.parent_id
    if of_node:
        return exactly(found, parent, text_("node_id"))
    return found.where(parent.is_(None)).order_by(parent)


@cache
def subtree(weight: type[Outline], meaning: How, *, of_node: bool, bounded: bool) -> Statement:
    """A node and all below it, or all nodes, in document order; or ``bounded`` to ``max_depth`` levels below, in any order."""
    version = of_version(NODES, chosen(meaning))
    if bounded:
        return Statement(_walked(weight, _walk_down(version, of_node)))
    found = select(*columns_of(catalog.NODES, NODES, weight)).order_by(NODES.c.ordinal)
    if not of_node:
        return Statement(found.where(version))
    columns = (NODES.c.version_id, NODES.c.ordinal, NODES.c.last_ordinal)
    top = the_one(select(*columns).where(version), NODES.c.node_id, text_("node_id")).cte("top")
    first, last = select(top.c.ordinal).scalar_subquery(), select(top.c.last_ordinal).scalar_subquery()
    within = NODES.c.ordinal.between(first, last)
    return Statement(found.where(of_version(NODES, select(top.c.version_id).scalar_subquery()), within))


@cache
def ancestors(weight: type[Outline], meaning: How) -> Statement:
    """The way from the root to a node, in any order."""
    return Statement(_walked(weight, _walk_up(of_version(NODES, chosen(meaning)))))


# A walk carries what leads on, and no more: rows of a kilobyte would be copied at each step (a quarter slower).


def _walk_down(version: Any, of_node: bool) -> CTE:
    """The node at which a walk begins, or the roots, and those below, level by level."""
    columns = (NODES.c.id, NODES.c.version_id, NODES.c.node_id, NODES.c.ordinal)
    begin = select(*columns).where(version)
    first = the_one(begin, NODES.c.node_id, text_("node_id")) if of_node else _below(begin, of_node)
    top = first.subquery("top")
    walk = select(*top.c, literal_column("0", Integer).label("level")).cte("walk", recursive=True)
    below = NODES.alias("node").c
    children = select(below.id, below.version_id, below.node_id, below.ordinal).where(
        below.policy_id == POLICY,
        below.version_id == walk.c.version_id,
        below.parent_ordinal == walk.c.ordinal,
        below.ordinal > walk.c.ordinal,
    )
    step = apart(exactly(children, below.parent_id, walk.c.node_id), "below")
    deeper = walk.c.level < integer("max_depth")
    return walk.union_all(select(*step.c, walk.c.level + ONE).select_from(walk.join(step, true())).where(deeper))


def _walk_up(version: Any) -> CTE:
    """A node and those above it."""
    columns = (NODES.c.id, NODES.c.version_id, NODES.c.ordinal, NODES.c.parent_ordinal)
    top = the_one(select(*columns).where(version), NODES.c.node_id, text_("node_id")).subquery("top")
    walk = select(*top.c).cte("walk", recursive=True)
    above = NODES.alias("node").c
    parent = select(above.id, above.version_id, above.ordinal, above.parent_ordinal).where(
        above.policy_id == POLICY, above.version_id == walk.c.version_id, above.ordinal < walk.c.ordinal
    )
    step = apart(the_one(parent, above.ordinal, walk.c.parent_ordinal), "above")
    return walk.union_all(select(*step.c).select_from(walk.join(step, true())))


def _walked(weight: type[Outline], walk: CTE) -> Select[Any]:
    """The nodes of a walk."""
    whole = select(*columns_of(catalog.NODES, NODES, weight)).where(NODES.c.policy_id == POLICY, NODES.c.id == walk.c.id)
    found = apart(whole.limit(ONE), "found")
    return select(*found.c).select_from(walk.join(found, true()))


@cache
def with_relational() -> Statement:
    """All nodes of a version in document order, each with the columns that follow from it for the reasoning-service."""
    columns = (*columns_of(catalog.NODES, NODES), NODES.c.content_hash, NODES.c.section_path)
    return Statement(select(*columns).where(of_version(NODES)).order_by(NODES.c.ordinal))


@cache
def rows() -> Statement:
    """All rows of nodes of a version with their ``id``, in any order, whoever wrote them."""
    columns = (*columns_of(catalog.NODES, NODES), NODES.c.id)
    return Statement(select(*columns).where(of_version(NODES)).order_by(NODES.c.node_id))


@cache
def page_texts(meaning: How) -> Statement:
    """The page texts of a version with ``first <= page <= last``, in the order given."""
    within = PAGE_TEXTS.c.page.between(integer("first"), integer("last"))
    found = select(*columns_of(catalog.PAGE_TEXTS, PAGE_TEXTS)).where(of_version(PAGE_TEXTS, chosen(meaning)), within)
    return Statement(found.order_by(PAGE_TEXTS.c.position))
