"""Which pages of the data file may be written.

A page is *free*, *in use*, or *pending*: given up by a commit, but still needed, by the last checkpoint (or by the log that
is replayed on it) and perhaps by readers. Pages given up become free only after the next checkpoint is durable and when no
reader is left that began before the commit. Page 0 holds the meta pages and is never given out. Any thread may call.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable

from treestore.backends.btree.engine.format import MAX_PAGE
from treestore.errors import DiskFull

Run = tuple[int, int]  # first page, number of pages

_PROBES = 256  # how many runs a search for several adjacent pages looks at before it grows the file


def coalesce(runs: Iterable[Run]) -> list[Run]:
    """The same pages as few runs in order. Runs that overlap are an AssertionError (with ``python -O`` too, since recovery
    relies on it): a page was given up twice."""
    merged: list[Run] = []
    for start, length in sorted(runs):
        if merged and merged[-1][0] + merged[-1][1] >= start:
            first, count = merged[-1]
            if first + count != start:
                raise AssertionError(f"page {start} was freed twice")
            merged[-1] = (first, count + length)
        else:
            merged.append((start, length))
    return merged


def without(runs: list[Run], taken: list[Run]) -> list[Run]:
    """``runs`` less ``taken``, both in order; what is taken must lie in them (AssertionError)."""
    kept: list[Run] = []
    at = 0
    for start, length in runs:
        end = start + length
        while at < len(taken) and taken[at][0] < end:
            first, count = taken[at]
            if first < start or first + count > end:
                raise AssertionError(f"page {first} is not free")
            if first > start:
                kept.append((start, first - start))
            start = first + count
            at += 1
        if start < end:
            kept.append((start, end - start))
    if at != len(taken):
        raise AssertionError(f"page {taken[at][0]} is not free")
    return kept


class FreeList:
    """Free and pending pages of one data file of ``page_count`` pages."""

    def __init__(self, runs: list[Run], page_count: int) -> None:
        self.page_count = page_count
        self._lock = threading.RLock()
        self._runs = runs
        self._pending: list[tuple[int, list[Run]]] = []  # (epoch of the commit, pages), oldest first
        self._released: list[tuple[int, list[Run]]] = []  # as before, no longer needed by the last checkpoint
        self._staged: dict[int, int] = {}  # runs (first page: count) given out to bulk loads that are not yet committed

    @property
    def free_pages(self) -> int:
        """Pages that may be written now."""
        return sum(length for _, length in self._runs)

    @property
    def pending_pages(self) -> int:
        """Pages given up that are not free yet."""
        return sum(count for _, runs in self._pending + self._released for _, count in runs)

    def allocate(self, count: int = 1) -> int:
        """The first of ``count`` adjacent pages. Grows the store where no free run is long enough."""
        with self._lock:
            runs = self._runs
            for i in range(len(runs) - 1, max(-1, len(runs) - 1 - _PROBES), -1):
                start, length = runs[i]
                if length >= count:
                    if length == count:
                        del runs[i]
                    else:
                        runs[i] = (start + count, length - count)
                    return start
            page = self.page_count
            if page + count > MAX_PAGE:
                raise DiskFull(f"the store has reached its greatest size, {MAX_PAGE} pages")
            self.page_count += count
            return page

    def stage(self, count: int = 1) -> int:
        """Pages for a bulk load: still free as far as a checkpoint is concerned, until :meth:`commit_staged`."""
        with self._lock:
            page = self.allocate(count)
            self._staged[page] = count
            return page

    def commit_staged(self, runs: Iterable[Run]) -> None:
        """A bulk load's pages are in use from now on."""
        with self._lock:
            for start, count in runs:
                while count > 0:
                    length = self._staged.pop(start)
                    start, count = start + length, count - length

    def unstage(self, runs: Iterable[Run]) -> None:
        """A bulk load was given up; nothing ever referred to its pages."""
        with self._lock:
            self.commit_staged(runs)
            self.give_back(runs)

    def give_up(self, epoch: int, runs: list[Run]) -> None:
        """Pages that no root of ``epoch`` or later refers to."""
        with self._lock:
            if runs:
                self._pending.append((epoch, runs))

    def give_back(self, runs: Iterable[Run]) -> None:
        """Pages that were allocated and that nothing ever referred to."""
        with self._lock:
            self._runs = coalesce([*self._runs, *runs])

    def reserve(self, runs: list[Run]) -> None:
        """Take runs (in order) out of the free ones, growing the store where they lie behind its end (recovery)."""
        with self._lock:
            end = max((start + count for start, count in runs), default=0)
            if end > self.page_count:
                self._runs = coalesce([*self._runs, (self.page_count, end - self.page_count)])
                self.page_count = end
            self._runs = without(self._runs, runs)

    def at_checkpoint(self) -> tuple[list[Run], int]:
        """What will be free once a checkpoint of the present moment is durable and all readers are gone, in order, and the
        number of pages then."""
        with self._lock:
            waiting = [run for _, runs in self._pending + self._released for run in runs]
            return coalesce([*self._runs, *waiting, *self._staged.items()]), self.page_count

    def checkpointed(self, epoch: int, oldest_reader: int | None) -> None:
        """A checkpoint that includes the commit ``epoch`` is durable: what was given up until then may become free."""
        with self._lock:
            split = bisect_right(self._pending, epoch, key=lambda entry: entry[0])
            self._released += self._pending[:split]
            del self._pending[:split]
            self.readers_left(oldest_reader)

    def readers_left(self, oldest_reader: int | None) -> None:
        """Free what no reader needs any more; ``oldest_reader`` is the epoch of the oldest one."""
        with self._lock:
            keep: list[tuple[int, list[Run]]] = []
            gone: list[tuple[int, list[Run]]] = []
            for entry in self._released:
                (keep if oldest_reader is not None and entry[0] > oldest_reader else gone).append(entry)
            if gone:
                self._runs = coalesce([*self._runs, *(run for _, runs in gone for run in runs)])
                self._released = keep
