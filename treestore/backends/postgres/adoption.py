"""Sharing the tables that a reasoning-service has made, and goes on using: taking treestore in, and taking it out again.

A change is a list of steps, made by looking at what there is. The first one is taken, then it is looked again, until none is
left; so what was interrupted anywhere is finished by beginning again, and of two that work at once each goes on from what the
other has done. Before the last step of an adoption the database is no store: there are columns that may be null and indexes.

A step is a short transaction that changes catalogs. It takes a lock that vacuums and other changes of the schema wait for,
but no reader and no writer, and looks once more. For the lock that everybody waits for it waits :data:`LOCK_SECONDS` at most,
since others queue behind it, then pauses, and tries again. Indexes are built outside of a transaction, while writes go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import sqlalchemy
from sqlalchemy import Connection, Index, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn, CreateTable

from treestore.backends.postgres import errors
from treestore.backends.postgres.address import Address
from treestore.backends.postgres.connecting import no_transaction, transaction, translated
from treestore.backends.postgres.locks import commented
from treestore.backends.postgres.shape import Database, check_adoptable, look, missing_indexes
from treestore.backends.postgres.tables import (
    ADOPTION,
    COVERED,
    DIALECT,
    METADATA,
    NODES,
    REVISIONS,
    SHARED,
    VERSION_TABLE,
    VERSIONS,
    ours,
)
from treestore.errors import Timeout

LOCK_SECONDS = 2.0
"""How long a step waits for a lock, and at most how long the service's code waits behind it."""

PAUSE_SECONDS = 3.0
"""What the service's code has to go on in before the next attempt."""

ATTEMPTS = 20
"""How often a step is tried that others keep from its lock."""

OVERTAKEN = frozenset({"23505", "40001", "40P01", "42701", "42710", "42P07"})
"""What a change meets if another one commits the same: a key, a table, a column, an index that is there already."""

_LOCK = "LOCK TABLE"
_LOCKED = "55P03"

Say = Callable[[str], object]
"""Tells somebody, in one line, what is being done or waited for."""


class Step(NamedTuple):
    """Statements that change one table. In a transaction, or each by itself where it is ``online``."""

    table: str
    statements: tuple[str, ...]
    online: bool = False

    def before(self, address: Address) -> list[str]:
        """What the server is told before. Behind PgBouncer nothing can be set outside of a transaction."""
        if self.online:
            return [] if address.pgbouncer else ["SET lock_timeout = 0", "SET statement_timeout = 0"]
        wait = f"SET LOCAL lock_timeout = {round(LOCK_SECONDS * 1000)}"
        return [wait, "SET LOCAL statement_timeout = 0", f"{_LOCK} {self.table} IN SHARE UPDATE EXCLUSIVE MODE"]


Plan = Callable[[Database], list[Step]]
"""The steps that are left to take from what there is."""


# --- taking treestore in -------------------------------------------------------------------------------------------------


def adoptable(database: Database) -> bool:
    """Whether there are tables of others to share, or one of them, and no revision of ours."""
    return bool(database.shared) and not database.revision


def adopting(database: Database) -> list[Step]:
    """The steps that make the tables of a reasoning-service a store, beside its code; none where there is nothing to adopt.

    Raises as :func:`treestore.backends.postgres.shape.check_adoptable`.
    """
    if not adoptable(database):
        return []
    check_adoptable(database)
    steps = [_add_columns(table) for table in SHARED if not database.extended(table)]
    for table in SHARED:
        there = {index.name for index in database.indexes[table.name]}
        for index in missing_indexes(database, table):
            if index.name in there:  # it is what an interrupted build has left
                steps.append(Step(table.name, (f"DROP INDEX {index.name}",)))
            steps.append(Step(table.name, (_create_index(table, index),), online=True))
    return [*steps, _make_a_store(database)]


def _add_columns(table: Table) -> Step:
    added = ", ".join(f"ADD COLUMN {CreateColumn(column).compile(dialect=DIALECT)}" for column in ours(table))
    return Step(table.name, (f"ALTER TABLE {table.name} {added}",))


def _create_index(table: Table, index: Index) -> str:
    columns = ", ".join(column.name for column in index.columns)
    covered = COVERED.get(str(index.name))
    beside = f" INCLUDE ({', '.join(covered)})" if covered else ""
    kind = "UNIQUE INDEX" if index.unique else "INDEX"
    return f"CREATE {kind} CONCURRENTLY {index.name} ON {table.name} ({columns}){beside}"


def _make_a_store(database: Database) -> Step:
    """The tables of our own, and the note of the revision with which it is a store."""
    made = [str(CreateTable(table).compile(dialect=DIALECT)).strip() for table in _own_tables()]
    if VERSION_TABLE not in database.relations:
        key = f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)"
        made.append(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, {key})")
    noted = f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{REVISIONS[-1]}')"
    adopted = f"INSERT INTO {ADOPTION.name} (adopted_at) VALUES (timezone('utc', now()))"
    return Step(NODES.name, (*made, noted, adopted))


def _own_tables() -> list[Table]:
    return [table for table in METADATA.sorted_tables if table not in SHARED]


# --- taking it out again -------------------------------------------------------------------------------------------------


def leaving(database: Database) -> list[Step]:
    """The steps that leave adopted tables to their first owner, as they are then, or take back an adoption that was
    interrupted; none where the tables are ours, or others' alone. Indexes that its code can use stay."""
    unfinished = len(database.shared) == len(SHARED) and not any(table.name in database.relations for table in _own_tables())
    if not database.adopted and (database.revision or not unfinished):
        return []
    steps = []
    if database.adopted:
        own = [*reversed([table.name for table in _own_tables()]), VERSION_TABLE]
        steps.append(Step(NODES.name, tuple(f"DROP TABLE {name}" for name in own)))
    for table in reversed(SHARED):
        if database.extended(table):
            dropped = ", ".join(f"DROP COLUMN {column.name}" for column in ours(table))
            steps.append(Step(table.name, (f"ALTER TABLE {table.name} {dropped}",)))
    return steps


def lost_by_leaving(connection: Connection, database: Database) -> str:
    """What goes if treestore is taken out of adopted tables, in words."""
    deleted = 0
    if database.extended(VERSIONS):
        tombstones = sqlalchemy.select(sqlalchemy.func.count()).where(VERSIONS.c.deleted_at.is_not(None))
        deleted = connection.execute(tombstones).scalar_one()
    return (
        "Deletes what treestore keeps of the versions: metadata, tags, facts, page texts, what searches use, times of"
        f" deletion. {VERSIONS.name} and {NODES.name} stay with their rows as they are; versions that were deleted and are"
        f" plain rows again: {deleted}."
    )


# --- steps ---------------------------------------------------------------------------------------------------------------


def follow(address: Address, plan: Plan, say: Say) -> bool:
    """Take the first step of a plan until there is none. False: there was none to begin with.

    Raises Timeout, which says who holds the lock that was not to be had, what the plan raises, and what DDL raises. What was
    done stays; the same call does the rest.
    """
    attempts = 0
    taken = False
    with translated(address):
        while steps := looked(address, plan):
            taken = True
            try:
                _take(address, steps[0], plan, say)
                attempts = 0
            except DBAPIError as error:
                attempts += not (error.statement or "").startswith(_LOCK)  # nobody queues behind that
                _wait(address, steps[0], error, attempts, say)
    return taken


def looked(address: Address, plan: Plan) -> list[Step]:
    """The steps of a plan from what there is now. Reads catalogs alone. Raises as the plan."""
    with transaction(address) as connection:
        return plan(look(connection, address.shown))


def _take(address: Address, step: Step, plan: Plan, say: Say) -> None:
    """Take a step, if it is still one to take once nobody else can change the schema."""
    if step.online:
        say(f"building an index of {step.table}; transactions that run now are waited for")
        with no_transaction(address) as connection:
            for statement in (*step.before(address), *step.statements):
                connection.exec_driver_sql(statement)
        return
    with transaction(address) as connection:
        for statement in step.before(address):
            connection.exec_driver_sql(statement)
        if step in plan(look(connection, address.shown)):
            for statement in step.statements:
                connection.exec_driver_sql(statement)


def _wait(address: Address, step: Step, error: DBAPIError, attempts: int, say: Say) -> None:
    """Wait until a step can be tried again. Raises what it met if that is hopeless, and Timeout after the last attempt."""
    state = errors.state_of(error.orig or error)
    if state in OVERTAKEN and attempts < ATTEMPTS:
        return
    if state != _LOCKED:
        raise error
    told = f"waiting for a lock on {step.table}{_holders(address, step.table)}"
    if attempts >= ATTEMPTS:
        rule = "given up; what was done stays, and the same command does the rest"
        raise Timeout(f"{address.shown}: {told}: {rule}") from error.orig
    say(told)
    time.sleep(PAUSE_SECONDS)


_HOLDERS = sqlalchemy.text("""
    SELECT pid, application_name, state, date_trunc('second', now() - xact_start)::text AS since
    FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid IN (
        SELECT pid FROM pg_locks JOIN pg_database d ON d.oid = database AND datname = current_database()
        WHERE relation = to_regclass(:table) AND granted)
    ORDER BY xact_start LIMIT 3""")


def _holders(address: Address, table: str) -> str:
    """Who holds locks on a table, those first that have been at it for longest; as much as the server tells this role."""
    with transaction(address) as connection:
        found = connection.execute(_HOLDERS, {"table": table}).all()
    told = [f"process {row.pid} ({row.application_name or '?'}, {row.state or '?'}, for {row.since or '?'})" for row in found]
    return f", held by {' and '.join(told)}" if told else ""


def script(address: Address, steps: list[Step]) -> str:
    """Steps as a script for psql, each statement with the lock that it takes."""
    lines: list[str] = []
    for step in steps:
        told = [*step.before(address), *step.statements]
        lines += [commented(statement) for statement in (told if step.online else ["BEGIN", *told, "COMMIT"])]
    return "\n".join(lines)
