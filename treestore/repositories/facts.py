"""How a version's row changes: its facts grow, its revision counts, its times never go back. Pure functions.

Every change expects the revision that it was made from (:func:`unchanged_since`), so of two writers that read the same row
one is refused, reads again and decides again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from treestore.catalog import VERSIONS
from treestore.errors import Conflict
from treestore.operations import Absent, Expectation, FieldEquals
from treestore.records import Fact, Version

ATTEMPTS = 64
"""So often a verb reads again and decides again before it gives up. Plans under one driver take turns, so this is about
writers elsewhere (another face of the store, another process), each of which has succeeded when this one fails."""


def unchanged_since(version: Version) -> FieldEquals:
    """The expectation that nobody has changed a version since it was read."""
    return FieldEquals(Version, VERSIONS.key_of(version), "revision", version.revision)


def as_read(policy_id: str, version_id: str, version: Version | None) -> Expectation:
    """The expectation that a version is as it was read; ``None``: that it was not there, not even as a tombstone."""
    return Absent(Version, (policy_id, version_id)) if version is None else unchanged_since(version)


def contended(policy_id: str, version_id: str | None) -> Conflict:
    """The error of a verb that gave up."""
    version = "" if version_id is None else f" version {version_id!r}"
    return Conflict(f"policy {policy_id!r}{version} was changed by others {ATTEMPTS} times in a row; try again later")


_TICK = timedelta(microseconds=1)


def after_all(ingestions: Sequence[Version], now: datetime) -> datetime:
    """The time of an ingestion that happens now: later than those of ``ingestions``, even if the clock stands or went back.

    The latest version of a policy is the one that was stored last, whatever the clock says.
    """
    return max([now, *(version.ingested_at + _TICK for version in ingestions)])


def ingested(given: Version, before: Version | None, now: datetime) -> Version:
    """A version whose content is stored now, from its given columns and the row that it takes the place of.

    A tombstone is revived: its facts go on, but its old effective date is not taken over. Where no effective date is given
    the known one stays.
    """
    earlier: tuple[Fact, ...] = ()
    known: datetime | None = None
    created, revision = now, 1
    if before is not None:
        now = max(now, before.updated_at)
        earlier, created, revision = before.facts, before.created_at, before.revision + 1
        known = before.effective_date if before.deleted_at is None else None
    effective = known if given.effective_date is None else given.effective_date
    recorded = [Fact(recorded_at=now, kind="ingested")]
    if effective != known:
        recorded.append(Fact(recorded_at=now, kind="effective", effective_date=effective))
    return msgspec.structs.replace(
        given,
        effective_date=effective,
        ingested_at=now,
        created_at=created,
        updated_at=now,
        facts=(*earlier, *recorded),
        revision=revision,
    )


def described(given: Version, before: Version, now: datetime) -> Version:
    """A version whose columns are given anew while its content stays as it is: it is not ingested again."""
    row = msgspec.structs.replace(
        given,
        effective_date=before.effective_date,
        ingested_at=before.ingested_at,
        created_at=before.created_at,
        facts=before.facts,
        revision=before.revision,
    )
    if given.effective_date is None or given.effective_date == before.effective_date:
        return changed(row, before, now)
    return with_effective_date(row, given.effective_date, max(now, before.updated_at))


def with_effective_date(version: Version, effective: datetime, now: datetime) -> Version:
    """A version with another effective date, as a fact recorded now."""
    now = max(now, version.updated_at)
    fact = Fact(recorded_at=now, kind="effective", effective_date=effective)
    return changed(version, version, now, effective_date=effective, facts=(*version.facts, fact))


def tombstone(version: Version, now: datetime) -> Version:
    """What stays of a version that is deleted now: its row, without the content that it counts and hashes."""
    now = max(now, version.updated_at)
    return changed(
        version,
        version,
        now,
        deleted_at=now,
        facts=(*version.facts, Fact(recorded_at=now, kind="deleted")),
        node_count=0,
        root_count=0,
        page_count=0,
        node_hash=b"",
        tree_hash=b"",
        pages_hash=b"",
        pageindex=None,
        analyzer="",
        term_count=0,
    )


def changed(row: Version, before: Version, now: datetime, **fields: Any) -> Version:
    """A row with some fields changed: the next revision after ``before``, and its times not before that one's."""
    return msgspec.structs.replace(row, updated_at=max(now, before.updated_at), revision=before.revision + 1, **fields)


_STAMPS = {"effective_date", "ingested_at", "created_at", "updated_at", "deleted_at", "facts", "revision"}
_COLUMNS = tuple(name for name in Version.__struct_fields__ if name not in _STAMPS)
_canonical = msgspec.msgpack.Encoder(order="deterministic")


def same(given: Version, before: Version) -> bool:
    """Whether storing ``given`` in the place of ``before`` would change nothing: neither content nor any given column.

    Compared as encoded, for in Python 1, 1.0 and True are equal, and in JSON they are not.
    """
    dates_equal = given.effective_date is None or given.effective_date == before.effective_date
    return dates_equal and _encoded(given) == _encoded(before)


def _encoded(version: Version) -> bytes:
    return _canonical.encode([getattr(version, name) for name in _COLUMNS])
