"""Which nodes lie on a page: a version's page ranges packed into rows that are searched without reading them all.

An augmented interval tree (Cormen, Leiserson, Rivest, Stein: Introduction to Algorithms, 3rd edition, 14.3), laid out as an
implicit tree of great fan-out because its rows are records of a store. The ranges are sorted by start, and by ordinal where
starts are equal, and cut into leaf rows of 128. Each level above holds, for each row of the level below, its least start and
its greatest end, 128 of them in a row, until one row is left: the root. A search enters a row only if something in it may
start early enough and end late enough.

Rows are named by depth (the root's is 0) and index; the child ``i`` of the row ``(depth, index)`` is ``(depth + 1,
128 * index + i)``. A row entered holds a range that is found, but for at most one on each level, so a search costs
O((found + 1) * levels) rows whatever the nesting; a parent that spans the whole document, or none of its children's pages,
makes no difference.

A row's bytes: its height above the leaf rows (1 byte), then columns of unsigned integers, each of 4 bytes, little-endian:
all starts, all ends and, in a leaf row, all ordinals. A leaf row has at most 1,537 bytes, so it is kept beside its key.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from struct import pack

from treestore.errors import Corrupted
from treestore.records import Outline

FAN_OUT = 128
"""Entries in a row; part of the stored format."""

_MAX_HEIGHT = 3  # 128**4 ranges are more than a document may have nodes

Row = tuple[int, int, bytes]
"""Depth, index and bytes of a row."""


def rows(nodes: Iterable[Outline]) -> Iterator[Row]:
    """The rows of a version's nodes, given in document order: the root first, then level by level, each in order.

    Nodes without a page range are in none. A version has at least one row: without any range its root is an empty leaf row.
    """
    starts: list[int] = []
    ends: list[int] = []
    ordinals: list[int] = []
    for node in nodes:
        if node.page_start is not None and node.page_end is not None:
            starts.append(node.page_start)
            ends.append(node.page_end)
            ordinals.append(node.ordinal)
    order = sorted(range(len(starts)), key=starts.__getitem__)  # stable, so equal starts stay in document order
    levels = [[[starts[i] for i in order], [ends[i] for i in order], [ordinals[i] for i in order]]]
    while len(levels[-1][0]) > FAN_OUT:
        below_starts, below_ends = levels[-1][:2]
        cuts = range(0, len(below_starts), FAN_OUT)
        levels.append([[below_starts[cut] for cut in cuts], [max(below_ends[cut : cut + FAN_OUT]) for cut in cuts]])
    for depth, columns in enumerate(reversed(levels)):
        height = len(levels) - 1 - depth
        for index, cut in enumerate(range(0, len(columns[0]) or 1, FAN_OUT)):
            values = [value for column in columns for value in column[cut : cut + FAN_OUT]]
            yield depth, index, pack(f"<B{len(values)}I", height, *values)


def search(read: Callable[[int, int], bytes], first: int, last: int) -> list[int]:
    """The ordinals, ascending, of the nodes whose range meets the pages ``first`` to ``last``. ``read`` gives the row at a
    depth and index. Raises Corrupted for a row that can't be one."""
    found: list[int] = []
    waiting = [(0, 0, -1)]
    while waiting:
        depth, index, expected = waiting.pop()
        height, count, values = _unpacked(read(depth, index))
        if height > _MAX_HEIGHT or (depth and height != expected):
            raise Corrupted(f"row {index} of page intervals at depth {depth} says that it is {height} above the leaves")
        early = bisect_right(values, last, 0, count)
        ends = values[count : count + early]
        if height:
            base = index * FAN_OUT
            waiting += [(depth + 1, base + i, height - 1) for i, end in enumerate(ends) if end >= first]
        else:
            ordinals = values[2 * count : 2 * count + early]
            found += [ordinal for end, ordinal in zip(ends, ordinals, strict=True) if end >= first]
    found.sort()
    return found


def _unpacked(row: bytes) -> tuple[int, int, array[int]]:
    """A row's height, the number of its entries, and its columns, one after another."""
    size = len(row) - 1
    width = 8 if size >= 0 and row[0] else 12
    if size < 0 or size % width:
        raise Corrupted(f"a row of page intervals has {len(row)} bytes")
    values = array("I", row[1:])
    if sys.byteorder == "big":
        values.byteswap()
    return row[0], size // width, values
