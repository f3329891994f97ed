"""What a store is to the rest of treestore: operations in, answers out.

A backend has an asynchronous face (:class:`Backend`). One that needs no event loop also has a synchronous face
(:class:`SyncBackend`), whose calls end in ``_now``. Both may be used at once, from any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from treestore.operations import Applied, Operation, WriteGroup

R = TypeVar("R")


class Reader(Protocol):
    """Answers reads; all operations of one call see one snapshot.

    Raises NotFound, Corrupted, Unavailable or Closed.
    """

    async def read_one(self, operation: Operation[R]) -> R: ...

    async def read(self, operations: Sequence[Operation[Any]]) -> list[Any]: ...

    async def close(self) -> None: ...


class Backend(Reader, Protocol):
    """A store. ``close`` waits for what is under way and leaves everything durable; it may be called again."""

    async def write(self, group: WriteGroup) -> Applied:
        """Apply a group; returns when it is durable. Raises Conflict, InvalidInput, ReadOnly, Unavailable (not applied) or
        OutcomeUnknown. A cancelled caller's group is applied or not, never half."""
        ...

    async def snapshot(self) -> Reader:
        """A view of the present moment that later writes do not change, until it is closed or reaches its maximum age."""
        ...


class SyncReader(Protocol):
    """The synchronous face of :class:`Reader`."""

    def read_one_now(self, operation: Operation[R]) -> R: ...

    def read_now(self, operations: Sequence[Operation[Any]]) -> list[Any]: ...

    def close_now(self) -> None: ...


class SyncBackend(SyncReader, Protocol):
    """The synchronous face of :class:`Backend`."""

    def write_now(self, group: WriteGroup) -> Applied: ...

    def snapshot_now(self) -> SyncReader: ...
