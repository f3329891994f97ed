"""SIGKILL at random moments of a process that stores documents from threads and tasks loses nothing acknowledged."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import treestore
from treestore import NotFound

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 20

_STORE = """
    import asyncio, os, random, sys, threading
    import treestore
    from tests.engine.test_kill import document

    url, first = sys.argv[1], int(sys.argv[2])
    settings = treestore.Settings(cache_size_mb=2, wal_file_size_mb=1, checkpoint_interval_seconds=0.2)

    def told(what, policy, size):
        os.write(1, f"{what} {policy} {size}\\n".encode())

    async def main():
        async with treestore.open(url, settings=settings) as store:
            sync = treestore.TreeStore(treestore.SyncDriver(store._driver.backend, store._driver.clock))

            def thread(number):
                turn = first
                while True:
                    turn += 1
                    policy, size = f"thread {number} {turn}", random.choice((1, 3, 40))
                    sync.documents.store_document(policy, "1", document(policy, size))
                    told("stored", policy, size)
                    if turn % 3 == 0:
                        told("deleting", policy, size)
                        sync.documents.delete_version(policy, "1")
                        told("deleted", policy, size)

            async def task(number):
                turn = first
                while True:
                    turn += 1
                    policy = f"task {number} {turn}"
                    size = 600 if number == 0 else random.choice((1, 5, 60))
                    await store.documents.store_document(policy, "1", document(policy, size))
                    told("stored", policy, size)

            for number in range(2):
                threading.Thread(target=thread, args=(number,), daemon=True).start()
            told("began", "x", 0)
            await asyncio.gather(*(task(number) for number in range(4)))

    asyncio.run(main())
"""


def document(policy: str, size: int) -> list[dict[str, object]]:
    """The nodes that a policy of this size has; one of 600 is large enough to be loaded in bulk."""
    text = f"text of {policy} " * (500 if size == 600 else 10)
    parents = [None, *(str((n - 1) // 4) for n in range(1, size))]
    return [{"node_id": str(n), "parent_id": parents[n], "title": policy, "text": text} for n in range(size)]


def killed_after(url: str, seconds: float, first: int) -> list[str]:
    """What the process said before it was killed."""
    command = [sys.executable, "-c", textwrap.dedent(_STORE), url, str(first)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        began = process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        said, complaints = process.communicate()
    assert began == b"began x 0\n" or process.returncode == -signal.SIGKILL, complaints
    assert process.returncode == -signal.SIGKILL, complaints.decode()
    return (began + said).decode().splitlines(keepends=True)


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    choose = random.Random(seed)
    url = f"btree:///{tmp_path / 'store'}"
    expected: dict[str, int] = {}
    unsure: set[str] = set()
    for turn in range(ROUNDS):
        for line in killed_after(url, choose.uniform(0.0, 0.25), turn * 10_000):
            what, _, rest = line.rstrip("\n").partition(" ")
            policy, _, length = rest.rpartition(" ")
            if not line.endswith("\n") or what == "began":
                continue
            if what == "stored":
                expected[policy] = int(length)
            else:
                unsure.add(policy)
                if what == "deleted":
                    expected.pop(policy, None)
        with treestore.open_sync(url) as store:
            problems = store.check().problems if turn % 4 == 3 else []
            assert problems == [], f"seed {seed}, round {turn}"
            for policy, size in expected.items():
                try:
                    found = store.documents.get_document(policy).nodes
                except NotFound:
                    assert policy in unsure, f"seed {seed}, round {turn}: {policy} was acknowledged and is gone"
                    continue
                texts = {node["node_id"]: node["text"] for node in document(policy, size)}
                assert {node.node_id: node.text for node in found} == texts, f"seed {seed}, round {turn}"
            expected = {policy: size for policy, size in expected.items() if choose.random() < 0.3}
    assert turn == ROUNDS - 1
