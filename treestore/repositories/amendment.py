"""Amending one node of a stored tree: which fields may change, and what follows for the hashes. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from treestore.operations import TermChange
from treestore.records import Node, Outline, Version
from treestore.search import analyzer
from treestore.search.analyzer import node_terms
from treestore.search.query import is_stale
from treestore.trees import hashes, rules


def _check_metadata(value: object, field: str, node: str | None) -> dict[str, Any] | None:
    return None if value is None else rules.check_json_object(value, field, node)


FIELDS: dict[str, Callable[[object, str, str | None], Any]] = {
    "title": rules.check_text,
    "summary": rules.check_optional_text,
    "text": rules.check_optional_text,
    "validation_status": rules.check_status,
    "metadata": _check_metadata,
}
"""The fields of a node that can be amended in place, each with its check."""

_canonical = msgspec.msgpack.Encoder(order="deterministic")


def checked(node_id: str, fields: Mapping[str, object]) -> dict[str, Any]:
    """Those of ``fields`` that were given (are not ``UNSET``), in the form that is stored. Raises InvalidInput."""
    return {name: FIELDS[name](value, name, node_id) for name, value in fields.items() if value is not UNSET}


def term_change(version: Version, before: Node, after: Node) -> TermChange | None:
    """What an amendment changes in the version's postings; None for nothing. Postings of another version of the analyzer are
    left as they are: :func:`analyzer_after` says so, and they will be made anew."""
    if version.analyzer != analyzer.VERSION:
        return None
    terms = [dict(Counter(node_terms(node, node.text))) for node in (before, after)]
    return TermChange(before.ordinal, *terms) if terms[0] != terms[1] else None


def analyzer_after(version: Version) -> str:
    """What a version's ``analyzer`` is after an amendment. If its postings are of another version of the analyzer they do not
    follow the amendment, so from then on no analyzer is the one that made them."""
    return version.analyzer.removesuffix(_AMENDED) + _AMENDED if is_stale(version) else version.analyzer


_AMENDED = ", amended since"


def growth(change: TermChange) -> int:
    """By how much a node has more terms after a change."""
    return sum(change.after.values()) - sum(change.before.values())


def same(amended: Node, before: Node) -> bool:
    """Whether all fields that can be amended are equal, as JSON is (1, 1.0 and True are not)."""
    return _encoded(amended) == _encoded(before)


def _encoded(node: Node) -> bytes:
    return _canonical.encode([getattr(node, name) for name in FIELDS])


def rehashed(
    path: Sequence[Node], children: Sequence[Sequence[Outline]], roots: Sequence[Outline], pages_hash: bytes
) -> tuple[list[Node], dict[str, bytes]]:
    """The nodes of ``path`` with new hashes, and the version's hashes by column.

    ``path`` leads from the root to the amended node, ``children`` are those of each node on it, ``roots`` those of the
    version, as stored.
    """
    nodes = hashes.rehash_path(path, children)
    top = nodes[0]
    current = [top if root.ordinal == top.ordinal else root for root in roots]
    node_hash, tree_hash = hashes.version_hashes(current, pages_hash)
    return nodes, {"node_hash": node_hash, "tree_hash": tree_hash}
