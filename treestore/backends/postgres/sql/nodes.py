"""SQL that finds nodes and page texts of a version.

Trees are walked by recursive common table expressions. Each step goes to a greater ordinal on the way down and to a smaller
one on the way up, so a walk ends even where damaged rows form a cycle, and the depth is bounded besides. A whole subtree is
one range of ordinals.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import ARRAY, Integer, Select, Text, and_, any_, bindparam, literal_column, select
from sqlalchemy.sql.selectable import CTE

from treestore import catalog
from treestore.backends.postgres.sql.statement import ONE, POLICY, Statement, columns_of, integer, of_version, text_
from treestore.backends.postgres.sql.versions import How, chosen
from treestore.backends.postgres.tables import NODES, PAGE_TEXTS
from treestore.records import Outline


@cache
def nodes(weight: type[Outline], meaning: How, *, one: bool) -> Statement:
    """The named node, or nodes, in any order."""
    if one:
        named = NODES.c.node_id == text_("node_id")
    else:
        named = NODES.c.node_id == any_(bindparam("node_ids", type_=ARRAY(Text)))
    return Statement(select(*columns_of(catalog.NODES, NODES, weight)).where(of_version(NODES, chosen(meaning)), named))


@cache
def nodes_at(weight: type[Outline]) -> Statement:
    """The nodes of a version at the given ordinals, in document order."""
    there = NODES.c.ordinal == any_(bindparam("ordinals", type_=ARRAY(Integer)))
    found = select(*columns_of(catalog.NODES, NODES, weight)).where(of_version(NODES), there)
    return Statement(found.order_by(NODES.c.ordinal))


@cache
def children(weight: type[Outline], meaning: How, *, of_node: bool) -> Statement:
    """The children of a node, or the roots, in document order."""
    below = NODES.c.parent_id == text_("node_id") if of_node else NODES.c.parent_id.is_(None)
    found = select(*columns_of(catalog.NODES, NODES, weight)).where(of_version(NODES, chosen(meaning)), below)
    return Statement(found.order_by(NODES.c.ordinal))


@cache
def subtree(weight: type[Outline], meaning: How, *, of_node: bool, bounded: bool) -> Statement:
    """A node and all below it, or all nodes, in document order; ``bounded`` to ``max_depth`` levels below."""
    version = of_version(NODES, chosen(meaning))
    named = NODES.c.node_id == text_("node_id")
    if bounded:
        return Statement(_walked(weight, _walk_down(version, named if of_node else NODES.c.parent_id.is_(None))))
    found = select(*columns_of(catalog.NODES, NODES, weight)).order_by(NODES.c.ordinal)
    if not of_node:
        return Statement(found.where(version))
    top = select(NODES.c.version_id, NODES.c.ordinal, NODES.c.last_ordinal).where(version, named).cte("top")
    first, last = select(top.c.ordinal).scalar_subquery(), select(top.c.last_ordinal).scalar_subquery()
    within = NODES.c.ordinal.between(first, last)
    return Statement(found.where(of_version(NODES, select(top.c.version_id).scalar_subquery()), within))


@cache
def ancestors(weight: type[Outline], meaning: How) -> Statement:
    """The way from the root to a node."""
    begin = and_(of_version(NODES, chosen(meaning)), NODES.c.node_id == text_("node_id"))
    return Statement(_walked(weight, _walk_up(begin)))


# A walk carries what leads on, and no more: rows of a kilobyte would be copied at each step (a quarter slower).


def _walk_down(*begin: Any) -> CTE:
    """The nodes at which a walk begins and those below them, level by level."""
    level = literal_column("0", Integer).label("level")
    c = NODES.c
    walk = select(c.id, c.version_id, c.node_id, c.ordinal, level).where(*begin).cte("walk", recursive=True)
    below = NODES.alias("below").c
    step = select(below.id, below.version_id, below.node_id, below.ordinal, walk.c.level + ONE).where(
        below.policy_id == POLICY,
        below.version_id == walk.c.version_id,
        below.parent_id == walk.c.node_id,
        below.parent_ordinal == walk.c.ordinal,
        below.ordinal > walk.c.ordinal,
        walk.c.level < integer("max_depth"),
    )
    return walk.union_all(step)


def _walk_up(begin: Any) -> CTE:
    """A node and those above it."""
    c = NODES.c
    walk = select(c.id, c.version_id, c.ordinal, c.parent_ordinal).where(begin).cte("walk", recursive=True)
    above = NODES.alias("above").c
    step = select(above.id, above.version_id, above.ordinal, above.parent_ordinal).where(
        above.policy_id == POLICY,
        above.version_id == walk.c.version_id,
        above.ordinal == walk.c.parent_ordinal,
        above.ordinal < walk.c.ordinal,
    )
    return walk.union_all(step)


def _walked(weight: type[Outline], walk: CTE) -> Select[Any]:
    """The nodes of a walk, in document order."""
    there = and_(NODES.c.policy_id == POLICY, NODES.c.id == walk.c.id)
    return select(*columns_of(catalog.NODES, NODES, weight)).join_from(walk, NODES, there).order_by(NODES.c.ordinal)


@cache
def with_relational() -> Statement:
    """All nodes of a version in document order, each with the columns that follow from it for the reasoning-service."""
    columns = (*columns_of(catalog.NODES, NODES), NODES.c.content_hash, NODES.c.section_path)
    return Statement(select(*columns).where(of_version(NODES)).order_by(NODES.c.ordinal))


@cache
def page_texts(meaning: How) -> Statement:
    """The page texts of a version with ``first <= page <= last``, in the order given."""
    within = PAGE_TEXTS.c.page.between(integer("first"), integer("last"))
    found = select(*columns_of(catalog.PAGE_TEXTS, PAGE_TEXTS)).where(of_version(PAGE_TEXTS, chosen(meaning)), within)
    return Statement(found.order_by(PAGE_TEXTS.c.position))
