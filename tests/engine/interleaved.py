"""Threads that use one store on a simulated disk in an order that a seed decides, so that a run of several can be replayed.

Only one of them runs at a time. At each operation of the disk, before it and while it is under way, and wherever one has to
wait for another's lock, the next to run is chosen. Threads that wait for each other for ever are an error.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from types import TracebackType

from tests.engine.simulated import SimulatedDisk
from treestore.backends.btree.engine.engine import Engine

Condition = Callable[[], bool]


class Turns:
    """Who runs. A thread that waits is here with the condition for going on."""

    def __init__(self, disk: SimulatedDisk, choose: random.Random) -> None:
        self._disk = disk
        self._choose = choose
        self._gates: list[threading.Semaphore] = []
        self._waiting: dict[int, Condition] = {}
        self._running = -1
        self._errors: list[BaseException] = []

    def run(self, *works: Callable[[], None]) -> None:
        """Run each work in a thread of its own, to its end. Raises the first error of any."""
        self._gates = [threading.Semaphore(0) for _ in works]
        self._waiting = {number: lambda: True for number in range(len(works))}
        threads = [threading.Thread(target=self._in_thread, args=(number, work)) for number, work in enumerate(works)]
        self._disk.turn = self.pause
        for thread in threads:
            thread.start()
        self._go_on()
        for thread in threads:
            thread.join()
        self._disk.turn = None
        if self._errors:
            raise self._errors[0]

    def _in_thread(self, number: int, work: Callable[[], None]) -> None:
        self._gates[number].acquire()
        try:
            if not self._errors:
                work()
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """Let the next one run."""
        ready = [number for number, condition in sorted(self._waiting.items()) if condition()]
        if self._waiting and (not ready or self._errors):  # all end where they are
            self._errors += [] if ready else [AssertionError("threads wait for each other")]
            ready = sorted(self._waiting)
        if ready:
            self._running = self._choose.choice(ready)
            del self._waiting[self._running]
            self._gates[self._running].release()

    def pause(self, condition: Condition = lambda: True) -> None:
        """Others may run, until one's turn has come and the condition holds."""
        own = self._running
        self._waiting[own] = condition
        self._go_on()
        self._gates[own].acquire()
        if self._errors:
            raise self._errors[0]

    def share(self, engine: Engine) -> None:
        """Let waiting for the engine's locks be a pause."""
        own_again = _TurnLock(self, reentrant=True)
        vars(engine).update(writer=_TurnLock(self), _syncing=_TurnLock(self), _checkpointing=own_again)


class _TurnLock:
    """A lock that is waited for by pausing."""

    def __init__(self, turns: Turns, *, reentrant: bool = False) -> None:
        self._turns = turns
        self._reentrant = reentrant
        self._owner: int | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock, as :class:`threading.Lock` and ``RLock`` do."""
        own = threading.get_ident()
        if self._owner == own:
            assert self._reentrant, "a thread waits for its own lock"
        elif self._owner is not None:
            if not blocking:
                return False
            self._turns.pause(lambda: self._owner is None)
        self._owner = own
        self._depth += 1
        return True

    def release(self) -> None:
        """Let go of it."""
        self._depth -= 1
        if not self._depth:
            self._owner = None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
