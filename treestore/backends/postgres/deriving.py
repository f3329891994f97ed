"""Writing tables that others write too: locks with which nobody waits for us who holds what we want, and what is ours of a
version derived of its rows and kept.

Whoever writes a version locks its row and those of its nodes first, and waits for none of them (:func:`lock`): code that holds
one and comes for another waits for us, or we begin again; never each for the other. While a version's row is locked no node
can be added to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from treestore.backends.postgres import rows, shared
from treestore.backends.postgres.derived import Derived
from treestore.backends.postgres.loading import load_kept
from treestore.backends.postgres.rows import Found
from treestore.backends.postgres.session import Session
from treestore.backends.postgres.sql import groups, records
from treestore.backends.postgres.sql import shared as statements
from treestore.backends.postgres.tables import CONTENT, INTERVALS, LENGTHS, NODES, PAGE_TEXTS, POSTINGS, THEIRS, VERSIONS
from treestore.errors import InvalidInput
from treestore.records import Version

Key = tuple[Any, ...]
Outcome = Literal["derived", "broken", "kept", "gone"]
"""What became of a version: its columns were derived, or its nodes form no tree; it was as it should be, or not there."""


async def lock(session: Session, versions: Iterable[Key], with_nodes: Iterable[Key]) -> set[Key]:
    """Lock versions, some with their nodes, until the transaction ends. Returns those that are there. Raises the driver's
    error of a lock that is held; see :func:`.errors.is_held`."""
    await session.command(statements.BRIEFLY)
    keys = sorted(set(versions))
    asked = {"policy_id": [policy for policy, _ in keys], "version_id": [version for _, version in keys]}
    there = {(row["policy_id"], row["version_id"]) for row in await session.rows(statements.lock_versions(), asked)}
    for key in sorted(set(with_nodes)):
        await session.run(statements.lock_nodes(), owner_of(key))
    return there


def owner_of(key: Key) -> dict[str, Any]:
    """The parameters that name a version."""
    return {"policy_id": key[0], "version_id": key[1]}


async def note(session: Session, key: Key) -> None:
    """All that is ours of a version is that of its nodes as they are now."""
    await session.run(statements.note_fingerprint(), owner_of(key))


async def note_row(session: Session, key: Key) -> None:
    """A version's row is as treestore has written it; its nodes are another matter."""
    await session.run(statements.note_row(), owner_of(key))


async def ensure_derived(session: Session, key: Key) -> None:
    """Derive what is ours of a version, which is locked, if it is not that of its nodes. Raises InvalidInput for a version
    whose nodes form no tree."""
    found = await shared.find(session, key)
    if found is None or found.fits or found.version.deleted_at is not None:
        return
    broken = await _derive(session, found)
    if broken is not None:
        name = f"policy {key[0]!r} version {key[1]!r}"
        raise InvalidInput(f"{name} forms no tree and can't be amended; store it again as a whole ({broken})")


async def derive_one(session: Session, key: Key) -> tuple[Outcome, str | None]:
    """Derive what is ours of a version in a transaction of its own, if it is not that of its nodes. What became of it, and why
    its nodes form no tree, if they form none."""
    return await _in_transaction(session, key, again=False)


async def derive_again(session: Session, key: Key) -> tuple[Outcome, str | None]:
    """As :func:`derive_one`, whether it is that of its nodes or not."""
    return await _in_transaction(session, key, again=True)


async def _in_transaction(session: Session, key: Key, *, again: bool) -> tuple[Outcome, str | None]:
    transaction = await session.begin(isolation="read_committed")
    try:
        await session.run(groups.lock(), {"policy_ids": [key[0]]})
        there = await lock(session, [key], [key])
        done: tuple[Outcome, str | None] = await _derived(session, key, again=again) if there else ("gone", None)
    except BaseException:
        await session.undo(transaction)
        raise
    await session.commit(transaction)
    return done


async def _derived(session: Session, key: Key, *, again: bool) -> tuple[Outcome, str | None]:
    found = await shared.find(session, key)
    if found is None:
        return "gone", None
    if found.version.deleted_at is not None:
        await note(session, key)
        return "kept", None
    if found.known and not again:
        return "kept", found.broken
    broken = await _derive(session, found)
    return ("derived", None) if broken is None else ("broken", broken)


async def _derive(session: Session, found: Found) -> str | None:
    """Derive what is ours of a version, which is locked. Returns why its nodes form no tree, if they form none: then only that
    is noted."""
    key = (found.version.policy_id, found.version.version_id)
    stored = await shared.rows_of(session, key)
    made = await shared.load(session, key, stored)
    if made.broken is None:
        await _write_nodes(session, key, dict(stored), made)
        await _write_kept(session, key, made, searchable=found.searchable)
        version = await shared.in_turns(made.version(found))
        changed = msgspec.structs.replace(version, revision=found.revision + 1)
        await session.run(records.put(Version, keep=THEIRS[VERSIONS.name]), rows.values(changed))
    await note(session, key)
    if made.broken is not None:
        await session.run(statements.note_broken(), {**owner_of(key), "broken": made.broken})
    return made.broken


async def clear_strays(session: Session, _: None) -> None:
    """Delete what is kept of versions whose rows others have deleted."""
    for table in (each for each in CONTENT if each is not NODES):
        await session.run(statements.clear_strays(table.name), {})


async def _write_nodes(session: Session, key: Key, stored: Mapping[int, Mapping[str, Any]], made: Derived) -> None:
    """Put what was derived into the rows that have something else."""
    derived = list(zip(made.row_ids, made.content.nodes, strict=True))
    new = [(row_id, *(getattr(node, name) for name in statements.DERIVED)) for row_id, node in derived]
    if any(stored[row_id]["ordinal"] not in (None, node.ordinal) for row_id, node in derived):
        await session.run(statements.take_ordinals(), owner_of(key))
    else:
        new = [row for row in new if row[1:] != tuple(stored[row[0]][name] for name in statements.DERIVED)]
    if new:
        columns = zip(("row", *statements.DERIVED.values()), map(list, zip(*new, strict=True)), strict=True)
        await session.run(statements.derive_nodes(), dict(columns))


async def _write_kept(session: Session, key: Key, made: Derived, *, searchable: bool) -> None:
    gone = (POSTINGS, LENGTHS, INTERVALS, *([PAGE_TEXTS] if made.reingested else []))
    for table in gone:
        await session.run(statements.clear(table.name), owner_of(key))
    segments = (await shared.in_turns(made.packed())).segments if searchable else ()
    await load_kept(session, key, made.content.nodes, segments)
