"""Groups on their way through a commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treestore.backends.btree.engine.freelist import Run
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import TreeChange


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
    """Groups that were written to the log and wait for its sync. ``freed`` and ``linked`` are runs of pages."""

    def __init__(self, jobs: list[Job], state: State) -> None:
        self.jobs = jobs
        self.state = state
        self.written: list[Job] = []
        self.freed: list[Run] = []
        self.linked: list[Run] = []
        self.dirty = 0
