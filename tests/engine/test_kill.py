"""SIGKILL at random moments of a process that writes from threads and tasks loses nothing acknowledged.

A short run of what ``scripts/kill_loop.py`` does at length.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.engine.killing import Record, one_kill

KILLS = 25


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    first = random.randrange(10**6)
    record = Record()
    for seed in range(first, first + KILLS):
        assert one_kill(tmp_path, seed, record, longest=0.3) == [], f"seed {seed}, the kill number {seed - first}"
    assert record.counts["kills"] == KILLS
    assert record.counts["acknowledged"] > 5 * KILLS
    for what in ("store", "bulk store", "amend", "delete"):
        assert record.counts[f"acknowledged: {what}"], what
    assert record.counts["replayed"] > 0
