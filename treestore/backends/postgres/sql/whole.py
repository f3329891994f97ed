"""SQL about the whole store."""

from __future__ import annotations

import functools
import operator
from functools import cache

from sqlalchemy import Text, collate, distinct, func, literal_column, select, tuple_, union_all

from treestore.backends.postgres.sql.statement import ONE, POLICY, Statement
from treestore.backends.postgres.sql.versions import live, with_fingerprint
from treestore.backends.postgres.tables import ADOPTION, CONTENT, METADATA, NODES, VERSIONS


@cache
def counts(*, shared: bool) -> Statement:
    """Policies, versions and nodes that are not deleted, and tombstones. ``shared``: others write the tables too."""
    there = live(shared=shared)
    of_versions = func.coalesce(func.sum(VERSIONS.c.node_count).filter(there), literal_column("0"))
    nodes = select(func.count()).select_from(NODES).scalar_subquery() if shared else of_versions
    return Statement(
        select(
            func.count(distinct(VERSIONS.c.policy_id)).filter(there).label("documents"),
            func.count().filter(there).label("versions"),
            nodes.label("nodes"),
            func.count().filter(~there).label("tombstones"),
        )
    )


@cache
def adoption() -> Statement:
    """One row, if the reasoning-service's code writes the tables too."""
    return Statement(select(ADOPTION.c.adopted_at).limit(ONE))


@cache
def survey(*, of_policy: bool) -> Statement:
    """All versions, or those of a policy, in order: the key, when it was deleted, and what its nodes were and are."""
    found = select(VERSIONS.c.policy_id, VERSIONS.c.version_id, VERSIONS.c.deleted_at)
    found = found.where(VERSIONS.c.policy_id == POLICY) if of_policy else found
    return Statement(
        with_fingerprint(found, lambda version: [collate(version.policy_id, "C"), collate(version.version_id, "C")])
    )


@cache
def size() -> Statement:
    """The bytes that our tables take, with their indexes."""
    sizes = [func.pg_total_relation_size(literal_column(f"'{table.name}'")) for table in METADATA.sorted_tables]
    return Statement(select(functools.reduce(operator.add, sizes)))


@cache
def analyzers() -> Statement:
    """How many versions have postings of each version of the analyzer."""
    by = VERSIONS.c.analyzer
    return Statement(select(by, func.count()).where(by != literal_column("''"), VERSIONS.c.deleted_at.is_(None)).group_by(by))


@cache
def version_keys() -> Statement:
    """The keys of all versions, tombstones too, in order."""
    key = (VERSIONS.c.policy_id, VERSIONS.c.version_id)
    return Statement(select(*key).order_by(*[collate(each, "C") for each in key]))


@cache
def strays() -> Statement:
    """What is kept of versions that are not there: the table, the version and how many rows."""
    found = []
    for table in CONTENT:
        owner = (table.c.policy_id, table.c.version_id)
        known = select(VERSIONS.c.policy_id, VERSIONS.c.version_id)
        what = select(literal_column(f"'{table.name}'", Text).label("name"), *owner, func.count().label("rows"))
        found.append(what.where(tuple_(*owner).not_in(known)).group_by(*owner))
    return Statement(union_all(*found))
