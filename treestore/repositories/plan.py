"""The domain's verbs written once, run by two drivers.

A verb is a generator, a *plan*: it yields what it wants to know or to have written (an operation, several that must see one
snapshot, or a write group) and is sent the answer; it performs no I/O itself. It yields ``None`` where it has computed for
a while, so that an event loop may serve others. :class:`SyncDriver` and :class:`AsyncDriver` run plans on a store;
:class:`verb` makes of each plan a method that returns its result, or an awaitable of it, by the repository's driver, so
both faces have one definition, one signature and one docstring.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Generator, Sequence
from datetime import datetime
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from treestore.backends.protocol import Backend, Reader, SyncBackend, SyncReader
from treestore.errors import ReadOnly
from treestore.operations import Applied, Operation, WriteGroup

R = TypeVar("R")
P = ParamSpec("P")

Request = Operation[Any] | Sequence[Operation[Any]] | WriteGroup | None
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


def _write_to_snapshot() -> ReadOnly:
    return ReadOnly("a snapshot can't be written to; use the store itself")


class SyncDriver:
    """Runs plans to their end in the calling thread."""

    def __init__(self, backend: SyncBackend | SyncReader, clock: Clock) -> None:
        self.backend = backend
        self.clock = clock

    def run(self, plan: Plan[R]) -> R:
        """The plan's result; errors of the store are thrown into the plan where it asked."""
        try:
            request = plan.send(None)
            while True:
                try:
                    answer = self._perform(request)
                except Exception as error:
                    request = plan.throw(error)
                else:
                    request = plan.send(answer)
        except StopIteration as end:
            result: R = end.value
            return result

    def _perform(self, request: Request) -> Any:
        if isinstance(request, Operation):
            return self.backend.read_one_now(request)
        if isinstance(request, WriteGroup):
            if not isinstance(self.backend, SyncBackend):
                raise _write_to_snapshot()
            return self.backend.write_now(request)
        return None if request is None else self.backend.read_now(request)


class AsyncDriver:
    """Runs plans under asyncio."""

    def __init__(self, backend: Backend | Reader, clock: Clock) -> None:
        self.backend = backend
        self.clock = clock

    async def run(self, plan: Plan[R]) -> R:
        """As :meth:`SyncDriver.run`."""
        try:
            request = plan.send(None)
            while True:
                try:
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

    async def _perform(self, request: Request) -> Any:
        if isinstance(request, Operation):
            return await self.backend.read_one(request)
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
