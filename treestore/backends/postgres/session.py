"""One connection at work: statements by their parameters' names, and transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import Any, TypeVar

import asyncpg

from treestore.backends.postgres.address import Address
from treestore.backends.postgres.derived import DerivedCache
from treestore.backends.postgres.sql import groups
from treestore.backends.postgres.sql.statement import Statement
from treestore.errors import Corrupted

R = TypeVar("R")

RELEASE_SECONDS = 5.0
"""The time to end what is under way on a connection, before it is dropped."""

_EVERY_SECONDS = 0.5
_PAUSE_ROWS = 128  # about a millisecond
_EACH = 1000  # statements that are sent together


class Watch:
    """Ends connections that were asked something and have not answered for ``seconds``: a server that hangs, or a network
    that lost it. The driver's own way, a timer for each statement, costs a sixth of a small read.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[Any, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._expected = 0.0
        self._overdue: set[Any] = set()

    def step(self, connection: Any) -> None:
        """A connection is asked something now."""
        self._since[connection] = monotonic()
        if self._timer is None:
            self._again()

    def _again(self) -> None:
        self._expected = monotonic() + _EVERY_SECONDS
        self._timer = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._look)

    def rest(self, connection: Any) -> None:
        """Nothing is asked of it any more."""
        self._since.pop(connection, None)

    def ended(self, connection: Any) -> bool:
        """Whether it was ended because it did not answer. To be asked once, when it is given back."""
        ended = connection in self._overdue
        self._overdue.discard(connection)
        return ended

    def _look(self) -> None:
        self._timer = None
        now = monotonic()
        if now - self._expected > _EVERY_SECONDS:  # the loop was held; what came meanwhile has not been read yet
            self._since = dict.fromkeys(self._since, now)
        for connection, since in list(self._since.items()):
            if now - since > self._seconds:
                self._overdue.add(connection)
                del self._since[connection]
                connection.terminate()
        if self._since:
            self._again()


class Session:
    """A connection, in a transaction or not, as reads and writes use it.

    ``watch`` is told of each step, so that one that never ends is noticed. ``copies``: whether the server takes COPY.
    ``derived``: what is known of versions whose rows others write too; None where nobody else writes the tables.
    """

    def __init__(
        self, connection: Any, address: Address, watch: Watch, *, copies: bool = True, derived: DerivedCache | None = None
    ) -> None:
        self._connection = connection
        self._address = address
        self._watch = watch
        self._copies = copies
        self.derived = derived

    @property
    def shared(self) -> bool:
        """Whether others write the tables too."""
        return self.derived is not None

    def trusting(self) -> Session:
        """The same, for what was found in this transaction to be as it was derived."""
        return Session(self._connection, self._address, self._watch, copies=self._copies)

    async def _asked(self, answer: Awaitable[R]) -> R:
        """What the connection answers, watched until it does."""
        self._watch.step(self._connection)
        try:
            return await answer
        except (OverflowError, UnicodeDecodeError) as error:
            raise Corrupted(f"a stored value can't be read: {error}") from error
        finally:
            self._watch.rest(self._connection)

    async def begin(self, **how: Any) -> Any:
        """Begin a transaction. Behind PgBouncer each has to say for itself what else a connection is told once."""
        transaction = self._connection.transaction(**how)
        await self._asked(transaction.start())
        if self._address.pgbouncer:
            told = (groups.statement_timeout(self._address.statement_timeout_ms), *groups.preparation(local=True))
            await self.command("; ".join(told))
        return transaction

    async def commit(self, transaction: Any) -> None:
        """Commit a transaction; returns when it is durable."""
        await self._asked(transaction.commit())

    async def undo(self, transaction: Any) -> None:
        """Roll a transaction back, if the server does that soon; else the connection is dropped."""
        await undo(self._connection, transaction)

    async def rows(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        """The rows that a statement gives, in its order."""
        found: list[Any] = await self._asked(self._connection.fetch(statement.sql, *statement.arguments(values)))
        return found

    async def row(self, statement: Statement, values: Mapping[str, Any]) -> Any:
        """The first row, None if there is none."""
        return await self._asked(self._connection.fetchrow(statement.sql, *statement.arguments(values)))

    async def run(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Run a statement that gives no rows."""
        await self._asked(self._connection.execute(statement.sql, *statement.arguments(values)))

    async def run_each(self, statement: Statement, values: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement once for each of many."""
        waiting = map(statement.arguments, values)
        while some := list(islice(waiting, _EACH)):
            await self._asked(self._connection.executemany(statement.sql, some))

    async def value(self, sql: str) -> Any:
        """The first value of the first row of a query without parameters, None if there is none."""
        return await self._asked(self._connection.fetchval(sql))

    async def command(self, sql: str) -> None:
        """Run a command that has no parameters."""
        await self._asked(self._connection.execute(sql))

    async def load(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], insert: Statement) -> None:
        """Add rows to a table: by COPY or, where the server has none, by inserting each with ``insert``."""
        if self._copies:
            copying = self._connection.copy_records_to_table(table, records=self._in_turns(rows), columns=columns)
            await self._asked(copying)
        else:
            await self.run_each(insert, (dict(zip(columns, row, strict=True)) for row in rows))

    async def _in_turns(self, rows: Iterable[Sequence[Any]]) -> AsyncGenerator[Sequence[Any], None]:
        """The rows, with pauses in which the event loop serves others."""
        for at, row in enumerate(rows, 1):
            yield row
            if at % _PAUSE_ROWS == 0:
                await asyncio.sleep(0)
                self._watch.step(self._connection)


async def undo(connection: Any, transaction: Any) -> None:
    """Roll a connection's transaction back, if the server does that soon; else the connection is dropped."""
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await transaction.rollback()
        except TimeoutError:
            connection.terminate()
