"""What the service's code relies on in its tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from tests.adoption.old_service.models import PolicyNode

Place = tuple[str, str | None, int | None, int | None, int | None]
"""A node's id, parent and pages: what an ingestion fixes, whatever is said of the node later."""


def place(node: PolicyNode) -> Place:
    return node.node_id, node.parent_id, node.page_index, node.page_start, node.page_end


def content_hash(text: str | None, summary: str | None, title: str) -> str:
    """SHA-256 in hex of the text, or else the summary, or else the title."""
    return sha256((text or summary or title).encode()).hexdigest()


def check(nodes: Sequence[PolicyNode]) -> None:
    """Hold all nodes of a version, in the order of ``id``, against the rules. Raises AssertionError.

    What forms no tree (ids that are missing or repeated, parents that are not there) has no paths that could be checked.
    """
    assert [node.id for node in nodes] == sorted({node.id for node in nodes})
    counts = Counter(node.node_id for node in nodes)
    by_id = {node.node_id: node for node in nodes}
    for node in nodes:
        assert node.content_hash == content_hash(node.text, node.summary, node.title), (node.node_id, "content_hash")
        assert node.validation_status in ("pending", "approved", "flagged")
        assert node.updated_at is not None
        way = _way(node, by_id, counts)
        if way is not None:
            assert node.section_path == " > ".join(way)[:500], (node.node_id, "section_path")


def _way(node: PolicyNode, by_id: dict[str, PolicyNode], counts: Counter[str]) -> list[str] | None:
    """The titles from the root down to a node; None where there is no one way."""
    titles, seen = [node.title], {node.id}
    while node.parent_id is not None:
        above = by_id.get(node.parent_id)
        if above is None or counts[node.parent_id] > 1 or above.id in seen:
            return None
        node = above
        seen.add(node.id)
        titles.append(node.title)
    return titles[::-1]


def preorder(nodes: Sequence[PolicyNode]) -> list[str]:
    """The ids of a tree's nodes in the order in which a reader meets them, siblings by ``id``."""
    below: dict[str | None, list[str]] = {}
    for node in nodes:
        below.setdefault(node.parent_id, []).append(node.node_id)
    order: list[str] = []
    waiting = below.get(None, [])[::-1]
    while waiting:
        order.append(waiting.pop())
        waiting += below.get(order[-1], [])[::-1]
    return order
