"""Threads that commit together: one leads, and a sync is shared by all that wait; whatever happens to the leader."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tests.engine.simulated import SimulatedDisk
from tests.engine.test_backend import nodes
from tests.engine.workload import SMALL, STORE, key
from treestore import Settings, SyncDriver, TreeStore
from treestore.backends.btree import commit
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.commit import Committer, Prepare, ThreadJob
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.store import utc_now

WRITERS, EACH = 32, 8


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


@pytest.fixture
def engine(disk: SimulatedDisk) -> Iterator[Engine]:
    opened = Engine.open(STORE, SMALL, fs=disk)
    yield opened
    opened.close()


def put(number: int) -> Prepare:
    return lambda state: [TreeChange(1, [key(number)], [b"value"])]


def led(committer: Committer) -> bool:
    return committer._led


def slow_syncs(disk: SimulatedDisk, seconds: float) -> list[str]:
    """Let each sync of the log take so long; they are noted in the list."""
    syncs: list[str] = []

    def slow(number: int, kind: str, path: str) -> None:
        if kind == "sync" and path.endswith(".log"):
            syncs.append(path)
            time.sleep(seconds)

    disk.fault = slow
    return syncs


def test_threads_that_wait_share_the_next_sync(engine: Engine, disk: SimulatedDisk) -> None:
    committer = Committer(engine)
    syncs = slow_syncs(disk, 0.005)

    def work(writer: int) -> None:
        for turn in range(EACH):
            committer.commit(put(writer * EACH + turn))
            assert engine.state.get(1, key(writer * EACH + turn)) == b"value"

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(work, range(WRITERS)))
    disk.fault = None
    assert engine.state.count(1) == WRITERS * EACH
    assert len(syncs) < WRITERS * EACH / 4
    assert not led(committer) and not committer._queue and not committer.busy
    committer.close()


def test_a_leader_that_is_gone_is_replaced(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted between two instructions, it may have told nobody."""
    monkeypatch.setattr(commit, "_PATIENCE_SECONDS", 0.05)
    committer = Committer(engine)
    vars(committer)["_led"] = True
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: committer.commit(put(number)), range(20)))
    assert engine.state.count(1) == 20
    assert not led(committer)
    committer.close()


def test_a_thread_that_is_interrupted_while_it_waits(engine: Engine, disk: SimulatedDisk) -> None:
    """Its group is committed with the next batch, and those behind it are not kept waiting."""

    class Interrupted(Committer):
        def _wait(self, job: ThreadJob) -> None:
            if threading.current_thread().name == "unlucky":
                raise KeyboardInterrupt
            super()._wait(job)

    committer = Interrupted(engine)
    slow_syncs(disk, 0.2)
    said: list[str] = []

    def unlucky() -> None:
        try:
            committer.commit(put(1))
        except KeyboardInterrupt:
            said.append("interrupted")

    leading = threading.Thread(target=committer.commit, args=(put(0),))
    others = [threading.Thread(target=unlucky, name="unlucky")]
    others += [threading.Thread(target=committer.commit, args=(put(number),)) for number in (2, 3)]
    leading.start()
    while not led(committer) or committer._queue:  # until it has taken its own group and waits for the sync
        time.sleep(0.001)
    for thread in others:
        thread.start()
    for thread in (leading, *others):
        thread.join()
    assert said == ["interrupted"]
    assert engine.state.count(1) == 4
    assert not led(committer)
    committer.close()


def test_a_reader_gives_way_while_a_thread_commits(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BtreeBackend.open(STORE, Settings(), fs=disk)
    store = TreeStore(SyncDriver(backend, utc_now))
    gave_way: list[float] = []
    monkeypatch.setattr(commit, "time", SimpleNamespace(sleep=gave_way.append, perf_counter=time.perf_counter))
    store.documents.store_document("p", "1", nodes("p", 3))
    store.documents.get_outline("p")
    assert gave_way == []
    slow_syncs(disk, 0.2)
    writing = threading.Thread(target=store.documents.store_document, args=("q", "1", nodes("q", 3)))
    writing.start()
    while writing.is_alive():
        store.documents.get_outline("p")
    assert gave_way
    disk.fault = None
    store.close()


def test_many_tasks_leave_the_loop_to_others_between_batches(engine: Engine, disk: SimulatedDisk) -> None:
    committer = Committer(engine)
    committing = commit._AT_ONCE * 4
    committer.commit(put(committing))  # the log's file is begun

    async def work() -> tuple[int, int]:
        tasks = [asyncio.ensure_future(committer.commit_async(put(number))) for number in range(committing)]
        turns = 0
        syncs = slow_syncs(disk, 0.0)
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            turns += 1
        await asyncio.gather(*tasks)
        return turns, len(syncs)

    turns, syncs = asyncio.run(work())
    assert syncs == 4
    assert turns >= 4
    assert engine.state.count(1) == committing + 1
    committer.close()
