"""Which version of a policy a question is about: pure functions over the policy's versions and their facts.

A version is in effect from its effective date (its ingestion, where it has none) until the next one's. Of equal starts
the later ingested wins, then the later created, then the greater id, so the answer is always one version and the same on
every store. Deleted versions are never in effect.

``known_at`` asks what was known at an earlier moment: only facts recorded by then count. A version deleted and stored
again is, between the two, not known. Content replaced in place under one version id is gone: the question then names the
version, and its present content is what is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from treestore.errors import NotFound
from treestore.operations import InEffect, Latest, VersionRef
from treestore.records import Version

Rank = tuple[datetime, datetime, str]


def by_ingestion(version: Version) -> Rank:
    """The sort key of versions by ingestion, oldest first; the greatest is the latest."""
    return version.ingested_at, version.created_at, version.version_id


class Known(NamedTuple):
    """What is known of a version that is there: when it was ingested, and its effective date (``None``: none was given)."""

    ingested_at: datetime
    effective_date: datetime | None

    @property
    def start(self) -> datetime:
        """From when it is in effect."""
        return self.effective_date or self.ingested_at


def known(version: Version, known_at: datetime | None) -> Known | None:
    """What is known of a version by the facts recorded up to ``known_at`` (``None``: all).

    ``None`` if it was not there: not ingested yet, or deleted.
    """
    if version.deleted_at is not None:
        return None
    if known_at is None:
        return Known(version.ingested_at, version.effective_date)
    ingested: datetime | None = None
    effective: datetime | None = None
    for fact in version.facts:
        if fact.recorded_at > known_at:
            continue
        if fact.kind == "ingested":
            ingested = fact.recorded_at
        elif fact.kind == "effective":
            effective = fact.effective_date
        else:
            ingested = effective = None
    return None if ingested is None else Known(ingested, effective)


def latest(versions: Iterable[Version], known_at: datetime | None = None) -> Version | None:
    """The newest ingested of a policy's versions, ``None`` if there is none."""
    best: tuple[Rank, Version] | None = None
    for version in versions:
        then = known(version, known_at)
        if then is not None:
            rank = (then.ingested_at, version.created_at, version.version_id)
            if best is None or rank > best[0]:
                best = rank, version
    return None if best is None else best[1]


def in_effect(versions: Iterable[Version], at: datetime, known_at: datetime | None = None) -> Version | None:
    """The one of a policy's versions that is in effect at ``at``, ``None`` if none is."""
    best: tuple[tuple[datetime, Rank], Version] | None = None
    for version in versions:
        then = known(version, known_at)
        if then is not None and then.start <= at:
            rank = then.start, (then.ingested_at, version.created_at, version.version_id)
            if best is None or rank > best[0]:
                best = rank, version
    return None if best is None else best[1]


def resolve(policy_id: str, versions: list[Version], ref: VersionRef, *, deleted: bool = False) -> Version:
    """The version that ``ref`` means among ``versions``, which are all of the policy, tombstones included.

    A version named by its id is found as a tombstone only if ``deleted``. Raises NotFound, saying what is missing.
    """
    if isinstance(ref, str):
        for version in versions:
            if version.version_id == ref:
                return present(version, deleted=deleted)
        raise missing_version(policy_id, ref) if versions else missing_policy(policy_id)
    found = latest(versions) if isinstance(ref, Latest) else in_effect(versions, moment(ref, versions), ref.known_at)
    if found is None and isinstance(ref, InEffect) and ref.or_latest:
        found = latest(versions, ref.known_at)
    if found is not None:
        return found
    if isinstance(ref, Latest) or all(version.deleted_at is not None for version in versions):
        raise gone(policy_id, versions)
    known_at = f", as known at {ref.known_at.isoformat()}" if ref.known_at is not None else ""
    raise NotFound(f"policy {policy_id!r} has no version in effect at {ref.at.isoformat()}{known_at}")


def moment(ref: InEffect, versions: Iterable[Version]) -> datetime:
    """The moment that a question is about. "Now" (``or_latest``) is not before any ingestion: where the clock stands or went
    back, ingestions are stamped ahead of it, and what was just stored is to be read."""
    if not ref.or_latest or ref.known_at is not None:
        return ref.at
    return max([ref.at, *(version.ingested_at for version in versions if version.deleted_at is None)])


def present(version: Version, *, deleted: bool = False) -> Version:
    """The version itself, unless it is a tombstone and ``deleted`` is not set: then NotFound."""
    if version.deleted_at is not None and not deleted:
        when = version.deleted_at.isoformat(timespec="seconds")
        raise NotFound(f"policy {version.policy_id!r} version {version.version_id!r} was deleted at {when}")
    return version


def missing_policy(policy_id: str) -> NotFound:
    """The error for a policy that never was."""
    return NotFound(f"policy {policy_id!r} does not exist")


def missing_version(policy_id: str, version_id: str) -> NotFound:
    """The error for a version that never was, of a policy that has others."""
    return NotFound(f"policy {policy_id!r} has no version {version_id!r}")


MISSING_SHOWN = 20
"""So many missing ids are named in an error; of the rest the number is given."""


def missing_nodes(version: Version, node_ids: list[str]) -> NotFound:
    """The error that names the nodes that a version does not have, in the order asked, each once."""
    missing = list(dict.fromkeys(node_ids))
    names = ", ".join(map(repr, missing[:MISSING_SHOWN]))
    more = f" and {len(missing) - MISSING_SHOWN} more" if len(missing) > MISSING_SHOWN else ""
    noun = "node" if len(missing) == 1 else "nodes"
    return NotFound(f"policy {version.policy_id!r} version {version.version_id!r} has no {noun} {names}{more}")


def gone(policy_id: str, versions: list[Version]) -> NotFound:
    """The error for a policy of which nothing but tombstones (or nothing at all) is left."""
    deletions = [version.deleted_at for version in versions if version.deleted_at is not None]
    if not deletions:
        return missing_policy(policy_id)
    return NotFound(f"policy {policy_id!r} was deleted at {max(deletions).isoformat(timespec='seconds')}")
