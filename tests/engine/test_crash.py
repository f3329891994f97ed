"""A power cut, or the death of the process, at every operation: all that was acknowledged is there, and of the rest a prefix,
each group whole. ``scripts/crash_loop.py`` does the same at length."""

from __future__ import annotations

from functools import partial

import pytest

from tests.engine.crashing import WORKLOADS, Tally, at_each_operation, crash
from tests.engine.simulated import SimulatedDisk
from tests.engine.workload import SMALL, STORE, History, contents, groups, verify
from treestore.backends.btree.engine.backup import backup
from treestore.backends.btree.engine.engine import Engine

STEPS = {"threads": 2, "tasks": 5, "backup": 8, "mixed": 8, "documents": 8}


@pytest.mark.parametrize("name", WORKLOADS)
def test_cuts_at_every_operation_and_again_inside_the_recovery_twice_deep(name: str) -> None:
    tally = Tally()
    for seed in range(2):
        crash(partial(WORKLOADS[name], seed, STEPS.get(name, 12)), seed, tally)
    assert tally.cuts[1] > 300
    assert tally.cuts[2] > 150
    assert tally.cuts[3] > 100


@pytest.mark.parametrize("name", ["mixed", "tasks", "threads"])
def test_a_seed_replays(name: str) -> None:
    """The same operations, and the same cuts of them."""

    def played(seed: int) -> list[tuple[int, dict[str, int]]]:
        trial = WORKLOADS[name](seed, 4)
        found: list[tuple[int, dict[str, int]]] = []

        def look(disk: SimulatedDisk, count: int) -> None:
            cut = disk.after_cut(count)
            sizes = {path: len(inode.current) for path, inode in cut.names.items() if inode is not None}
            found.append((disk.operations, sizes))

        at_each_operation(trial, look)
        return found

    assert played(5) == played(5)
    assert played(5) != played(6)


def test_a_cut_before_the_store_is_created_in_a_folder_that_a_killed_process_made() -> None:
    """The folder's own name must be durable too, whoever made it."""
    disk = SimulatedDisk()
    disk.make_folder(STORE)
    history = History()
    engine = Engine.open(STORE, SMALL, fs=disk)
    history.sent(engine, *groups(1, 2))
    engine._let_go("crash")
    verify(disk.after_cut(0, 0.0), history)


def test_a_backup_in_a_folder_that_was_just_made_is_there_after_a_cut() -> None:
    disk, history = SimulatedDisk(), History()
    engine = Engine.open(STORE, SMALL, fs=disk)
    history.sent(engine, *groups(2, 2))
    disk.make_folder("/disk/copy")
    with engine.reading() as state:
        backup(disk, "/disk/copy", state)
    engine._let_go("crash")
    copy = Engine.open("/disk/copy", SMALL, create_new=False, fs=disk.after_cut(0, 0.0))
    assert contents(copy.state) == history.models[-1]
    copy.close()


def test_what_is_looked_at_is_decided_by_the_seed() -> None:
    def looked(seed: int) -> Tally:
        tally = Tally()
        crash(partial(WORKLOADS["groups"], seed, 2), seed, tally)
        return tally

    assert looked(7) == looked(7) != looked(8)
