"""What changed between two versions, asked of a store.

:mod:`treestore.trees.diff` says which outlines it wants to see; they are read some at a time. Each time the rows of both
versions are read along, in the same snapshot: if one was replaced or amended meanwhile, the comparison is of no use.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from treestore.errors import NotFound
from treestore.operations import Children, GetVersion, InEffect, Operation, Subtree
from treestore.records import Diff, Outline, TemporalLookup, Version
from treestore.repositories.plan import Plan, ask_all
from treestore.trees import diff, timeline

_INSTANT = timedelta(microseconds=1)


def difference(before: Version, after: Version) -> Plan[Diff | None]:
    """What changed from one version of a policy to another, both as they were read; None if one was changed meanwhile."""
    policy_id = before.policy_id
    rows = [GetVersion(policy_id, version.version_id) for version in (before, after)]
    comparison = diff.compare(before, after)
    try:
        wants = next(comparison)
        while True:
            yield None
            if not wants:
                wants = comparison.send([])
                continue
            try:
                first, second, *lists = yield from ask_all(*rows, *_operations(policy_id, wants))
            except NotFound:
                return None
            if (first.revision, second.revision) != (before.revision, after.revision):
                return None
            wants = comparison.send(lists)
    except StopIteration as end:
        found: Diff = end.value
        return found


def _operations(policy_id: str, wants: Sequence[diff.Want]) -> list[Operation[Any]]:
    return [(Subtree if want.whole else Children)(Outline, policy_id, want.version_id, want.node_id) for want in wants]


def lookup(
    policy_id: str, versions: Sequence[Version], at: datetime, known_at: datetime | None
) -> Plan[TemporalLookup | None]:
    """The version in effect at a moment and what changed with it, of all ``versions`` of a policy as they were read; None if
    one was changed meanwhile. Raises NotFound if none was in effect."""
    version = timeline.resolve(policy_id, list(versions), InEffect(at, known_at))
    known = timeline.known(version, known_at)
    assert known is not None, "it is in effect"
    previous = timeline.in_effect(versions, known.start - _INSTANT, known_at)
    if previous is None:
        now, nodes = yield from ask_all(
            GetVersion(policy_id, version.version_id), Subtree(Outline, policy_id, version.version_id)
        )
        if now.revision != version.revision:
            return None
        return TemporalLookup(
            version=version, previous=None, changed_node_ids=[node.node_id for node in nodes], removed_node_ids=[]
        )
    found = yield from difference(previous, version)
    if found is None:
        return None
    changed = {one.after.ordinal: one.after.node_id for one in (*found.added, *found.changed, *found.moved) if one.after}
    return TemporalLookup(
        version=version,
        previous=previous,
        changed_node_ids=[changed[ordinal] for ordinal in sorted(changed)],
        removed_node_ids=[one.before.node_id for one in found.removed if one.before],
    )
