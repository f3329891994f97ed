"""A disk that fails at the Nth operation, for every N, once and for ever: nothing acknowledged is lost, reads go on."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable
from functools import partial

import pytest

from tests.engine.crashing import WORKLOADS, Tally, fail
from tests.engine.interleaved import Turns
from tests.engine.simulated import ALL, GROWTH, Fault, SimulatedDisk, failing
from tests.engine.workload import (
    SMALL,
    STORE,
    Group,
    History,
    accounted,
    bulk_entries,
    contents,
    groups,
    key,
    random_group,
    verify,
)
from treestore.backends.btree.engine.batch import Job
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.file import SyncFailed
from treestore.errors import Corrupted, DiskFull, OutcomeUnknown, TreestoreError, Unavailable

SHORT = {"groups": (4, 1.0), "rotation": (3, 1.0), "threads": (1, 0.2), "documents": (4, 0.15)}
"""Of each workload the steps that are done, and the part of its operations that is made to fail."""


def created() -> SimulatedDisk:
    """A disk with an empty store."""
    disk = SimulatedDisk()
    Engine.open(STORE, SMALL, fs=disk).close()
    return disk


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_fault_at_operations_of_every_kind(name: str) -> None:
    """In runs that are short enough, each of them; ``scripts/crash_loop.py --faults 1`` tries each of any run."""
    tally = Tally()
    steps, part = SHORT.get(name, (5, 0.15))
    fail(partial(WORKLOADS[name], 0, steps), 0, tally, part)
    assert tally.faults > 10


@pytest.mark.parametrize("full", [False, True], ids=["broken", "full"])
def test_a_fault_at_every_operation_of_creating_opening_and_closing(full: bool) -> None:
    def life(disk: SimulatedDisk, history: History) -> None:
        for group in groups(23, 2):
            engine = Engine.open(STORE, SMALL, fs=disk)
            try:
                found = engine.state.lsn
                assert history.acknowledged <= found < len(history.models)
                del history.models[found + 1 :]
                history.acknowledged = found
                history.commit(engine, [group])
            finally:
                engine._let_go("crash")
        Engine.open(STORE, SMALL, fs=disk).close()

    disk = SimulatedDisk()
    life(disk, History())
    for number in range(1, disk.operations):
        for for_ever in (False, True):
            broken, history = SimulatedDisk(), History()
            broken.fault = failing(number, for_ever=for_ever, full=full, kinds=GROWTH if full else ALL)
            try:
                life(broken, history)
            except TreestoreError as error:
                assert not isinstance(error, Corrupted), f"operation {number}: a failing disk is no damage: {error}"
            broken.fault = None
            verify(broken, history)


def test_a_failed_sync_poisons_although_the_next_one_would_succeed() -> None:
    disk, history = created(), History()
    engine = Engine.open(STORE, SMALL, fs=disk)
    history.sent(engine, *groups(24, 3))
    disk.fault = lambda number, kind, path: SyncFailed("no") if kind == "sync" else None
    [error] = history.commit(engine, [Group({(1, b"x"): b"1"})])
    assert isinstance(error, OutcomeUnknown)
    disk.fault = None
    for _ in range(3):
        engine.commit([job := Job(Group({(1, b"y"): b"1"}).prepare())])
        assert isinstance(job.error, Unavailable)
    with pytest.raises(Unavailable):
        engine.bulk()
    with pytest.raises(Unavailable):
        engine.compact()
    assert contents(engine.state) == history.models[3]
    engine.close()
    verify(disk, history)


def test_a_bulk_load_whose_sync_failed_poisons() -> None:
    """The failed sync may have dropped pages that a checkpoint wrote beside it, and its own sync would then succeed."""
    disk, history = created(), History()
    engine = Engine.open(STORE, SMALL, fs=disk)
    history.sent(engine, *groups(25, 3))
    disk.fault = lambda number, kind, path: SyncFailed("no") if kind == "sync" else None
    with pytest.raises(SyncFailed):
        history.commit(engine, [Group({}, [], [(2, bulk_entries(b"b", 50))])])
    disk.fault = None
    with pytest.raises(Unavailable, match="open it again"):
        engine.checkpoint()
    engine.close()
    verify(disk, history)


def test_a_checkpoint_that_failed_is_finished_and_one_of_the_present_moment_follows() -> None:
    """A backup made after it must hold what was acknowledged in between."""
    disk, history = created(), History()
    engine = Engine.open(STORE, SMALL, fs=disk)
    history.sent(engine, *groups(30, 3))
    disk.fault = failing(0, for_ever=True, full=True, kinds=GROWTH)
    with pytest.raises(DiskFull):
        engine.checkpoint()
    disk.fault = None
    history.sent(engine, *groups(31, 3))
    with engine.checkpointed() as (state, *_):
        assert contents(state) == history.models[-1]
    accounted(engine)
    engine.close()


@pytest.mark.parametrize("seed", range(20))
def test_a_full_disk_stays_readable_and_takes_writes_again_when_there_is_room(seed: int) -> None:
    """Whether the next log file is due or not, and whether what is written in part can be taken back or not."""
    disk, history = created(), History()
    engine = Engine.open(STORE, SMALL, fs=disk)
    history.sent(engine, *groups(2600 + seed, 5))
    disk.fault = failing(0, for_ever=True, full=True, kinds=GROWTH)
    refused = 0
    for group in groups(2700 + seed, 30):
        errors = history.commit(engine, [group])
        refused += errors != [None]
        assert all(error is None or isinstance(error, DiskFull) for error in errors)
        assert contents(engine.state) == history.models[history.acknowledged]
    assert refused == 30
    with pytest.raises(DiskFull):
        engine.checkpoint()
    disk.fault = None
    engine.checkpoint()
    history.sent(engine, *groups(28, 5))
    accounted(engine)
    verify(disk.after_cut(seed), history)
    engine.close()
    verify(disk, history)


def test_changes_that_no_checkpoint_can_write_are_bounded() -> None:
    """The log has room, the data file has none: commits go on up to the memory set aside for them, then are refused."""
    disk, history = created(), History()
    engine = Engine.open(STORE, SMALL, fs=disk)

    def data_is_full(number: int, kind: str, path: str) -> TreestoreError | None:
        return DiskFull("full") if path.endswith("/data") and kind in ("write", "reserve") else None

    disk.fault = data_is_full
    choose = random.Random(29)
    error: Exception | None = None
    for number in range(600):
        [error] = history.commit(engine, [Group({(1, key(number)): choose.randbytes(1500)})])
        if error is not None:
            break
        if engine.checkpoint_due():
            with pytest.raises(DiskFull):
                engine.checkpoint()
    assert isinstance(error, DiskFull)
    assert engine.dirty < 3 * SMALL.dirty_bytes
    assert contents(engine.state) == history.models[history.acknowledged]
    disk.fault = None
    engine.checkpoint()
    history.sent(engine, Group({(1, b"room"): b"again"}))
    accounted(engine)
    engine.close()
    verify(disk, history)


@pytest.mark.parametrize("seed", range(6))
def test_what_a_failed_sync_lost_is_written_again_at_opening(seed: int) -> None:
    """Of what a failed sync should have made durable the system may show everything and have nothing on the disk; a sync at
    opening then succeeds and writes nothing. Header and records of the log, and the meta page, are written again."""
    for at in range(1, 6):  # the first log file, its first batch, a checkpoint's pages and meta page, the next batch
        disk, history = created(), History()
        engine = Engine.open(STORE, SMALL, fs=disk)
        disk.operations += seed  # which decides what is lost
        fault = failing(at, for_ever=False, kinds=frozenset({"sync"}))
        disk.fault = fault
        for step in (*groups(40 + seed, 2), None, *groups(50 + seed, 1)):
            with contextlib.suppress(TreestoreError):
                engine.checkpoint() if step is None else history.commit(engine, [step])
        assert not engine.writable
        engine.close()
        again = Engine.open(STORE, SMALL, fs=disk)
        history.reopened(again)
        history.sent(again, *groups(60 + seed, 2))
        history.sent(again, Group({}, [], [(2, bulk_entries(b"b", 60))]))
        again._let_go("crash")
        verify(disk.after_cut(seed, 0.0), history)


def test_a_sync_beside_one_that_failed_and_has_not_said_so_yet_makes_nothing_durable() -> None:
    """A checkpoint's sync fails and takes with it what a bulk load wrote to the same file. The bulk load's own sync, which
    finds nothing left to write, must not let its group be acknowledged before the checkpoint's thread has stopped writes."""
    for seed in range(40):
        disk, history = created(), History()
        engine = Engine.open(STORE, SMALL, fs=disk)
        history.sent(engine, *groups(33, 3))
        turns = Turns(disk, random.Random(seed))
        turns.share(engine)
        disk.fault = in_the_data_file(failing(1, for_ever=False, kinds=frozenset({"sync"})))
        document = Group({}, [], [(2, bulk_entries(b"b", 50))])
        works: list[Callable[[], object]] = [engine.checkpoint, partial(history.commit, engine, [document])]
        turns.run(*(partial(whatever_fails, work) for work in works))
        disk.fault = None
        assert not engine.writable
        engine.close()
        verify(disk.after_cut(seed, 0.0), history)


def in_the_data_file(fault: Fault) -> Fault:
    return lambda number, kind, path: fault(number, kind, path) if path.endswith("/data") else None


def whatever_fails(work: Callable[[], object]) -> None:
    with contextlib.suppress(TreestoreError):
        work()


@pytest.mark.parametrize("for_ever", [False, True])
def test_a_page_that_cannot_be_read_spoils_its_group_alone(for_ever: bool) -> None:
    """The groups of a batch are steps of one edit. One that fails half-way leaves nothing in it. Where the others can't be
    taken again then, all are refused, and the store goes on."""
    history = History()
    disk = created()
    engine = Engine.open(STORE, SMALL, fs=disk)
    for first in range(0, 3000, 500):
        history.sent(engine, Group({(tree, key(n)): b"v" * 100 for n in range(first, first + 500) for tree in (1, 2)}))
    engine.close()
    outcomes = set()
    for at in itertools.count(1):
        engine = Engine.open(STORE, SMALL, fs=disk)
        choose = random.Random(at)
        batch = [Group({(tree, key(choose.randrange(3000))): b"n%d" % at for tree in (1, 2, 1, 2)}) for _ in range(5)]
        reads = failing(at, for_ever=for_ever, kinds=frozenset({"read"}))
        disk.fault = in_the_data_file(reads)
        errors = history.commit(engine, batch)
        disk.fault = None
        outcomes.add(sum(error is not None for error in errors))
        assert engine.writable
        history.sent(engine, random_group(choose))
        assert contents(engine.state) == history.models[engine.state.lsn]
        if errors == [None] * 5:
            break
        engine.close()
    accounted(engine)
    engine.close()
    verify(disk, history)
    assert outcomes >= ({0, 1} if not for_ever else {0, 5})
