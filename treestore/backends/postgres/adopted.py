"""What ``treestore db derive``, ``repair`` and ``status`` do on tables that the reasoning-service's code writes too.

Each version is derived in a transaction of its own, which notes its fingerprint: whoever begins again goes on with those that
lack theirs, and nothing is done twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Literal

import msgspec

from treestore.backends.postgres import deriving
from treestore.backends.postgres.backend import PostgresBackend
from treestore.backends.postgres.errors import is_held
from treestore.backends.postgres.rows import Fingerprint
from treestore.backends.postgres.session import Session
from treestore.backends.postgres.sql import whole
from treestore.errors import Timeout

Key = tuple[str, str]
State = Literal["derived", "stale", "underived", "broken", "deleted"]
"""Of a version: what is ours is that of its nodes; was, before somebody changed them; was never derived; its nodes, as they
are now, were found to form no tree; it is a tombstone."""

Outcome = deriving.Outcome | Literal["held"]
"""What became of a version; ``held``: others held its rows for half a minute."""


class Surveyed(msgspec.Struct, frozen=True):
    """A version and how it stands. ``broken``: why its nodes form no tree."""

    policy_id: str
    version_id: str
    state: State
    node_count: int
    broken: str | None = None


class Done(msgspec.Struct, frozen=True):
    """What became of one version."""

    version: Surveyed
    outcome: Outcome
    broken: str | None = None


async def survey(backend: PostgresBackend, policy_id: str | None = None) -> list[Surveyed]:
    """All versions, or those of a policy, and how they stand; by policy, then by version id."""
    return await backend.work(_survey, policy_id)


async def _survey(session: Session, policy_id: str | None) -> list[Surveyed]:
    found = await session.rows(whole.survey(of_policy=policy_id is not None), {"policy_id": policy_id})
    return [_surveyed(row, shared=session.shared) for row in found]


def _surveyed(row: Sequence[object], *, shared: bool) -> Surveyed:
    policy_id, version_id, deleted, count, identity, newest, broken, _, _, *now = row
    was, is_now = Fingerprint(count, identity, newest), Fingerprint(*now)  # type: ignore[arg-type]
    number = is_now.number or 0
    state: State
    if deleted is not None and not number:
        state = "deleted"
    elif not shared:
        state = "derived"
    elif was.number is None:
        state = "underived"
    elif was != is_now:
        state = "stale"
    else:
        state = "derived" if broken is None else "broken"
    return Surveyed(str(policy_id), str(version_id), state, number, str(broken) if state == "broken" else None)


async def clear_strays(backend: PostgresBackend) -> None:
    """Delete what is kept of versions whose rows others have deleted; nobody reads it."""
    await backend.work(deriving.clear_strays, None)


async def derive(
    backend: PostgresBackend, versions: Iterable[Surveyed], *, batch: int = 20, load: int = 100, again: bool = False
) -> AsyncIterator[Done]:
    """Derive what is ours of versions, one after the other; what became of each, as it is done.

    ``load`` is the share of the time, in per cent, in which the database is worked on: after each ``batch`` of versions there
    is a pause. ``again``: also those that are as they should be.
    """
    began = time.monotonic()
    for at, version in enumerate(versions, 1):
        key = (version.policy_id, version.version_id)
        try:
            outcome, broken = await backend.work(deriving.derive_again if again else deriving.derive_one, key)
            yield Done(version, outcome, broken)
        except Timeout as error:
            if not (error.__cause__ and is_held(error.__cause__)):
                raise
            yield Done(version, "held")
        if at % batch == 0 and load < 100:
            await asyncio.sleep((time.monotonic() - began) * (100 - load) / load)
            began = time.monotonic()
