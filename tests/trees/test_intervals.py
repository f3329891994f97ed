"""The packed page intervals find what a look at every node finds, and read only the rows that they must."""

from __future__ import annotations

import math
from collections.abc import Callable
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.errors import Corrupted
from treestore.records import Outline
from treestore.trees.intervals import FAN_OUT, rows, search

MAX = 2**31 - 1
Range = tuple[int, int] | None


def nodes(ranges: list[Range]) -> list[Outline]:
    return [
        Outline(
            policy_id="p",
            version_id="1",
            node_id=str(at),
            parent_id=None,
            title="",
            page_start=pages and pages[0],
            page_end=pages and pages[1],
            section_path="",
            ordinal=at,
            last_ordinal=at,
            parent_ordinal=-1,
            depth=0,
            node_hash=b"",
            tree_hash=b"",
        )
        for at, pages in enumerate(ranges)
    ]


class Packed:
    """The rows of some ranges; counts those that a search reads."""

    def __init__(self, ranges: list[Range]) -> None:
        self.rows = {(depth, index): row for depth, index, row in rows(nodes(ranges))}
        self.read: list[tuple[int, int]] = []

    def on(self, first: int, last: int) -> list[int]:
        self.read = []

        def read(depth: int, index: int) -> bytes:
            self.read.append((depth, index))
            return self.rows[depth, index]

        return search(read, first, last)


def on(ranges: list[Range], first: int, last: int) -> list[int]:
    return [at for at, pages in enumerate(ranges) if pages and pages[0] <= last and pages[1] >= first]


small = st.integers(0, 12)
numbers = small | st.integers(0, MAX) | st.sampled_from([0, MAX - 1, MAX])
bounds = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))
some_range = st.none() | bounds | st.just((0, MAX)) | small.map(lambda page: (page, page))
many_ranges = st.lists(some_range, max_size=40).flatmap(
    lambda few: st.sampled_from([1, 3, 17, 101]).map(lambda times: few * times)
)


@given(ranges=many_ranges, asked=st.lists(bounds, min_size=1, max_size=5))
def test_random_ranges_are_found_as_a_look_at_each_finds_them(ranges: list[Range], asked: list[tuple[int, int]]) -> None:
    packed = Packed(ranges)
    for first, last in [*asked, (0, 0), (MAX, MAX), (0, MAX)]:
        assert packed.on(first, last) == on(ranges, first, last)


@pytest.mark.parametrize("count", [0, 1, FAN_OUT, FAN_OUT + 1, FAN_OUT**2, FAN_OUT**2 + 1])
@pytest.mark.parametrize(
    "shape",
    [
        lambda at, count: (at, at),
        lambda at, count: (count - at, count - at),
        lambda at, count: (at, 2 * count - at),
        lambda at, count: (0, MAX),
        lambda at, count: (0, MAX) if at % 2 else None,
        lambda at, count: (7, 7 + at),
    ],
    ids=["in order", "reversed", "nested", "everywhere", "every other", "one start"],
)
def test_rows_are_full_small_and_in_key_order(shape: Callable[[int, int], Range], count: int) -> None:
    ranges = [shape(at, count) for at in range(count)]
    packed = Packed(ranges)
    assert list(packed.rows) == sorted(packed.rows)
    assert max(map(len, packed.rows.values())) <= 1537
    entries = sum(pages is not None for pages in ranges)
    expected = max(1, math.ceil(entries / FAN_OUT))
    height = 0
    while True:
        depth = max(depth for depth, _ in packed.rows) - height
        assert sum(at == depth for at, _ in packed.rows) == expected
        if expected == 1:
            break
        expected, height = math.ceil(expected / FAN_OUT), height + 1
    assert depth == 0
    for page in (0, 1, 7, count // 2, count, MAX):
        assert packed.on(page, page) == on(ranges, page, page)


def test_a_search_reads_no_more_rows_than_what_it_finds_asks_for() -> None:
    """Also where parents span everything, or lie apart from their children."""
    count = 20_000
    chapters = [(at, at + 99) if at % 100 == 0 else (at, at) for at in range(count)]
    spanning: list[Range] = [(0, MAX), *chapters]
    apart: list[Range] = [(at * 7919 % count, at * 7919 % count + at % 3) for at in range(count)]
    for ranges in (spanning, apart):
        packed = Packed(ranges)
        levels = max(depth for depth, _ in packed.rows) + 1
        assert len(packed.rows) > 150
        for page in (0, 1, 99, 100, 12_345, count - 1, count + 5, MAX):
            found = packed.on(page, page)
            assert found == on(ranges, page, page)
            assert len(packed.read) <= (len(found) + 1) * levels


def test_the_bytes_of_rows_are_as_the_format_states() -> None:
    ranges: list[Range] = [(5, 9), None, (2, MAX), (5, 6)]
    assert list(rows(nodes(ranges))) == [(0, 0, pack("<B9I", 0, 2, 5, 5, MAX, 9, 6, 2, 0, 3))]
    assert list(rows(nodes([None]))) == [(0, 0, b"\0")]
    packed = Packed([(at, 1000 - at) for at in range(300)])
    assert packed.rows[0, 0] == pack("<B6I", 1, 0, 128, 256, 1000, 872, 744)
    assert packed.rows[1, 2] == pack("<B132I", 0, *range(256, 300), *range(744, 700, -1), *range(256, 300))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"", "has 0 bytes"),
        (b"\0" + bytes(11), "has 12 bytes"),
        (b"\1" + bytes(12), "has 13 bytes"),
        (b"\4" + bytes(8), "is 4 above the leaves"),
        (b"\1" + pack("<II", 0, MAX), "row 0 .* at depth 1 says that it is 1 above"),
    ],
)
def test_what_can_not_be_a_row_is_said_to_be_corrupted(row: bytes, message: str) -> None:
    with pytest.raises(Corrupted, match=message):
        search(lambda depth, index: row, 0, 5)
