"""Whether one stored version is sound: its facts, nodes and page texts agree, and its hashes are those of its content.

A check of a store, of any kind, asks this of every version. Everything derived is derived again from what was given, by
the same code that stored it, and compared; so nothing that derivation makes can go unchecked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from treestore.errors import InvalidInput
from treestore.records import Node, PageText, Version
from treestore.trees.derive import derive_now
from treestore.trees.given import check_pages
from treestore.trees.hashes import pages_hash, version_hashes
from treestore.trees.timeline import known


def problems(version: Version, nodes: Sequence[Node] | None, pages: Sequence[PageText] | None) -> list[str]:
    """What is wrong with a version, one line each; empty if it is sound. ``None``: the store keeps no content for it."""
    name = f"policy {version.policy_id!r} version {version.version_id!r}"
    if nodes is None or pages is None:
        return [] if version.deleted_at is not None else [f"{name}: its nodes are missing"]
    if version.deleted_at is not None:
        return [f"{name}: it was deleted, yet nodes are kept for it"]
    return [f"{name}: {problem}" for problem in _of_facts(version, nodes, pages) + _of_nodes(version, nodes, pages)]


def _of_facts(version: Version, nodes: Sequence[Node], pages: Sequence[PageText]) -> list[str]:
    counted = {
        "node_count": len(nodes),
        "root_count": sum(node.parent_id is None for node in nodes),
        "page_count": len(pages),
    }
    found = [
        f"{field} is {getattr(version, field)}, but there are {count}"
        for field, count in counted.items()
        if getattr(version, field) != count
    ]
    roots = [node for node in nodes if node.parent_id is None]
    if version.pages_hash != pages_hash(pages):
        found.append("its pages_hash is not that of its page texts")
    if (version.node_hash, version.tree_hash) != version_hashes(roots, version.pages_hash):
        found.append("its hashes are not those of its nodes and pages")
    if version.facts and known(version, None) != known(version, _ALWAYS):
        found.append("its ingested_at and effective_date are not what its facts say")
    return found


_ALWAYS = datetime.max.replace(tzinfo=UTC)


def _of_nodes(version: Version, nodes: Sequence[Node], pages: Sequence[PageText]) -> list[str]:
    try:
        derived = derive_now(version.policy_id, version.version_id, nodes)
        check_pages(pages)
    except InvalidInput as error:
        return [str(error)]
    for ordinal, (kept, expected) in enumerate(zip(nodes, derived, strict=True)):
        if kept.updated_at is not None:
            expected = msgspec.structs.replace(expected, updated_at=kept.updated_at)
        if kept != expected:
            fields = [name for name in Node.__struct_fields__ if getattr(kept, name) != getattr(expected, name)]
            return [f"node {kept.node_id!r} at ordinal {ordinal}: {', '.join(fields)} not as derived from what was given"]
    return []
