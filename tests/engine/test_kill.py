"""SIGKILL at random moments of a process that writes from threads and tasks loses nothing acknowledged.

A short run of what ``scripts/kill_loop.py`` does at length.
"""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

import treestore
from tests.engine.killing import Record, Write, nodes, one_kill, policies_of

KILLS = 25
ROUNDS = 6

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of a fork amid threads of others


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    """Where the machine is so slow that hardly anything was under way, some more, which come later."""
    first = random.randrange(10**6)
    record = Record()
    for number in range(ROUNDS * KILLS):
        longest = 0.3 * 2 ** (number // KILLS)
        assert one_kill(tmp_path, first + number, record, longest) == [], f"seed {first + number}, the kill number {number}"
        if number + 1 >= KILLS and enough(record):
            break
    assert record.counts["kills"] >= KILLS
    assert enough(record), record.counts


def enough(record: Record) -> bool:
    """Whether there was much that a kill could have lost, of every kind."""
    kinds = [f"acknowledged: {what}" for what in ("store", "bulk store", "amend", "delete")]
    return record.counts["acknowledged"] > 5 * KILLS and all(record.counts[name] for name in (*kinds, "replayed"))


def test_what_is_lost_or_torn_is_noticed(tmp_path: Path) -> None:
    """That the record of the test above is not satisfied with anything."""
    with treestore.open_sync(f"btree:///{tmp_path / 'store'}") as store:
        record = Record()
        policy = policies_of("task 1")[0]

        def says(what: str, write: Write | None = None) -> None:
            record.listen(f"{what}\ttask 1\t{msgspec.json.encode(write).decode() if write else ''}\n".encode())

        says("try", Write("store", policy, "1", 7, 3))
        assert record.verify(store) == [], "under way, and not there"
        says("try", Write("store", policy, "1", 7, 3))
        says("ok")
        assert len(record.verify(store)) == 1, "lost"
        store.documents.store_document(policy, "1", nodes(policy, 7, 3)[:2])
        assert len(record.verify(store)) == 1, "torn"
        store.documents.store_document(policy, "1", nodes(policy, 7, 3))
        assert record.verify(store) == []
        says("try", Write("amend", policy, "1", 5))
        store.documents.update_node(policy, "2", text="amended 5")
        assert record.verify(store) == [], "under way, and there"
        assert len(record.verify(store)) == 0
        store.documents.update_node(policy, "2", text="amended 6")
        assert len(record.verify(store)) == 1, "changed by nobody"
        store.documents.delete_document(policy)
        says("try", Write("delete", policy, "1"))
        assert record.verify(store) == []
        assert record.counts["in flight, applied"] == 2
        store.documents.store_document(policy, "2", nodes(policy, 7, 3))
        assert len(record.verify(store)) == 1, "come back"
