"""Which pages of the data file may be written.

A page is *free*, *in use*, or *pending*: given up by a commit, but still needed, by the last checkpoint (or by the log that
is replayed on it) and perhaps by readers. Pages given up become free only after the next checkpoint is durable and when no
reader is left that began before the commit. Page 0 holds the meta pages and is never given out. Any thread may call.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence

from treestore.backends.btree.engine.format import MAX_PAGE
from treestore.errors import DiskFull

Run = tuple[int, int]  # first page, number of pages

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
        self._now_free(runs)
        self._pending: list[tuple[int, list[Run]]] = []  # (epoch of the commit, pages), oldest first
        self._released: list[tuple[int, list[Run]]] = []  # as before, no longer needed by the last checkpoint
        self._staged: dict[int, int] = {}  # runs (first page: count) given out to bulk loads that are not yet committed

    def _now_free(self, runs: list[Run]) -> None:
        self._runs = runs
        self._by_length: list[tuple[int, int]] | None = None  # (length, end) of the runs of several pages, in order

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
            i = len(runs) - 1 if count == 1 else self._shortest_of(count)
            if i >= 0:
                start, length = runs[i]
                if length == count:
                    del runs[i]
                else:
                    runs[i] = (start + count, length - count)
                return start
            page = self.page_count
            if page + count > MAX_PAGE:
                raise DiskFull(f"the store has reached its greatest size, {MAX_PAGE} pages; a backup of it is smaller")
            self.page_count = page + count
            return page

    def _shortest_of(self, count: int) -> int:
        """Which of the free runs is the shortest of at least ``count`` pages; -1 if there is none. However many shorter ones
        there are: a search that gave up would let the file grow for ever.

        ``_by_length`` is made when it is needed. It knows a run by its end, as pages are taken from the beginning; a run
        of which pages were taken meanwhile is put where it belongs when it is met.
        """
        if self._by_length is None:
            self._by_length = sorted((length, start + length) for start, length in self._runs if length > 1)
        known = self._by_length
        while (at := bisect_left(known, (count, 0))) < len(known):
            _, end = known.pop(at)
            i = bisect_left(self._runs, (end, 0)) - 1
            start, length = self._runs[i] if i >= 0 else (0, 0)
            if start + length != end:  # all of its pages were taken
                continue
            found = length >= count
            left = length - count if found else length
            if left > 1:
                insort(known, (left, end))
            if found:
                return i
        return -1

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
            self._now_free(coalesce([*self._runs, *runs]))

    def reserve(self, runs: list[Run]) -> None:
        """Take runs (in order) out of the free ones, growing the store where they lie behind its end (recovery)."""
        with self._lock:
            end = max((start + count for start, count in runs), default=0)
            if end > self.page_count:
                self._now_free(coalesce([*self._runs, (self.page_count, end - self.page_count)]))
                self.page_count = end
            self._now_free(without(self._runs, runs))

    def at_checkpoint(self, given_up: Sequence[Run] = ()) -> tuple[list[Run], int]:
        """What will be free once a checkpoint of the present moment, which gives these pages up, is durable and all readers
        are gone, in order, and the number of pages then."""
        with self._lock:
            waiting = [run for _, runs in self._pending + self._released for run in runs]
            return coalesce([*self._runs, *waiting, *given_up, *self._staged.items()]), self.page_count

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
                self._now_free(coalesce([*self._runs, *(run for _, runs in gone for run in runs)]))
                self._released = keep
