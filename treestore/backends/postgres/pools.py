"""Connections: a pool for each event loop that uses a store, and a loop for callers that have none.

A connection belongs to the loop that it was made under, so a store that is used under several has a pool for each, made when
it is first needed. The pools are asyncpg's: SQLAlchemy's engine, which would run each statement through its own layers, takes
two to five times as long for a small read (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import asyncpg

from treestore.backends.postgres.address import Address
from treestore.backends.postgres.session import RELEASE_SECONDS, Watch, undo
from treestore.backends.postgres.sql import groups
from treestore.errors import Closed, Timeout, Unavailable

R = TypeVar("R")

class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that is given back as it is: nothing that the store does leaves a trace in the server's session."""

    __slots__ = ()

    def get_reset_query(self) -> str:
        return ""

    async def close(self, **how: Any) -> None:
        """Say goodbye; a server that hangs does not answer that, and is left."""
        try:
            await super().close(**{"timeout": RELEASE_SECONDS, **how})
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self.terminate()


async def _prepare(connection: Any) -> None:
    for command in groups.preparation():
        with suppress(asyncpg.PostgresError):  # a server that does not know it plans as it likes
            await connection.execute(command)


class Pool:
    """The connections of one event loop.

    What is given back in good order waits here for the next who takes one, without a turn of the loop: the pool's own way
    makes a task for each, which takes longer than a small read. It goes back to the pool if somebody waits for it there, or
    if it was not needed for a while.
    """

    def __init__(self, address: Address) -> None:
        self._waiting_seconds = address.pool_timeout
        arguments = address.asyncpg_arguments()
        self.watch = Watch(arguments.pop("command_timeout"))
        self._pool: Any = asyncpg.create_pool(
            **arguments,
            min_size=0,
            max_size=address.pool_size,
            connection_class=_Connection,
            init=None if address.pgbouncer else _prepare,
        )
        self._free: list[Any] = []
        self._waiting = 0
        self._closing = False
        self._guard: AsyncGenerator[None, None] | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._giving_back: set[asyncio.Task[None]] = set()

    async def acquire(self) -> Any:
        """A connection. Raises Timeout where none is free in time, Closed, and errors of the driver."""
        while self._free:
            connection = self._free.pop()
            if _is_alive(connection):
                return connection
            self._give_back(connection)
        await self._begin()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._waiting_seconds):
                connection = await self._pool.acquire()
            if self._closing:  # the driver serves those that wait, and closes what it has given them
                self._give_back(connection)
                raise _closed()
            return connection
        except TimeoutError as error:
            if self._pool.get_size() < self._pool.get_max_size() or self._pool.get_idle_size():
                raise
            told = f"all {self._pool.get_max_size()} connections have been in use for {self._waiting_seconds:g} s"
            raise Timeout(f"{told}; TREESTORE_POOL_SIZE allows more, and an open snapshot holds one") from error
        finally:
            self._waiting -= 1

    async def _begin(self) -> None:
        """Begin, at the first call. An event loop that ends shuts down its asynchronous generators, and so this pool."""
        if self._guard is None:
            await self._pool  # does not suspend, as nothing is connected yet
            self._guard = self._until_loop_ends()
            await anext(self._guard)

    async def _until_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._pool.terminate()
            await asyncio.sleep(0)  # the turn in which sockets are closed

    def keep(self, connection: Any) -> None:
        """Take back a connection that nothing is under way on."""
        if self._waiting or self._closing:
            self._give_back(connection)
            return
        self._free.append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._give_back_idle)

    def _give_back(self, connection: Any) -> None:
        self._kept(self.release(connection))

    def _kept(self, giving_back: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that does not vanish before it has ended."""
        task = asyncio.get_running_loop().create_task(giving_back)
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)
        return task

    def _give_back_idle(self) -> None:
        """To the pool with all but the one that was used last: those that lie below it have waited longer."""
        self._sweep = None
        idle, self._free = self._free[:-1], self._free[-1:]
        for connection in idle:
            self._give_back(connection)

    async def end(self, connection: Any, transaction: Any) -> None:
        """Roll a transaction back and take its connection back, also if the caller leaves meanwhile."""
        await asyncio.shield(self._kept(self._end(connection, transaction)))

    async def _end(self, connection: Any, transaction: Any) -> None:
        await undo(connection, transaction)
        await self.release(connection)

    async def release(self, connection: Any) -> None:
        """Take back a connection in any state. One that is broken is thrown away."""
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            await self._pool.release(connection, timeout=RELEASE_SECONDS)

    async def close(self) -> None:
        """Wait until all connections were given back, and close them."""
        self._closing = True
        if self._sweep is not None:
            self._sweep.cancel()
        free, self._free = self._free, []
        for connection in free:
            await self.release(connection)
        if self._guard is not None:
            await self._pool.close()
            await self._guard.aclose()


_IDLE_SECONDS = 60.0


def _is_alive(connection: Any) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # its pool has noticed before us that it is gone
        return False


def _closed() -> Closed:
    return Closed("the store is closed")


def _forked() -> Closed:
    return Closed("the store was opened by another process before a fork; open it in this one")


class Pools:
    """The pools of one store. Any thread may use it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = WeakKeyDictionary()
        self._process = os.getpid()
        self._closed = False

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that opened the store."""
        return self._process != os.getpid()

    def check_open(self) -> None:
        """Raise Closed if the store was closed, or opened before a fork."""
        if self.forked:
            raise _forked()
        if self._closed:
            raise _closed()

    def refuse(self) -> None:
        """From now on :meth:`check_open` raises Closed."""
        self._closed = True

    def here(self) -> Pool:
        """The pool of the running loop. Raises Closed."""
        self.check_open()
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = self._pools[loop] = Pool(self.address)
        return pool

    async def close(self) -> None:
        """Wait until all connections were given back, and close them. Those of loops that have ended are closed already."""
        self.refuse()
        here = asyncio.get_running_loop()
        for loop, pool in list(self._pools.items()):
            if loop is here:
                await pool.close()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(pool.close(), loop))
        self._pools.clear()


class LoopThread:
    """An event loop in a thread of its own, for callers without one. It begins with the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._stopped = False
        self._process = os.getpid()

    def run(self, waiting: Coroutine[Any, Any, R]) -> R:
        """The result of a coroutine that runs there. Whoever is interrupted meanwhile has it cancelled.

        Raises Closed once it was stopped.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(waiting, self._running())
        except BaseException:
            waiting.close()
            raise
        try:
            return future.result()
        except CancelledError:
            raise Closed("the store was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._process != os.getpid():  # a child has the loop, and not the thread that runs it
            raise _forked()
        with self._guard:
            if self._stopped:
                raise _closed()
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="treestore-postgresql", daemon=True)
                self._thread.start()
            if threading.current_thread() is self._thread:
                raise Unavailable("a call of the synchronous face from the store's own thread would wait for itself")
            return self._loop

    def stop(self) -> None:
        """End the loop and its thread, for ever. May be called again."""
        if self._process != os.getpid():
            return
        with self._guard:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            self._stopped = True
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(_end_all(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _end_all() -> None:
    """Cancel what still runs in this loop, so that nobody waits for it for ever."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()
