"""A database of many versions that is adopted and derived while the old service works on it: how long that takes, which locks
are held meanwhile, what the service notices of it, and that a run that is killed is gone on with, doing nothing twice."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import psycopg

from tests.adoption import adopting, trees
from tests.adoption.old_service.service import APPLICATION_NAME, Service

POLICIES = 10
"""Over which the versions are spread."""

BESIDE = "beside"
"""The policy that the service goes on writing meanwhile."""

DERIVED = "SELECT count(*) FROM policy_versions WHERE fingerprint_count IS NOT NULL AND policy_id <> 'beside'"
TOUCHED = """
    SELECT v.policy_id, v.version_id, v.xmin::text, string_agg(DISTINCT n.xmin::text, ' ')
    FROM policy_versions v JOIN policy_nodes n USING (policy_id, version_id)
    WHERE v.fingerprint_count IS NOT NULL AND v.policy_id <> 'beside' GROUP BY v.policy_id, v.version_id, v.xmin::text
"""
LOCKS = """
    SELECT c.relname, l.mode, l.granted, a.pid, a.xact_start FROM pg_locks l
    JOIN pg_stat_activity a ON a.pid = l.pid JOIN pg_class c ON c.oid = l.relation
    WHERE l.locktype = 'relation' AND a.datname = current_database() AND a.application_name = 'treestore'
        AND c.relname IN ('policy_versions', 'policy_nodes', 'reasoning_outputs', 'policy_validation_issues')
"""
WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = %s AND wait_event_type = 'Lock'
"""


def fill(service: Service, versions: int, nodes: int) -> None:
    """Let the service ingest so many versions of so many nodes each, and a few small ones that it goes on with."""
    made = [trees.written(nodes, seed) for seed in range(4)]
    for at in range(versions):
        service.persist(f"policy {at % POLICIES}", f"{at // POLICIES}", made[at % len(made)])
    for at in range(4):
        service.persist(BESIDE, f"{at}", trees.generation(at))


class Latencies(NamedTuple):
    """Of the service's calls, in seconds: the median, that of the slowest hundredth, the slowest, and their number."""

    median: float
    slow: float
    slowest: float
    calls: int

    @classmethod
    def of(cls, taken: list[float]) -> Latencies:
        ordered = sorted(taken)
        return cls(statistics.median(ordered), ordered[len(ordered) * 99 // 100], ordered[-1], len(ordered))


class Beside:
    """What the service does meanwhile, and what it takes: reads of any version, writes of its own policy."""

    def __init__(self, service: Service, versions: int) -> None:
        self.service, self._versions = service, versions
        self.reads: list[float] = []
        self.writes: list[float] = []

    def __call__(self, until: threading.Event) -> None:
        rng, turn = random.Random(1), 0
        while not until.wait(0.002):
            at, turn = rng.randrange(self._versions), turn + 1
            key = f"policy {at % POLICIES}", f"{at // POLICIES}"
            self.reads.append(_taken(partial(self.service.children, *key, "0000")))
            own = BESIDE, f"{turn % 4}"
            write: Callable[[], object]
            if turn % 3:
                write = partial(self.service.set_status, *own, f"n{turn % 24}", "approved")
            else:
                write = partial(self.service.reingest, *own, trees.generation(turn % 50))
            self.writes.append(_taken(write))


def _taken(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


class Locks:
    """Locks on the service's tables that treestore was seen to hold, each with the longest time that one
    transaction was seen with it, in seconds; and how often the service was seen to wait for one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.held: dict[tuple[str, str], float] = {}
        self.waits = self.looks = 0

    def __call__(self, until: threading.Event) -> None:
        since: dict[Any, float] = {}
        with adopting.connect(self._url) as connection:
            while not until.wait(0.003):
                now = time.monotonic()
                with suppress(psycopg.errors.UndefinedTable):
                    seen = set(connection.execute(LOCKS).fetchall())
                    since = {lock: since.get(lock, now) for lock in seen}
                    for lock, first in since.items():
                        name, mode, granted, *_ = lock
                        if granted:
                            self.held[name, mode] = max(self.held.get((name, mode), 0.0), now - first)
                row = connection.execute(WAITING, (APPLICATION_NAME,)).fetchone()
                self.waits += bool(row and row[0])
                self.looks += 1


@contextmanager
def meanwhile(*works: Callable[[threading.Event], None]) -> Iterator[None]:
    """These go on while what is inside is done; none may fail."""
    until = threading.Event()
    with ThreadPoolExecutor(len(works)) as pool:
        running = [pool.submit(work, until) for work in works]
        try:
            yield
        finally:
            until.set()
        for each in running:
            each.result()


class Derived(NamedTuple):
    """``before`` versions were derived when the run was killed, ``after`` by the next one; ``again`` of those before were
    touched by it. ``seconds``: of both runs. ``summary`` is what the second one says."""

    before: int
    after: int
    again: int
    seconds: float
    summary: Any


def derive_with_a_kill(url: str, least: int, *options: str) -> Derived:
    """Kill a run when it has derived so many versions, and run it again."""
    began = time.monotonic()
    command = adopting.command(url, "derive", *options)
    with adopting.connect(url) as connection, subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            row = connection.execute(DERIVED).fetchone()
            if row is not None and row[0] >= least:
                break
            time.sleep(0.01)
        run.kill()
        run.wait()
    adopting.wait_for_others(url)
    at_the_kill = touched(url)
    summary = json.loads(adopting.done(url, "derive", "--json"))
    later = touched(url)
    again = sum(later[key] != at for key, at in at_the_kill.items())
    return Derived(len(at_the_kill), len(later) - len(at_the_kill), again, time.monotonic() - began, summary)


def touched(url: str) -> dict[tuple[str, str], tuple[str, str]]:
    """The derived versions, each with the transactions that wrote its row and its nodes last."""
    with adopting.connect(url) as connection:
        return {(policy, version): (of_row, of_nodes) for policy, version, of_row, of_nodes in connection.execute(TOUCHED)}
