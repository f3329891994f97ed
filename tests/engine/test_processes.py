"""Forks of a process with an open store, and many threads on one: children are refused and never hang, threads take turns."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treestore
from tests.engine.ondisk import forked, run_python
from treestore import Closed, Locked, Settings
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.recovery import recover

SETTINGS = Settings(cache_size_mb=2, wal_file_size_mb=1, checkpoint_interval_seconds=0.2)

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of a fork amid threads, which is meant


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "store")


# --- forks ---------------------------------------------------------------------------------------------------------------


def nodes(name: str, count: int = 3) -> list[dict[str, Any]]:
    return [{"node_id": str(n), "title": f"{name} {n}", "text": f"{name} {n} " * 20} for n in range(count)]


def refusals(store: Any, snapshot: Any) -> int:
    """0 if every use of a store that was opened before the fork is refused as it should be."""
    uses: list[Callable[[], object]] = [
        lambda: store.documents.store_document("child", "1", nodes("child")),
        lambda: store.documents.store_document("child", "2", nodes("child" * 200, 300)),
        lambda: store.documents.get_document("p"),
        lambda: store.documents.update_node("p", "1", title="child"),
        lambda: snapshot.documents.get_document("p"),
        store.snapshot,
        store.check,
        store.compact,
        store.stats,
    ]
    for number, use in enumerate(uses, 1):
        try:
            use()
        except Closed as error:
            if "before a fork" not in str(error):
                return 100 + number
            continue
        return number
    snapshot.close()
    store.close()
    return 0


def test_children_forked_amid_the_work_of_threads_are_refused_and_never_hang(folder: str) -> None:
    """Whatever locks of the store a thread of the parent holds at the fork: in the child nobody ever lets go of them."""
    store = treestore.open_sync(f"btree:///{folder}", settings=SETTINGS)
    store.documents.store_document("p", "1", nodes("p"))
    stop = threading.Event()
    written = [0] * 3

    def work(number: int) -> None:
        while not stop.is_set():
            store.documents.store_document(f"thread {number}", "1", nodes(f"{written[number] + 1}", 30))
            written[number] += 1
            store.stats()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        with store.snapshot() as snapshot:
            statuses = [forked(lambda: refusals(store, snapshot)) for _ in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statuses == [0] * 20
    with pytest.raises(Locked):
        Engine.open(folder)
    store.close()
    with treestore.open_sync(f"btree:///{folder}") as again:
        assert again.check().problems == []
        assert again.documents.get_document("p").nodes[0].title == "p 0"
        for number in range(3):
            assert again.documents.get_document(f"thread {number}").nodes[0].title == f"{written[number]} 0"


@pytest.mark.parametrize("held", ["_closing", "_checkpointer._wake._cond", "_committer._queueing", "_engine._freelist._lock"])
def test_a_child_waits_for_no_lock_that_a_thread_held_at_the_fork(folder: str, held: str) -> None:
    store = treestore.open_sync(f"btree:///{folder}")
    store.documents.store_document("p", "1", nodes("p"))
    snapshot = store.snapshot()
    lock: Any = store._driver.backend
    for name in held.split("."):
        lock = getattr(lock, name)
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    status = forked(lambda: refusals(store, snapshot))
    done.set()
    thread.join()
    assert status == 0
    snapshot.close()
    store.close()


def test_a_child_keeps_no_lock_of_a_store_that_was_just_being_opened(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, ended = os.pipe(), os.pipe()
    children: list[int] = []

    def forking(*arguments: Any) -> Any:
        child = os.fork()
        if child == 0:
            os.close(ended[1])
            os.write(ready[1], b"x")
            os.read(ended[0], 1)
            os._exit(0)
        children.append(child)
        return recover(*arguments)

    monkeypatch.setattr("treestore.backends.btree.engine.engine.recover", forking)
    Engine.open(folder).close()
    monkeypatch.undo()
    os.read(ready[0], 1)
    try:
        Engine.open(folder).close()  # the child lives still
    finally:
        os.close(ended[1])
        for child in children:
            os.waitpid(child, 0)
        for descriptor in (*ready, ended[0]):
            os.close(descriptor)


_CHILD = """
    import gc, os, sys, warnings
    import treestore
    from tests.engine.ondisk import forked
    warnings.simplefilter("ignore", DeprecationWarning)

    def another():
        try:
            treestore.open_sync(url)
        except treestore.Locked as error:
            return 0 if f"in use by pid {os.getppid()}" in str(error) else 2
        return 1

    url, end = "btree:///" + sys.argv[1], sys.argv[2]
    store = treestore.open_sync(url)
    store.documents.store_document("p", "1", [{"node_id": "1", "title": "before"}])
    child = os.fork()
    if child == 0:
        if end == "at once":
            os._exit(0)
        if end == "closing":
            store.close()
        if end == "letting go":
            del store
            gc.collect()
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert forked(another) == 0
    store.documents.store_document("p", "1", [{"node_id": "1", "title": "after"}])
    store.close()
    with treestore.open_sync(url) as again:
        assert again.documents.get_node("p", "1").title == "after"
        assert again.check().ok
"""


@pytest.mark.parametrize("end", ["at once", "orderly", "closing", "letting go"])
def test_however_a_child_ends_the_parent_keeps_the_lock_and_goes_on(folder: str, end: str) -> None:
    run_python(_CHILD, folder, end)


# --- many threads --------------------------------------------------------------------------------------------------------


def test_sixty_four_threads_on_one_store_until_it_is_closed(folder: str) -> None:
    """They write, amend, delete, read, search and take snapshots; the store is compacted, checked and closed meanwhile."""
    store = treestore.open_sync(f"btree:///{folder}", settings=SETTINGS)
    acknowledged: dict[str, str | None] = {}
    raised: list[BaseException] = []
    answers = [0] * 64

    def write(number: int, choose: random.Random) -> None:
        policy = f"p{number}"
        kept = f"{answers[number]}"
        if acknowledged.get(policy) and choose.random() < 0.1:
            store.documents.delete_document(policy)
            acknowledged[policy] = None
            return
        size = 300 if number == 0 and choose.random() < 0.2 else choose.choice((1, 3, 20))
        text = kept * 1500 if size == 300 else kept
        tree = [{"node_id": str(n), "title": kept, "text": text} for n in range(size)]
        store.documents.store_document(policy, "1", tree)
        acknowledged[policy] = kept
        if choose.random() < 0.3:
            acknowledged.pop(policy)
            store.documents.update_node(policy, "0", title=kept + " amended")
            acknowledged[policy] = kept + " amended"

    def read(choose: random.Random) -> None:
        policy = f"p{choose.randrange(32)}"
        with store.snapshot() as snapshot:
            try:
                first = snapshot.documents.get_document(policy)
                assert len({node.text for node in first.nodes}) == 1, "whole"
                assert snapshot.documents.get_document(policy) == first
            except treestore.NotFound:
                pass
        store.documents.search_documents(f"{choose.randrange(9)}", 3)

    def work(number: int) -> None:
        choose = random.Random(number)
        try:
            while True:
                if number < 32:
                    write(number, choose)
                else:
                    read(choose)
                answers[number] += 1
                time.sleep(choose.random() * 0.05)
        except Closed:
            pass
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.3)
        assert store.check().problems == []
        store.compact()
    closers = [threading.Thread(target=store.close) for _ in range(3)]
    for thread in closers:
        thread.start()
    for thread in closers + threads:
        thread.join(60)
        assert not thread.is_alive()
    assert raised == []
    assert all(answers), "every thread came to its turn"
    with treestore.open_sync(f"btree:///{folder}") as again:
        assert again.check().problems == []
        for policy, title in acknowledged.items():
            try:
                found: str | None = again.documents.get_document(policy).nodes[0].title
            except treestore.NotFound:
                found = None
            assert found == title, policy
