"""Reads beside an old service that ingests the same version without a pause: each answer is that of one of its trees, exactly,
that was committed at some moment while the answer was made.

``ADOPTION_READS=10000 pytest tests/adoption/test_reads.py`` reads for longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

import treestore
from tests.adoption import adopting, questions
from tests.adoption.generations import ASKED, POLICY, VERSION, Generations, Judge, read_beside
from tests.adoption.writers import assert_same_for_both, held

READS = int(os.environ.get("ADOPTION_READS", "1200"))


@pytest.fixture
def generations(url: str) -> Iterator[Generations]:
    """The version, on tables that were adopted."""
    made = Generations(url)
    with made.service:
        adopting.upgrade(url)
        yield made
    assert adopting.deadlocks(url) == 0


@pytest.mark.parametrize("kind", ["underived", "repaired meanwhile", "in turns with treestore"])
def test_no_read_is_stale_and_none_is_mixed(url: str, generations: Generations, kind: str) -> None:
    with treestore.open_sync(url) as generations.store:
        if kind != "in turns with treestore":
            generations.store = None
        judge = read_beside(generations, url, READS, repairing=kind == "repaired meanwhile")
    assert judge.wrong == []
    assert judge.reads.total() == READS
    assert len(judge.reads) == len({question.verb for question in ASKED})
    assert len(judge.seen) > 5, "the trees changed while they were read"


def test_a_snapshot_sees_one_tree(url: str, generations: Generations) -> None:
    """However long it is held."""
    judge = Judge(generations)
    with treestore.open_sync(url) as store:
        for _ in range(5):
            number = len(generations.began) - 1
            with store.snapshot() as view:
                for at, question in enumerate(ASKED):
                    if at % 5 == 0:
                        generations.commit()
                    assert questions.told(lambda q=question: q.of(view)) == judge.expected.answer(number, at)  # type: ignore[misc]


def test_what_is_read_next_is_what_was_committed_last(url: str, generations: Generations) -> None:
    """By stores that have read the version before, and keep what they have read."""
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


def test_a_status_that_is_committed_after_a_later_one(url: str, generations: Generations) -> None:
    """The service notes the moment when it sends a change, not when it commits it: of two, the earlier may come last. It is
    not newer than what is there, and yet a change."""
    service = generations.service
    with treestore.open_sync(url) as store:
        with held(lambda before_commit: service.set_status(POLICY, VERSION, "n3", "flagged", before_commit)):
            service.set_status(POLICY, VERSION, "n9", "approved")
            assert_same_for_both(service, store, (POLICY, VERSION))
        assert_same_for_both(service, store, (POLICY, VERSION))


def test_a_status_by_a_clock_that_is_behind(url: str, generations: Generations) -> None:
    """The service and treestore run on machines whose clocks differ: what the service changes next is older than what
    treestore has written."""
    service = generations.service
    ahead = datetime.now(UTC) + timedelta(minutes=1)
    with treestore.open_sync(url, clock=lambda: ahead) as store:
        store.documents.update_node(POLICY, "n3", version_id=VERSION, summary="amended")
        assert adopting.status(url)["stale"] == 0
        service.set_status(POLICY, VERSION, "n9", "approved")
        assert adopting.status(url)["stale"] == 1
        found = store.documents.get_document(POLICY, version_id=VERSION)
        with treestore.open_sync("memory://") as model:
            model.documents.store_document(POLICY, VERSION, found.nodes)
            assert model.versions.get(POLICY, VERSION).tree_hash == found.version.tree_hash
        adopting.repair(url)
        assert store.check().problems == []
