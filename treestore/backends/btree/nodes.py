"""Nodes of one version read from a state of the engine: one by one, or a run of them by one scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Any, Generic, TypeVar, cast

from treestore.backends.btree.engine.cursor import Cursor
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.kept import Kept
from treestore.backends.btree.keyspace import (
    INTERVALS,
    NO_TEXT,
    NODE_IDS,
    NODES,
    TEXTS,
    decode_node,
    decode_nodes,
    decode_outline,
    decode_outlines,
    has_text,
    interval_key,
    number_key,
    two_numbers,
)
from treestore.backends.btree.policies import Content
from treestore.backends.btree.runs import between, number_at
from treestore.backends.btree.steps import Answer, Steps
from treestore.errors import Corrupted
from treestore.records import Node, Outline
from treestore.trees import intervals, timeline

N = TypeVar("N", Outline, Node)

_TOGETHER = 16  # rows that are decoded at once
_MOSTLY = 16  # of so many nodes of an answer one may be read by itself: few are but amended
_STEP = 32  # nodes that are read one by one between two pauses: half a millisecond, if nobody has read them
_KEPT_AT_ONCE = 256


class Nodes(Generic[N]):
    """Reads nodes of one version, whole or as outlines. What is read again is kept (:mod:`.kept`), but not a large answer
    where there is little room."""

    __slots__ = ("_content", "_kept", "_known", "_number", "_room", "_rows", "_state", "_texts", "_weight")

    def __init__(self, state: State, content: Content, weight: type[N]) -> None:
        self._state = state
        self._content = content
        self._number = content.place.content
        self._weight: type[N] = weight
        self._kept: Kept[N] = content.kept(weight)
        self._known: list[N | None] = self._kept.nodes
        self._room = content.cache.most_at_once
        self._rows: Cursor | None = None
        self._texts: Cursor | None = None

    def named(self, node_ids: Sequence[str]) -> list[N]:
        """Nodes by their ids, in the order asked. One NotFound names all that are missing."""
        ordinals = self._kept.ordinals
        found = [ordinals.get(node_id, -1) for node_id in node_ids]
        if -1 in found:
            found = ordinals_of(self._state, self._content, node_ids)
        return [self.get(ordinal) for ordinal in found]

    def get(self, ordinal: int) -> N:
        """The node at an ordinal. Raises Corrupted if it is none of the version's."""
        self._check_end(ordinal)
        return self._known[ordinal] or self._get(ordinal)

    def _check_end(self, ordinal: int) -> None:
        if ordinal >= len(self._known):
            raise Corrupted(f"content {self._number} has no node at ordinal {ordinal}")

    def _get(self, ordinal: int) -> N:
        """A node that has to be made: as a copy or, where it is not kept, of its row."""
        kept = self._kept
        if ordinal in kept.patterns:
            pattern = kept.patterns.get(ordinal)
            if pattern is not None:
                return pattern.copy()
        if ordinal in kept.amended:
            found = self._amended(ordinal)
            if found is not None:
                return found
        node = self._read(ordinal)
        if not kept.seen[ordinal]:
            kept.seen[ordinal] = 1
        elif self._room:
            self._room -= 1
            if ordinal in kept.amended:
                self._content.cache.keep_amended(self._content.findings(), node)
            else:
                self._content.cache.keep(kept, node)
        return node

    def _amended(self, ordinal: int) -> N | None:
        """A node that is not the same at all moments, and is kept of this one."""
        return self._content.findings().node(self._weight, ordinal) if ordinal in self._kept.amended else None

    def _keep_all(self, nodes: Sequence[N]) -> None:
        cache, amended = self._content.cache, self._kept.amended
        cache.keep_all(self._kept, nodes)
        for node in nodes if amended else ():
            if node.ordinal in amended:
                cache.keep_amended(self._content.findings(), node)

    def _read(self, ordinal: int) -> N:
        """A node made of its row."""
        if self._rows is None:
            self._rows, self._texts = self._state.cursor(NODES), self._state.cursor(TEXTS)
        content = self._content
        row = self._rows.get(two_numbers(content.number, number_at(content.place.rows, ordinal)))
        if row is None:
            raise Corrupted(f"content {self._number} has no node at ordinal {ordinal}")
        node: Any
        if self._weight is Outline:
            node = decode_outline(content.prefix, row)
        else:
            assert self._texts is not None
            node = decode_node(content.prefix, row, text_at(self._texts, content, ordinal) if has_text(row) else NO_TEXT)
        if node.ordinal != ordinal or node.last_ordinal < ordinal:
            raise Corrupted(f"the row at ordinal {ordinal} of content {self._number} says that it is at {node.ordinal}")
        found: N = node
        return found

    def at(self, ordinals: Sequence[int]) -> Steps[list[N]]:
        """The nodes at some ordinals, in their order."""
        found: list[N] = []
        for start in range(0, len(ordinals), _STEP):
            found += [self.get(ordinal) for ordinal in ordinals[start : start + _STEP]]
            yield
        return found

    def walk(self, first: int, last: int, depth: int) -> Answer[list[N]]:
        """The nodes from ``first`` to ``last`` that are not below ``depth``, skipping what is below a node there."""
        self._check_end(last)
        found: list[N] = []
        known, append = self._known, found.append
        ordinal = first
        while ordinal <= last:
            node = known[ordinal]
            if node is None:
                return self._walk_on(found, ordinal, last, depth)
            append(node)
            ordinal = node.last_ordinal + 1 if node.depth == depth else ordinal + 1
        return found

    def _walk_on(self, found: list[N], ordinal: int, last: int, depth: int) -> Steps[list[N]]:
        """What :meth:`walk` has found so far, and the rest, of which some are not kept."""
        known, append = self._known, found.append
        made = 0
        while ordinal <= last:
            node = known[ordinal]
            if node is None:
                node = self._get(ordinal)
                made += 1
                if not made % _STEP:
                    yield
            append(node)
            ordinal = node.last_ordinal + 1 if node.depth == depth else ordinal + 1
        return found

    def between(self, first: int, last: int) -> Answer[list[N]]:
        """The nodes from ``first`` to ``last``, all of them."""
        self._check_end(last)
        found = self._known[first : last + 1]
        return cast(list[N], found) if all(found) else self._complete(found, first, last)

    def _complete(self, found: list[N | None], first: int, last: int) -> Steps[list[N]]:
        """What is kept of the nodes from ``first`` to ``last``, and the others one by one; if too many are not, then all are
        read: that takes less time."""
        absent = [ordinal for ordinal, node in enumerate(found, first) if node is None]
        patterns = self._kept.patterns
        if sum([ordinal not in patterns for ordinal in absent]) > len(found) // _MOSTLY:
            return (yield from self._run(first, last))
        for count, ordinal in enumerate(absent, 1):
            found[ordinal - first] = self._get(ordinal)
            if not count % _STEP:
                yield
        return cast(list[N], found)

    def _run(self, first: int, last: int) -> Steps[list[N]]:
        """The nodes from ``first`` to ``last`` read from the store; those that are read a second time are kept."""
        made = yield from run(self._state, self._content, self._weight, first, last)
        if len(made) <= self._room or self._content.cache.has_spare(len(made)):
            seen = self._kept.seen
            again = all(seen[first : last + 1])
            for start in range(0, len(made) if again else 0, _KEPT_AT_ONCE):
                some, at = made[start : start + _KEPT_AT_ONCE], first + start
                if [node.ordinal for node in some] != list(range(at, at + len(some))):
                    raise Corrupted(f"rows of content {self._number} say that they are at other ordinals")
                self._keep_all(some)
                yield
            seen[first : last + 1] = b"\1" * len(made)
        return made


def text_at(texts: Cursor, content: Content, index: int) -> bytes:
    """The text with this index, in MessagePack; there must be one."""
    text = texts.get(two_numbers(content.number, number_at(content.place.texts, index)))
    if text is None:
        raise Corrupted(f"a text of policy {content.version.policy_id!r} version {content.version.version_id!r} is missing")
    return text


def ordinals_of(state: State, content: Content, node_ids: Sequence[str]) -> list[int]:
    """The ordinals of named nodes, in the order asked. One NotFound names all that are missing."""
    number = content.place.parts.node_ids
    found = [state.get(NODE_IDS, number_key(number, node_id.encode())) for node_id in node_ids]
    missing = [node_id for node_id, raw in zip(node_ids, found, strict=True) if raw is None]
    if missing:
        raise timeline.missing_nodes(content.version, missing)
    return [int.from_bytes(raw, "big") for raw in found if raw is not None]


def ordinals_on(state: State, content: Content, first: int, last: int) -> Sequence[int]:
    """The ordinals, ascending, of the nodes whose page range meets the pages ``first`` to ``last``."""
    kept = content.findings()
    known = kept.on_pages.get((first, last))
    if known is not None:
        return known
    number = content.place.parts.intervals
    rows = state.cursor(INTERVALS)

    def read(depth: int, index: int) -> bytes:
        row = rows.get(interval_key(number, depth, index))
        if row is None:
            raise Corrupted(f"content {number} has no row {index} of page intervals at depth {depth}")
        return row

    found = intervals.search(read, first, last)
    content.cache.keep_pages(kept, (first, last), found)
    return found


def run(state: State, content: Content, weight: type[N], first: int, last: int) -> Steps[list[N]]:
    """The nodes with ordinals ``first``…``last``, all of them, read from the store by one scan of each run of rows and one of
    each run of texts."""
    found: list[Any] = []
    texts = texts_of(state, content, first, last)
    for rows in _rows_of(state, content, first, last):
        if weight is Node:
            its_texts = list(islice(texts, len(rows)))
            found += decode_nodes(content.prefix, rows[: len(its_texts)], its_texts)
        else:
            found += decode_outlines(content.prefix, rows)
        yield
    if len(found) != last - first + 1:
        raise Corrupted(f"content {content.place.content} has {len(found)} nodes at ordinals {first} to {last}")
    return found


def _rows_of(state: State, content: Content, first: int, last: int) -> Iterator[list[bytes]]:
    """The rows with ordinals ``first``…``last``, some at a time; those of short runs together."""
    some: list[bytes] = []
    for run in between(content.place.rows, first, last):
        for _, rows in state.pieces(NODES, two_numbers(content.number, run.number), two_numbers(content.number, run.end)):
            some = some + rows if some else rows
            if len(some) >= _TOGETHER:
                yield some
                some = []
    yield some


def texts_of(state: State, content: Content, first: int, last: int) -> Iterator[bytes]:
    """The texts with indexes ``first``…``last`` in MessagePack; NO_TEXT where the number has none."""
    return chain.from_iterable(_runs_of_texts(state, content, first, last))


def _runs_of_texts(state: State, content: Content, first: int, last: int) -> Iterator[Iterable[bytes]]:
    policy = content.number
    for run in between(content.place.texts, first, last):
        number = run.number
        for keys, values in state.pieces(TEXTS, two_numbers(policy, number), two_numbers(policy, run.end)):
            if keys and int.from_bytes(keys[-1][4:], "big") == number + len(keys) - 1:  # all follow each other
                yield values
                number += len(keys)
                continue
            for key, text in zip(keys, values, strict=True):
                at = int.from_bytes(key[4:], "big")
                yield repeat(NO_TEXT, at - number)
                yield (text,)
                number = at + 1
        yield repeat(NO_TEXT, run.end - number)
