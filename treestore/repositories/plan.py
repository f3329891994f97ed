"""The domain's verbs written once, run by two drivers.

A verb is a generator, a *plan*: it yields what it wants to know or to have written (an operation, several that must see one
snapshot, or a write group) and is sent the answer; it performs no I/O itself. It yields ``None`` where it has computed for
a while, so that an event loop may serve others, and a :class:`Turn` where it should be alone in changing a policy.
:class:`SyncDriver` and :class:`AsyncDriver` run plans on a store; :class:`verb` makes of each plan a method that returns its
result, or a coroutine of it, by the repository's driver, so both faces have one definition, one signature and one docstring.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from datetime import datetime
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import msgspec

from treestore.backends.protocol import Backend, Reader, SyncBackend, SyncReader
from treestore.errors import ReadOnly
from treestore.operations import Applied, Operation, WriteGroup

R = TypeVar("R")
P = ParamSpec("P")


class Turn(msgspec.Struct, frozen=True):
    """A plan's wish to be the only one under its driver that changes a policy, from now until it ends or takes another turn.

    What a plan writes is guarded by expectations anyway, also against other processes. Turns add fairness: without them, of
    many tasks that change one version in a loop the slower ones would be refused again and again.
    """

    policy_id: str


Request = Operation[Any] | Sequence[Operation[Any]] | WriteGroup | Turn | None
Plan = Generator[Request, Any, R]
Clock = Callable[[], datetime]


def ask(operation: Operation[R]) -> Plan[R]:
    """Read one operation."""
    answer: R = yield operation
    return answer


def ask_all(*operations: Operation[Any]) -> Plan[list[Any]]:
    """Read several operations at one snapshot; the answers come in their order."""
    answers: list[Any] = yield operations
    return answers


def tell(group: WriteGroup) -> Plan[Applied]:
    """Have a group written."""
    applied: Applied = yield group
    return applied


def take_turn(policy_id: str) -> Plan[None]:
    """Wait until no other plan under this driver has the policy's :class:`Turn`, and have it until the end or the next one."""
    yield Turn(policy_id)


L = TypeVar("L")


class _Turns(Generic[L]):
    """A lock for each key that somebody holds or waits for."""

    def __init__(self, make: Callable[[], L]) -> None:
        self._make = make
        self._users: dict[Any, tuple[L, int]] = {}
        self._guard = threading.Lock()

    def join(self, key: object) -> L:
        """The lock of a key, to be acquired. Whoever joins must leave."""
        with self._guard:
            lock, users = self._users.get(key) or (self._make(), 0)
            self._users[key] = lock, users + 1
            return lock

    def leave(self, key: object) -> None:
        """The lock was released, or not acquired after all. The last one takes it away."""
        with self._guard:
            lock, users = self._users.pop(key)
            if users > 1:
                self._users[key] = lock, users - 1


def _write_to_snapshot() -> ReadOnly:
    return ReadOnly("a snapshot can't be written to; use the store itself")


class SyncDriver:
    """Runs plans to their end in the calling thread."""

    def __init__(self, backend: SyncBackend | SyncReader, clock: Clock) -> None:
        self.backend = backend
        self.clock = clock
        self._turns = _Turns(threading.Lock)

    def run(self, plan: Plan[R]) -> R:
        """The plan's result; errors of the store are thrown into the plan where it asked."""
        give_up_turn: Callable[[], None] | None = None
        try:
            request = plan.send(None)
            while True:
                try:
                    if isinstance(request, Operation):
                        answer = self.backend.read_one_now(request)
                    elif isinstance(request, Turn):
                        if give_up_turn is not None:
                            give_up_turn()
                            give_up_turn = None
                        answer = give_up_turn = self._take(request.policy_id)
                    else:
                        answer = self._perform(request)
                except Exception as error:
                    request = plan.throw(error)
                else:
                    request = plan.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result
        finally:
            plan.close()
            if give_up_turn is not None:
                give_up_turn()

    def _take(self, policy_id: str) -> Callable[[], None]:
        lock = self._turns.join(policy_id)

        def give_up() -> None:
            lock.release()
            self._turns.leave(policy_id)

        try:
            lock.acquire()
        except BaseException:
            self._turns.leave(policy_id)
            raise
        return give_up

    def _perform(self, request: Sequence[Operation[Any]] | WriteGroup | None) -> Any:
        if isinstance(request, WriteGroup):
            write = getattr(self.backend, "write_now", None)
            if write is None:
                raise _write_to_snapshot()
            return write(request)
        return None if request is None else self.backend.read_now(request)


class AsyncDriver:
    """Runs plans under asyncio."""

    def __init__(self, backend: Backend | Reader, clock: Clock) -> None:
        self.backend = backend
        self.clock = clock
        self._turns = _Turns(asyncio.Lock)

    async def run(self, plan: Plan[R]) -> R:
        """As :meth:`SyncDriver.run`."""
        give_up_turn: Callable[[], None] | None = None
        try:
            request = plan.send(None)
            while True:
                try:
                    if isinstance(request, Operation):
                        answer = await self.backend.read_one(request)
                    elif isinstance(request, Turn):
                        if give_up_turn is not None:
                            give_up_turn()
                            give_up_turn = None
                        answer = give_up_turn = await self._take(request.policy_id)
                    else:
                        answer = await self._perform(request)
                except Exception as error:
                    request = plan.throw(error)
                else:
                    request = plan.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result
        finally:
            plan.close()
            if give_up_turn is not None:
                give_up_turn()

    async def _take(self, policy_id: str) -> Callable[[], None]:
        key = asyncio.get_running_loop(), policy_id  # a lock of asyncio belongs to one loop
        lock = self._turns.join(key)

        def give_up() -> None:
            lock.release()
            self._turns.leave(key)

        try:
            await lock.acquire()
        except BaseException:
            self._turns.leave(key)
            raise
        return give_up

    async def _perform(self, request: Sequence[Operation[Any]] | WriteGroup | None) -> Any:
        if isinstance(request, WriteGroup):
            write = getattr(self.backend, "write", None)
            if write is None:
                raise _write_to_snapshot()
            return await write(request)
        return await (asyncio.sleep(0) if request is None else self.backend.read(request))


D = TypeVar("D", bound=SyncDriver | AsyncDriver)


class Repository(Generic[D]):
    """A group of verbs over one driver."""

    def __init__(self, driver: D) -> None:
        self._driver: D = driver

    @property
    def _clock(self) -> Clock:
        return self._driver.clock


class verb(Generic[P, R]):  # noqa: N801 - reads as the decorator that it is
    """Makes a repository's plan a method: on a sync repository it returns the result, on an async one a coroutine."""

    def __init__(self, plan: Callable[Concatenate[Any, P], Plan[R]]) -> None:
        self.plan = plan
        functools.update_wrapper(self, plan)  # type: ignore[arg-type]

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, repository: None, owner: type) -> verb[P, R]: ...
    @overload
    def __get__(self, repository: Repository[SyncDriver], owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, repository: Repository[AsyncDriver], owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, repository: Any, owner: type) -> Any:
        if repository is None:
            return self
        plan, run = self.plan, repository._driver.run

        @functools.wraps(plan)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return run(plan(repository, *args, **kwargs))

        repository.__dict__[self.name] = call  # a non-data descriptor: the next access finds it without us
        return call
