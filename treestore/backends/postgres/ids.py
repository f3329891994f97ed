"""The numbers of the rows of ``policy_nodes``: how many are used, and making room for more than 32 bits have."""

from __future__ import annotations

import sqlalchemy

from treestore.backends.postgres.address import Address
from treestore.backends.postgres.adoption import Say, Step, follow, looked
from treestore.backends.postgres.connecting import transaction, translated
from treestore.backends.postgres.shape import Database, Sequence, look
from treestore.backends.postgres.tables import NODES
from treestore.errors import AccessDenied, MigrationError, NoStore

GREATEST = 2**31 - 1
"""The greatest id in a column of 32 bits."""

_LAST = sqlalchemy.text(
    "SELECT allowed, CASE WHEN allowed THEN pg_sequence_last_value(CAST(:name AS regclass)) END"
    " FROM has_sequence_privilege(:name, 'USAGE, SELECT') AS allowed"
)


def ids_used(address: Address) -> tuple[int, int]:
    """The last id that was given to a node, 0 if none was, and the greatest that can be.

    Raises NoStore, AccessDenied (the role may not use the sequence), and what connecting raises.
    """
    with translated(address), transaction(address) as connection:
        database = look(connection, address.shown)
        sequence = _sequence(database)
        allowed, last = connection.execute(_LAST, {"name": sequence.name}).one()
    if not allowed:
        raise AccessDenied(f"{address.shown}: {database.role} may not use the sequence {sequence.name}")
    narrow = database.columns[NODES.name]["id"].type == "integer"
    return last or 0, min(sequence.greatest, GREATEST) if narrow else sequence.greatest


def widening(database: Database) -> list[Step]:
    """The step after which ids have 64 bits; none where they have. Raises NoStore, AccessDenied."""
    sequence = _sequence(database)
    nodes = database.relations[NODES.name]
    statements = []
    if database.columns[NODES.name]["id"].type != "bigint":
        statements.append(f"ALTER TABLE {NODES.name} ALTER COLUMN id TYPE bigint")
    if sequence.type != "bigint":
        statements.append(f"ALTER SEQUENCE {sequence.name} AS bigint")
    if statements and not nodes.owned:
        raise AccessDenied(f"{database.where}: {NODES.name} belongs to {nodes.owner}, and {database.role} may not change it")
    return [Step(NODES.name, tuple(statements))] if statements else []


def to_widen(address: Address) -> list[Step]:
    """What :func:`widen` would do; nothing if ids have 64 bits already. Raises as that does."""
    with translated(address):
        return looked(address, widening)


def widen(address: Address, say: Say) -> bool:
    """Give ids 64 bits: the table is written anew, and nobody reads or writes it meanwhile. False: they had them already.

    All in one transaction. Raises as :func:`treestore.backends.postgres.adoption.follow`, and NoStore.
    """
    return follow(address, widening, say)


def _sequence(database: Database) -> Sequence:
    if not database.revision:
        raise NoStore(f"{database.where}: there is no treestore; 'treestore db upgrade' makes its tables")
    if database.sequence is None:
        raise MigrationError(f"{database.where}: policy_nodes.id is not counted up by a sequence; see 'treestore db check'")
    return database.sequence
