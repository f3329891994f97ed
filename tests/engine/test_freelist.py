"""Pages are free, in use or pending, never two of them, and not free before nobody needs them."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.backends.btree.engine.format import MAX_PAGE
from treestore.backends.btree.engine.freelist import FreeList, Run, coalesce, without
from treestore.errors import DiskFull

PAGES = st.sets(st.integers(1, 60))


def runs_of(pages: set[int]) -> list[Run]:
    return [(page, 1) for page in pages]


def pages_of(runs: list[Run]) -> set[int]:
    return {page for start, count in runs for page in range(start, start + count)}


@given(PAGES)
def test_runs_are_joined_to_as_few_as_there_can_be(pages: set[int]) -> None:
    runs = coalesce(runs_of(pages))
    assert pages_of(runs) == pages
    assert all(a + n + 1 <= b for (a, n), (b, _) in pairwise(runs))


def test_a_page_given_up_twice_is_noticed() -> None:
    with pytest.raises(AssertionError, match="page 4 was freed twice"):
        coalesce([(3, 2), (4, 1)])


@given(PAGES, st.data())
def test_taking_runs_out(pages: set[int], data: st.DataObject) -> None:
    taken = data.draw(st.sets(st.sampled_from(sorted(pages)))) if pages else set()
    assert pages_of(without(coalesce(runs_of(pages)), coalesce(runs_of(taken)))) == pages - taken


@pytest.mark.parametrize("taken", [[(1, 1)], [(9, 1)], [(3, 3)], [(5, 2)], [(2, 2), (40, 1)]])
def test_taking_what_is_not_free_is_noticed(taken: list[Run]) -> None:
    with pytest.raises(AssertionError, match="is not free"):
        without([(2, 3), (6, 2)], taken)


@given(st.lists(st.integers(1, 5), max_size=30), PAGES)
def test_no_page_is_given_out_twice(wanted: list[int], free: set[int]) -> None:
    freelist = FreeList(coalesce(runs_of(free)), 61)
    given_out: set[int] = set()
    for count in wanted:
        first = freelist.allocate(count)
        pages = set(range(first, first + count))
        assert 0 not in pages
        assert not pages & given_out
        assert all(page in free or page >= 61 for page in pages)
        given_out |= pages
    assert freelist.page_count == max(61, max(given_out, default=0) + 1)
    assert freelist.free_pages == len(free - given_out)


def test_the_greatest_size_is_a_full_disk() -> None:
    freelist = FreeList([], MAX_PAGE - 2)
    assert freelist.allocate(2) == MAX_PAGE - 2
    with pytest.raises(DiskFull, match="greatest size"):
        freelist.allocate()


@pytest.mark.parametrize("page_count", [2**31 - 1, 2**31, 2**32 - 3])
def test_page_numbers_past_31_bits(page_count: int) -> None:
    freelist = FreeList([], page_count)
    assert freelist.allocate() == page_count
    freelist.give_back([(page_count, 1)])
    assert freelist.allocate() == page_count


def test_a_page_given_up_waits_for_the_checkpoint_and_for_older_readers() -> None:
    freelist = FreeList([], 10)
    freelist.give_up(5, [(3, 1)])
    freelist.give_up(7, [(4, 2)])
    assert (freelist.free_pages, freelist.pending_pages) == (0, 3)
    freelist.readers_left(None)
    assert freelist.free_pages == 0, "the last checkpoint needs them"
    freelist.checkpointed(6, oldest_reader=4)
    assert (freelist.free_pages, freelist.pending_pages) == (0, 3), "a reader of 4 needs what was given up by 5"
    freelist.readers_left(5)
    assert (freelist.free_pages, freelist.pending_pages) == (1, 2), "a reader of 5 does not"
    freelist.checkpointed(7, oldest_reader=None)
    assert (freelist.free_pages, freelist.pending_pages) == (3, 0)
    assert {freelist.allocate() for _ in range(3)} == {3, 4, 5}


def test_a_bulk_load_counts_as_free_until_it_is_committed() -> None:
    freelist = FreeList([(2, 4)], 10)
    first, second = freelist.stage(), freelist.stage(2)
    assert freelist.allocate() not in {first, second, second + 1}
    free, page_count = freelist.at_checkpoint()
    assert pages_of(free) == pages_of([(first, 1), (second, 2)])
    assert page_count == 10
    freelist.commit_staged(coalesce([(first, 1), (second, 2)]))
    assert freelist.at_checkpoint()[0] == []
    third = freelist.stage()
    freelist.unstage([(third, 1)])
    assert third in pages_of(freelist.at_checkpoint()[0])
    assert freelist.allocate() == third


def test_recovery_reserves_pages_behind_the_end() -> None:
    freelist = FreeList([(2, 2)], 10)
    freelist.reserve([(3, 1), (12, 2)])
    assert freelist.page_count == 14
    assert pages_of(freelist.at_checkpoint()[0]) == {2, 10, 11}
    with pytest.raises(AssertionError, match="is not free"):
        freelist.reserve([(3, 1)])


def test_many_random_steps_keep_account_of_every_page() -> None:
    """Against a model: each page is in exactly one of free, pending, in use, staged."""
    for seed in range(40):
        choose = random.Random(seed)
        freelist = FreeList([], 1)
        in_use: list[Run] = []
        staged: list[Run] = []
        epoch = 0
        for _ in range(200):
            step = choose.randrange(6)
            count = choose.randint(1, 4)
            if step < 2:
                in_use.append((freelist.allocate(count), count))
            elif step == 2:
                staged.append((freelist.stage(count), count))
            elif step == 3 and staged:
                run = staged.pop(choose.randrange(len(staged)))
                if choose.random() < 0.5:
                    freelist.commit_staged([run])
                    in_use.append(run)
                else:
                    freelist.unstage([run])
            elif step == 4 and in_use:
                epoch += 1
                freelist.give_up(epoch, [in_use.pop(choose.randrange(len(in_use)))])
            else:
                freelist.checkpointed(epoch, choose.choice([None, max(0, epoch - 3)]))
            free, page_count = freelist.at_checkpoint()
            used = pages_of(in_use)
            assert pages_of(free) | used == set(range(1, page_count))
            assert not pages_of(free) & used
            assert freelist.free_pages + freelist.pending_pages + len(pages_of(staged)) == len(pages_of(free))


def test_a_long_run_is_found_behind_any_number_of_short_ones() -> None:
    holes = [(page, 1 + page % 8 // 4) for page in range(1000, 9000, 4)]
    freelist = FreeList([(5, 40), (100, 60), *holes], 9001)
    assert freelist.allocate(30) == 5, "of those that are long enough the shortest"
    assert freelist.allocate(60) == 100
    assert freelist.allocate(2) in pages_of(holes)
    assert freelist.allocate(10) == 35
    assert freelist.allocate(3) == 9001
    assert freelist.page_count == 9004


@pytest.mark.parametrize("single", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("sizes", [(2, 3), (2, 50), (30, 40), (33, 60), (2, 3, 5, 9, 17, 33)])
def test_a_store_of_constant_size_takes_at_most_twice_its_pages(single: float, sizes: tuple[int, ...]) -> None:
    """Pages and runs come and go at random for ever; a third of the time a reader holds back what was given up."""
    choose = random.Random(1)
    freelist = FreeList([], 1)
    live: list[Run] = []
    used = most_used = 0
    for epoch in range(400):
        for _ in range(60):
            count = 1 if choose.random() < single else choose.choice(sizes)
            live.append((freelist.allocate(count), count))
            used += count
            while used > 4000:
                at = choose.randrange(len(live))
                live[at], live[-1] = live[-1], live[at]
                used -= live[-1][1]
                freelist.give_up(epoch, [live.pop()])
        most_used = max(most_used, freelist.page_count - freelist.free_pages)
        freelist.checkpointed(epoch, None if epoch % 9 < 6 else epoch - epoch % 9)
    assert freelist.page_count < 2 * most_used
