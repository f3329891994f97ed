"""What the machine allows: the same bytes made durable by one write and one sync, the same records decoded from a list.

No durable commit can be faster, and no answer whose records are made anew from what is stored. Nothing is looked up: what an
answer consists of is put together before the time begins. An answer whose records are kept from the time before can be faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from treestore.bench.cases import LIMIT
from treestore.bench.contender import LEVELS, Contender, Place
from treestore.bench.contenders.disk import Disk, encoded
from treestore.bench.corpus import HISTORY, POLICY, VERSION, PlainNode, PlainVersion, Tree

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PlainNode).decode
_decode_version = msgspec.msgpack.Decoder(PlainVersion).decode


class Limit(Contender):
    """The disk alone, and rows in memory."""

    name = LIMIT

    def __init__(self, place: Place) -> None:
        self._disk = Disk(place.folder)
        self._rows: dict[tuple[str, str], tuple[Tree, list[bytes], list[bytes]]] = {}
        self._history: list[PlainVersion] = []
        self.verbs = {
            "store": self._write,
            "store_small": self._write,
            "node": _decode,
            "as_of": _decode_version,
            **dict.fromkeys(_PLACES, lambda rows: [_decode(row) for row in rows]),
        }

    def close(self) -> None:
        self._disk.close()

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def settle(self) -> None:
        """There is nothing to be done."""

    def ready(self, verb: str, question: Any) -> Any:
        """The bytes to be written, or the rows of the answer."""
        if isinstance(question, Tree):
            self._keep(question)
            return encoded(question)
        if verb == "as_of":
            return _encode(max((one for one in self._history if one.effective_date <= question), key=_in_time))
        version_id = question if verb.startswith("whole") else VERSION
        tree, whole, outlines = self._rows[POLICY, version_id]
        rows = outlines if verb.endswith("outline") else whole
        if verb == "node":
            return rows[int(question)]
        return [rows[node.ordinal] for node in _PLACES[verb](tree.nodes, question)]

    def _keep(self, tree: Tree) -> None:
        version = tree.version
        if version.policy_id == HISTORY:
            self._history.append(version)
        if version.policy_id == POLICY:
            without = [msgspec.structs.replace(node, text=None) for node in tree.nodes]
            self._rows[POLICY, version.version_id] = tree, list(map(_encode, tree.nodes)), list(map(_encode, without))

    def _write(self, raw: bytes) -> str:
        self._disk.append(raw)
        return "created"


def _in_time(version: PlainVersion) -> Any:
    return version.effective_date


def _below(nodes: Sequence[PlainNode], node_id: str, levels: int) -> list[PlainNode]:
    top = nodes[int(node_id)]
    return [node for node in nodes[top.ordinal : top.last_ordinal + 1] if node.depth <= top.depth + levels]


def _way(nodes: Sequence[PlainNode], node_id: str) -> list[PlainNode]:
    way = [nodes[int(node_id)]]
    while way[0].parent_ordinal >= 0:
        way.insert(0, nodes[way[0].parent_ordinal])
    return way


def _on_page(nodes: Sequence[PlainNode], page: int) -> list[PlainNode]:
    ranges = ((node, node.page_start, node.page_end) for node in nodes)
    return [node for node, start, end in ranges if start is not None and end is not None and start <= page <= end]


_PLACES: dict[str, Callable[[Sequence[PlainNode], Any], Sequence[PlainNode]]] = {
    "node_outline": lambda nodes, node_id: [nodes[int(node_id)]],
    "children": lambda nodes, node_id: _below(nodes, node_id, 1)[1:],
    "children_outline": lambda nodes, node_id: _below(nodes, node_id, 1),
    "subtree": lambda nodes, node_id: _below(nodes, node_id, LEVELS),
    "subtree_outline": lambda nodes, node_id: _below(nodes, node_id, LEVELS),
    "whole": lambda nodes, _: nodes,
    "whole_outline": lambda nodes, _: nodes,
    "ancestors": _way,
    "on_page": _on_page,
}
"""For each verb that gives nodes, which ones."""
