"""Many threads and many tasks on one store at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import pytest

import treestore
from tests.clock import SetClock
from tests.contract.samples import bushy, manual, node
from treestore import NotFound

TASKS, TURNS = 16, 6


def test_threads_storing_one_version_leave_one_of_them_whole(url: str, clock: SetClock) -> None:
    def trees(name: str) -> list[dict[str, object]]:
        return [node("root", text=name), *[node(f"{at}", "root", text=name) for at in range(20)]]

    with treestore.open_sync(url, clock=clock) as store, ThreadPoolExecutor(TASKS) as pool:

        def write(name: int) -> list[str]:
            return [
                store.documents.store_document(
                    "p", "1", trees(f"{name}/{turn}"), pages=[{"page": 1, "content": f"{name}/{turn}"}]
                ).outcome
                for turn in range(TURNS)
            ]

        outcomes = [outcome for answers in pool.map(write, range(TASKS)) for outcome in answers]
        assert outcomes.count("created") == 1
        assert outcomes.count("replaced") == TASKS * TURNS - 1
        document = store.documents.get_document("p")
        texts = {one.text for one in document.nodes} | {document.pages[0].content}
        assert len(texts) == 1 and len(document.nodes) == 21
        assert document.version.revision == TASKS * TURNS
        assert len(document.version.facts) == TASKS * TURNS
        assert store.check().problems == []


async def test_tasks_storing_one_version_leave_one_of_them_whole(url: str, clock: SetClock) -> None:
    async with treestore.open(url, clock=clock) as store:

        async def write(name: int) -> list[str]:
            answers: list[str] = []
            for turn in range(TURNS):
                tree = [node("root", text=f"{name}/{turn}"), node("leaf", "root", text=f"{name}/{turn}")]
                answers.append((await store.documents.store_document("p", "1", tree)).outcome)
            return answers

        outcomes = [outcome for answers in await asyncio.gather(*map(write, range(TASKS))) for outcome in answers]
        assert (outcomes.count("created"), outcomes.count("replaced")) == (1, TASKS * TURNS - 1)
        document = await store.documents.get_document("p")
        assert len({one.text for one in document.nodes}) == 1
        assert document.version.revision == TASKS * TURNS
        assert (await store.check()).problems == []


async def test_no_amendment_is_lost(url: str, clock: SetClock) -> None:
    """Each task amends a node of its own; all of them change the same root's hashes and the same version's row."""
    async with treestore.open(url, clock=clock) as store:
        await store.documents.store_document("p", "1", [node("root"), *[node(f"{at}", "root") for at in range(TASKS)]])

        async def amend(at: int) -> None:
            for turn in range(TURNS):
                await store.documents.update_node("p", str(at), text=f"{turn}", metadata={"turn": turn})

        await asyncio.gather(*map(amend, range(TASKS)))
        document = await store.documents.get_document("p")
        assert [one.text for one in document.nodes[1:]] == [str(TURNS - 1)] * TASKS
        assert document.version.revision == 1 + TASKS * TURNS
        assert (await store.check()).problems == []


def test_no_effective_date_is_lost_between_threads(url: str, clock: SetClock) -> None:
    with treestore.open_sync(url, clock=clock) as store, ThreadPoolExecutor(TASKS) as pool:
        store.documents.store_document("p", "1", manual())
        dates = [datetime(2026, 1, 1 + at, tzinfo=UTC) for at in range(TASKS)]
        list(pool.map(lambda date: store.versions.set_effective_date("p", "1", date), dates))
        facts = store.versions.get("p", "1").facts
        assert {fact.effective_date for fact in facts[1:]} == set(dates)
        assert len(facts) == 1 + TASKS


async def test_tasks_storing_versions_of_their_own_beside_readers(url: str, clock: SetClock) -> None:
    async with treestore.open(url, clock=clock) as store:
        done = asyncio.Event()
        seen: list[int] = []

        async def read() -> None:
            while not done.is_set():
                try:
                    document = await store.documents.get_document("p", version_id="0")
                    assert len(document.nodes) == document.version.node_count
                    seen.append(document.version.node_count)
                except NotFound:
                    pass
                await asyncio.sleep(0)

        async def write(at: int) -> None:
            for count in (5, 300, 40):
                await store.documents.store_document("p", str(at), bushy(count + at))

        readers = [asyncio.create_task(read()) for _ in range(4)]
        await asyncio.gather(*map(write, range(TASKS)))
        done.set()
        await asyncio.gather(*readers)
        assert set(seen) <= {5, 300, 40} and seen
        assert [version.node_count for version in await store.versions.list("p")] == [
            40 + int(v.version_id) for v in await store.versions.list("p")
        ]
        assert (await store.check()).problems == []


async def test_deleting_while_others_store_ends_in_one_of_the_two(url: str, clock: SetClock) -> None:
    async with treestore.open(url, clock=clock) as store:
        await store.documents.store_document("p", "0", manual())

        async def write(at: int) -> None:
            await store.documents.store_document("p", str(at % 4), [node("a", text=str(at))])

        async def delete() -> None:
            with suppress(NotFound):
                await store.documents.delete_document("p")

        await asyncio.gather(*[one for at in range(TASKS) for one in (write(at), delete())])
        for version in await store.versions.list("p", include_deleted=True):
            kinds = [fact.kind for fact in version.facts]
            assert (version.deleted_at is not None) == (kinds[-1] == "deleted")
            assert len(kinds) == version.revision
        assert (await store.check()).problems == []


async def test_an_event_loop_goes_on_while_a_large_document_is_stored(url: str, clock: SetClock) -> None:
    async with treestore.open(url, clock=clock) as store:
        storing = asyncio.create_task(store.documents.store_document("p", "1", list(bushy(20_000))))
        turns = 0
        while not storing.done():
            await asyncio.sleep(0)
            turns += 1
        assert (await storing).node_count == 20_000
        assert turns > 100, "checking and hashing let others run about every millisecond"


async def test_a_cancelled_caller_leaves_a_whole_document_or_none(url: str, clock: SetClock) -> None:
    async with treestore.open(url, clock=clock) as store:
        for turns in (0, 1, 5, 20, 60, 200):
            storing = asyncio.create_task(store.documents.store_document("p", str(turns), list(bushy(6000))))
            for _ in range(turns):
                await asyncio.sleep(0)
            storing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await storing
        await store.documents.store_document("p", "whole", bushy(6000))
        for version in await store.versions.list("p"):
            assert len((await store.documents.get_document("p", version_id=version.version_id)).nodes) == 6000
        assert (await store.check()).problems == []


async def test_cancelled_callers_do_not_hold_up_the_others(url: str, clock: SetClock) -> None:
    async with treestore.open(url, clock=clock) as store:
        tasks = [asyncio.create_task(store.documents.store_document("p", "1", [node("a", text=str(at))])) for at in range(50)]
        await asyncio.sleep(0)
        for task in tasks[:49:2]:
            task.cancel()
        answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        assert sum(isinstance(answer, treestore.StoreResult) for answer in answers) >= 25
        result = await asyncio.wait_for(store.documents.store_document("p", "1", [node("a", text="last")]), 30)
        assert result.outcome == "replaced"
        assert (await store.documents.get_node("p", "a")).text == "last"


async def test_the_two_faces_of_one_store_do_not_lose_each_others_changes(url: str, clock: SetClock) -> None:
    async with treestore.open(url, clock=clock) as store:
        await store.documents.store_document("p", "1", [node("a"), node("b")])
        other = treestore.TreeStore(treestore.SyncDriver(store._driver.backend, clock))  # type: ignore[arg-type]

        def amend() -> None:
            for turn in range(20):
                other.documents.update_node("p", "b", text=str(turn))

        threaded = asyncio.create_task(asyncio.to_thread(amend))
        for turn in range(20):
            await store.documents.update_node("p", "a", text=str(turn))
        await threaded
        document = await store.documents.get_document("p")
        assert ([one.text for one in document.nodes], document.version.revision) == (["19", "19"], 41)
