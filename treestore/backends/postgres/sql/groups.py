"""SQL that write groups consist of, besides that on plain tables."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    LargeBinary,
    Text,
    and_,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.dialects.postgresql import insert as upsert

from treestore.backends.postgres.sql.nodes import apart, exactly, the_one
from treestore.backends.postgres.sql.statement import ONE, POLICY, Statement, integer, of_version, text_
from treestore.backends.postgres.tables import CONTENT, GROUPS, METADATA, NODES, POLICIES, POSTINGS, TITLES_LENGTH


@cache
def lock() -> Statement:
    """Lock the rows of policies, in the order given, until the transaction ends; where there is none, it is made."""
    asked = func.unnest(bindparam("policy_ids", type_=ARRAY(Text))).table_valued(column("policy_id", Text), name="asked")
    new = upsert(POLICIES).from_select(
        ("policy_id", "changes"), select(asked.render_derived().c.policy_id, ONE).order_by(ONE)
    )
    counted = new.on_conflict_do_update(index_elements=["policy_id"], set_={"changes": POLICIES.c.changes + ONE})
    return Statement(counted)


LOCK_ALL = f"LOCK TABLE {POLICIES.name} IN EXCLUSIVE MODE"
"""Keep all writers out, for a group that is about all policies. Only for these: everyone waits."""


@cache
def remember() -> Statement:
    """Note a group under a policy; no row if it is there already. Others of the policy are forgotten that have an id below
    ``oldest`` and were applied more than an hour ago by the server's clock."""
    now = func.timezone(literal_column("'utc'", Text), func.now(), type_=TIMESTAMP(timezone=False))
    hour: ColumnElement[Any] = literal_column("INTERVAL '1 hour'")
    old = (
        delete(GROUPS)
        .where(
            GROUPS.c.policy_id == POLICY,
            GROUPS.c.group_id < bindparam("oldest", type_=LargeBinary),
            GROUPS.c.applied_at < now - hour,
            GROUPS.c.group_id != bindparam("group_id", type_=LargeBinary),
        )
        .cte("forgotten")
    )
    new = upsert(GROUPS).values(policy_id=POLICY, group_id=bindparam("group_id", type_=LargeBinary), applied_at=now)
    return Statement(new.on_conflict_do_nothing().returning(ONE).add_cte(old))


@cache
def drop_content() -> Statement:
    """Delete all that is kept of a version beside its own row."""
    first, *others = [delete(table).where(of_version(table)) for table in CONTENT]
    return Statement(first.add_cte(*[other.cte(f"others_{i}") for i, other in enumerate(others)]))


@cache
def insert_row(name: str, columns: tuple[str, ...]) -> Statement:
    """Insert one row of a table. Parameters are named by the columns."""
    table = METADATA.tables[name]
    return Statement(insert(table).values({column: bindparam(column, type_=table.c[column].type) for column in columns}))


@cache
def amend_node(columns: tuple[str, ...]) -> Statement:
    """Replace columns of the node at an ordinal. Parameters are named by the columns."""
    changed = {name: bindparam(name, type_=NODES.c[name].type) for name in columns}
    there = the_one(select(NODES.c.id).where(of_version(NODES)), NODES.c.ordinal, integer("at_ordinal")).scalar_subquery()
    return Statement(update(NODES).where(NODES.c.policy_id == POLICY, NODES.c.id == there).values(changed))


@cache
def titles_of() -> Statement:
    """The path of titles of the node at an ordinal."""
    return Statement(the_one(select(NODES.c.section_path).where(of_version(NODES)), NODES.c.ordinal, integer("ordinal")))


@cache
def titles_below() -> Statement:
    """The ids of the rows of the node at an ordinal, which gets the path of titles ``titles``, and of those below it; each
    with the path that follows."""
    c = NODES.c
    begin = select(c.id, c.version_id, c.node_id, c.ordinal, cast(text_("titles"), Text).label("titles"))
    top = the_one(begin.where(of_version(NODES)), c.ordinal, integer("ordinal")).subquery("top")
    above = select(*top.c).cte("walk", recursive=True)
    below = NODES.alias("node").c
    between = literal_column("' > '", Text)
    titles = func.left(above.c.titles + between + below.title, literal_column(str(TITLES_LENGTH)))
    children = select(below.id, below.version_id, below.node_id, below.ordinal, titles.label("titles")).where(
        below.policy_id == POLICY,
        below.version_id == above.c.version_id,
        below.parent_ordinal == above.c.ordinal,
        below.ordinal > above.c.ordinal,
    )
    step = apart(exactly(children, below.parent_id, above.c.node_id), "below")
    walked = above.union_all(select(*step.c).select_from(above.join(step, true())))
    return Statement(select(walked.c.id.label("row"), walked.c.titles))


@cache
def entitle() -> Statement:
    """Give a row another path of titles. Its id may have outgrown 32 bits: docs/operations.md says how."""
    there = NODES.c.policy_id == POLICY, NODES.c.id == bindparam("row", type_=BigInteger)
    return Statement(update(NODES).where(*there).values(section_path=text_("titles")))


@cache
def put_kept(name: str) -> Statement:
    """Insert or replace a row of one of our tables by its primary key. Parameters are named by the columns."""
    table = METADATA.tables[name]
    key = [found.name for found in table.primary_key.columns]
    new = upsert(table).values({found.name: bindparam(found.name, type_=found.type) for found in table.columns})
    rest = {found.name: new.excluded[found.name] for found in table.columns if found.name not in key}
    return Statement(new.on_conflict_do_update(index_elements=key, set_=rest))


@cache
def remove_posting_row() -> Statement:
    """Delete a row of postings."""
    row = and_(of_version(POSTINGS), POSTINGS.c.segment == integer("segment"), POSTINGS.c.term == text_("term"))
    return Statement(delete(POSTINGS).where(row))


def statement_timeout(milliseconds: int) -> str:
    """The command that bounds the time of each statement of the transaction."""
    return f"SET LOCAL statement_timeout = {milliseconds}"


_SETTINGS = ("plan_cache_mode = force_generic_plan", "enable_sort = off", "jit = off", "row_security = off")


def preparation(*, local: bool = False) -> list[str]:
    """The commands that prepare a connection or, with ``local``, a transaction.

    Every statement finds its rows by an index, whatever its arguments are. Planning it anew for each, as PostgreSQL does while
    it believes in better plans, takes longer than running it, and compiling it a hundred times as long. Without sorting there
    is one index that does: see :mod:`.nodes`.

    A commit waits for the disk even where ``synchronous_commit`` is off; a setting that waits for more than the disk stays.
    """
    durable = f"set_config('synchronous_commit', 'on', {str(local).lower()})"
    off = "current_setting('synchronous_commit', true) = 'off'"
    return [*(f"SET {'LOCAL ' * local}{setting}" for setting in _SETTINGS), f"SELECT {durable} WHERE {off}"]
