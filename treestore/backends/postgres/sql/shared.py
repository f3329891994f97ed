"""SQL for tables that the reasoning-service's code writes too: locks that nobody waits for, fingerprints, derived columns."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Integer, and_, delete, exists, func, literal_column, null, select, update

from treestore import catalog
from treestore.backends.postgres.sql.statement import Statement, asked, of_version, text_
from treestore.backends.postgres.sql.versions import FINGERPRINT, fingerprint, row_hash
from treestore.backends.postgres.tables import METADATA, NODES, VERSIONS

BRIEFLY = "SET LOCAL lock_timeout = 400"
"""Milliseconds to wait for a lock in the transaction from now on: less than it takes the server to find that two wait for each
other (``deadlock_timeout``, 1 s) and to end one of them, which might not be us."""


@cache
def lock_versions() -> Statement:
    """Lock the rows of versions, or fail at once: who holds one may wait for us. Their keys, in any order."""
    keys = asked("policy_id", "version_id")
    those = VERSIONS.c.policy_id == keys.c.policy_id, VERSIONS.c.version_id == keys.c.version_id
    found = select(VERSIONS.c.policy_id, VERSIONS.c.version_id).select_from(keys.join(VERSIONS, and_(*those)))
    return Statement(found.with_for_update(of=VERSIONS, nowait=True))


@cache
def lock_nodes() -> Statement:
    """Lock the rows of a version's nodes, or fail at once."""
    locked = select(NODES.c.id).where(of_version(NODES)).order_by(NODES.c.ordinal).with_for_update(nowait=True)
    return Statement(select(func.count()).select_from(locked.subquery("locked")))


@cache
def note_fingerprint() -> Statement:
    """Note what the nodes of a version are now: all that is ours of it is that of these."""
    now = fingerprint().subquery("now")
    noted = {**dict(zip(FINGERPRINT, now.c, strict=True)), VERSIONS.c.broken: null(), VERSIONS.c.fingerprint_row: row_hash()}
    return Statement(update(VERSIONS).where(of_version(VERSIONS)).values(noted))


@cache
def note_row() -> Statement:
    """Note that a version's row is as treestore has written it."""
    return Statement(update(VERSIONS).where(of_version(VERSIONS)).values(fingerprint_row=row_hash()))


@cache
def note_broken() -> Statement:
    """Note why the nodes of a version, which has this fingerprint, form no tree."""
    return Statement(update(VERSIONS).where(of_version(VERSIONS)).values(broken=text_("broken")))


@cache
def take_ordinals() -> Statement:
    """Take the ordinals of a version's nodes from them: they are given out anew, and each is there once."""
    numbered = of_version(NODES), NODES.c.ordinal >= literal_column("0", Integer)
    return Statement(update(NODES).where(*numbered).values(ordinal=null()))


@cache
def clear_strays(name: str) -> Statement:
    """Delete what one of our tables keeps of versions that others have deleted."""
    table = METADATA.tables[name]
    owner = VERSIONS.c.policy_id == table.c.policy_id, VERSIONS.c.version_id == table.c.version_id
    return Statement(delete(table).where(~exists(select(VERSIONS.c.policy_id).where(*owner).correlate(table))))


@cache
def clear(name: str) -> Statement:
    """Delete what one of our tables keeps of a version."""
    table = METADATA.tables[name]
    return Statement(delete(table).where(of_version(table)))


_FIELDS = ("section_path", "ordinal", "last_ordinal", "parent_ordinal", "depth", "node_hash", "tree_hash", "text_hash")

DERIVED = {field: catalog.NODES.columns[field].name for field in _FIELDS}
"""The fields of a node that are derived of all nodes of its version, and their columns."""


@cache
def derive_nodes() -> Statement:
    """Put what was derived into rows, found by their ``id`` alone: they are locked, and no other index looks as good."""
    new = asked("row", *DERIVED.values())
    derived = {name: new.c[name] for name in DERIVED.values()}
    return Statement(update(NODES).where(NODES.c.id == new.c.row).values(derived))
