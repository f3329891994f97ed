"""Runs of a store on a simulated disk, made from a seed: what is done, what must be there after a cut, and how to go on then.

A :class:`Trial` is one run. What it does is decided when it is made, by the seed alone, so that a run whose disk fails does
the same as one whose disk does not. With a fault set on its disk its steps may fail; without one they must not.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

from tests.engine.simulated import Fault, SimulatedDisk
from tests.engine.workload import (
    SMALL,
    STORE,
    Group,
    History,
    Model,
    accounted,
    contents,
    problems,
    verify,
)
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.mvcc import State
from treestore.errors import NotAStore, TreestoreError, Unavailable


class Trial(ABC):
    """A run on :attr:`disk`."""

    def __init__(self, disk: SimulatedDisk | None = None) -> None:
        self.disk = disk or SimulatedDisk()

    @abstractmethod
    def run(self) -> None:
        """Do all of it; at the end the process is dead, or the store closed."""

    @abstractmethod
    def verify(self, cut: SimulatedDisk) -> None:
        """Look whether a disk holds what it must if the run ended at this moment. Raises AssertionError, TreestoreError."""

    @abstractmethod
    def resumed(self, disk: SimulatedDisk, choose: random.Random) -> Self:
        """A short run that opens what is on a disk which this one left, and goes on."""

    @abstractmethod
    def break_disk(self, fault: Fault) -> None:
        """From now on the disk fails as this says, and steps may."""

    @abstractmethod
    def healed(self) -> None:
        """The disk works again: after a failed sync the store stays read-only, else it goes on. Lets go of the store."""


Step = Callable[["EngineTrial"], None]
Steps = Callable[[random.Random], Sequence[Step]]


class EngineTrial(Trial):
    """Groups of bytes for the engine, and all that can be done to it meanwhile. ``go_on`` gives what a run does that opens
    what this one left."""

    def __init__(
        self, steps: Sequence[Step], go_on: Steps, disk: SimulatedDisk | None = None, history: History | None = None
    ) -> None:
        super().__init__(disk)
        self.history = history or History()
        self.engine: Engine | None = None
        self.snapshots: list[tuple[State, int, Model]] = []
        self.copies: dict[str, Model] = {}  # backups that ended
        self.copying: tuple[str, Model] | None = None
        self.folders = 0
        self._steps = steps
        self._go_on = go_on

    def run(self) -> None:
        self.attempt(open_store)
        for step in self._steps:
            self.attempt(step)
        if self.engine is not None and self.disk.fault is None:
            self.let_go()

    def attempt(self, step: Step) -> None:
        """One step, before which a store that could not be opened is tried again."""
        try:
            if self.engine is None and step is not open_store:
                open_store(self)
            step(self)
        except TreestoreError:
            if self.disk.fault is None:
                raise
        if self.disk.fault is not None and self.engine is not None:
            self.readable()

    def readable(self) -> None:
        """What was acknowledged, and nothing else, can be read, if reads do not fail."""
        engine = self.open_engine
        assert engine.state.lsn == self.history.acknowledged
        try:
            found = contents(engine.state)
        except Unavailable:
            return
        assert found == self.history.models[self.history.acknowledged]

    @property
    def open_engine(self) -> Engine:
        assert self.engine is not None
        return self.engine

    def let_go(self) -> None:
        """The process dies."""
        self.look_back()
        self.snapshots = []
        engine, self.engine = self.open_engine, None
        engine._let_go("crash")

    def look_back(self) -> None:
        """Every snapshot is as it was, on the disk if not in the cache."""
        engine = self.open_engine
        engine.state.pager.set_budget(0)
        for state, _, model in self.snapshots:
            assert contents(state) == model, "a snapshot changed"
        engine.tidy()

    def commit(self, *groups: Group) -> None:
        """Commit groups as one batch."""
        errors = [error for error in self.history.commit(self.open_engine, groups) if error is not None]
        if errors:
            raise errors[0]

    def verify(self, cut: SimulatedDisk) -> None:
        verify(cut, self.history)
        copies = dict(self.copies)
        if self.copying is not None:
            copies[self.copying[0]] = self.copying[1]
        for folder, model in copies.items():
            try:
                copy = Engine.open(folder, SMALL, create_new=False, fs=cut)
            except NotAStore:
                assert folder not in self.copies, f"the backup {folder} is gone"
                continue
            assert contents(copy.state) == model
            assert problems(copy) == []
            copy._let_go("looked at")

    def resumed(self, disk: SimulatedDisk, choose: random.Random) -> Self:
        again = type(self)(self._go_on(choose), self._go_on, disk, self.history.copy())
        again.copies = self.copies.copy()
        again.copying = self.copying
        again.folders = self.folders
        return again

    def break_disk(self, fault: Fault) -> None:
        def told(path: str) -> None:
            if path.startswith(STORE) and not path.endswith(".new"):
                self.history.sync_failed = True

        self.disk.fault, self.disk.told = fault, told

    def healed(self) -> None:
        self.disk.fault = None
        if self.engine is None:
            return
        self.readable()
        late = Group({(1, b"late"): b"1"})
        if self.history.sync_failed or not self.engine.writable:
            [error] = self.history.commit(self.engine, [late])
            assert type(error) is Unavailable, f"a write after a failed sync ended in {error!r}"
            try:
                self.engine.checkpoint()
            except Unavailable as error:
                assert "open it again" in str(error)
            else:
                raise AssertionError("a checkpoint after a failed sync")
        else:
            self.engine.checkpoint()  # before it changes may fill the memory that is set aside for them
            self.history.sent(self.engine, late)
            for _, token, _ in self.snapshots:
                self.engine.leave(token)
            self.snapshots = []
            accounted(self.engine)
        self.let_go()


def open_store(trial: EngineTrial) -> None:
    """The step that opens the store, or creates it."""
    trial.engine = Engine.open(STORE, SMALL, fs=trial.disk)
    trial.history.reopened(trial.engine)
