"""The thread that runs checkpoints, by time and by size, in small steps, so that readers hardly notice it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from treestore.backends.btree.engine.engine import Engine
from treestore.errors import TreestoreError

_log = logging.getLogger("treestore.btree")
_REST_SECONDS = 0.0005  # between two steps of about a millisecond, for others to have the interpreter
_LOOK_SECONDS = 30.0  # so often at least it looks after old readers


class Checkpointer:
    """Runs checkpoints of an engine until :meth:`stop`. ``look_after`` is called now and then as well."""

    def __init__(self, engine: Engine, interval_seconds: float, look_after: Callable[[], None]) -> None:
        self._engine = engine
        self._interval = interval_seconds
        self._look_after = look_after
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="treestore-checkpoint", daemon=True)
        self._thread.start()

    def look(self) -> bool:
        """To be called after a commit: wakes the thread where a checkpoint is due by size. Whether the thread has fallen
        behind, so that whoever writes should :meth:`catch_up`."""
        if not self._engine.checkpoint_due():
            return False
        self._wake.set()
        return self._engine.dirty > self._engine.options.most_dirty_bytes

    def catch_up(self) -> None:
        """Wait for a checkpoint, so that changed pages do not outgrow the memory set aside for them."""
        with contextlib.suppress(TreestoreError):  # the thread says so, and the next write if it can't be
            self._engine.checkpoint()

    def stop(self) -> None:
        """Let a running checkpoint end, and the thread with it."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while not self._stopping:
            self._wake.wait(min(_LOOK_SECONDS, max(0.0, due - time.monotonic())))
            self._wake.clear()
            try:
                self._look_after()
                self._engine.tidy()
                if not self._engine.writable:  # until it is opened again there is nothing to write
                    due = time.monotonic() + self._interval
                elif self._engine.checkpoint_due() or time.monotonic() >= due:
                    for _ in self._engine.checkpoint_steps():
                        if not self._stopping:
                            time.sleep(_REST_SECONDS)
                    self._engine.tidy()
                    due = time.monotonic() + self._interval
            except Exception as error:
                _log.warning("%s: no checkpoint: %s", self._engine.folder, error)
                due = time.monotonic() + min(self._interval, _LOOK_SECONDS)
