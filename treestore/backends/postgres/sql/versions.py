"""SQL that finds versions of policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Text,
    case,
    cast,
    collate,
    exists,
    extract,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP

from treestore import catalog
from treestore.backends.postgres.sql.statement import ONE, POLICY, VERSION, Statement, columns_of, integer, text_, time
from treestore.backends.postgres.tables import NODES, THEIRS, VERSIONS
from treestore.operations import InEffect, Latest, VersionRef


class How(NamedTuple):
    """How a version is meant: by its id, as the newest ingested, the one in effect at a moment, that or else the newest.

    ``shared``: others write the tables too. Then a version is found only while its nodes are as they were when what is ours
    was derived of them; and a tombstone that has nodes again is none.
    """

    kind: Literal["named", "latest", "in effect", "in effect or latest"]
    shared: bool = False


NAMED = How("named")


def how(ref: VersionRef, *, shared: bool = False) -> How | None:
    """How the server can find what is meant; None for what was known at an earlier moment, which only the facts tell."""
    if isinstance(ref, str):
        return How("named", shared)
    if isinstance(ref, Latest):
        return How("latest", shared)
    if ref.known_at is not None:
        return None
    return How("in effect or latest" if ref.or_latest else "in effect", shared)


def meant(ref: VersionRef) -> dict[str, Any]:
    """The parameters that :func:`how` asks for. Times are without a zone, in UTC."""
    if isinstance(ref, str):
        return {"version_id": ref}
    return {"at": ref.at.replace(tzinfo=None)} if isinstance(ref, InEffect) else {}


def live(*, shared: bool) -> ColumnElement[bool]:
    """A version that is not deleted."""
    there = VERSIONS.c.deleted_at.is_(None)
    if not shared:
        return there
    its_nodes = NODES.c.policy_id == VERSIONS.c.policy_id, NODES.c.version_id == VERSIONS.c.version_id
    return or_(there, exists(select(ONE).where(*its_nodes).correlate(VERSIONS)))


def _versions(*what: Any, of: Any = POLICY, shared: bool = False) -> Select[Any]:
    return select(*what).where(VERSIONS.c.policy_id == of, live(shared=shared))


def first_of(chosen: Select[Any], meaning: How, newest: Any) -> Select[Any]:
    """The one of a policy's versions that is meant, by the rules of :mod:`treestore.trees.timeline`. ``newest``: the last
    ingestion of the policy."""
    start = func.coalesce(VERSIONS.c.effective_date, VERSIONS.c.ingested_at)
    by_ingestion = (
        VERSIONS.c.ingested_at.desc(),
        VERSIONS.c.created_at.desc(),
        collate(VERSIONS.c.version_id, "C").desc(),
    )
    if meaning.kind == "in effect":
        chosen = chosen.where(start <= time("at")).order_by(start.desc(), *by_ingestion)
    elif meaning.kind == "in effect or latest":
        begun = start <= func.greatest(time("at"), newest)
        chosen = chosen.order_by(begun.desc(), case((begun, start)).desc(), *by_ingestion)
    else:
        chosen = chosen.order_by(*by_ingestion)
    return chosen.limit(ONE)


def _the_one(meaning: How, *columns: Any) -> Select[Any]:
    """Columns of the version that is meant."""
    found = _versions(*columns, shared=meaning.shared)
    if meaning.kind == "named":
        return found.where(VERSIONS.c.version_id == VERSION)
    newest = _versions(func.max(VERSIONS.c.ingested_at), shared=meaning.shared).scalar_subquery()
    return first_of(found, meaning, newest)


def chosen(meaning: How) -> Any:
    """The id of the version that is meant, as an expression; null for a shared one whose nodes are not as they were."""
    if not meaning.shared:
        return VERSION if meaning.kind == "named" else _the_one(meaning, VERSIONS.c.version_id).scalar_subquery()
    found = _the_one(meaning, VERSIONS.c.policy_id, VERSIONS.c.version_id, *FINGERPRINT, VERSIONS.c.broken).subquery("meant")
    now = _now(found)
    same = [found.c[was.name].is_not_distinct_from(is_now) for was, is_now in zip(FINGERPRINT, now.c, strict=True)]
    fits = select(found.c.version_id).select_from(found.join(now, true())).where(*same, found.c.broken.is_(None))
    return fits.scalar_subquery()


FINGERPRINT = (VERSIONS.c.fingerprint_count, VERSIONS.c.fingerprint_id, VERSIONS.c.fingerprint_updates)
"""What the nodes were when what is ours was derived of them."""


def fingerprint(policy_id: Any = POLICY, version_id: Any = VERSION, of: Any = None) -> Select[Any]:
    """What the nodes of a version are now: their number, greatest id, the sum of hashes of their ``updated_at``. By the one
    index that has all. The version is given by parameters, or by columns of ``of``."""
    c = NODES.c
    its_nodes = select(c.id, c.updated_at).where(c.policy_id == policy_id, c.version_id == version_id).order_by(c.ordinal)
    node = its_nodes.offset(literal_column("0", Integer)).correlate(of).lateral("node")
    updates = func.sum(cast(func.timestamp_hash(node.c.updated_at), BigInteger))
    columns: list[Any] = [func.count().label("number"), func.max(node.c.id), cast(updates, BigInteger).label("updates")]
    return select(*columns).select_from(node)


_KEY = ("policy_id", "version_id")


def row_hash() -> ColumnElement[int]:
    """A hash of those columns of a version's row that the reasoning-service's code writes."""
    columns = [column for column in VERSIONS.c if column.name in THEIRS[VERSIONS.name] and column.name not in _KEY]
    values = [extract("epoch", each) if isinstance(each.type, TIMESTAMP) else each for each in columns]
    texts = [func.coalesce(cast(value, Text), literal_column("chr(1)", Text)) for value in values]
    whole: ColumnElement[str] = func.concat_ws(literal_column("chr(2)", Text), *texts)
    return func.hashtext(collate(whole, "C"))


_EXTRA: tuple[Any, ...] = (*FINGERPRINT, VERSIONS.c.broken, VERSIONS.c.fingerprint_row, row_hash().label("row_hash"))


def _now(version: Any) -> Any:
    """What the nodes of each version of a FROM clause are now."""
    return fingerprint(version.c.policy_id, version.c.version_id, version).lateral("now")


def with_fingerprint(found: Select[Any], order: Callable[[Any], Sequence[Any]] = lambda _: ()) -> Select[Any]:
    """Rows of versions with what their nodes were and what they are now. ``order``: what to sort by, of their columns."""
    version = found.add_columns(*_EXTRA).subquery("version")
    now = _now(version)
    return select(*version.c, *now.c).select_from(version.join(now, true())).order_by(*order(version.c))


@cache
def version(meaning: How) -> Statement:
    """The version that is meant, tombstones not."""
    found = _the_one(meaning, *columns_of(catalog.VERSIONS, VERSIONS))
    return Statement(with_fingerprint(found) if meaning.shared else found)


@cache
def versions(*, shared: bool = False) -> Statement:
    """All versions of a policy, tombstones too, by version id."""
    found = select(*columns_of(catalog.VERSIONS, VERSIONS)).where(VERSIONS.c.policy_id == POLICY)
    return Statement(with_fingerprint(found, _by_id) if shared else found.order_by(*_by_id(VERSIONS.c)))


def _by_id(columns: Any) -> list[Any]:
    return [collate(columns.version_id, "C")]


@cache
def documents(*, after: bool, limited: bool, shared: bool = False) -> Statement:
    """The policies in order: each with the number of its versions and the one that is in effect or latest."""
    policy_id = collate(VERSIONS.c.policy_id, "C")
    counted = select(
        VERSIONS.c.policy_id,
        func.count().label("version_count"),
        func.max(VERSIONS.c.ingested_at).label("newest"),
    ).where(live(shared=shared))
    if after:
        counted = counted.where(policy_id > text_("after"))
    counted = counted.group_by(VERSIONS.c.policy_id).order_by(policy_id)
    policies = (counted.limit(integer("limit")) if limited else counted).cte("policies")
    whole = (*columns_of(catalog.VERSIONS, VERSIONS), *(_EXTRA if shared else ()))
    its_versions = _versions(*whole, of=policies.c.policy_id, shared=shared)
    found = first_of(its_versions, How("in effect or latest"), policies.c.newest).lateral("found")
    columns, joined = [*found.c], policies.join(found, true())
    if shared:
        now = _now(found)
        columns, joined = [*columns, *now.c], joined.join(now, true())
    return Statement(
        select(*columns, policies.c.version_count).select_from(joined).order_by(collate(policies.c.policy_id, "C"))
    )


