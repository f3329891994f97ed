"""One connection at work: statements by their parameters' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from treestore.backends.postgres.sql.statement import Statement


class Session:
    """A connection, in a transaction or not, as reads and writes use it. ``copies``: whether the server takes COPY."""

    def __init__(self, connection: Any, *, copies: bool = True) -> None:
        self._connection = connection
        self._copies = copies

    async def rows(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        """The rows that a statement gives, in its order."""
        found: list[Any] = await self._connection.fetch(statement.sql, *statement.arguments(values))
        return found

    async def row(self, statement: Statement, values: Mapping[str, Any]) -> Any:
        """The first row, None if there is none."""
        return await self._connection.fetchrow(statement.sql, *statement.arguments(values))

    async def run(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Run a statement that gives no rows."""
        await self._connection.execute(statement.sql, *statement.arguments(values))

    async def run_each(self, statement: Statement, values: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement once for each of many."""
        await self._connection.executemany(statement.sql, [statement.arguments(each) for each in values])

    async def command(self, sql: str) -> None:
        """Run a command that has no parameters."""
        await self._connection.execute(sql)

    async def load(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], insert: Statement) -> None:
        """Add rows to a table: by COPY or, where the server has none, by inserting each with ``insert``."""
        if self._copies:
            await self._connection.copy_records_to_table(table, records=rows, columns=columns)
        else:
            await self.run_each(insert, (dict(zip(columns, row, strict=True)) for row in rows))
