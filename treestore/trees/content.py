"""The content of one version held in memory, and what can be asked of it, answered in the plainest way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from treestore.operations import Ancestors, Children, GetNodes, OnPages, Operation, PageTexts, Subtree
from treestore.records import Node, Outline, PageText, Version
from treestore.trees import hashes, timeline

T = TypeVar("T", bound=msgspec.Struct)
N = TypeVar("N", Outline, Node)


class Content:
    """The nodes of one version in document order, and its page texts in the order given. ``terms`` say how often each node
    has each of its terms; they are empty where the version can't be searched."""

    def __init__(
        self, nodes: Sequence[Node], pages: Sequence[PageText] = (), terms: Sequence[Mapping[str, int]] = ()
    ) -> None:
        self.nodes = nodes
        self.pages = pages
        self.terms = terms

    @cached_property
    def outlines(self) -> list[Outline]:
        return [Outline(**{name: getattr(node, name) for name in Outline.__struct_fields__}) for node in self.nodes]

    @cached_property
    def ordinal_of(self) -> dict[str, int]:
        """By node id; the first one's, where several nodes have the same."""
        return {node.node_id: node.ordinal for node in reversed(self.nodes)}

    def in_weight(self, weight: type[N]) -> Sequence[N]:
        """The nodes, whole or without their texts. They are as stored: copy those that leave the store."""
        found: Any = self.nodes if weight is Node else self.outlines
        chosen: Sequence[N] = found
        return chosen


def facts(nodes: Sequence[Node], pages: Sequence[PageText]) -> dict[str, Any]:
    """What a version's row says about its content, by field."""
    roots = [node for node in nodes if node.parent_ordinal < 0]
    of_pages = hashes.pages_hash(pages) if pages else hashes.NO_PAGES
    node_hash, tree_hash = hashes.version_hashes(roots, of_pages)
    return {
        "node_count": len(nodes),
        "root_count": len(roots),
        "page_count": len(pages),
        "node_hash": node_hash,
        "tree_hash": tree_hash,
        "pages_hash": of_pages,
    }


def answer(version: Version, content: Content, ask: Operation[Any]) -> Any:
    """The answer to one of :data:`ANSWERED`, from the content of the version that is meant. Raises NotFound."""
    return _ANSWERS[type(ask)](version, content, ask)


def _named(version: Version, content: Content, ask: GetNodes[N]) -> list[N]:
    missing = [node_id for node_id in ask.node_ids if node_id not in content.ordinal_of]
    if missing:
        raise timeline.missing_nodes(version, missing)
    nodes = content.in_weight(ask.weight)
    return [detached(nodes[content.ordinal_of[node_id]]) for node_id in ask.node_ids]


def _children(version: Version, content: Content, ask: Children[N]) -> list[N]:
    parent = -1 if ask.parent_id is None else _ordinal(version, content, ask.parent_id)
    return [detached(node) for node in content.in_weight(ask.weight) if node.parent_ordinal == parent]


def _subtree(version: Version, content: Content, ask: Subtree[N]) -> list[N]:
    nodes = content.in_weight(ask.weight)
    depth = 0
    if ask.node_id is not None:
        top = nodes[_ordinal(version, content, ask.node_id)]
        nodes, depth = nodes[top.ordinal : top.last_ordinal + 1], top.depth
    return [detached(node) for node in nodes if ask.max_depth is None or node.depth - depth <= ask.max_depth]


def _ancestors(version: Version, content: Content, ask: Ancestors[N]) -> list[N]:
    nodes = content.in_weight(ask.weight)
    way = [nodes[_ordinal(version, content, ask.node_id)]]
    while way[-1].parent_ordinal >= 0:
        way.append(nodes[way[-1].parent_ordinal])
    return [detached(node) for node in reversed(way)]


def _ordinal(version: Version, content: Content, node_id: str) -> int:
    if node_id not in content.ordinal_of:
        raise timeline.missing_nodes(version, [node_id])
    return content.ordinal_of[node_id]


def _on_pages(_: Version, content: Content, ask: OnPages[N]) -> list[N]:
    return [
        detached(node)
        for node in content.in_weight(ask.weight)
        if node.page_start is not None
        and node.page_end is not None
        and node.page_start <= ask.last
        and node.page_end >= ask.first
    ]


def _page_texts(_: Version, content: Content, ask: PageTexts) -> list[PageText]:
    return [
        detached(page)
        for page in content.pages
        if (ask.first is None or page.page >= ask.first) and (ask.last is None or page.page <= ask.last)
    ]


_ANSWERS: dict[type[Operation[Any]], Callable[[Version, Content, Any], Any]] = {
    GetNodes: _named,
    Children: _children,
    Subtree: _subtree,
    Ancestors: _ancestors,
    OnPages: _on_pages,
    PageTexts: _page_texts,
}

ANSWERED = tuple(_ANSWERS)
"""The operations on the content of one version; all have a ``policy_id`` and a ``version``."""


def detached(record: T) -> T:
    """The record with JSON of its own, or itself where it holds none: records are immutable, the JSON in them is not."""
    changed = {
        name: _decode_json(_encode_json(getattr(record, name)))
        for name in ("metadata", "extra")
        if getattr(record, name, None) is not None
    }
    if isinstance(record, Version) and record.pageindex is not None:
        fields = _decode_json(_encode_json(record.pageindex.fields))
        changed["pageindex"] = msgspec.structs.replace(record.pageindex, fields=fields)
    return msgspec.structs.replace(record, **changed) if changed else record


_encode_json = msgspec.msgpack.Encoder().encode
_decode_json = msgspec.msgpack.Decoder().decode
