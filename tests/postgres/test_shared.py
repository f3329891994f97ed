"""A store under many tasks, threads, event loops and processes at once, some of which leave in the middle or are killed, and a
server that is: every document that was acknowledged is there whole, nothing is half there, no connection is lost.

``POSTGRES_ROUNDS=50 pytest tests/postgres/test_shared.py`` kills, cancels and interferes for longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

import treestore
from tests.clock import SetClock
from tests.contract.samples import node
from tests.contract.test_groups import group, whole
from tests.postgres import databases
from tests.postgres.faults import FACES, Face, eventually, fails, opened, store_one
from tests.postgres.server import Server
from tests.stores import open_backend
from treestore import Closed, Conflict, NotFound, OutcomeUnknown, Unavailable
from treestore.operations import Check, FieldEquals, Get, Put, ReplaceVersion
from treestore.records import Version

ROOT = Path(__file__).resolve().parent.parent.parent
ROUNDS = int(os.environ.get("POSTGRES_ROUNDS", "3"))


def named(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def connections(server: Server, database: str) -> int:
    """How many connections a database has."""
    with server.connect() as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (database,)).fetchone()
        return 0 if row is None else int(row[0])


def tree(text: str, count: int = 30) -> list[dict[str, Any]]:
    """A tree whose every node says the same, so that a mixture shows."""
    return [node("root", text=text), *[node(f"{at}", "root", text=text) for at in range(count)]]


# --- killed --------------------------------------------------------------------------------------------------------------


async def test_a_server_killed_while_tasks_store() -> None:
    """Real SIGKILLs at random moments, durable as in service. What was acknowledged is there; what was not, is there whole or
    not at all; the same store object goes on."""
    chance = random.Random(17)
    acknowledged: dict[tuple[str, int], bytes] = {}
    errors: Counter[str] = Counter()
    with Server(durable=True) as server:
        server.make_database("db")
        async with treestore.open(server.url("db", connect_timeout="2")) as store:

            async def keep_storing(name: str, until: asyncio.Event) -> None:
                turn = max((t for n, t in acknowledged if n == name), default=0)
                while not until.is_set():
                    turn += 1
                    try:
                        stored = await store.documents.store_document(name, f"{turn}", tree(f"{name}/{turn}"))
                        acknowledged[name, turn] = stored.tree_hash
                    except (Unavailable, OutcomeUnknown) as error:
                        errors[type(error).__name__] += 1
                        await asyncio.sleep(0.02)

            for _ in range(ROUNDS):
                done = asyncio.Event()
                tasks = [asyncio.create_task(keep_storing(f"p{at}", done)) for at in range(6)]
                await asyncio.sleep(chance.uniform(0.1, 0.6))
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(0.1)
                await asyncio.to_thread(server.start)
                done.set()
                await asyncio.gather(*tasks)
                assert (await store.check()).problems == []
                for (name, turn), tree_hash in acknowledged.items():
                    assert (await store.versions.get(name, f"{turn}")).tree_hash == tree_hash
                assert (await store.documents.store_document("after", "1", tree("x"))).tree_hash
            for summary in await store.documents.list_documents():
                for version in await store.versions.list(summary.policy_id):
                    held = await store.documents.get_document(summary.policy_id, version_id=version.version_id)
                    assert len({one.text for one in held.nodes}) == 1
                    assert len(held.nodes) == 31
    assert len(acknowledged) > ROUNDS
    assert errors.total() > 0, "the kills were noticed"


# --- cancelled, interrupted, closed --------------------------------------------------------------------------------------


async def test_callers_cancelled_at_random_moments(postgres_server: Server) -> None:
    """Never half a document, and the pool stays what it was."""
    chance = random.Random(5)
    url = databases.new_url(pool_size="4", pool_timeout="5")
    async with treestore.open(url) as store:
        await store.documents.store_document("r", "1", tree("read"))

        async def write(name: str) -> None:
            await store.documents.store_document(name, "1", tree(f"{chance.random()}"))

        async def amend(name: str) -> None:
            await store.documents.update_node("r", "root", text=name)

        async def read(name: str) -> None:
            assert len(await store.documents.get_subtree("r", "root")) == 31

        async def look(name: str) -> None:
            async with store.snapshot() as snapshot:
                await snapshot.documents.get_document("r")

        for turn in range(20 * ROUNDS):
            tasks = [asyncio.create_task(chance.choice([write, amend, read, look])(f"p{at % 5}")) for at in range(8)]
            await asyncio.sleep(chance.uniform(0, 0.03))
            for task in chance.sample(tasks, 5):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(one) for one in results if one is not None} <= {asyncio.CancelledError}, (turn, results)
        async with store.snapshot(), store.snapshot(), store.snapshot(), store.snapshot():
            pass  # all four connections can be had
        for at in range(5):
            try:
                held = await store.documents.get_document(f"p{at}")
            except NotFound:
                continue
            assert len({one.text for one in held.nodes}) == 1
        assert (await store.check()).problems == []
        assert connections(postgres_server, named(url)) <= 4
    await asyncio.to_thread(eventually, lambda: connections(postgres_server, named(url)) == 0)


async def test_closing_while_tasks_work(postgres_server: Server) -> None:
    url = databases.new_url(pool_size="3")
    store = await treestore.open(url)
    await store.documents.store_document("r", "1", tree("read"))
    stored: set[int] = set()
    ended: list[str] = []

    async def work(at: int) -> None:
        try:
            while True:
                await store.documents.store_document(f"p{at}", "1", tree(f"{time.monotonic()}"))
                stored.add(at)
                await store.documents.get_document("r")
                async with store.snapshot() as snapshot:
                    await snapshot.documents.get_document("r")
        except Closed:
            ended.append("closed")

    tasks = [asyncio.create_task(work(at)) for at in range(8)]
    await asyncio.to_thread(eventually, lambda: len(stored) == 8, 60)
    async with asyncio.timeout(10):
        await store.close()
        await asyncio.gather(*tasks)
    assert len(ended) == 8
    await store.close()
    with pytest.raises(Closed):
        await store.documents.get_document("r")
    with treestore.open_sync(url) as again:
        assert again.check().problems == []
        assert {len({one.text for one in again.documents.get_document(f"p{at}").nodes}) for at in stored} == {1}
    await asyncio.to_thread(eventually, lambda: connections(postgres_server, named(url)) == 0)


def test_closing_while_threads_work(postgres_server: Server) -> None:
    url = databases.new_url(pool_size="3")
    store = treestore.open_sync(url)
    store_one(store, "r")

    def work(at: int) -> str:
        try:
            while True:
                store_one(store, f"p{at}", text=f"{time.monotonic()}")
                store.documents.get_document("r")
        except Closed:
            return "closed"

    with ThreadPoolExecutor(6) as pool:
        working = [pool.submit(work, at) for at in range(6)]
        time.sleep(0.2)
        store.close()
        assert [one.result(10) for one in working] == ["closed"] * 6
    with treestore.open_sync(url) as again:
        assert again.check().problems == []
    eventually(lambda: connections(postgres_server, named(url)) == 0)


def test_a_verb_that_is_interrupted(postgres_server: Server) -> None:
    """Ctrl-C while a statement waits: the call ends, what it began is not applied, and its connection is free again."""
    url = databases.new_url(pool_size="1", pool_timeout="3")
    with treestore.open_sync(url) as store:
        store_one(store)
        for call in (lambda: store.documents.get_node("p", "a"), lambda: store_one(store, "q")):
            with postgres_server.connect(named(url)) as locking, locking.transaction():
                locking.execute("LOCK TABLE policy_nodes IN ACCESS EXCLUSIVE MODE")
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
                began = time.monotonic()
                with pytest.raises(KeyboardInterrupt):
                    call()
                assert time.monotonic() - began < 10
            assert store.documents.get_node("p", "a").text == "text of a"
            with pytest.raises(NotFound):
                store.documents.get_outline("q")
        store_one(store, "q")
        assert store.check().problems == []


async def test_a_store_left_by_an_exception(postgres_server: Server) -> None:
    url = databases.new_url()
    left: list[Any] = []

    async def leave() -> None:
        async with treestore.open(url) as store, store.snapshot() as snapshot:
            left.extend([store, snapshot])
            await snapshot.stats()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await leave()
    for one in left:
        with pytest.raises(Closed):
            await one.documents.list_documents()
    await asyncio.to_thread(eventually, lambda: connections(postgres_server, named(url)) == 0)


@pytest.mark.parametrize("face", FACES)
def test_after_the_end(face: Face) -> None:
    store = opened(databases.new_url(), face)
    snapshot = store.snapshot()
    store_one(store)
    store.close()
    store.close()
    for call in (
        lambda: store.documents.get_node("p", "a"),
        lambda: store_one(store),
        lambda: store.check(),
        lambda: store.snapshot(),
        lambda: snapshot.documents.list_documents(),
    ):
        with fails(Closed, "closed", chained=False):
            call()
    snapshot.close()
    store.__exit__(None, None, None)


# --- threads, loops, processes -------------------------------------------------------------------------------------------


def test_one_store_under_several_event_loops_and_threads() -> None:
    url = databases.new_url()
    store: Any = asyncio.run(_opened(url))

    async def use(name: str) -> int:
        await asyncio.gather(*[store.documents.store_document(name, f"{at}", tree(f"{at}")) for at in range(5)])
        async with store.snapshot() as snapshot:
            return len(await snapshot.versions.list(name))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda at: asyncio.run(use(f"p{at}")), range(8))) == [5] * 8

    async def end() -> Any:
        report = await store.check()
        await store.close()
        return report

    assert asyncio.run(end()).problems == []


async def _opened(url: str) -> Any:
    store = await treestore.open(url)
    await store.stats()  # a connection of a loop that ends
    return store


async def test_the_synchronous_face_inside_a_running_loop() -> None:
    with treestore.open_sync(databases.new_url()) as store:
        store_one(store)
        assert store.documents.get_node("p", "a").node_id == "a"
        with store.snapshot() as snapshot:
            assert snapshot.documents.get_node("p", "a").node_id == "a"


def test_a_child_after_a_fork_does_not_use_its_parents_connections() -> None:
    url = databases.new_url()
    with treestore.open_sync(url) as store:
        store_one(store)
        snapshot = store.snapshot()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                refused = 0
                for one in (store, snapshot):
                    try:
                        one.documents.get_node("p", "a")
                    except Closed as error:
                        refused += "fork" in str(error)
                snapshot.close()
                store.close()
                with treestore.open_sync(url) as own:
                    status = 0 if refused == 2 and own.documents.get_node("p", "a").node_id == "a" else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert snapshot.documents.get_node("p", "a").node_id == "a"
        store_one(store, "q")
        assert store.check().problems == []


def test_groups_over_several_policies_in_opposite_order(clock: SetClock, postgres_server: Server) -> None:
    """No deadlock: each waits for the policies in the same order, whatever the order of its writes."""
    url = databases.new_url()
    names = [f"p{at}" for at in range(6)]
    backends = [open_backend(url, clock) for _ in range(3)]

    def work(at: int) -> int:
        chance = random.Random(at)
        for turn in range(15):
            some = chance.sample(names, 4)
            assert not backends[at % 3].write_now(group(*[whole(name, f"{at}") for name in some])).repeated, turn
        return at

    with ThreadPoolExecutor(9) as pool:
        assert sorted(pool.map(work, range(9))) == list(range(9))
    assert backends[0].read_one_now(Check()).problems == []
    for backend in backends:
        backend.close_now()
    eventually(lambda: connections(postgres_server, named(url)) == 0)  # each tells its counts when it goes
    with postgres_server.connect() as asking:
        counted = "SELECT deadlocks, xact_commit FROM pg_stat_database WHERE datname = %s"
        told = asking.execute(counted, [named(url)]).fetchone()
    assert told is not None and told[0] == 0 and told[1] > 135


def test_expectations_between_two_stores_hold(clock: SetClock) -> None:
    """Of all who read a revision and write the next one, exactly one succeeds each time."""
    url = databases.new_url()
    backends = [open_backend(url, clock) for _ in range(2)]
    backends[0].write_now(group(whole("p", "1")))
    wins: Counter[int] = Counter()

    def work(at: int) -> None:
        backend = backends[at % 2]
        for _ in range(20):
            row = backend.read_one_now(Get(Version, ("p", "1")))
            assert row is not None
            after = msgspec.structs.replace(row, revision=row.revision + 1)
            write = Put(after) if at % 3 else ReplaceVersion(after, whole("p", "1").nodes)
            try:
                backend.write_now(group(write, expects=[FieldEquals(Version, ("p", "1"), "revision", row.revision)]))
                wins[at] += 1
            except Conflict:
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    row = backends[0].read_one_now(Get(Version, ("p", "1")))
    assert row is not None
    assert row.revision == 1 + wins.total()
    assert backends[0].read_one_now(Check()).problems == []
    for backend in backends:
        backend.close_now()


CHILD = """
import asyncio, random, sys
import treestore
from treestore import Conflict, NotFound

async def main(url, name, turns):
    done = {"revision": 0}
    chance = random.Random(name)
    async with treestore.open(url) as store:
        async def work(at):
            for turn in range(turns):
                policy = f"p{chance.randrange(3)}"
                what = chance.randrange(10)
                said = f"{name} {at} {turn}"
                nodes = [{"node_id": "root", "title": "t", "text": said}]
                nodes += [{"node_id": f"{n}", "parent_id": "root", "title": name, "text": said} for n in range(5)]
                try:
                    if what < 5:
                        stored = await store.documents.store_document(policy, "1", nodes)
                        done["revision"] += stored.outcome != "unchanged"
                    elif what < 9:
                        await store.documents.update_node(policy, "root", version_id="1", metadata={"by": said})
                        done["revision"] += 1
                    else:
                        await store.documents.delete_version(policy, "1")
                        done["revision"] += 1
                except NotFound:
                    pass
        await asyncio.gather(*[work(at) for at in range(6)])
    print(done["revision"])

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def test_processes_that_change_the_same_policies() -> None:
    """The counters of changes add up to the changes that were acknowledged, so none was lost and none made twice."""
    url = databases.new_url()
    command = [sys.executable, "-c", CHILD, url]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    children = [
        subprocess.Popen([*command, name, str(5 * ROUNDS)], stdout=subprocess.PIPE, text=True, env=environ) for name in "ab"
    ]
    counted = [int(child.communicate(timeout=120)[0]) for child in children]
    assert [child.returncode for child in children] == [0, 0]
    with treestore.open_sync(url) as store:
        assert store.check().problems == []
        versions = [version for at in range(3) for version in _versions(store, f"p{at}")]
        assert sum(version.revision for version in versions) == sum(counted)
        for version in versions:
            if version.deleted_at is None:
                held = store.documents.get_document(version.policy_id, version_id="1")
                assert len({one.text for one in held.nodes}) == 1


def _versions(store: Any, policy_id: str) -> list[Version]:
    try:
        found: list[Version] = store.versions.list(policy_id, include_deleted=True)
    except NotFound:
        return []
    return found
