"""Group commit: callers from any thread and any event loop share the log's syncs.

Callers put their jobs into one queue; whoever gets the engine's ``writer`` lock takes all that wait there as one batch. Of
threads one leads: it commits a batch while the others wait each for its own job, and then one whose job came meanwhile leads.
If all waited for the lock, each would have to get it just to see that its job is done. Under asyncio the jobs of one turn of
the loop are collected and committed at its end, some at a time, in the loop itself while a sync takes about a millisecond or
less: a thread would wait longer for the interpreter than for such a disk. Where syncs are slow, or the lock is taken, a thread
commits and the loop goes on.

A thread that commits lets go of the interpreter for each write and each sync, and with readers that never rest it would wait
5 ms for each of them (``sys.getswitchinterval``) until it has it again. So readers give way while a commit is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from treestore.backends.btree.engine.batch import Job
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.errors import OutcomeUnknown

Prepare = Callable[[State], list[TreeChange]]

INLINE_SYNC_SECONDS = 0.001  # syncs that take longer than this run in a thread
_GOING_ON_SECONDS = 0.0002  # so long a reader goes on before it gives way again
_GIVING_WAY_SECONDS = 0.0002  # about what another thread takes to wake up
_PATIENCE_SECONDS = 1.0  # of a thread that waits for a leader, who may have been interrupted at the worst moment
_WEIGHT = 0.2  # of the newest sync in the moving average
_AT_ONCE = 16  # jobs that are committed in a loop before others have their turn in it: some milliseconds


class ThreadJob(Job):
    """A job whose caller is a thread. ``leads``: it is to commit the next batch. ``gone``: it was interrupted."""

    __slots__ = ("_wake", "gone", "leads")

    def __init__(self, prepare: Prepare) -> None:
        super().__init__(prepare)
        self.leads = self.gone = False
        self._wake: SimpleQueue[None] = SimpleQueue()

    def tell(self) -> None:
        """Wake the caller: the job is done, or leads."""
        self._wake.put(None)

    def wait(self) -> None:
        """Wait until woken. One who has waited long leads; where there is a leader all the same, there are two for a while."""
        try:
            self._wake.get(timeout=_PATIENCE_SECONDS)
        except Empty:
            self.leads = True


class _AsyncJob(Job):
    """A job whose caller waits in an event loop."""

    __slots__ = ("future", "loop")

    def __init__(self, prepare: Prepare, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(prepare)
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def tell(self) -> None:
        """Wake the caller, who may have been cancelled."""
        if not self.future.done():
            self.future.set_result(None)


class Committer:
    """Commits jobs of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: list[Job] = []
        self._queueing = threading.Lock()
        self._led = False  # whether a thread leads
        self.busy: list[None] = []  # an entry for each thread that commits or waits for it
        self._gave_way = 0.0
        self._turns: set[asyncio.AbstractEventLoop] = set()  # loops that have a turn scheduled
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="treestore-commit")
        self.sync_seconds = 0.0

    def close(self) -> None:
        """Commit what waits in the queue, and wait for what is under way."""
        self.busy.append(None)
        self._in_thread()
        self._threads.shutdown()

    # --- threads ---------------------------------------------------------------------------------------------------------

    def commit(self, prepare: Prepare) -> None:
        """Commit one group; returns when it is durable. Raises what ``prepare`` raised or the engine's errors."""
        self._engine.ready()  # before any lock: in a forked child some may be held for ever
        job = ThreadJob(prepare)
        self.busy.append(None)
        try:
            with self._queueing:
                self._queue.append(job)
                job.leads, self._led = not self._led, True
            while not (job.done or job.leads):
                self._wait(job)
            if not job.done:
                with self._engine.writer:
                    if not job.done:
                        self._run()
        finally:
            self.busy.pop()
            job.gone = not job.done
            if job.leads:
                self._pass_on()
        _look(job)

    def _wait(self, job: ThreadJob) -> None:
        job.wait()

    def _pass_on(self) -> None:
        """Let the thread lead whose job came first."""
        with self._queueing:
            following = next((job for job in self._queue if isinstance(job, ThreadJob) and not job.gone), None)
            self._led = following is not None
            if following is not None:
                following.leads = True
        if following is not None:
            following.tell()

    def give_way(self) -> None:
        """Let go of the interpreter, unless somebody has done so just before. To be called after each read while a thread is
        ``busy``."""
        now = time.perf_counter()
        if now - self._gave_way > _GOING_ON_SECONDS:
            self._gave_way = now
            time.sleep(_GIVING_WAY_SECONDS)

    def _run(self, most: int | None = None) -> None:
        """Commit all that wait, or the first ``most`` of them. The caller holds ``writer``."""
        jobs: list[Job] = []
        try:
            with self._queueing:
                jobs = self._queue[:most]
                del self._queue[:most]
            batch = self._engine.begin(jobs)
            start, written = time.perf_counter(), bool(batch.written)
            self._engine.finish(batch)
            if written:
                self.sync_seconds += _WEIGHT * (time.perf_counter() - start - self.sync_seconds)
        except BaseException as error:
            self._engine.interrupted(jobs, error)
            raise
        finally:
            _tell(jobs)

    # --- event loops -----------------------------------------------------------------------------------------------------

    async def commit_async(self, prepare: Prepare) -> None:
        """As :meth:`commit`. If the caller is cancelled meanwhile, the group is committed all the same."""
        self._engine.ready()
        loop = asyncio.get_running_loop()
        job = _AsyncJob(prepare, loop)
        with self._queueing:
            self._queue.append(job)
        if loop not in self._turns:
            self._turns.add(loop)
            loop.call_soon(self._turn, loop)
        await job.future
        _look(job)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns.discard(loop)
        if self.sync_seconds < INLINE_SYNC_SECONDS and self._engine.writer.acquire(blocking=False):
            try:
                self._run(_AT_ONCE)
            finally:
                self._engine.writer.release()
                if self._queue:
                    self._turns.add(loop)
                    loop.call_soon(self._turn, loop)
            return
        self.busy.append(None)
        try:
            self._threads.submit(self._in_thread)
        except RuntimeError:  # the store is being closed: do it here
            self._in_thread()

    def _in_thread(self) -> None:
        """Commit in a thread, which was counted as ``busy`` before, when it had to be woken."""
        try:
            with self._engine.writer:
                self._run()
        finally:
            self.busy.pop()


def _look(job: Job) -> None:
    """Raise what became of a job, unless it is durable."""
    if not job.done:  # whoever took it from the queue was interrupted before anything else
        raise OutcomeUnknown("the commit was interrupted; whether the write is durable is not known")
    if job.error is not None:
        raise job.error


def _tell(jobs: list[Job]) -> None:
    """Wake the callers of finished jobs, from whatever thread; those of another loop by one call, as each call would let go of
    the interpreter."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    elsewhere: dict[asyncio.AbstractEventLoop, list[_AsyncJob]] = {}
    for job in jobs:
        if isinstance(job, ThreadJob):
            job.tell()
        elif isinstance(job, _AsyncJob) and job.done:
            if running is job.loop:
                job.tell()
            else:
                elsewhere.setdefault(job.loop, []).append(job)
    for loop, its_jobs in elsewhere.items():
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(_tell_all, its_jobs)


def _tell_all(jobs: list[_AsyncJob]) -> None:
    for job in jobs:
        job.tell()
