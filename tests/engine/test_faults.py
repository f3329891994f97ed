"""A disk that fails at the Nth operation, for every N, once and for ever: nothing acknowledged is lost, reads go on."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.engine.simulated import SYNCS, SimulatedDisk, failing
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


def steps(history: History) -> list[Callable[[Engine], object]]:
    """Single groups, batches, long values, bulk loads, rotation, checkpoints and a compaction, each a step of its own."""
    choose = random.Random(21)
    found: list[Callable[[Engine], object]] = []

    def commit(*some: Group) -> None:
        found.append(lambda engine: history.commit(engine, some))

    for turn in range(4):
        commit(random_group(choose))
        commit(*(random_group(choose) for _ in range(4)))
        commit(Group({(1, key(turn)): b"v" * 12_000}, [(2, b"b", b"c")], [(2, bulk_entries(b"b%d" % turn, 40))]))
        commit(*(Group({(3, key(i)): choose.randbytes(900)}) for i in range(20)))
        found.append(Engine.checkpoint)
    found.append(Engine.compact)
    commit(random_group(choose))
    found.append(Engine.checkpoint)
    commit(*groups(22, 2))
    return found


def run(disk: SimulatedDisk, history: History) -> Engine:
    """Take all steps, whatever fails; after each, all that was acknowledged can be read."""
    engine = Engine.open(STORE, SMALL, fs=disk)
    for step in steps(history):
        try:
            step(engine)
        except TreestoreError:
            assert disk.fault is not None
        assert contents(engine.state) == history.models[history.acknowledged]
    return engine


def created() -> SimulatedDisk:
    """A disk with an empty store."""
    disk = SimulatedDisk()
    Engine.open(STORE, SMALL, fs=disk).close()
    return disk


def operations_of_a_run() -> int:
    disk = created()
    before = disk.operations
    run(disk, History())._let_go("crash")
    return disk.operations - before


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("full", [False, True], ids=["broken", "full"])
def test_a_fault_at_every_operation(for_ever: bool, full: bool) -> None:
    total = operations_of_a_run()
    assert total > 150
    for number in range(10, total, 2 if for_ever else 1):  # the first ones open the store
        disk, history = created(), History()
        failed: list[tuple[str, str]] = []
        fault = failing(disk.operations + number, for_ever=for_ever, full=full)

        def noted(at: int, kind: str, path: str) -> TreestoreError | None:
            error = fault(at, kind, path)  # noqa: B023 - called within this turn of the loop
            if error is not None:
                failed.append((kind, path))  # noqa: B023
            return error

        disk.fault = noted
        try:
            engine = run(disk, history)
            disk.fault = None
            after_healing(engine, disk, history, failed)
        except (AssertionError, TreestoreError) as error:
            raise AssertionError(f"operation {number} of {total}, {failed}: {error}") from error


def after_healing(engine: Engine, disk: SimulatedDisk, history: History, failed: list[tuple[str, str]]) -> None:
    """The disk works again: an engine whose sync failed stays poisoned, another one goes on as if nothing had been."""
    of_the_store = [path for kind, path in failed if kind in SYNCS and not path.endswith(".new")]
    verify(disk.after_cut(len(failed), 0.0), history)
    verify(disk.after_cut(len(failed)), history)
    if of_the_store or not engine.writable:
        assert [type(error) for error in history.commit(engine, [Group({(1, b"late"): b"1"})])] == [Unavailable]
        with pytest.raises(Unavailable, match="open it again"):
            engine.checkpoint()
        assert contents(engine.state) == history.models[history.acknowledged]
        engine.close()
    else:
        history.sent(engine, Group({(1, b"late"): b"1"}))
        accounted(engine)
        engine._let_go("crash")
    verify(disk, history)


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
            broken.fault = failing(number, for_ever=for_ever, full=full, reads=True)
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
    disk.fault = failing(0, for_ever=True, full=True)
    with pytest.raises(DiskFull):
        engine.checkpoint()
    disk.fault = None
    history.sent(engine, *groups(31, 3))
    with engine.checkpointed() as (state, *_):
        assert contents(state) == history.models[-1]
    accounted(engine)
    engine.close()


def test_a_full_disk_stays_readable_and_takes_writes_again_when_there_is_room() -> None:
    disk, history = created(), History()
    engine = Engine.open(STORE, SMALL, fs=disk)
    history.sent(engine, *groups(26, 5))
    disk.fault = failing(0, for_ever=True, full=True)
    refused = 0
    for group in groups(27, 30):
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
