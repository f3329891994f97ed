"""A machine that does anything to the engine, in any order, with many snapshots open at once, each compared in full with its
own copy of what the store held then; and after every step every page is accounted for.

``TREESTORE_TEST_EXAMPLES`` runs it for longer, so many examples of 200 steps:

    TREESTORE_TEST_EXAMPLES=2000 .venv/bin/python -m pytest tests/stateful/test_engine_machine.py -s
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from collections.abc import Generator
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.engine.accounting import account
from tests.engine.simulated import SimulatedDisk
from tests.engine.workload import SMALL, STORE, Group, Model, Place, bulk_entries, contents, key, problems, random_group
from treestore.backends.btree.engine.batch import Job
from treestore.backends.btree.engine.bulk import Bulk, finished
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.engine.tree import Graft
from treestore.errors import DiskFull, TreestoreError

EXAMPLES = int(os.environ.get("TREESTORE_TEST_EXAMPLES", "16"))
SNAPSHOTS = 16
SPARE_PAGES = 64
SEEDS = st.integers(0, 2**32 - 1)
SELDOM = st.integers(0, 4).map(lambda drawn: drawn == 4)
"""For what ends all snapshots or makes all pages new: more often, and nothing would grow old."""

done: Counter[str] = Counter()


class Held(NamedTuple):
    """A snapshot: what is read and what it must hold."""

    state: State
    token: int
    model: Model


class Loaded(NamedTuple):
    """Leaves on disk that no group has linked yet, in place of a range of their tree."""

    bulk: Bulk
    tree: int
    entries: list[tuple[bytes, bytes]]
    new: Graft


class EngineMachine(RuleBasedStateMachine):
    """``model`` is what the store holds. ``most_used`` is the greatest number of pages that were not free at once: no file is
    longer than thrice that, whatever was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.model: Model = {}
        self.held: list[Held] = []
        self.loads: list[Loaded] = []
        self.steps: Generator[None, None, None] | None = None
        self.most_used = 0
        self.engine = Engine.open(STORE, SMALL, fs=self.disk)

    # --- writing ---------------------------------------------------------------------------------------------------------

    def commit(self, *groups: Group, linked: list[tuple[int, Graft]] | None = None) -> None:
        """Commit groups as one batch; the last one links what was loaded."""
        self.make_room()
        jobs = [Job(group.prepare(linked or [])) for group in groups]
        self.engine.commit(jobs)
        assert [job.error for job in jobs] == [None] * len(jobs)
        for group in groups:
            self.model = group.on(self.model)
        done["commits"] += len(groups)

    def make_room(self) -> None:
        """What could not be written to a full disk is, now that there is room: a thread sees to that in the store."""
        if self.engine._stuck is not None and self.engine.checkpoint_due():
            self.end_checkpoint()
            self.engine.checkpoint()

    @rule(seed=SEEDS, count=st.integers(1, 12), keys=st.sampled_from([10, 60, 60, 400]))
    def commit_groups_one_by_one(self, seed: int, count: int, keys: int) -> None:
        choose = random.Random(seed)
        for _ in range(count):
            self.commit(random_group(choose, keys))

    @rule(seed=SEEDS, count=st.integers(2, 8), refused=st.booleans())
    def commit_a_batch(self, seed: int, count: int, refused: bool) -> None:
        choose = random.Random(seed)
        groups = [random_group(choose) for _ in range(count)]

        def refuse(state: State) -> list[TreeChange]:
            raise ValueError("refused")

        self.make_room()
        jobs = [Job(group.prepare()) for group in groups]
        bad = Job(refuse)
        at = choose.randrange(count)
        self.engine.commit([*jobs[:at], *([bad] if refused else []), *jobs[at:]])
        assert [job.error for job in jobs] == [None] * count
        assert isinstance(bad.error, ValueError) == refused
        for group in groups:
            self.model = group.on(self.model)
        done["commits"] += count

    @rule(tree=st.integers(1, 3), low=st.integers(0, 400), length=st.integers(0, 400))
    def delete_a_range(self, tree: int, low: int, length: int) -> None:
        self.commit(Group({}, [(tree, key(low), key(low + length))]))

    @rule(tree=st.integers(1, 3), seed=SEEDS)
    def delete_keys_in_random_order(self, tree: int, seed: int) -> None:
        places: list[Place] = [place for place in self.model if place[0] == tree and place[1].startswith(b"key")]
        random.Random(seed).shuffle(places)
        for start in range(0, len(places), 40):
            self.commit(Group(dict.fromkeys(places[start : start + 40])))

    @precondition(lambda self: len(self.loads) < 3)
    @rule(tree=st.integers(2, 3), count=st.sampled_from([1, 20, 150]), seed=st.integers(0, 9))
    def load_in_bulk(self, tree: int, count: int, seed: int) -> None:
        if any(load.tree == tree for load in self.loads):
            return
        self.make_room()
        bulk = self.engine.bulk()
        entries = bulk_entries(b"bulk %d " % seed, count, 5 + seed)
        new = finished(bulk.load(entries))
        assert new is not None
        bulk.sync()
        self.loads.append(Loaded(bulk, tree, entries, new))

    @precondition(lambda self: self.loads)
    @rule(give_up=st.booleans(), which=st.integers(0, 2))
    def end_a_bulk_load(self, give_up: bool, which: int) -> None:
        load = self.loads.pop(which % len(self.loads))
        if give_up or load.bulk.pager is not self.engine.state.pager:
            load.bulk.abandon()
            return
        group = Group({}, [(load.tree, b"bulk", b"bull")], [(load.tree, load.entries)])
        self.commit(group, linked=[(load.tree, load.new)])
        done["bulk loads"] += 1

    @rule(seed=SEEDS, after=st.integers(0, 6))
    def work_on_a_full_disk(self, seed: int, after: int) -> None:
        """After so many operations more there is no room for a new file, or for more in one."""
        choose, full_from = random.Random(seed), self.disk.operations + after

        def fault(number: int, kind: str, path: str) -> TreestoreError | None:
            full = kind in ("open", "reserve") and number > full_from
            return DiskFull(f"the disk is full: cannot {kind} {path}") if full else None

        self.disk.fault = fault
        for _ in range(4):
            group = random_group(choose)
            job = Job(group.prepare())
            self.engine.commit([job])
            if job.error is None:
                self.model = group.on(self.model)
            else:
                assert isinstance(job.error, DiskFull)
                done["refused by a full disk"] += 1
            account(self.engine)
        bulk = self.engine.bulk() if self.engine._stuck is None else None
        if bulk is not None:
            with contextlib.suppress(DiskFull):
                finished(bulk.load(bulk_entries(b"given up", 200)))
            bulk.abandon()
        self.end_checkpoint(DiskFull)
        with contextlib.suppress(DiskFull):
            self.engine.checkpoint()
        account(self.engine)
        with contextlib.suppress(DiskFull):
            self.engine.compact()
        self.disk.fault = None

    # --- checkpoints -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.steps is None)
    @rule()
    def begin_a_checkpoint(self) -> None:
        self.steps = self.engine.checkpoint_steps()

    @precondition(lambda self: self.steps is not None)
    @rule(count=st.integers(1, 40))
    def go_on_with_the_checkpoint(self, count: int) -> None:
        for _ in range(count):
            if self.steps is not None and next(self.steps, True):
                self.steps = None
                done["checkpoints in steps"] += 1

    def end_checkpoint(self, *errors: type[TreestoreError]) -> None:
        """Only one runs at a time: whoever comes after it waits."""
        if self.steps is not None:
            with contextlib.suppress(*errors):
                for _ in self.steps:
                    pass
            self.steps = None

    @rule()
    def checkpoint(self) -> None:
        self.end_checkpoint()
        self.engine.checkpoint()

    @rule()
    def tidy(self) -> None:
        self.engine.tidy()

    @rule(now=SELDOM)
    def compact(self, now: bool) -> None:
        if not now:
            return
        self.end_checkpoint()
        self.engine.compact()
        self.every_snapshot_is_as_it_was()
        self.most_used = 0
        done["compactions"] += 1

    # --- snapshots -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.held) < SNAPSHOTS)
    @rule(count=st.integers(1, 4), seed=SEEDS)
    def take_snapshots_between_commits(self, count: int, seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(count):
            self.held.append(Held(*self.engine.enter(), self.model))
            self.commit(random_group(choose))
        done["snapshots"] += count
        done["most snapshots at once"] = max(done["most snapshots at once"], len(self.held))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, SNAPSHOTS - 1))
    def let_a_snapshot_go(self, which: int) -> None:
        held = self.held.pop(which % len(self.held))
        self.same(held)
        self.engine.leave(held.token)

    @rule()
    def every_snapshot_is_as_it_was(self) -> None:
        for held in self.held:
            self.same(held)

    def same(self, held: Held) -> None:
        assert contents(held.state) == held.model
        done["snapshots compared"] += 1

    # --- ends ------------------------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """What lives in the process only goes with it."""
        if self.steps is not None:
            self.steps.close()
            self.steps = None
        self.held.clear()
        self.loads.clear()

    @rule(now=SELDOM)
    def reopen(self, now: bool) -> None:
        if not now:
            return
        self.end_checkpoint()
        self.every_snapshot_is_as_it_was()
        for load in self.loads:
            load.bulk.abandon()
        self.let_go()
        self.engine.close()
        self.engine = Engine.open(STORE, SMALL, create_new=False, fs=self.disk)
        assert self.engine.replayed == 0

    @rule(cut=st.booleans(), seed=SEEDS, now=SELDOM)
    def crash(self, cut: bool, seed: int, now: bool) -> None:
        """A kill of the process or a power cut; in the midst of a checkpoint, if one is under way."""
        if not now:
            return
        self.let_go()
        self.engine._let_go("crash")
        self.disk = self.disk.after_cut(seed) if cut else self.disk.after_kill()
        self.engine = Engine.open(STORE, SMALL, create_new=False, fs=self.disk)
        done["crashes"] += 1

    def teardown(self) -> None:
        self.every_snapshot_is_as_it_was()
        self.let_go()
        self.engine.close()
        self.engine = Engine.open(STORE, SMALL, create_new=False, fs=self.disk)
        assert contents(self.engine.state) == self.model
        assert problems(self.engine) == []

    # --- always ----------------------------------------------------------------------------------------------------------

    @invariant()
    def the_newest_state_and_one_snapshot_are_right(self) -> None:
        assert contents(self.engine.state) == self.model
        if self.held:
            self.held.append(self.held.pop(0))
            self.same(self.held[-1])
        done["steps"] += 1

    @invariant()
    def every_page_is_accounted_for(self) -> None:
        account(self.engine)

    @invariant()
    def the_file_is_not_longer_than_it_may_be(self) -> None:
        freelist = self.engine._freelist
        self.most_used = max(self.most_used, freelist.page_count - freelist.free_pages)
        assert freelist.page_count <= 3 * self.most_used + SPARE_PAGES


def test_the_engine_does_what_a_dict_does_with_many_snapshots() -> None:
    run_state_machine_as_test(
        EngineMachine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=200, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    print(f"{EXAMPLES} examples: " + ", ".join(f"{count} {what}" for what, count in done.most_common()))
    assert done["commits"] > 30 * EXAMPLES
