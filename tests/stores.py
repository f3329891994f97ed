"""The stores that every promise is tested on, all behind the synchronous face.

A test is written once, against ``TreeStore[SyncDriver]``. An asynchronous store is put behind that face by waiting for each
verb; a store that is closed and reopened between steps, by doing so before each verb. A new kind of store joins the suite by
one line in :data:`KINDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, cast

import treestore
from tests.adoption.databases import adopted_url
from tests.postgres import databases
from treestore import Settings, SyncDriver, TreeStore
from treestore.backends.protocol import Backend, SyncBackend
from treestore.repositories.plan import Clock, Repository

SyncStore = TreeStore[SyncDriver]


class Kind(NamedTuple):
    """A kind of store: its URL by the test's own folder, and how the store at a URL is opened for a test."""

    url: Callable[[Path], str]
    open: Callable[[str, Clock, Settings | None], SyncStore]


def _memory(folder: Path) -> str:
    return "memory://"


def _btree(folder: Path) -> str:
    return f"btree:///{folder / 'store'}"


def _postgres(folder: Path) -> str:
    return databases.new_url()


def _bounced(folder: Path) -> str:
    return databases.bounced_url()


def _adopted(folder: Path) -> str:
    return adopted_url()


def _sync(url: str, clock: Clock, settings: Settings | None = None) -> SyncStore:
    return treestore.open_sync(url, settings=settings, clock=clock)


def _async(url: str, clock: Clock, settings: Settings | None = None) -> SyncStore:
    runner = asyncio.Runner()
    try:
        store = runner.run(_opened(url, clock, settings))
    except BaseException:
        runner.close()
        raise
    return cast(SyncStore, _Waited(store, runner))


async def _opened(url: str, clock: Clock, settings: Settings | None) -> Any:
    return await treestore.open(url, clock=clock, settings=settings)


def _reopened(url: str, clock: Clock, settings: Settings | None = None) -> SyncStore:
    return cast(SyncStore, _Reopened(lambda: _sync(url, clock, settings)))


class _Waited:
    """An asynchronous store, snapshot or repository whose coroutines are run to their end."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if isinstance(found, Repository):
            return _Waited(found, self._runner)
        return lambda *args, **kwargs: self._run(found, *args, **kwargs)

    def _run(self, verb: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async def waited() -> Any:
            return await verb(*args, **kwargs)

        answer = self._runner.run(waited())
        return _Waited(answer, self._runner) if isinstance(answer, Repository) else answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._run(self._target.close)
        if isinstance(self._target, TreeStore):
            self._runner.close()


class _Reopened:
    """A store that is closed and opened again before each verb."""

    def __init__(self, open_again: Callable[[], SyncStore], path: tuple[str, ...] = (), top: _Reopened | None = None) -> None:
        self._open_again = open_again
        self._path = path
        self._top = top or self
        self._store = open_again() if top is None else None

    def __getattr__(self, name: str) -> Any:
        if name in ("documents", "versions"):
            return _Reopened(self._open_again, (name,), self._top)
        return lambda *args, **kwargs: self._top._run((*self._path, name), *args, **kwargs)

    def _run(self, path: tuple[str, ...], *args: Any, **kwargs: Any) -> Any:
        assert self._store is not None
        self._store.close()
        if path != ("close",):
            self._store = self._open_again()
        target: Any = self._store
        for name in path:
            target = getattr(target, name)
        return target(*args, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._store is not None
        self._store.close()


KINDS = {
    "memory": Kind(_memory, _sync),
    "memory-async": Kind(_memory, _async),
    "btree": Kind(_btree, _sync),
    "btree-async": Kind(_btree, _async),
    "btree-reopened": Kind(_btree, _reopened),
    "postgres": Kind(_postgres, _sync),
    "postgres-async": Kind(_postgres, _async),
    "postgres-pgbouncer": Kind(_bounced, _sync),
    "postgres-adopted": Kind(_adopted, _sync),
    "postgres-reopened": Kind(_postgres, _reopened),
}
"""Every store, in every way of using it."""

STEADY = [name for name in KINDS if not name.endswith("-reopened")]
"""Those that stay open, as a snapshot needs it."""

URLS = {"memory": _memory, "btree": _btree, "postgres": _postgres}
"""The stores alone, for tests that drive both faces by themselves."""


def open_backend(url: str, clock: Clock, settings: Settings | None = None) -> BothFaces:
    """The backend behind a URL, with its two faces."""
    return cast(BothFaces, treestore.open_sync(url, clock=clock, settings=settings)._driver.backend)


class BothFaces(Backend, SyncBackend, Protocol):
    """A backend as tests of write groups use it."""
