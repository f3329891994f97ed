"""Groups of writes for the engine, what the store must hold after each of them, and the proof that it does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from treestore.backends.btree.engine.batch import Job
from treestore.backends.btree.engine.bulk import Bulk, finished
from treestore.backends.btree.engine.check import check
from treestore.backends.btree.engine.engine import Engine, Options
from treestore.backends.btree.engine.file import FileSystem
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.engine.tree import Graft
from treestore.errors import OutcomeUnknown, TreestoreError

Place = tuple[int, bytes]
Model = dict[Place, bytes]
"""All that is in a store: tree and key to value."""

COUNTER: Place = (1, b"counter")
"""Every group reads it and adds one, so a group that is applied twice or never shows."""

STORE = "/disk/store"
SMALL = Options(cache_bytes=256 * 1024, log_file_bytes=24 * 1024)
"""A small cache and small log files, so that short runs evict, check-point and rotate."""


class Group(NamedTuple):
    """What one group does: ranges go first, then leaves loaded in bulk are linked, then keys are put (None: deleted)."""

    puts: dict[Place, bytes | None] = {}
    ranges: Sequence[tuple[int, bytes, bytes | None]] = ()
    bulk: Sequence[tuple[int, list[tuple[bytes, bytes]]]] = ()

    def on(self, model: Model) -> Model:
        """The model after this group."""
        after = dict(model)
        for tree, low, high in self.ranges:
            for place in [(t, key) for t, key in after if t == tree and low <= key and (high is None or key < high)]:
                del after[place]
        for tree, entries in self.bulk:
            after.update({(tree, key): value for key, value in entries})
        for place, value in self.puts.items():
            if value is None:
                after.pop(place, None)
            else:
                after[place] = value
        after[COUNTER] = (int.from_bytes(after.get(COUNTER, b""), "big") + 1).to_bytes(8, "big")
        return after

    def prepare(self, grafts: Sequence[tuple[int, Graft]] = ()) -> Callable[[State], list[TreeChange]]:
        """The same for the engine; ``grafts`` are the leaves that ``bulk`` was loaded to."""

        def prepare(state: State) -> list[TreeChange]:
            counter = int.from_bytes(state.get(*COUNTER) or b"", "big") + 1
            puts = {**self.puts, COUNTER: counter.to_bytes(8, "big")}
            changes = []
            for tree in sorted({t for t, _ in puts} | {t for t, _, _ in self.ranges} | {t for t, _ in grafts}):
                keys = sorted(key for t, key in puts if t == tree)
                values = [puts[tree, key] for key in keys]
                ranges = [(low, high) for t, low, high in self.ranges if t == tree]
                changes.append(TreeChange(tree, keys, values, ranges, [new for t, new in grafts if t == tree]))
            return changes

        return prepare


class History:
    """What was sent to a store: ``models[k]`` is what it must hold after ``k`` groups, of which ``acknowledged`` were told to
    be durable. ``sync_failed`` is set when a sync of the open store has failed: nothing sent later may be acknowledged.
    ``start`` is the LSN of the last group before the first one."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.models: list[Model] = [{}]
        self.acknowledged = 0
        self.sync_failed = False

    def copy(self) -> History:
        """The same, to go on from."""
        other = History(self.start)
        other.models, other.acknowledged = self.models.copy(), self.acknowledged
        return other

    def reopened(self, engine: Engine) -> None:
        """A store was opened: all that was acknowledged is there, and of the rest a prefix, which is durable from now on."""
        found = engine.state.lsn - self.start
        assert self.acknowledged <= found < len(self.models), f"{found} groups of {self.acknowledged} acknowledged"
        del self.models[found + 1 :]
        self.acknowledged = found
        self.sync_failed = False

    def commit(self, engine: Engine, groups: Sequence[Group]) -> list[Exception | None]:
        """Commit groups as one batch and say how each ended. Raises what the bulk loads before it raise."""
        bulks: list[list[Bulk]] = [[] for _ in groups]
        try:
            sent = [Sent(self, group, loaded(engine, group, own)) for group, own in zip(groups, bulks, strict=True)]
        except TreestoreError:
            for own in bulks:
                abandon(own)
            raise
        jobs = [Job(one) for one in sent]
        engine.commit(jobs)
        for one, own, job in zip(sent, bulks, jobs, strict=True):
            one.ended(job.error, own)
        return [job.error for job in jobs]

    def sent(self, engine: Engine, *groups: Group) -> None:
        """Commit groups as one batch; all must succeed."""
        errors = self.commit(engine, groups)
        assert errors == [None] * len(groups), f"refused: {errors}"


class Sent:
    """A group on its way to the engine, which asks it for its changes when its turn has come: then it is in the history, as
    not acknowledged."""

    def __init__(self, history: History, group: Group, grafts: Sequence[tuple[int, Graft]] = ()) -> None:
        self._history = history
        self._group = group
        self._prepare = group.prepare(grafts)
        self._model: Model | None = None
        self._at = 0
        self._too_late = False

    def __call__(self, state: State) -> list[TreeChange]:
        changes = self._prepare(state)
        models, before = self._history.models, state.lsn - self._history.start
        del models[before + 1 :]  # groups that failed: their place in the log is free
        self._at, self._model = before + 1, self._group.on(models[before])
        models.append(self._model)
        self._too_late = self._history.sync_failed
        return changes

    def ended(self, error: Exception | None, bulks: list[Bulk]) -> None:
        """What its sender was told, who loaded ``bulks`` for it."""
        models = self._history.models
        there = self._at < len(models) and models[self._at] is self._model
        if error is None:
            assert not self._too_late, "a group was acknowledged after a sync had failed"
            assert there, "a group was acknowledged, and another one has its place in the log"
            self._history.acknowledged = max(self._history.acknowledged, self._at)
        elif not isinstance(error, OutcomeUnknown):
            abandon(bulks)
            if there:
                del models[self._at :]


def loaded(engine: Engine, group: Group, bulks: list[Bulk]) -> list[tuple[int, Graft]]:
    """A group's trees loaded in bulk; the loads are noted in ``bulks`` as they begin."""
    grafts = []
    for tree, entries in group.bulk:
        bulks.append(bulk := engine.bulk())
        new = finished(bulk.load(entries))
        assert new is not None
        bulk.sync()
        grafts.append((tree, new))
    return grafts


def abandon(bulks: list[Bulk]) -> None:
    """Give up bulk loads that no record refers to."""
    for bulk in bulks:
        bulk.abandon()


def contents(state: State) -> Model:
    """All that is in a state."""
    return {(tree, key): value for tree in state.roots for key, value in state.scan(tree, b"", None)}


def problems(engine: Engine) -> list[str]:
    """What a check of the data file finds, after a checkpoint."""
    with engine.checkpointed() as moment:
        return finished(check(*moment)).problems


def accounted(engine: Engine) -> None:
    """Every page is reachable, free or pending exactly once, on disk and in memory, and no bulk load's pages are left."""
    assert problems(engine) == []
    engine.tidy()
    figures = engine.figures()
    assert engine._freelist._staged == {}
    assert figures["pages_free"] == sum(count for _, count in engine._free)
    assert figures["pages_pending"] == 0
    assert figures["pages"] == engine._meta.page_count


def verify(fs: FileSystem, history: History, folder: str = STORE, options: Options = SMALL) -> None:
    """The store opens, holds all acknowledged groups and a prefix of the others, is sound, and goes on working."""
    engine = Engine.open(folder, options, fs=fs)
    try:
        count = engine.state.lsn - history.start
        assert history.acknowledged <= count < len(history.models), f"{count} groups of {history.acknowledged} acknowledged"
        assert contents(engine.state) == history.models[count], f"after {count} groups"
        assert problems(engine) == []
        later = Group({(2, b"later"): b"x" * 3000, (3, b"later"): b"y"})
        engine.commit([job := Job(later.prepare())])
        assert job.error is None
        expected = later.on(history.models[count])
        engine._let_go("crash")
        engine = Engine.open(folder, options, fs=fs)
        assert contents(engine.state) == expected
        assert problems(engine) == []
    finally:
        if engine._closed is None:
            engine.close()


def key(number: int) -> bytes:
    """A key of a few bytes."""
    return b"key %06d" % number


def random_group(choose: random.Random, keys: int = 60) -> Group:
    """Puts and deletes of small and long values in three trees, and now and then a range that goes."""
    puts: dict[Place, bytes | None] = {}
    for _ in range(choose.randint(1, 6)):
        length = choose.choice((0, 5, 40, 300, 1500, 2048, 2049, 9000, 20000) if choose.random() < 0.4 else (10, 100, 200))
        value = choose.randbytes(4) * (length // 4)
        puts[choose.randint(1, 3), key(choose.randrange(keys))] = value if choose.random() < 0.8 else None
    ranges = []
    if choose.random() < 0.15:
        low = choose.randrange(keys)
        ranges.append((choose.randint(1, 3), key(low), key(low + choose.randrange(keys // 3))))
    return Group(puts, ranges)


def bulk_entries(prefix: bytes, count: int, long_every: int = 7) -> list[tuple[bytes, bytes]]:
    """Ascending entries, some of them with values on overflow pages."""
    return [(prefix + b"%05d" % i, b"v%d" % i * (700 if i % long_every == 0 else 20)) for i in range(count)]


def groups(seed: int, count: int) -> Iterable[Group]:
    """Random groups."""
    choose = random.Random(seed)
    return (random_group(choose) for _ in range(count))
