"""Nodes of one version read from a state of the engine: one by one, or a run of them by one scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from treestore.backends.btree.engine.cursor import Cursor
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.keyspace import (
    INTERVALS,
    NO_TEXT,
    NODE_IDS,
    NODES,
    TEXTS,
    decode_node,
    decode_outline,
    interval_key,
    number_key,
    row_text_hash,
    two_numbers,
)
from treestore.backends.btree.policies import Content
from treestore.errors import Corrupted
from treestore.records import Node, Outline
from treestore.trees import intervals, timeline

N = TypeVar("N", Outline, Node)


class Nodes(Generic[N]):
    """Reads nodes of one version, whole or as outlines, by ordinal."""

    __slots__ = ("_content", "_number", "_prefix", "_rows", "_texts")

    def __init__(self, state: State, content: Content, weight: type[N]) -> None:
        self._content = content
        self._number = content.place.content
        self._prefix = content.prefix
        self._rows = state.cursor(NODES)
        self._texts = state.cursor(TEXTS) if weight is Node else None

    def get(self, ordinal: int) -> N:
        """The node at an ordinal, which must be one of the version's."""
        row = self._rows.get(two_numbers(self._number, ordinal))
        if row is None:
            raise Corrupted(f"content {self._number} has no node at ordinal {ordinal}")
        node: Any
        if self._texts is None:
            node = decode_outline(self._prefix, row)
        elif row_text_hash(row) is None:
            node = decode_node(self._prefix, row, NO_TEXT)
        else:
            node = decode_node(self._prefix, row, text_at(self._texts, self._content, ordinal))
        found: N = node
        return found

    def walk(self, first: int, last: int, depth: int) -> list[N]:
        """The nodes from ``first`` to ``last`` that are not below ``depth``, skipping what is below a node there."""
        found: list[N] = []
        ordinal = first
        while ordinal <= last:
            node = self.get(ordinal)
            found.append(node)
            ordinal = node.last_ordinal + 1 if node.depth == depth else ordinal + 1
        return found


def text_at(texts: Cursor, content: Content, index: int) -> bytes:
    """The text with this index, in MessagePack; there must be one."""
    text = texts.get(two_numbers(content.texts_key, content.place.text_number(index)))
    if text is None:
        raise Corrupted(f"a text of policy {content.version.policy_id!r} version {content.version.version_id!r} is missing")
    return text


def ordinals_of(state: State, content: Content, node_ids: Sequence[str]) -> list[int]:
    """The ordinals of named nodes, in the order asked. One NotFound names all that are missing."""
    number = content.place.content
    found = [state.get(NODE_IDS, number_key(number, node_id.encode())) for node_id in node_ids]
    missing = [node_id for node_id, raw in zip(node_ids, found, strict=True) if raw is None]
    if missing:
        raise timeline.missing_nodes(content.version, missing)
    return [int.from_bytes(raw, "big") for raw in found if raw is not None]


def ordinals_on(state: State, content: Content, first: int, last: int) -> list[int]:
    """The ordinals, ascending, of the nodes whose page range meets the pages ``first`` to ``last``."""
    number = content.place.content
    rows = state.cursor(INTERVALS)

    def read(depth: int, index: int) -> bytes:
        row = rows.get(interval_key(number, depth, index))
        if row is None:
            raise Corrupted(f"content {number} has no row {index} of page intervals at depth {depth}")
        return row

    return intervals.search(read, first, last)


def run(state: State, content: Content, weight: type[N], first: int, last: int) -> list[N]:
    """The nodes with ordinals ``first``…``last``, all of them, by one scan of the rows and one of each run of texts."""
    number = content.place.content
    rows = state.scan(NODES, two_numbers(number, first), two_numbers(number, last + 1))
    found: list[Any]
    prefix = content.prefix
    if weight is Node:
        texts = texts_of(state, content, first, last)
        found = [
            decode_node(prefix, row, NO_TEXT if row_text_hash(row) is None else text)
            for (_, row), text in zip(rows, texts, strict=True)
        ]
    else:
        found = [decode_outline(prefix, row) for _, row in rows]
    if len(found) != last - first + 1:
        raise Corrupted(f"content {number} has {len(found)} nodes at ordinals {first} to {last}")
    return found


def texts_of(state: State, content: Content, first: int, last: int) -> Iterator[bytes]:
    """The texts with indexes ``first``…``last`` in MessagePack; NO_TEXT where the number has none."""
    key = content.texts_key
    for run in content.place.texts:
        start, end = max(first, run.first), min(last + 1, run.first + run.length)
        if start >= end:
            continue
        number = run.number + start - run.first
        stop = number + end - start
        for raw_key, text in state.scan(TEXTS, two_numbers(key, number), two_numbers(key, stop)):
            at = int.from_bytes(raw_key[4:], "big")
            while number < at:
                yield NO_TEXT
                number += 1
            yield text
            number += 1
        while number < stop:
            yield NO_TEXT
            number += 1
