"""Opening a store by its URL, and the store itself: repositories on a backend, with one of two faces.

A :data:`SyncTreeStore` answers at once, an :data:`AsyncTreeStore` gives awaitables; apart from that they are the same.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Never, Protocol, TypeVar, overload

from treestore.backends.protocol import Backend, SyncBackend
from treestore.config import Settings, masked
from treestore.errors import Closed, InvalidInput
from treestore.operations import Backup, Check, Compact, Stats
from treestore.records import CheckReport, SalvageReport, StoreStats
from treestore.repositories.documents import Documents
from treestore.repositories.plan import AsyncDriver, Clock, D, Plan, Repository, SyncDriver, ask, verb
from treestore.repositories.versions import Versions
from treestore.trees import rules

if TYPE_CHECKING:
    from treestore.backends.postgres.backend import PostgresBackend


class _Closable(Protocol):
    """What can be opened and closed under asyncio."""

    def close(self) -> Awaitable[None]: ...


C = TypeVar("C", bound=_Closable)


class Opening(AbstractAsyncContextManager[C], Generic[C]):
    """Something that is about to be opened: ``async with`` it, or ``await`` it and close it yourself."""

    def __init__(self, start: Callable[[], Awaitable[C]]) -> None:
        self._start = start
        self._opened: C | None = None

    def __await__(self) -> Generator[Any, None, C]:
        return self._start().__await__()

    async def __aenter__(self) -> C:
        self._opened = await self._start()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.close()

    if not TYPE_CHECKING:  # a type checker says by itself that there is no such attribute

        def __getattr__(self, name: str) -> Never:
            how = "use 'async with treestore.open(...) as store', and likewise for a snapshot, or await it"
            raise AttributeError(f"no {name!r} yet, this is still to be opened: {how}")


class _Opened(Repository[D]):
    """What a store and a snapshot have in common: repositories to read from, counts, and an end."""

    def __init__(self, driver: D) -> None:
        super().__init__(driver)
        self.documents: Documents[D] = Documents(driver)
        self.versions: Versions[D] = Versions(driver)
        self._closed = False

    @verb
    def stats(self) -> Plan[StoreStats]:
        """Counts over the whole store: policies, versions and nodes that are not deleted, and its size."""
        return (yield from ask(Stats()))

    @overload
    def close(self: _Opened[SyncDriver]) -> None: ...
    @overload
    def close(self: _Opened[AsyncDriver]) -> Awaitable[None]: ...
    def close(self) -> Any:
        """Wait for what is under way, then close. Everything stored is durable. May be called again.

        From then on every verb raises Closed.
        """
        driver = self._driver
        self._closed = True
        return driver.backend.close_now() if isinstance(driver, SyncDriver) else driver.backend.close()

    def __enter__(self: _Sync) -> _Sync:
        if not isinstance(self._driver, SyncDriver):
            raise TypeError("this face is asynchronous: use it under 'async with'")
        if self._closed:
            raise Closed("it is closed; open it again")
        return self

    def __exit__(
        self: _Opened[SyncDriver], kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_Sync = TypeVar("_Sync", bound=_Opened[SyncDriver])


class Snapshot(_Opened[D]):
    """A view of one moment of a store, which later writes do not change. It is closed when it reaches its maximum age
    (``TREESTORE_SNAPSHOT_MAX_AGE_SECONDS``); writing verbs raise ReadOnly."""


class TreeStore(_Opened[D]):
    """A store of versioned trees. ``documents`` and ``versions`` hold its verbs.

    Made by :func:`open` or :func:`open_sync`. Threads and tasks may share one. ``folder`` is where it lies, as an absolute
    path without links; ``None`` for a store in memory.
    """

    def __init__(self, driver: D, folder: str | None = None) -> None:
        super().__init__(driver)
        self.folder = None if folder is None else os.path.realpath(folder)

    @overload
    def snapshot(self: TreeStore[SyncDriver]) -> Snapshot[SyncDriver]: ...
    @overload
    def snapshot(self: TreeStore[AsyncDriver]) -> Opening[Snapshot[AsyncDriver]]: ...
    def snapshot(self) -> Any:
        """A view of the present moment with the same repositories: a context manager (``async with`` on the async face)."""
        driver = self._driver
        backend: Any = driver.backend
        if isinstance(driver, SyncDriver):
            return Snapshot(SyncDriver(backend.snapshot_now(), driver.clock))

        async def start() -> Snapshot[AsyncDriver]:
            return Snapshot(AsyncDriver(await backend.snapshot(), driver.clock))

        return Opening(start)

    @verb
    def check(self) -> Plan[CheckReport]:
        """Prove the whole store sound: its structure, its indexes and all hashes. Reads everything."""
        return (yield from ask(Check()))

    @verb
    def backup(self, folder: str | os.PathLike[str]) -> Plan[int]:
        """Copy one committed moment of the store to a new folder, while it is in use. Returns the copy's size in bytes.

        Raises InvalidInput if the folder is not empty or lies in the store's own, Unavailable if it can't be written, and
        NotSupported for a store in memory or in PostgreSQL, which has tools of its own for that.
        """
        path = rules.check_text(os.fspath(folder) if isinstance(folder, os.PathLike) else folder, "folder")
        if self.holds(path):
            rule = f"{rules.shown_path(path)} lies in the folder of the store itself; name one outside of it"
            raise InvalidInput(rule, field="folder")
        return (yield from ask(Backup(path)))

    @verb
    def compact(self) -> Plan[int]:
        """Rewrite the store without its free space. Returns the number of bytes given back."""
        return (yield from ask(Compact()))

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether a path is the store's folder or lies in it: nothing but the store may write there."""
        return self.folder is not None and os.path.commonpath([self.folder, os.path.realpath(path)]) == self.folder


SyncTreeStore = TreeStore[SyncDriver]
"""A store whose verbs return their results: what :func:`open_sync` gives."""

AsyncTreeStore = TreeStore[AsyncDriver]
"""A store whose verbs are awaited: what :func:`open` gives."""


def utc_now() -> datetime:
    """The clock of a store that is given no other: the time of this machine, in UTC."""
    return datetime.now(UTC)


def open(  # noqa: A001 - the name that a module of stores should have, as in gzip.open and dbm.open
    url: str | None = None, *, settings: Settings | None = None, clock: Clock | None = None, create: bool = True
) -> Opening[AsyncTreeStore]:
    """Open a store under asyncio: ``async with treestore.open(url) as store``, or ``store = await treestore.open(url)``.

    ``url``: ``btree:///relative/folder``, ``btree:////absolute/folder`` (a path as it is, nothing in it is decoded),
    ``postgresql://user:password@host:port/database`` (see :mod:`treestore.backends.postgres.address`; needs the extra
    ``treestore[postgres]``) or ``memory://`` (new and empty each time); ``None``: what ``settings`` say. ``settings=None``:
    what the environment says. ``clock`` gives the present moment (naive means UTC), by default the machine's.
    ``create=False`` refuses a folder, or a database, that holds no store yet.

    Opening raises InvalidInput for a wrong URL or setting, NoStore, NotAStore, MigrationError, Locked, AccessDenied,
    Unavailable, Timeout or Corrupted.
    """
    place = _Place.of(url, settings, clock)

    async def start() -> AsyncTreeStore:
        if place.postgres:
            database = await place.postgres_backend().open(place.url, place.settings, create=create)
            return TreeStore(AsyncDriver(database, place.clock))
        # Recovery may read a long log, so it has a thread of its own. If the caller is cancelled meanwhile, the store is
        # closed as soon as it is open: nobody else could, and it would hold its lock for ever.
        opening = asyncio.ensure_future(asyncio.to_thread(place.open, create))
        try:
            backend = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unclaimed)
            raise
        return TreeStore(AsyncDriver(backend, place.clock), place.folder)

    return Opening(start)


def open_sync(
    url: str | None = None, *, settings: Settings | None = None, clock: Clock | None = None, create: bool = True
) -> SyncTreeStore:
    """Open a store for callers without an event loop: a context manager, or close it yourself. As :func:`open`."""
    place = _Place.of(url, settings, clock)
    return TreeStore(SyncDriver(place.open(create), place.clock), place.folder)


class _BothFaces(Backend, SyncBackend, Protocol):
    """A backend with an asynchronous and a synchronous face."""


class _Place(NamedTuple):
    """A store that is to be opened: its URL and, for one in a folder, that; ``postgres`` for one in a database."""

    url: str
    folder: str | None
    postgres: bool
    settings: Settings
    clock: Clock

    @classmethod
    def of(cls, url: str | None, settings: Settings | None, clock: Clock | None) -> _Place:
        """What the arguments of opening mean. Raises InvalidInput."""
        if not isinstance(settings, Settings | None):
            raise InvalidInput(f"must be treestore.Settings(...), not {rules.shown(settings)}", field="settings")
        chosen = Settings.from_environment() if settings is None else settings
        now = utc_now if clock is None else _checked_clock(clock)
        where = chosen.url if url is None else url
        if not isinstance(where, str):
            raise InvalidInput(f"must be a string, not {rules.shown(where)}", field="url")
        rules.check_text(where, "url")
        scheme, separator, rest = where.partition("://")
        if scheme == "memory" and separator and not rest:
            return cls(where, None, False, chosen, now)
        if scheme == "btree" and rest.startswith("/") and len(rest) > 1:
            return cls(where, rest[1:], False, chosen, now)
        if separator and scheme.partition("+")[0] in ("postgresql", "postgres"):
            return cls(where, None, True, chosen, now)
        supported = "btree:///relative/folder, btree:////absolute/folder, postgresql://user@host/database and memory://"
        raise InvalidInput(f"is {rules.shown(masked(where))}; supported are {supported}", field="url")

    def open(self, create: bool) -> _BothFaces:
        """The backend, open."""
        if self.postgres:
            return self.postgres_backend().open_now(self.url, self.settings, create=create)
        if self.folder is None:
            from treestore.backends.memory.backend import MemoryBackend

            return MemoryBackend(self.settings)
        from treestore.backends.btree.backend import BtreeBackend

        return BtreeBackend.open(self.folder, self.settings, self.clock, create=create)

    def postgres_backend(self) -> type[PostgresBackend]:
        """The class of stores in a database. Raises InvalidInput where the extra is not installed."""
        try:
            from treestore.backends.postgres.backend import PostgresBackend
        except ImportError as error:
            missing = f"PostgreSQL needs {error.name}, which is not installed: install treestore with its extra, postgres"
            raise InvalidInput(missing, field="url") from error
        return PostgresBackend


# --- copies of stores that are not open ------------------------------------------------------------------------------------


def restore(backup: str | os.PathLike[str], folder: str | os.PathLike[str]) -> int:
    """Copy a backup (or any store in a folder that nobody has open) to a new folder, after a check of all of it. Returns the
    copy's size in bytes.

    The backup is only read, so it may lie where nothing can be written. The copy appears when it is whole and on the disk:
    ended before, this leaves no store. Raises InvalidInput if ``folder`` is not empty, NoStore, NotAStore, MigrationError,
    Locked or Corrupted for what is no sound store, DiskFull, ReadOnly or Unavailable.
    """
    from treestore.backends.btree.restoring import restore

    return restore(*_two_folders(backup, folder, "backup"))


def salvage(
    source: str | os.PathLike[str], folder: str | os.PathLike[str], parts: str | os.PathLike[str] | None = None
) -> SalvageReport:
    """Save what is left of a damaged store: copy all versions that are whole to a new store in ``folder``. What can be read of
    the others is written to files in ``parts`` (by default the folder's name and ``.parts``), which is made if there are any.

    The damaged store is not changed by a byte and may lie where nothing can be written; nobody may have it open. A version is
    copied if its hashes prove it whole. Raises InvalidInput if a new folder is not empty, NoStore, NotAStore, MigrationError
    or Locked for what can't be salvaged, DiskFull, ReadOnly or Unavailable.
    """
    from treestore.backends.btree.salvage import salvage

    given, wanted = _two_folders(source, folder, "source")
    beside = f"{wanted.rstrip('/')}.parts" if parts is None else _two_folders(source, parts, "source")[1]
    return salvage(given, wanted, beside)


def _two_folders(source: str | os.PathLike[str], target: str | os.PathLike[str], name: str) -> tuple[str, str]:
    """Where something is copied from and to. Raises InvalidInput for what is no path, and a target inside of the source."""
    found = [os.fspath(path) if isinstance(path, os.PathLike) else path for path in (source, target)]
    given, wanted = (rules.check_text(path, field) for path, field in zip(found, (name, "folder"), strict=True))
    inside = os.path.realpath(given)
    if os.path.commonpath([inside, os.path.realpath(wanted)]) == inside:
        rule = f"{rules.shown_path(wanted)} lies in the folder that is copied; name one outside of it"
        raise InvalidInput(rule, field="folder")
    return given, wanted


def _checked_clock(clock: Clock) -> Clock:
    return lambda: rules.as_fact_time(clock(), "clock")


def _close_unclaimed(opening: asyncio.Future[_BothFaces]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close_now()
