"""The relational store: PostgreSQL behind the protocol of operations and write groups.

A read of one statement is sent as it is; others run in a read-only transaction that sees one moment. A write group is one
transaction (:mod:`.writes`). What lost against others by no fault of its own (serialization failures, deadlocks) is tried
again, whole. A read is also tried again when its connection was lost; a write is not, as it may have been applied: its sender
knows its id and can send it again, and it is applied once.

Both faces are here. The synchronous one runs in an event loop of its own, in one thread.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

import asyncpg
import msgspec

from treestore.backends.postgres.address import Address, parse
from treestore.backends.postgres.checking import check_store
from treestore.backends.postgres.derived import DerivedCache
from treestore.backends.postgres.errors import is_again, is_held, is_lost, is_unknown, lacks_copy, translate
from treestore.backends.postgres.pools import LoopThread, Pool, Pools
from treestore.backends.postgres.reads import quick
from treestore.backends.postgres.schema import prepare_schema
from treestore.backends.postgres.session import Session
from treestore.backends.postgres.shared import answer
from treestore.backends.postgres.sql import whole
from treestore.backends.postgres.writes import apply
from treestore.config import Settings
from treestore.errors import Closed, NotSupported, OutcomeUnknown, Timeout, TreestoreError
from treestore.operations import Applied, Backup, Check, Compact, Operation, Stats, WriteGroup
from treestore.search.query import say_stale

R = TypeVar("R")
A = TypeVar("A")

Work = Callable[[Session, A], Awaitable[R]]
Retryable = Callable[[BaseException], bool]

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)

ATTEMPTS = 10
"""So often a group is tried that loses against others, or a read whose connection is lost."""

ATTEMPTS_FOR_ROWS = 60
"""So often a group is tried while others hold rows of shared tables: for about half a minute."""


async def pause(attempt: int) -> None:
    """Wait before the next attempt: each time twice as long, up to half a second, and more or less, so that those who met go
    different ways."""
    await asyncio.sleep(min(0.5, 0.005 * 2**attempt) * random.uniform(0.5, 1.5))


class _Reader(ABC):
    """What a store and its snapshots have in common: the synchronous face over the asynchronous one."""

    def __init__(self, loop: LoopThread) -> None:
        self._loop = loop

    @abstractmethod
    async def read(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Answer several operations at one moment."""

    async def read_one(self, operation: Operation[R]) -> R:
        """Answer one operation. Raises NotFound, Corrupted, Unavailable, Timeout or Closed."""
        [found] = await self.read([operation])
        answered: R = found
        return answered

    @abstractmethod
    async def close(self) -> None:
        """Let go of what is held."""

    def read_one_now(self, operation: Operation[R]) -> R:
        """As :meth:`read_one`."""
        return self._loop.run(self.read_one(operation))

    def read_now(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """As :meth:`read`."""
        return self._loop.run(self.read(operations))

    def close_now(self) -> None:
        """As :meth:`close`."""
        with suppress(Closed):  # it went with its store, or is another process's
            self._loop.run(self.close())


class PostgresSnapshot(_Reader):
    """A transaction that sees one moment, on a connection of its own, until it is closed or too old."""

    def __init__(self, backend: PostgresBackend, pool: Pool, connection: Any, transaction: Any) -> None:
        super().__init__(backend._loop)
        self._backend = backend
        self._pool = pool
        self._connection = connection
        self._transaction = transaction
        self._turn = asyncio.Lock()
        self._closed: str | None = None
        self._home = asyncio.get_running_loop()
        max_age = backend._settings.snapshot_max_age_seconds
        self._expires = time.monotonic() + max_age
        self._timer = self._home.call_later(max_age, self._expire)
        self._expiring: asyncio.Task[None] | None = None

    def _expire(self) -> None:
        self._expiring = self._home.create_task(self._end(_TOO_OLD))

    async def read(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Answer operations at the snapshot's moment."""
        self._check_open()
        return await self._at_home(self._read(operations))

    def _check_open(self) -> None:
        self._backend._pools.check_open()
        if self._closed is None and time.monotonic() >= self._expires:
            raise Closed(_TOO_OLD)
        if self._closed is None and self._home.is_closed():
            self._closed = "the event loop that the snapshot was taken under has ended"
        if self._closed is not None:
            raise Closed(self._closed)

    async def _at_home(self, waiting: Coroutine[Any, Any, R]) -> R:
        """The result of a coroutine that runs under the loop that the connection belongs to."""
        if asyncio.get_running_loop() is self._home:
            return await waiting
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(waiting, self._home))

    async def _read(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        async with self._turn:
            self._check_open()
            session = self._backend._session(self._pool, self._connection)
            try:
                return [await answer(session, operation) for operation in operations]
            except TreestoreError:
                raise
            except BaseException as error:
                hung = self._pool.watch.ended(self._connection)
                await self._finish(_BROKEN)  # PostgreSQL answers nothing more in a transaction in which something failed
                if isinstance(error, DRIVER_ERRORS):
                    raise self._backend._told(error, hung=hung) from error
                raise

    async def close(self) -> None:
        """End the transaction. May be called again."""
        if self._home.is_closed():  # and so is the connection
            self._backend._snapshots.discard(self)
        elif self._closed is None:
            await self._at_home(self._end("the snapshot is closed"))

    async def _end(self, reason: str) -> None:
        async with self._turn:
            if self._closed is None:
                await self._finish(reason)

    async def _finish(self, reason: str) -> None:
        self._closed = reason
        self._timer.cancel()
        self._backend._snapshots.discard(self)
        await self._pool.end(self._connection, self._transaction)


_BROKEN = "the snapshot ended when a read failed; take a new one"
_TOO_OLD = "the snapshot reached its maximum age and was closed; take a new one"


class PostgresBackend(_Reader):
    """An open relational store. Made by :meth:`open` or :meth:`open_now`; for any number of threads and event loops."""

    def __init__(self, address: Address, settings: Settings) -> None:
        super().__init__(LoopThread())
        self._settings = settings
        self._address = address
        self._pools = Pools(address)
        self._copies = True
        self._derived: DerivedCache | None = None
        self._snapshots: set[PostgresSnapshot] = set()

    @classmethod
    async def open(cls, url: str, settings: Settings, *, create: bool = True) -> PostgresBackend:
        """Open the store in a database. Where it has no tables of ours yet they are made, unless ``create`` is false.

        Raises InvalidInput for a URL that is none, NoStore, NotAStore, MigrationError, AccessDenied, Unavailable, Timeout.
        """
        backend = cls(parse(url, settings), settings)
        try:
            shared = await backend._using(_begin, (backend._address, create), _never)
        except BaseException:
            await backend.close()
            raise
        backend._derived = DerivedCache() if shared else None
        return backend

    @classmethod
    def open_now(cls, url: str, settings: Settings, *, create: bool = True) -> PostgresBackend:
        """As :meth:`open`."""
        backend = cls(parse(url, settings), settings)
        try:
            shared = backend._loop.run(backend._using(_begin, (backend._address, create), _never))
        except BaseException:
            backend.close_now()
            raise
        backend._derived = DerivedCache() if shared else None
        return backend

    def _told(self, error: BaseException, *, hung: bool = False) -> TreestoreError:
        if hung:
            return Timeout(f"{self._address.shown}: PostgreSQL did not answer, the connection was given up")
        if isinstance(error, TimeoutError):  # statements have their time from the server and the watch
            return Timeout(f"{self._address.shown}: PostgreSQL did not answer within {self._address.connect_timeout:g} s")
        return translate(error, self._address.shown)

    # --- connections -----------------------------------------------------------------------------------------------------

    def _session(self, pool: Pool, connection: Any) -> Session:
        return Session(connection, self._address, pool.watch, copies=self._copies, derived=self._derived)

    async def _using(self, work: Work[A, R], asked: A, retryable: Retryable) -> R:
        """The result of work on a connection, which is tried again if its error says that this helps. Errors are ours."""
        for attempt in count(1):
            try:
                return await self._once(work, asked)
            except DRIVER_ERRORS as error:
                if attempt >= (ATTEMPTS_FOR_ROWS if is_held(error) else ATTEMPTS) or not retryable(error):
                    raise self._told(error) from error
            await pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, work: Work[A, R], asked: A) -> R:
        pool = self._pools.here()
        connection = await pool.acquire()
        try:
            done = await work(self._session(pool, connection), asked)
        except BaseException as error:
            await pool.release(connection)
            if pool.watch.ended(connection) and isinstance(error, DRIVER_ERRORS):
                raise self._told(error, hung=True) from error
            raise
        pool.keep(connection)
        return done

    @property
    def shared(self) -> bool:
        """Whether others write the tables too."""
        return self._derived is not None

    async def work(self, work: Work[A, R], asked: A) -> R:
        """The result of work on a connection that is no operation and no write group. It is tried again as a write is."""
        return await self._using(work, asked, self._for_writes)

    # --- reading ---------------------------------------------------------------------------------------------------------

    async def read_one(self, operation: Operation[R]) -> R:
        """Answer one operation. Raises NotFound, Corrupted, Unavailable, Timeout or Closed."""
        by_one = quick(operation, shared=self._derived is not None)
        if by_one is not None and not self._address.pgbouncer and type(operation) is not Stats:
            found = await self._using(by_one, operation, _for_reads)
            if found is not None:
                return found
        answered: R = (await self.read([operation]))[0]
        return answered

    async def read(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Answer several operations at one moment."""
        return await self._using(_read_all, operations, _for_reads)

    async def snapshot(self) -> PostgresSnapshot:
        """The present moment, as a reader of its own. It holds a connection."""
        pool = self._pools.here()
        try:
            connection = await pool.acquire()
            session = self._session(pool, connection)
            try:
                transaction = await session.begin(isolation="repeatable_read", readonly=True)
                await session.command("SELECT 1")  # the first statement is what fixes the moment
            except BaseException:
                await pool.release(connection)
                raise
        except DRIVER_ERRORS as error:
            raise self._told(error) from error
        snapshot = PostgresSnapshot(self, pool, connection, transaction)
        self._snapshots.add(snapshot)
        try:
            self._pools.check_open()
        except Closed:  # who closes the store meanwhile has not seen this one
            await snapshot.close()
            raise
        return snapshot

    def snapshot_now(self) -> PostgresSnapshot:
        """As :meth:`snapshot`."""
        return self._loop.run(self.snapshot())

    # --- writing ---------------------------------------------------------------------------------------------------------

    async def write(self, group: WriteGroup) -> Applied:
        """Apply a group; returns when it is durable. Raises Conflict, InvalidInput, NotFound, ReadOnly, Unavailable, Timeout
        (not applied) or OutcomeUnknown."""
        applied = await self._using(self._write, group, self._for_writes)
        return Applied(group.group_id, repeated=not applied)

    async def _write(self, session: Session, group: WriteGroup) -> bool:
        transaction = await session.begin(isolation="read_committed")
        try:
            applied = await apply(session, group)
        except BaseException:
            await session.undo(transaction)
            raise
        try:
            await session.commit(transaction)
        except asyncpg.PostgresError as error:
            if is_lost(error) or is_unknown(error):
                raise self._unknown(error) from error
            raise  # the server says that it did not commit
        except DRIVER_ERRORS as error:
            raise self._unknown(error) from error
        return applied

    def _unknown(self, error: BaseException) -> OutcomeUnknown:
        told = "the connection was lost while the group was committed; sent again with the same id it is applied once"
        return OutcomeUnknown(f"{self._address.shown}: {told} ({error})")

    def _for_writes(self, error: BaseException) -> bool:
        if lacks_copy(error) and self._copies:
            self._copies = False
            return True
        return is_again(error) or (self._derived is not None and is_held(error))

    def write_now(self, group: WriteGroup) -> Applied:
        """As :meth:`write`."""
        return self._loop.run(self.write(group))

    # --- the end ---------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Wait for what is under way and close the connections. May be called again."""
        await self._end()
        await asyncio.to_thread(self._loop.stop)

    async def _end(self) -> None:
        if self._pools.forked:
            return  # what is open is the parent's
        self._pools.refuse()
        for snapshot in self._snapshots.copy():
            await snapshot.close()
        await self._pools.close()

    def close_now(self) -> None:
        """As :meth:`close`."""
        with suppress(Closed):
            self._loop.run(self._end())
        self._loop.stop()


def _never(_: BaseException) -> bool:
    return False


def _for_reads(error: BaseException) -> bool:
    return is_again(error) or is_lost(error)


# --- work on a connection ------------------------------------------------------------------------------------------------


async def _begin(session: Session, asked: tuple[Address, bool]) -> bool:
    """Make sure of the tables, and say what is to be reindexed. True: others write the tables too."""
    await prepare_schema(session, *asked)
    say_stale(dict(await session.rows(whole.analyzers(), {})))
    return await session.row(whole.adoption(), {}) is not None


async def _read_all(session: Session, operations: Sequence[Operation[Any]]) -> list[Any]:
    """The answers at one moment."""
    transaction = await session.begin(isolation="repeatable_read", readonly=True)
    try:
        found = [await _answer(session, operation) for operation in operations]
    except BaseException:
        await session.undo(transaction)
        raise
    await session.commit(transaction)
    return found


async def _answer(session: Session, operation: Operation[Any]) -> Any:
    """The answer to an operation, those on the whole store too."""
    match operation:
        case Check():
            return await check_store(session)
        case Stats():
            counted = await answer(session, operation)
            return msgspec.structs.replace(counted, size_bytes=(await session.row(whole.size(), {}))[0])
        case Backup():
            raise NotSupported("PostgreSQL has tools of its own for copies: pg_dump, or pg_basebackup with its log")
        case Compact():
            return 0  # PostgreSQL takes its free space again by itself
    return await answer(session, operation)
