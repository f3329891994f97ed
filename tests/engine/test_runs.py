"""Runs of numbers say what a plain list of them says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from treestore.backends.btree.runs import between, names, number_at, numbers_of, outside, runs_of, with_number

NUMBERS = st.lists(st.integers(0, 12), max_size=20) | st.tuples(st.integers(0, 9), st.integers(0, 9)).map(
    lambda pair: list(range(pair[0], pair[0] + pair[1]))
)


@given(NUMBERS)
def test_runs_are_the_fewest_that_give_each_index_its_number(numbers: list[int]) -> None:
    runs = runs_of(numbers)
    assert numbers_of(runs) == numbers
    assert [number_at(runs, index) for index in range(len(numbers))] == numbers
    assert len(runs) == sum(at == 0 or numbers[at] != numbers[at - 1] + 1 for at in range(len(numbers)))
    assert [names(runs, number) for number in range(14)] == [numbers.count(number) for number in range(14)]


@given(NUMBERS, st.integers(0, 20), st.integers(-1, 20))
def test_a_part_of_the_indexes(numbers: list[int], first: int, last: int) -> None:
    found = list(between(runs_of(numbers), first, last))
    assert numbers_of(tuple(found)) == numbers[first : last + 1]
    assert [run.first + at for run in found for at in range(run.length)] == list(range(first, min(last + 1, len(numbers))))


@given(NUMBERS.filter(bool), st.data())
def test_another_number_for_one_index(numbers: list[int], data: st.DataObject) -> None:
    index, number = data.draw(st.integers(0, len(numbers) - 1)), data.draw(st.integers(0, 14))
    changed = [*numbers[:index], number, *numbers[index + 1 :]]
    assert with_number(runs_of(numbers), index, number) == runs_of(changed)


@given(NUMBERS, st.lists(NUMBERS, max_size=4))
def test_numbers_that_only_some_runs_have(numbers: list[int], kept: list[list[int]]) -> None:
    spans = list(outside(runs_of(numbers), [run for others in kept for run in runs_of(others)]))
    found = [number for start, end in spans for number in range(start, end)]
    assert found == sorted(set(numbers) - {number for others in kept for number in others})
    assert all(start < end for start, end in spans)
