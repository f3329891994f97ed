"""The native store through the public API: bulk loads, shared texts, many writers, snapshots, backups, closing under load."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import treestore
from tests.clock import young
from tests.engine.simulated import SimulatedDisk
from tests.engine.workload import accounted
from treestore import AsyncDriver, Closed, Settings, SyncDriver, TreeStore, Unavailable
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.file import SyncFailed
from treestore.backends.btree.staging import BULK_BYTES
from treestore.store import utc_now

Sync = TreeStore[SyncDriver]
Async = TreeStore[AsyncDriver]
SETTINGS = Settings(cache_size_mb=16, wal_file_size_mb=2, checkpoint_interval_seconds=0.5)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"btree:///{tmp_path / 'store'}"


@pytest.fixture
def store(url: str) -> Iterator[Sync]:
    with treestore.open_sync(url, settings=SETTINGS) as store:
        yield store


def backend_of(store: Any) -> BtreeBackend:
    return cast(BtreeBackend, store._driver.backend)


def engine_of(store: Any) -> Engine:
    return backend_of(store)._engine


def nodes(name: str, count: int, text: str = "some text of a node, ") -> list[dict[str, Any]]:
    """A tree of fan-out 8 whose every text is its own."""
    return [
        {
            "node_id": f"{n:05}",
            "parent_id": f"{(n - 1) // 8:05}" if n else None,
            "title": f"{name} {n}",
            "text": f"{name} {n} {text}",
        }
        for n in range(count)
    ]


def large(name: str) -> list[dict[str, Any]]:
    """About 5 MB, loaded in bulk."""
    return nodes(name, 1200, "x" * 4000)


def texts(store: Sync, policy: str, version: str | None = None) -> dict[str, str | None]:
    return {node.node_id: node.text for node in store.documents.get_document(policy, version_id=version).nodes}


def given(tree: list[dict[str, Any]]) -> dict[str, str | None]:
    return {node["node_id"]: node["text"] for node in tree}


def sound(store: Sync) -> None:
    """All is checked, and no page is lost to a load that was given up."""
    assert store.check().problems == []
    accounted(engine_of(store))


def text_count(store: Sync) -> int:
    return int(store.stats().backend["texts"])


# --- bulk loads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [BULK_BYTES - 400_000, BULK_BYTES - 1000, BULK_BYTES + 1000, BULK_BYTES + 400_000])
def test_documents_around_the_size_at_which_they_are_loaded_in_bulk(store: Sync, url: str, weight: int) -> None:
    count = 500
    tree = nodes("d", count, "y" * (weight // count - 310))
    assert store.documents.store_document("p", "1", tree).outcome == "created"
    assert store.documents.store_document("p", "1", tree).outcome == "unchanged"
    assert texts(store, "p") == given(tree)
    sound(store)


def test_large_documents_are_replaced_amended_and_deleted(store: Sync, url: str) -> None:
    for turn in range(3):
        tree = large(f"turn {turn}")
        store.documents.store_document("p", "1", tree)
        assert texts(store, "p") == given(tree)
        store.documents.update_node("p", "00007", text="amended", title="amended")
        assert texts(store, "p") == {**given(tree), "00007": "amended"}
        sound(store)
    store.documents.store_document("p", "2", large("second"))
    store.documents.delete_version("p", "1")
    sound(store)
    store.documents.delete_document("p")
    sound(store)
    assert store.stats().nodes == text_count(store) == 0
    written = engine_of(store)._log.bytes_written
    store.documents.store_document("p", "3", large("third"))
    assert engine_of(store)._log.bytes_written - written < 200_000, "a bulk load is not written to the log"
    store.close()
    with treestore.open_sync(url) as again:
        assert texts(again, "p") == given(large("third"))


async def test_two_tasks_that_store_the_same_large_document_at_once(url: str) -> None:
    async with treestore.open(url, settings=SETTINGS) as store:
        trees = [large("one"), large("other")]
        await asyncio.gather(
            *(store.documents.store_document("p", "1", tree) for tree in trees),
            *(store.documents.store_document(f"small {n}", "1", nodes("s", 20)) for n in range(20)),
            *(store.documents.store_document("p", "2", tree) for tree in trees),
        )
        for version in ("1", "2"):
            found = await store.documents.get_document("p", version_id=version)
            assert {node.node_id: node.text for node in found.nodes} in [given(tree) for tree in trees]
        sound(twin(store))


def twin(store: Async) -> Sync:
    """The other face of the same open store."""
    return TreeStore(SyncDriver(backend_of(store), store._driver.clock))


@pytest.mark.parametrize("after_ms", [0, 1, 3, 10, 30, 60, 100, 200])
async def test_a_caller_cancelled_during_a_large_store(url: str, after_ms: int) -> None:
    async with treestore.open(url, settings=SETTINGS) as store:
        await store.documents.store_document("p", "1", nodes("before", 10))
        task = asyncio.ensure_future(store.documents.store_document("p", "1", large("new")))
        await asyncio.sleep(after_ms / 1000)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        await store.documents.store_document("q", "1", large("another"))
        if backend_of(store)._tasks:
            await asyncio.wait(backend_of(store)._tasks)
        both = twin(store)
        assert texts(both, "p") in (given(nodes("before", 10)), given(large("new")))
        assert isinstance(outcome, asyncio.CancelledError) or texts(both, "p") == given(large("new"))
        sound(both)


# --- shared texts --------------------------------------------------------------------------------------------------------


def test_versions_share_the_texts_that_did_not_change(store: Sync) -> None:
    tree = nodes("v", 300)
    store.documents.store_document("p", "1", tree)
    assert text_count(store) == 300
    changed = [{**node, "text": f"changed {n}"} if n in (7, 200) else node for n, node in enumerate(tree)]
    store.documents.store_document("p", "2", changed)
    assert text_count(store) == 302
    sound(store)
    store.documents.update_node("p", "00050", version_id="1", text="amended in 1")
    assert texts(store, "p", "1") == {**given(tree), "00050": "amended in 1"}
    assert texts(store, "p", "2") == given(changed)
    assert text_count(store) == 303
    sound(store)
    store.documents.delete_version("p", "1")
    assert texts(store, "p", "2") == given(changed)
    assert text_count(store) == 300
    sound(store)


def test_random_versions_with_and_without_texts_stay_right_and_sound(store: Sync) -> None:
    """Texts that come, go, move, repeat and are amended, over versions that come and go."""
    choose = random.Random(7)
    model: dict[str, dict[str, str | None]] = {}
    for turn in range(120):
        version = str(choose.randrange(4))
        action = choose.random()
        if action < 0.55 or version not in model:
            base = choose.choice(list(model.values())) if model and choose.random() < 0.8 else {}
            ids = [f"{n:02}" for n in range(choose.randint(1, 14))]
            tree = {one: base.get(one, choose.choice([None, "", "same", f"text {choose.randrange(30)}"])) for one in ids}
            for one in choose.sample(ids, min(2, len(ids))):
                tree[one] = choose.choice([None, "same", f"new {turn}"])
            given_nodes = [{"node_id": one, "title": one, "text": text} for one, text in tree.items()]
            store.documents.store_document("p", version, given_nodes)
            model[version] = tree
        elif action < 0.85:
            one = choose.choice(list(model[version]))
            text = choose.choice([None, "same", f"amended {turn}"])
            store.documents.update_node("p", one, version_id=version, text=text)
            model[version][one] = text
        else:
            store.documents.delete_version("p", version)
            del model[version]
        for name, tree in model.items():
            assert texts(store, "p", name) == tree, f"turn {turn}"
        if turn % 5 == 0:
            assert store.check().problems == [], f"turn {turn}"
    sound(store)


# --- many writers --------------------------------------------------------------------------------------------------------


def in_threads(count: int, work: Any) -> list[BaseException]:
    """Run ``work(number)`` in so many threads; what they raised."""
    raised: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


async def test_sixteen_threads_and_sixty_four_tasks_write_at_once(url: str) -> None:
    async with treestore.open(url, settings=SETTINGS) as store:
        both = twin(store)

        def sync_work(number: int) -> None:
            for turn in range(10):
                both.documents.store_document(f"thread {number}", str(turn), nodes(f"{number} {turn}", 5))

        threads = asyncio.ensure_future(asyncio.to_thread(in_threads, 16, sync_work))

        async def task(number: int) -> None:
            for turn in range(8):
                await store.documents.store_document(f"task {number}", str(turn), nodes(f"{number} {turn}", 5))

        await asyncio.gather(*(task(number) for number in range(64)))
        assert await threads == []
        stats = both.stats()
        assert (stats.documents, stats.versions, stats.nodes) == (80, 16 * 10 + 64 * 8, 5 * (16 * 10 + 64 * 8))
        assert texts(both, "task 63", "7") == given(nodes("63 7", 5))
        assert texts(both, "thread 15", "9") == given(nodes("15 9", 5))
        sound(both)


def test_two_event_loops_and_a_thread_share_one_store(store: Sync) -> None:
    both: Async = TreeStore(AsyncDriver(backend_of(store), store._driver.clock))

    async def in_loop(number: int) -> None:
        for turn in range(10):
            await both.documents.store_document(f"loop {number}", str(turn), nodes("l", 3))
        await both.documents.store_document(f"loop {number}", "large", large("l"))

    assert in_threads(3, lambda number: asyncio.run(in_loop(number))) == []
    assert store.stats().versions == 33
    sound(store)


async def test_closing_in_one_loop_while_another_stores_in_bulk(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []

    async def wait(tasks: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        waited.append(sum(task.get_loop() is not loop for task in tasks))
        return await plain(tasks, **kwargs)

    plain = asyncio.wait
    monkeypatch.setattr(asyncio, "wait", wait)
    store = await treestore.open(url, settings=SETTINGS)
    began = threading.Event()

    async def other() -> None:
        task = asyncio.ensure_future(store.documents.store_document("p", "1", large("l")))
        await asyncio.sleep(0.03)
        began.set()
        await task

    thread = asyncio.ensure_future(asyncio.to_thread(in_threads, 1, lambda _: asyncio.run(other())))
    await asyncio.to_thread(began.wait)
    await store.close()
    assert not any(waited), "a task of another loop can't be waited for: it could wake this loop or not"
    assert all(isinstance(error, (Closed, Unavailable)) for error in await thread)
    with treestore.open_sync(url) as again:
        sound(again)


@pytest.mark.parametrize("seed", range(4))
def test_closing_while_writes_are_under_way(url: str, seed: int) -> None:
    store = treestore.open_sync(url, settings=SETTINGS)
    told: list[str] = []

    def work(number: int) -> None:
        for turn in range(1000):
            store.documents.store_document(f"{number}", f"{turn}", nodes("c", 4))
            told.append(f"{number} {turn}")

    closer = threading.Timer(0.02 + 0.03 * seed, store.close)
    closer.start()
    raised = in_threads(4, work)
    closer.join()
    assert len(raised) == 4
    assert all(isinstance(error, Closed) for error in raised)
    with treestore.open_sync(url) as again:
        for one in told:
            number, turn = one.split()
            assert len(again.documents.get_document(number, version_id=turn).nodes) == 4
        sound(again)


# --- snapshots and backups -------------------------------------------------------------------------------------------------


def test_a_snapshot_outlives_compaction_and_deletes(store: Sync) -> None:
    store.documents.store_document("p", "1", large("kept"))
    with store.snapshot() as snapshot:
        store.documents.store_document("p", "1", nodes("new", 5))
        store.documents.delete_document("p")
        store.compact()
        for turn in range(10):
            store.documents.store_document("q", str(turn), nodes(f"{turn}", 50, "z" * 2000))
            engine_of(store).checkpoint()
        store.compact()
        found = snapshot.documents.get_document("p")
        assert {node.node_id: node.text for node in found.nodes} == given(large("kept"))
        assert [one.policy_id for one in snapshot.documents.list_documents()] == ["p"]
    assert [one.policy_id for one in store.documents.list_documents()] == ["q"]
    engine_of(store).tidy()
    assert engine_of(store)._old_pagers == [], "the files before the compactions are let go"
    sound(store)


def test_a_snapshot_that_is_too_old_is_closed_and_its_pages_are_freed(url: str) -> None:
    settings = Settings(snapshot_max_age_seconds=0.05, checkpoint_interval_seconds=0.05)
    with treestore.open_sync(url, settings=settings) as store:
        store.documents.store_document("p", "1", nodes("one", 50))
        with young(0.05):
            snapshot = store.snapshot()
            assert snapshot.documents.get_outline("p")
        deadline = time.monotonic() + 10
        while len(engine_of(store).readers) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(engine_of(store).readers) == 0, "nobody has to touch it for that"
        with pytest.raises(Closed, match="maximum age"):
            snapshot.documents.get_outline("p")


async def test_a_backup_while_eight_tasks_write_is_one_committed_moment(url: str, tmp_path: Path) -> None:
    async with treestore.open(url, settings=SETTINGS) as store:
        stop = False
        done = [0] * 8

        async def task(number: int) -> None:
            while not stop:
                turn = done[number] + 1
                await store.documents.store_document(f"p{number}", "1", nodes(f"{number} {turn}", 20))
                done[number] = turn
                await asyncio.sleep(0)

        tasks = [asyncio.ensure_future(task(number)) for number in range(8)]
        moments = []
        for n in range(3):
            await asyncio.sleep(0.05)
            before = done.copy()
            await store.backup(tmp_path / f"copy {n}")
            moments.append((before, done.copy()))
        stop = True
        await asyncio.gather(*tasks)
    for n, (before, after) in enumerate(moments):
        with treestore.open_sync(f"btree:///{tmp_path / f'copy {n}'}") as copy:
            sound(copy)
            for number in range(8):
                found = texts(copy, f"p{number}")
                turn = int((found["00000"] or "").split()[1])
                assert found == given(nodes(f"{number} {turn}", 20)), "whole"
                assert before[number] <= turn <= after[number] + 1
            copy.documents.store_document("later", "1", nodes("later", 3))


# --- a broken disk ---------------------------------------------------------------------------------------------------------


def test_a_poisoned_store_rests(url: str) -> None:
    """The thread that runs checkpoints does not spin when there is nothing that it may do."""
    disk = SimulatedDisk()
    settings = Settings(checkpoint_interval_seconds=0.05)
    backend = BtreeBackend.open("/disk/store", settings, fs=disk)
    store = TreeStore(SyncDriver(backend, utc_now))
    store.documents.store_document("p", "1", nodes("p", 3))
    disk.fault = lambda number, kind, path: SyncFailed("no") if kind == "sync" else None
    with pytest.raises(treestore.TreestoreError):
        store.documents.store_document("q", "1", nodes("q", 3))
    disk.fault = None
    with pytest.raises(Unavailable, match="open it again"):
        store.documents.store_document("q", "1", nodes("q", 3))
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.25
    assert len(store.documents.get_document("p").nodes) == 3
    store.close()
