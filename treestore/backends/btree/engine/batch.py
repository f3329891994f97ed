"""Groups on their way through a commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treestore.backends.btree.engine.freelist import Run
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import TreeChange, apply
from treestore.backends.btree.engine.tree import Edit


class Job:
    """One group on its way: ``prepare`` gives the changes that it makes to a state, or raises; an empty list changes
    nothing. Afterwards ``error`` says why it was not applied, and ``result`` is whatever ``prepare`` left there."""

    __slots__ = ("done", "error", "prepare", "result")

    def __init__(self, prepare: Callable[[State], list[TreeChange]]) -> None:
        self.prepare = prepare
        self.done = False
        self.error: Exception | None = None
        self.result: Any = None


class Batch:
    """Groups on their way into the log together: those of ``jobs`` that are ``written``, with their ``payloads`` there, and
    the ``state`` that they make, each as a step of one edit."""

    def __init__(self, jobs: list[Job], state: State) -> None:
        self.jobs = jobs
        self.state = state
        self.written: list[Job] = []
        self.payloads: list[bytes] = []
        self._changes: list[list[TreeChange]] = []
        self._first = state
        self._edit = Edit(state.pager)

    @property
    def freed(self) -> list[Run]:
        """Pages that the groups give up."""
        return self._edit.freed

    @property
    def dirty(self) -> int:
        """By how many bytes the nodes that are not on disk have grown."""
        return self._edit.dirty

    @property
    def linked(self) -> list[Run]:
        """Pages of bulk loads that the groups link."""
        return [run for changes in self._changes for change in changes for new in change.grafts for run in new.runs]

    def add(self, job: Job, changes: list[TreeChange], payload: bytes) -> None:
        """One group more. Raises Corrupted or Unavailable where a page can't be read; it is not in the batch then."""
        try:
            self.state = apply(self.state, changes, self.state.lsn + 1, self._edit)
        except Exception:
            self._redo()
            raise
        self.written.append(job)
        self.payloads.append(payload)
        self._changes.append(changes)

    def _redo(self) -> None:
        """A step has failed and spoilt the edit: take the others again. If one fails now that did not before, all have failed;
        nothing is written yet."""
        state, edit = self._first, Edit(self._first.pager)
        try:
            for changes in self._changes:
                state = apply(state, changes, state.lsn + 1, edit)
        except Exception as error:
            for job in self.written:
                job.error = error
            self.written, self.payloads, self._changes = [], [], []
            state, edit = self._first, Edit(self._first.pager)
        self.state, self._edit = state, edit
