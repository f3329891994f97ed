"""Long answers under asyncio: they let other tasks run, and are what they would have been without."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import treestore
from tests.engine.test_backend import Async, backend_of, engine_of, given, large, nodes
from treestore import Closed, Settings, SyncDriver, TreeStore
from treestore.backends.btree import nodes as reading
from treestore.backends.btree import policies, reads, steps
from treestore.store import utc_now

SETTINGS = Settings(cache_size_mb=16, wal_file_size_mb=2, checkpoint_interval_seconds=3600)
COUNT = 2000
MOST = 128
"""Nodes, page texts or documents that are made between two turns of the loop, at most."""


class Work:
    """What was made since the loop last came to others: ``longest`` is the most, ``turns`` how often it came."""

    def __init__(self) -> None:
        self.all = self.longest = self.turns = self._since = 0

    def counting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """The function, what it makes counted."""

        @functools.wraps(make)
        def counted(*args: Any, **kwargs: Any) -> Any:
            made = make(*args, **kwargs)
            count = len(made) if isinstance(made, list) else 1
            self.all += count
            self._since += count
            self.longest = max(self.longest, self._since)
            return made

        return counted

    async def beside(self, answer: Awaitable[Any]) -> Any:
        """The answer, while another task has its turns."""
        self.all = self.longest = self.turns = self._since = 0
        task = asyncio.ensure_future(answer)
        while not task.done():
            await asyncio.sleep(0)
            self.turns += 1
            self._since = 0
        return await task


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """All reading, in a loop that is let go on after each step, however short."""
    monkeypatch.setattr(steps, "_STEP_SECONDS", -1.0)
    work = Work()
    for module, name in (
        *((reading, name) for name in ("decode_node", "decode_nodes", "decode_outline", "decode_outlines")),
        (reads, "page_of"),
        (policies, "Policy"),
    ):
        monkeypatch.setattr(module, name, work.counting(getattr(module, name)))
    return work


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A store with a tree that branches, a wide one, page texts, and many small documents."""
    url = f"btree:///{tmp_path / 'store'}"
    with treestore.open_sync(url, settings=SETTINGS) as store:
        tree = [{**node, "page_start": n, "page_end": n + 3} for n, node in enumerate(nodes("deep", COUNT), 1)]
        pages = [{"page": n, "content": f"page {n}"} for n in range(1, 301)]
        store.documents.store_document("deep", "1", tree, pages=pages)
        wide = [{**node, "parent_id": "00000" if n else None} for n, node in enumerate(nodes("wide", COUNT))]
        store.documents.store_document("wide", "1", wide)
        for n in range(200):
            store.documents.store_document(f"small {n}", "1", nodes("small", 1))
    return url


@pytest.fixture
async def store(folder: str) -> AsyncIterator[Async]:
    async with treestore.open(folder, settings=SETTINGS) as store:
        yield store


READS: dict[str, Callable[[Any], Any]] = {
    "a whole tree": lambda documents: documents.get_subtree("deep"),
    "its outlines": lambda documents: documents.get_outline("deep"),
    "a tree to a depth": lambda documents: documents.get_subtree("deep", None, 4),
    "children": lambda documents: documents.get_children("wide", "00000"),
    "nodes of pages": lambda documents: documents.get_nodes_by_pages("deep", 1, 1500),
    "page texts": lambda documents: documents.get_page_texts("deep"),
    "a document": lambda documents: documents.get_document("deep"),
    "documents": lambda documents: documents.list_documents(),
    "a search in all": lambda documents: documents.search_documents("deep"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
async def test_a_long_answer_lets_others_have_their_turns(
    folder: str, read: Callable[[Any], Any], work: Work
) -> None:
    with treestore.open_sync(folder, settings=SETTINGS) as store:
        expected = read(store.documents)
    async with treestore.open(folder, settings=SETTINGS) as other:
        for _ in range(3):  # read, kept, and read from what is kept
            assert await work.beside(read(other.documents)) == expected
            assert work.longest <= MOST
            assert work.turns >= work.all // MOST
        async with other.snapshot() as snapshot:
            assert await work.beside(read(snapshot.documents)) == expected


async def test_an_answer_is_of_one_moment_whatever_happens_meanwhile(store: Async, work: Work) -> None:
    before = await store.documents.get_subtree("deep")
    others = TreeStore(SyncDriver(backend_of(store), utc_now))  # does all at once, with no turn for those who read
    async with store.snapshot() as snapshot:
        answers = [asyncio.ensure_future(one.documents.get_subtree("deep")) for one in (store, snapshot)]
        await asyncio.sleep(0)
        others.documents.update_node("deep", "01999", text="amended")
        others.documents.store_document("new", "1", large("new"))
        others.documents.delete_document("deep")
        others.compact()
        for n in range(30):
            others.documents.store_document(f"more {n}", "1", nodes("more", 50))
        assert not any(answer.done() for answer in answers)
        assert [await answer for answer in answers] == [before] * 2
    assert len(engine_of(store).readers) == 0
    engine_of(store).tidy()
    assert engine_of(store)._old_pagers == [], "the file before the compaction is let go"
    assert {node.node_id: node.text for node in await store.documents.get_subtree("new")} == given(large("new"))
    assert (await store.check()).problems == []


async def test_an_amendment_in_the_midst_of_an_answer_that_is_kept_is_not_undone_by_it(store: Async, work: Work) -> None:
    await store.documents.get_subtree("deep")
    read = asyncio.ensure_future(store.documents.get_subtree("deep"))  # the second time: it is kept
    for n in range(0, COUNT, 50):
        await asyncio.sleep(0)
        await store.documents.update_node("deep", f"{n:05}", text=f"amended {n}")
    assert all("amended" not in str(node.text) for node in await read)
    for _ in range(3):
        found = await store.documents.get_subtree("deep")
        amended = [node.node_id for node in found if str(node.text).startswith("amended")]
        assert sorted(amended) == [f"{n:05}" for n in range(0, COUNT, 50)]


async def test_a_closing_waits_for_an_answer_that_is_under_way(folder: str, work: Work) -> None:
    async with treestore.open(folder, settings=SETTINGS) as store:
        expected = await store.documents.get_outline("deep")
        snapshot = await store.snapshot()
        answers = [asyncio.ensure_future(one.documents.get_outline("deep")) for one in (store, snapshot)]
        await asyncio.sleep(0)
        await store.close()
        assert all(answer.done() for answer in answers)
        assert [await answer for answer in answers] == [expected] * 2
        with pytest.raises(Closed):
            await store.documents.get_outline("deep")


async def test_a_reader_that_is_cancelled_lets_its_moment_go(store: Async, work: Work) -> None:
    read = asyncio.ensure_future(store.documents.get_subtree("deep"))
    await asyncio.sleep(0)
    assert len(engine_of(store).readers) == 1
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    assert len(engine_of(store).readers) == 0
    assert len(await store.documents.get_subtree("deep")) == COUNT
