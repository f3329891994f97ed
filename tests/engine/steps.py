"""The steps of runs of the engine, and the workloads that mix them: groups one by one and in batches, from tasks and threads,
bulk loads, checkpoints, compactions, backups, snapshots, orderly ends and deaths."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial

from tests.engine.interleaved import Turns
from tests.engine.workload import Group, Model, Sent, bulk_entries, contents, key, loaded, random_group
from tests.engine.works import EngineTrial, Step, open_store
from treestore.backends.btree.commit import Committer, ThreadJob
from treestore.backends.btree.engine.backup import backup
from treestore.backends.btree.engine.bulk import Bulk, finished
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.errors import Conflict, TreestoreError

Maker = Callable[[random.Random], Step]


def _single(choose: random.Random) -> Step:
    group = random_group(choose)
    return lambda trial: trial.commit(group)


def _batch(choose: random.Random) -> Step:
    """Several groups under one sync, so that a cut tears between them."""
    some = [random_group(choose) for _ in range(choose.randint(2, 6))]
    return lambda trial: trial.commit(*some)


def _delete(choose: random.Random) -> Step:
    """Most of what is in a tree goes."""
    tree, low = choose.randint(1, 3), choose.randrange(30)
    return lambda trial: trial.commit(Group({}, [(tree, key(low), None if tree == 1 else key(60))]))


def _rotation(choose: random.Random) -> Step:
    """Most of a log file."""
    puts: dict[tuple[int, bytes], bytes | None] = {(1, key(choose.randrange(40))): choose.randbytes(1000) for _ in range(16)}
    other = random_group(choose)
    return lambda trial: trial.commit(Group(puts), other)


def _document(choose: random.Random, name: int) -> Group:
    """A document loaded in bulk in place of the one before it, under keys that never were there."""
    before = b"doc %d " % name
    old = [(tree, before, before + b"\xff") for tree in (2, 3)]
    prefix = before + b"%09d " % choose.randrange(10**9)
    count = choose.choice((1, 20, 60, 150))
    loads = [(2, bulk_entries(prefix, count, choose.choice((3, 7, 100))))]
    if choose.random() < 0.5:
        loads.append((3, bulk_entries(prefix, 30, long_every=3)))
    return Group({(1, key(name)): choose.randbytes(20)}, old, loads)


def _bulk(choose: random.Random) -> Step:
    """A bulk load and perhaps another one beside it that is given up, or that the process dies with."""
    group, given_up, forgotten = _document(choose, choose.randrange(3)), choose.random() < 0.4, choose.random() < 0.3

    def step(trial: EngineTrial) -> None:
        bulk = trial.open_engine.bulk()
        try:
            if given_up or forgotten:
                finished(bulk.load(bulk_entries(b"never", 20)))
                bulk.sync()
            trial.commit(group)
        finally:
            if not forgotten or trial.disk.fault is not None:
                bulk.abandon()

    return step


def _late_bulk(choose: random.Random) -> Step:
    """A bulk load, other groups and a checkpoint, and only then the group that links it."""
    group, other, between = _document(choose, choose.randrange(3)), random_group(choose), choose.random() < 0.7

    def step(trial: EngineTrial) -> None:
        engine, bulks = trial.open_engine, list[Bulk]()
        sent = None
        error: Exception | None = None
        try:
            sent = Sent(trial.history, group, loaded(engine, group, bulks))
            trial.commit(other)
            if between:
                engine.checkpoint()
            Committer(engine).commit(sent)
        except TreestoreError as caught:
            error = caught
            raise
        finally:
            if sent is not None:
                sent.ended(error, bulks)
            else:
                for bulk in bulks:
                    bulk.abandon()

    return step


def _checkpoint(choose: random.Random) -> Step:
    return lambda trial: trial.open_engine.checkpoint()


def _slow_checkpoint(choose: random.Random) -> Step:
    """A checkpoint with commits between its steps."""
    between = [random_group(choose) for _ in range(choose.randint(1, 4))]

    def step(trial: EngineTrial) -> None:
        waiting = between.copy()
        for _ in trial.open_engine.checkpoint_steps():
            if waiting:
                _tolerant(trial, partial(trial.commit, waiting.pop()))()

    return step


def _compact(choose: random.Random) -> Step:
    def step(trial: EngineTrial) -> None:
        trial.open_engine.compact()

    return step


def _backup(choose: random.Random) -> Step:
    group = random_group(choose)

    def step(trial: EngineTrial) -> None:
        with trial.open_engine.reading() as state:
            trial.commit(group)
            _copied(trial, state, trial.history.models[state.lsn])

    return step


def _copied(trial: EngineTrial, state: State, model: Model) -> None:
    """Back up a state, which holds what the model does."""
    trial.folders += 1
    folder = f"/disk/copy {trial.folders}"
    trial.copies = {}  # the older ones were looked at often enough
    trial.copying = folder, model
    backup(trial.disk, folder, state)
    trial.copies[folder] = model


def _snapshot(choose: random.Random) -> Step:
    """A reader comes, and perhaps an older one leaves."""
    leaves = choose.random() < 0.5

    def step(trial: EngineTrial) -> None:
        engine = trial.open_engine
        state, token = engine.enter()
        trial.snapshots.append((state, token, trial.history.models[state.lsn]))
        trial.look_back()
        if leaves and len(trial.snapshots) > 2:
            engine.leave(trial.snapshots.pop(0)[1])
            engine.tidy()

    return step


def _reopen(choose: random.Random) -> Step:
    def step(trial: EngineTrial) -> None:
        trial.look_back()
        trial.snapshots = []
        engine, trial.engine = trial.open_engine, None
        engine.close()
        open_store(trial)

    return step


def _crash(choose: random.Random) -> Step:
    def step(trial: EngineTrial) -> None:
        trial.let_go()
        open_store(trial)

    return step


class _SteadyCommitter(Committer):
    """One that does not measure how long a sync takes: a loop's commits run in it, or all in a thread."""

    in_loop = True

    @property
    def sync_seconds(self) -> float:
        return 0.0 if self.in_loop else 1.0

    @sync_seconds.setter
    def sync_seconds(self, _: float) -> None:
        pass


class _TurningCommitter(Committer):
    """One whose threads wait for each other by pausing."""

    def __init__(self, engine: Engine, turns: Turns) -> None:
        super().__init__(engine)
        self._pausing = turns

    def _wait(self, job: ThreadJob) -> None:
        self._pausing.pause(lambda: job.done or job.leads)


def _tasks(choose: random.Random) -> Step:
    """Groups of several tasks of an event loop, some of which are cancelled: their groups may be there."""
    rounds = [[random_group(choose) for _ in range(choose.randint(1, 5))] for _ in range(3)]
    cancelled = [choose.randrange(5) for _ in rounds]
    in_loop = choose.random() < 0.7

    async def work(trial: EngineTrial) -> None:
        committer = _SteadyCommitter(trial.open_engine)
        committer.in_loop = in_loop
        try:
            for groups, at in zip(rounds, cancelled, strict=True):
                sent = [Sent(trial.history, group) for group in groups]
                tasks = [asyncio.ensure_future(committer.commit_async(one)) for one in sent]
                await asyncio.sleep(0)
                if at < len(tasks):
                    tasks[at].cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.wrap_future(committer._threads.submit(lambda: None))  # a cancelled task's group is done too
                for one, end in zip(sent, ends, strict=True):
                    if not isinstance(end, asyncio.CancelledError):
                        assert end is None or isinstance(end, Exception)
                        one.ended(end, [])
                trial.history.acknowledged = trial.open_engine.state.lsn  # a cancelled task's group too, where it can be read
                if (failed := next((end for end in ends if isinstance(end, TreestoreError)), None)) is not None:
                    raise failed
        finally:
            committer.close()

    return lambda trial: asyncio.run(work(trial))


def _threads(choose: random.Random) -> Step:
    """Writers, a bulk load, checkpoints, a reader and perhaps a backup or a compaction at once."""
    seed = choose.random()
    writers = [[random_group(choose) for _ in range(choose.randint(1, 3))] for _ in range(choose.randint(2, 3))]
    document = _document(choose, 3)
    others = choose.sample((_reading, _copying, _compacting, _check_pointing), k=choose.randint(1, 2))

    def step(trial: EngineTrial) -> None:
        engine = trial.open_engine
        turns = Turns(trial.disk, random.Random(seed))
        turns.share(engine)
        committer = _TurningCommitter(engine, turns)
        works: list[Callable[[], None]] = [partial(_writing, trial, committer, groups) for groups in writers]
        works.append(partial(_loading, trial, committer, document))
        works += [partial(other, trial) for other in (_check_pointing, *others)]
        turns.run(*(_tolerant(trial, work) for work in works))

    return step


def _tolerant(trial: EngineTrial, work: Callable[[], None]) -> Callable[[], None]:
    def tolerant() -> None:
        try:
            work()
        except TreestoreError:
            if trial.disk.fault is None:
                raise

    return tolerant


def _writing(trial: EngineTrial, committer: Committer, groups: Sequence[Group]) -> None:
    for group in groups:
        _sent(committer, Sent(trial.history, group), [])


def _sent(committer: Committer, sent: Sent, bulks: list[Bulk]) -> None:
    try:
        committer.commit(sent)
    except Exception as error:
        sent.ended(error, bulks)
        raise
    sent.ended(None, bulks)


def _loading(trial: EngineTrial, committer: Committer, group: Group) -> None:
    """Load in bulk; where a compaction came between, nothing is linked."""
    engine, bulks = trial.open_engine, list[Bulk]()
    with engine.reading() as state:
        try:
            sent = _SentInTime(trial.history, group, loaded(engine, group, bulks))
        except TreestoreError:
            for bulk in bulks:
                bulk.abandon()
            raise
        sent.bulks = bulks
        try:
            _sent(committer, sent, bulks)
        except Conflict:
            assert engine.state.pager is not state.pager


class _SentInTime(Sent):
    """A group that links what it loaded unless the data file was rewritten meanwhile."""

    bulks: Sequence[Bulk] = ()

    def __call__(self, state: State) -> list[TreeChange]:
        if any(bulk.pager is not state.pager for bulk in self.bulks):
            raise Conflict("the data file was rewritten")
        return super().__call__(state)


def _check_pointing(trial: EngineTrial) -> None:
    trial.open_engine.checkpoint()
    trial.open_engine.tidy()


def _compacting(trial: EngineTrial) -> None:
    trial.open_engine.compact()


def _copying(trial: EngineTrial) -> None:
    with trial.open_engine.reading() as state:
        _copied(trial, state, trial.history.models[state.lsn])


def _reading(trial: EngineTrial) -> None:
    with trial.open_engine.reading() as state:
        model = trial.history.models[state.lsn]
        for _ in range(3):
            state.pager.set_budget(0)
            assert contents(state) == model, "a reader saw something else"


MAKERS: dict[str, Maker] = {
    "single": _single,
    "batch": _batch,
    "delete": _delete,
    "rotation": _rotation,
    "bulk": _bulk,
    "late bulk": _late_bulk,
    "checkpoint": _checkpoint,
    "slow checkpoint": _slow_checkpoint,
    "compact": _compact,
    "backup": _backup,
    "snapshot": _snapshot,
    "reopen": _reopen,
    "crash": _crash,
    "tasks": _tasks,
    "threads": _threads,
}

RECIPES: dict[str, dict[str, int]] = {
    "groups": {"single": 8, "batch": 4, "delete": 1, "checkpoint": 1, "reopen": 1, "crash": 1},
    "checkpoints": {"single": 3, "batch": 1, "checkpoint": 3, "slow checkpoint": 3, "snapshot": 2, "delete": 1, "crash": 1},
    "rotation": {"rotation": 8, "checkpoint": 3, "crash": 1, "reopen": 1},
    "bulk": {"bulk": 4, "late bulk": 2, "single": 2, "delete": 1, "checkpoint": 3, "snapshot": 1, "crash": 1},
    "compaction": {"single": 2, "bulk": 2, "delete": 2, "compact": 2, "checkpoint": 1, "snapshot": 1, "crash": 1},
    "backup": {"single": 3, "bulk": 1, "checkpoint": 1, "backup": 2, "crash": 1},
    "snapshots": {"snapshot": 2, "checkpoint": 4, "rotation": 3, "single": 1, "bulk": 1},
    "tasks": {"tasks": 4, "single": 1, "checkpoint": 1, "crash": 1},
    "threads": {"threads": 4, "single": 1, "delete": 1, "crash": 1},
    "mixed": dict.fromkeys(MAKERS, 1),
}
"""Workloads: how often each kind of step comes. All begin with the creation of the store."""


def engine_trial(name: str, seed: int, steps: int = 12) -> EngineTrial:
    """A run of a workload as a seed has it."""
    choose = random.Random(f"{name} {seed}")
    names = choose.choices(list(RECIPES[name]), list(RECIPES[name].values()), k=steps)
    return EngineTrial([_single(choose), *(MAKERS[each](choose) for each in names)], _going_on)


def _going_on(choose: random.Random) -> list[Step]:
    names = choose.choices(("single", "batch", "bulk", "checkpoint", "crash"), (2, 1, 1, 3, 1), k=3)
    return [MAKERS[name](choose) for name in names]
