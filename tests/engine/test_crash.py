"""A power cut, or the death of the process, at every operation: all that was acknowledged is there, and of the rest a prefix,
each group whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.engine.simulated import SimulatedDisk, cuts
from tests.engine.workload import (
    SMALL,
    STORE,
    Group,
    History,
    bulk_entries,
    contents,
    groups,
    key,
    problems,
    random_group,
    verify,
)
from treestore.backends.btree.engine.backup import backup
from treestore.backends.btree.engine.bulk import finished
from treestore.backends.btree.engine.engine import Engine
from treestore.errors import NotAStore, TreestoreError

Work = Callable[[SimulatedDisk, History], None]


def opened(disk: SimulatedDisk) -> Engine:
    return Engine.open(STORE, SMALL, fs=disk)


def single_groups(disk: SimulatedDisk, history: History) -> None:
    """The store's creation, one group at a time, an orderly end."""
    engine = opened(disk)
    for group in groups(1, 25):
        history.sent(engine, group)
    engine.close()


def batches(disk: SimulatedDisk, history: History) -> None:
    """Batches of several groups, so that a cut tears between them."""
    engine = opened(disk)
    choose = random.Random(2)
    for _ in range(12):
        history.sent(engine, *(random_group(choose) for _ in range(choose.randint(2, 6))))
    engine._let_go("crash")


def checkpoints(disk: SimulatedDisk, history: History) -> None:
    """Checkpoints in between, while commits go on, and reopening without one."""
    engine = opened(disk)
    choose = random.Random(3)
    for turn in range(10):
        for _ in range(3):
            history.sent(engine, random_group(choose))
        for step, _ in enumerate(engine.checkpoint_steps()):
            if step % 2 == 0:
                history.sent(engine, random_group(choose))
        if turn % 4 == 3:
            engine._let_go("crash")
            engine = opened(disk)
    engine.close()


def rotation(disk: SimulatedDisk, history: History) -> None:
    """Log files of 24 kB: many are begun, retired and used again."""
    engine = opened(disk)
    choose = random.Random(4)
    for turn in range(14):
        puts = {(1, key(choose.randrange(40))): choose.randbytes(1000) for _ in range(16)}
        history.sent(engine, Group({**puts}), random_group(choose))
        if turn % 2:
            engine.checkpoint()
    engine.close()
    engine = opened(disk)
    for group in groups(5, 6):
        history.sent(engine, group)
    engine.checkpoint()
    engine._let_go("crash")


def bulk_loads(disk: SimulatedDisk, history: History) -> None:
    """Trees loaded in bulk and linked by a group, replaced and deleted, some given up."""
    engine = opened(disk)
    history.sent(engine, *groups(6, 3))
    for turn in range(6):
        prefix = b"doc %d " % (turn % 3)
        old = [(tree, prefix, prefix + b"\xff") for tree in (2, 3)]
        loads = [(2, bulk_entries(prefix, 60 + 20 * turn)), (3, bulk_entries(prefix, 30, long_every=3))]
        given_up = engine.bulk()
        finished(given_up.load(bulk_entries(b"never", 20)))
        history.sent(engine, Group({(1, key(turn)): b"head"}, old, loads))
        given_up.abandon()
        if turn % 2:
            engine.checkpoint()
        if turn == 3:
            engine._let_go("crash")
            engine = opened(disk)
    history.sent(engine, Group({}, [(2, b"doc 0", b"doc 1")]))
    engine.close()


def compaction(disk: SimulatedDisk, history: History) -> None:
    """Much is stored, most of it deleted, and the file rewritten; twice, with groups around it."""
    engine = opened(disk)
    for turn in range(2):
        history.sent(engine, Group({}, [], [(2, bulk_entries(b"bulk %d" % turn, 150))]), *groups(7 + turn, 4))
        history.sent(engine, Group({}, [(2, b"bulk %d00020" % turn, None)]))
        engine.compact()
        history.sent(engine, *groups(9 + turn, 2))
    engine._let_go("crash")


WORKS: list[Work] = [single_groups, batches, checkpoints, rotation, bulk_loads, compaction]


def at_each_operation(work: Work, history: History, look: Callable[[SimulatedDisk, int], None]) -> int:
    """Run a work once and look at its disk whenever an operation is under way; gives the number of operations."""
    disk = SimulatedDisk()
    count = 0
    failures: list[Exception] = []  # kept here: the engine takes an error in the middle of a write for the disk's

    def hook(kind: str, path: str) -> None:
        nonlocal count
        count += 1
        disk.hook = None
        try:
            look(disk, count)
            disk.hook = hook
        except Exception as error:
            failures.append(error)
            raise

    disk.hook = hook
    try:
        work(disk, history)
    finally:
        if failures:
            raise failures[0]
    return count


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_a_power_cut_at_every_operation(work: Work) -> None:
    history = History()

    def look(disk: SimulatedDisk, count: int) -> None:
        for name, cut in cuts(disk, count):
            try:
                verify(cut, history)
            except (AssertionError, TreestoreError) as error:
                raise AssertionError(f"{work.__name__}: operation {count}, {name}: {error}") from error

    assert at_each_operation(work, history, look) > 50


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_a_second_cut_inside_the_recovery_and_the_checkpoint_after_it(work: Work) -> None:
    history = History()

    def recover(disk: SimulatedDisk) -> Iterator[SimulatedDisk]:
        """The disk at each operation of an opening with a checkpoint after it."""
        found: list[SimulatedDisk] = []
        disk.hook = lambda kind, path: found.append(disk.after_cut(len(found)))
        engine = opened(disk)
        engine.checkpoint()
        engine._let_go("crash")
        disk.hook = None
        yield from found

    def look(disk: SimulatedDisk, count: int) -> None:
        if count % 7:
            return
        for at, cut in enumerate(recover(disk.after_cut(count))):
            try:
                verify(cut, history)
            except (AssertionError, TreestoreError) as error:
                raise AssertionError(f"{work.__name__}: operation {count}, then {at} of the recovery: {error}") from error

    at_each_operation(work, history, look)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_a_kill_and_then_a_power_cut_after_more_was_acknowledged(work: Work) -> None:
    """What a recovery reads may lie in the system's cache only: it must be made durable before anything rests on it."""
    history = History()

    def look(disk: SimulatedDisk, count: int) -> None:
        if count % 4:
            return
        killed = disk.after_kill()
        engine = opened(killed)
        found = engine.state.lsn
        later = History()
        later.models, later.acknowledged = history.models[: found + 1], found
        assert contents(engine.state) == later.models[-1]
        cut_at: list[tuple[int, SimulatedDisk]] = []
        killed.hook = lambda kind, path: cut_at.append((later.acknowledged, killed.after_cut(len(cut_at))))
        if count % 2:
            engine.checkpoint()
        later.sent(engine, Group({(2, b"more"): b"m" * 5000}, [], [(3, bulk_entries(b"~more", 40))]))
        engine.checkpoint()
        later.sent(engine, Group({(2, b"more"): None}, [], [(3, bulk_entries(b"~still more", 40))]))
        engine._let_go("crash")
        killed.hook = None
        cut_at += [(later.acknowledged, cut) for _, cut in cuts(killed, count)]
        for at, (later.acknowledged, cut) in enumerate(cut_at):
            try:
                verify(cut, later)
            except (AssertionError, TreestoreError) as error:
                raise AssertionError(f"{work.__name__}: killed at {count}, cut at {at} after it: {error}") from error

    at_each_operation(work, history, look)


def test_a_cut_during_a_backup_harms_neither_the_store_nor_passes_for_a_copy() -> None:
    history = History()
    finished_copies = 0

    def work(disk: SimulatedDisk, history: History) -> None:
        nonlocal finished_copies
        engine = opened(disk)
        history.sent(engine, *groups(11, 5), Group({}, [], [(2, bulk_entries(b"b", 80))]))
        with engine.reading() as moment:
            backup(disk, "/disk/copy", moment)
        finished_copies += 1
        history.sent(engine, *groups(12, 3))
        engine._let_go("crash")

    def look(disk: SimulatedDisk, count: int) -> None:
        for _, cut in cuts(disk, count):
            verify(cut, history)
            try:
                copy = Engine.open("/disk/copy", SMALL, create_new=False, fs=cut)
            except NotAStore:
                assert not finished_copies
                continue
            assert contents(copy.state) == history.models[6]
            assert problems(copy) == []
            copy.close()

    assert at_each_operation(work, history, look) > 20
    assert finished_copies == 1
