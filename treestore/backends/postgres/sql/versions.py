"""SQL that finds versions of policies."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from sqlalchemy import Select, case, collate, func, select, true

from treestore import catalog
from treestore.backends.postgres.sql.statement import ONE, POLICY, VERSION, Statement, columns_of, integer, text_, time
from treestore.backends.postgres.tables import VERSIONS
from treestore.operations import InEffect, Latest, VersionRef

How = Literal["named", "latest", "in effect", "in effect or latest"]
"""How a version is meant: by its id or as the newest ingested, the one in effect at a moment, that or else the newest."""


def how(ref: VersionRef) -> How | None:
    """How the server can find what is meant; None for what was known at an earlier moment, which only the facts tell."""
    if isinstance(ref, str):
        return "named"
    if isinstance(ref, Latest):
        return "latest"
    if ref.known_at is not None:
        return None
    return "in effect or latest" if ref.or_latest else "in effect"


def meant(ref: VersionRef) -> dict[str, Any]:
    """The parameters that :func:`how` asks for. Times are without a zone, in UTC."""
    if isinstance(ref, str):
        return {"version_id": ref}
    return {"at": ref.at.replace(tzinfo=None)} if isinstance(ref, InEffect) else {}


def _versions(*what: Any, of: Any = POLICY) -> Select[Any]:
    return select(*what).where(VERSIONS.c.policy_id == of, VERSIONS.c.deleted_at.is_(None))


def first_of(chosen: Select[Any], meaning: How, newest: Any) -> Select[Any]:
    """The one of a policy's versions that is meant, by the rules of :mod:`treestore.trees.timeline`. ``newest``: the last
    ingestion of the policy."""
    start = func.coalesce(VERSIONS.c.effective_date, VERSIONS.c.ingested_at)
    by_ingestion = (
        VERSIONS.c.ingested_at.desc(),
        VERSIONS.c.created_at.desc(),
        collate(VERSIONS.c.version_id, "C").desc(),
    )
    if meaning == "in effect":
        chosen = chosen.where(start <= time("at")).order_by(start.desc(), *by_ingestion)
    elif meaning == "in effect or latest":
        begun = start <= func.greatest(time("at"), newest)
        chosen = chosen.order_by(begun.desc(), case((begun, start)).desc(), *by_ingestion)
    else:
        chosen = chosen.order_by(*by_ingestion)
    return chosen.limit(ONE)


def chosen(meaning: How) -> Any:
    """The id of the version that is meant, as an expression."""
    if meaning == "named":
        return VERSION
    newest = _versions(func.max(VERSIONS.c.ingested_at)).scalar_subquery()
    return first_of(_versions(VERSIONS.c.version_id), meaning, newest).scalar_subquery()


@cache
def version(meaning: How) -> Statement:
    """The version that is meant, tombstones not."""
    columns = columns_of(catalog.VERSIONS, VERSIONS)
    return Statement(_versions(*columns).where(VERSIONS.c.version_id == chosen(meaning)))


@cache
def versions() -> Statement:
    """All versions of a policy, tombstones too, by version id."""
    columns = columns_of(catalog.VERSIONS, VERSIONS)
    by_id = collate(VERSIONS.c.version_id, "C")
    return Statement(select(*columns).where(VERSIONS.c.policy_id == POLICY).order_by(by_id))


@cache
def documents(*, after: bool, limited: bool) -> Statement:
    """The policies in order: each with the number of its versions and the one that is in effect or latest."""
    policy_id = collate(VERSIONS.c.policy_id, "C")
    counted = select(
        VERSIONS.c.policy_id,
        func.count().label("version_count"),
        func.max(VERSIONS.c.ingested_at).label("newest"),
    ).where(VERSIONS.c.deleted_at.is_(None))
    if after:
        counted = counted.where(policy_id > text_("after"))
    counted = counted.group_by(VERSIONS.c.policy_id).order_by(policy_id)
    policies = (counted.limit(integer("limit")) if limited else counted).cte("policies")
    columns = columns_of(catalog.VERSIONS, VERSIONS)
    found = first_of(_versions(*columns, of=policies.c.policy_id), "in effect or latest", policies.c.newest).lateral("found")
    return Statement(
        select(*found.c, policies.c.version_count)
        .select_from(policies.join(found, true()))
        .order_by(collate(policies.c.policy_id, "C"))
    )
