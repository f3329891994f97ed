"""Cuts a run at every operation, and what it left behind again inside the recovery, twice deep; and fails every operation.

All that is chosen comes from the seed and the number of the operation, so that a seed replays a failure exactly.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tests.engine.document_works import document_trial
from tests.engine.simulated import Fault, SimulatedDisk, cuts, failing
from tests.engine.steps import RECIPES, engine_trial
from tests.engine.works import Trial
from treestore.errors import TreestoreError

Make = Callable[[], Trial]
Look = Callable[[SimulatedDisk, int], None]


class Lost(AssertionError):
    """Something is not as it must be after a cut or a fault; says after which."""


DEEPEST = 3  # cuts one after another

NEVER_FULL = frozenset({"read", "lock"})
"""What a full disk still does."""


AGAIN = (1 / 12, 1 / 24)
"""The parts of the operations of a run, and of a recovery, after which what is left is recovered to be cut again."""


@dataclass
class Tally:
    """What was looked at."""

    seeds: int = 0
    operations: int = 0
    cuts: Counter[int] = field(default_factory=Counter)  # by depth, from 1
    faults: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count what another one counted."""
        self.seeds += other.seeds
        self.operations += other.operations
        self.cuts += other.cuts
        self.faults += other.faults
        self.failures += other.failures


def at_each_operation(trial: Trial, look: Look) -> int:
    """Run a trial and look at its disk whenever an operation is under way; gives the number of operations."""
    count = 0
    failures: list[Exception] = []  # kept here: the engine takes an error in the middle of a write for the disk's

    def hook(kind: str, path: str) -> None:
        nonlocal count
        count += 1
        trial.disk.hook = None
        try:
            look(trial.disk, count)
            trial.disk.hook = hook
        except Exception as error:
            failures.append(error)
            raise

    trial.disk.hook = hook
    try:
        trial.run()
    finally:
        if failures:
            raise failures[0]
    trial.disk.hook = None
    return count


@contextlib.contextmanager
def place(where: str) -> Iterator[None]:
    """Whatever goes wrong within is told as :class:`Lost`, with its place."""
    try:
        yield
    except Lost as error:
        raise Lost(f"{where}, {error}") from error
    except Exception as error:
        raise Lost(f"{where}: {error!r}") from error


def crash(make: Make, seed: int, tally: Tally) -> None:
    """Run a trial and cut it at every operation. Raises Lost, which says where."""
    tally.seeds += 1
    with place(f"seed {seed}"):
        tally.operations += _crash(make(), str(seed), tally, 1)


def _crash(trial: Trial, seed: str, tally: Tally, level: int) -> int:
    """Run a trial that ``level`` - 1 cuts went before; gives the number of its operations."""

    def look(disk: SimulatedDisk, count: int) -> None:
        choose = random.Random(f"{seed} {count}")
        sorts = cuts(disk, choose.randrange(2**32))
        for name, cut in sorts if level == 1 else choose.sample([*sorts], k=1):
            tally.cuts[level] += 1
            with place(f"operation {count} cut with {name}"):
                trial.verify(cut)
        if level < DEEPEST and choose.random() < AGAIN[level - 1]:
            killed = "nothing lost, as by a kill", disk.after_kill()
            name, left = choose.choice([*cuts(disk, choose.randrange(2**32)), killed])
            with place(f"operation {count} cut with {name}, then"):
                _crash(trial.resumed(left, choose), f"{seed} {count}", tally, level + 1)

    return at_each_operation(trial, look)


def fail(make: Make, seed: int, tally: Tally, part: float = 1.0) -> None:
    """Run a trial again and again, each time with another operation failing, and all after it as well; ``part`` is the part
    of the operations. Raises Lost, which says where."""
    counted = Counter[str]()
    trial = make()
    trial.disk.fault = lambda number, kind, path: counted.update([kind])
    with place(f"seed {seed}, without a fault"):
        trial.run()
        trial.healed()
    choose = random.Random(f"{seed} faults")
    for kind, full, for_ever in itertools.product(sorted(counted), (False, True), (False, True)):
        if full and kind in NEVER_FULL:
            continue
        for at in range(1, counted[kind] + 1):
            if choose.random() < part:
                tally.faults += 1
                with place(f"seed {seed}, {kind} {at} {'full' if full else 'broken'} {'for ever' if for_ever else 'once'}"):
                    _fail(make(), failing(at, for_ever=for_ever, full=full, kinds=frozenset({kind})), choose.random())


def _fail(trial: Trial, fault: Fault, seed: float) -> None:
    """Run a trial on a disk that fails, then look at what is left after a cut, without one, and where it goes on."""
    choose = random.Random(seed)
    failed = False

    def noted(number: int, kind: str, path: str) -> TreestoreError | None:
        nonlocal failed
        error = fault(number, kind, path)
        failed = failed or error is not None
        return error

    def look_after(disk: SimulatedDisk, count: int) -> None:
        if failed and choose.random() < 0.1:
            with place(f"cut at operation {count}"):
                trial.verify(disk.after_cut(choose.randrange(2**32)))

    trial.break_disk(noted)
    at_each_operation(trial, look_after)
    trial.disk.fault = None
    for keep in (0.0, None):
        trial.verify(trial.disk.after_cut(choose.randrange(2**32), keep))
    trial.healed()
    trial.verify(trial.disk.after_cut(choose.randrange(2**32)))
    again = trial.resumed(trial.disk, choose)

    def look(disk: SimulatedDisk, count: int) -> None:
        if choose.random() < 0.2:
            again.verify(disk.after_cut(choose.randrange(2**32)))

    at_each_operation(again, look)
    again.verify(again.disk)


class Workload(Protocol):
    """Makes the run of a seed, of about so many steps."""

    def __call__(self, seed: int, steps: int = 12) -> Trial: ...


WORKLOADS: dict[str, Workload] = {**{name: partial(engine_trial, name) for name in RECIPES}, "documents": document_trial}
"""Every workload by its name."""
