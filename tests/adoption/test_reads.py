"""Reads beside an old service that ingests the same version without a pause: each answer is that of one of its trees, exactly,
that was committed at some moment while the answer was made.

``ADOPTION_READS=10000 pytest tests/adoption/test_reads.py`` reads for longer.
"""

from __future__ import annotations

import os

import pytest

import treestore
from tests.adoption import adopting, questions
from tests.adoption.generations import ASKED, POLICY, VERSION, Generations, Judge, read_beside

READS = int(os.environ.get("ADOPTION_READS", "1200"))


@pytest.mark.parametrize("repairing", [False, True], ids=["underived", "repaired meanwhile"])
def test_no_read_is_stale_and_none_is_mixed(repairing: bool) -> None:
    url = adopting.old_url()
    generations = Generations(url)
    adopting.upgrade(url)
    before = adopting.deadlocks(url)
    judge = read_beside(generations, url, READS, repairing=repairing)
    generations.service.close()
    assert judge.wrong == []
    assert judge.reads.total() == READS
    assert len(judge.reads) == len({question.verb for question in ASKED})
    assert len(judge.seen) > 5, "the trees changed while they were read"
    assert adopting.deadlocks(url) == before


def test_a_snapshot_sees_one_tree() -> None:
    """However long it is held."""
    url = adopting.old_url()
    generations = Generations(url)
    adopting.upgrade(url)
    judge = Judge(generations)
    with treestore.open_sync(url) as store:
        for _ in range(5):
            number = len(generations.began) - 1
            with store.snapshot() as view:
                for at, question in enumerate(ASKED):
                    if at % 5 == 0:
                        generations.commit()
                    assert questions.told(lambda q=question: q.of(view)) == judge.expected.answer(number, at)  # type: ignore[misc]
    generations.service.close()


def test_what_is_read_next_is_what_was_committed_last() -> None:
    """By stores that have read the version before, and keep what they have read."""
    url = adopting.old_url()
    generations = Generations(url)
    adopting.upgrade(url)
    judge = Judge(generations)
    with treestore.open_sync(url) as store, treestore.open_sync(url) as other:
        for number in range(12):
            for at, question in enumerate(ASKED):
                for each in (store, other):
                    assert questions.told(lambda s=each, q=question: q.of(s)) == judge.expected.answer(number, at)  # type: ignore[misc]
            if number % 4 == 1:
                adopting.repair(url)
            if number % 4 == 3:
                assert store.documents.get_outline(POLICY, version_id=VERSION)
            generations.commit()
    generations.service.close()
