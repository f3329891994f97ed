#!/usr/bin/env python3
"""Adopts a database of many versions while a service of the old kind works on it, and measures what that takes.

    scripts/benchmark_adoption.py --versions 1000 --nodes 300 --reads 10000

Prints how long upgrading and deriving take, which locks on the service's tables were seen meanwhile, what the service noticed
in its own reads and writes, and that a run of deriving that was killed is gone on with, doing nothing twice. Then a version is
ingested without a pause while it is read: every answer must be that of one tree that was there meanwhile. Ends with status 1
if anything is not as it must be. The server is one of its own, which syncs as in service; the times are this machine's.

Run by a Python that treestore is not installed for, it makes the environment that scripts/test uses, or finds it made, and
goes on there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

try:
    import treestore
    from tests.adoption import adopting
    from tests.adoption.generations import Generations, read_beside
    from tests.adoption.many import Beside, Latencies, Locks, derive_with_a_kill, fill, meanwhile
    from tests.adoption.old_service import schema
    from tests.adoption.old_service.service import Service
    from tests.postgres.server import Server
except ModuleNotFoundError:
    from scripts.environment import go_on_inside

    go_on_inside(__file__, "dev")
    raise  # it is there that something is missing

T = TypeVar("T")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--versions", type=int, default=1000, help="so many (1000)")
    parser.add_argument("--nodes", type=int, default=300, help="of each (300)")
    parser.add_argument("--reads", type=int, default=10_000, help="beside ingestions (10000)")
    parser.add_argument("--load", type=int, default=100, help="per cent of the time that deriving works in (100)")
    return parser.parse_args()


def timed(name: str, work: Callable[[], T]) -> T:
    """Do it, and print how long it took."""
    began = time.monotonic()
    found = work()
    print(f"{name}: {time.monotonic() - began:.2f} s", flush=True)
    return found


def print_latencies(when: str, beside: Beside) -> None:
    """What the service's calls took, and begin anew."""
    for kind, taken in (("reads", beside.reads), ("writes", beside.writes)):
        found = Latencies.of(taken)
        median, slow, slowest = (seconds * 1000 for seconds in found[:3])
        figures = f"median {median:.1f}, slowest hundredth {slow:.1f}, slowest {slowest:.0f} ms"
        print(f"  the service's {kind} {when}: {found.calls} calls, {figures}", flush=True)
        taken.clear()


def print_locks(when: str, locks: Locks) -> None:
    """Which were seen, and begin anew."""
    print(f"  locks seen {when} (in {locks.looks} looks; the service was seen waiting in {locks.waits} of them):")
    for (table, mode), seconds in sorted(locks.held.items()):
        print(f"    {mode} on {table}, by one transaction for up to {seconds * 1000:.0f} ms")
    locks.held.clear()
    locks.waits = locks.looks = 0


def adopt(url: str, asked: argparse.Namespace) -> list[str]:
    """Adopt and derive beside the service; what was wrong."""
    wrong: list[str] = []
    with Service(url) as service:
        what = f"the service ingests {asked.versions} versions of {asked.nodes} nodes"
        timed(what, lambda: fill(service, asked.versions, asked.nodes))
        with adopting.connect(url) as connection:
            connection.execute("VACUUM ANALYZE")
        beside, locks = Beside(service, asked.versions), Locks(url)
        with meanwhile(beside, locks):
            time.sleep(min(5.0, asked.versions / 40))
            print_latencies("alone", beside)
            timed("upgrade", lambda: adopting.upgrade(url))
            print_latencies("during upgrade", beside)
            print_locks("during upgrade", locks)
            with treestore.open_sync(url) as store:
                timed("list_documents, underived", store.documents.list_documents)
                timed("one node, underived", lambda: store.documents.get_node("policy 0", "0000"))
                timed("another of it", lambda: store.documents.get_node("policy 0", "0001"))
            found = derive_with_a_kill(url, asked.versions * 3 // 10, "--load", str(asked.load))
            print(f"derive, killed and gone on with: {found.seconds:.2f} s")
            print(f"  {found.before} versions before the kill, {found.after} after it, {found.again} of the first again")
            print_latencies("during derive", beside)
            print_locks("during derive", locks)
        if (found.before + found.after, found.again) != (asked.versions, 0):
            wrong.append(f"{found.before} and {found.after} of {asked.versions} versions were derived, {found.again} twice")
        timed("repair of what the service has changed meanwhile", lambda: adopting.repair(url))
        with treestore.open_sync(url) as store:
            wrong += timed("check", lambda: store.check().problems)
            timed("list_documents, derived", store.documents.list_documents)
            timed("one node, derived", lambda: store.documents.get_node("policy 0", "0000"))
    if adopting.deadlocks(url):
        wrong.append(f"{adopting.deadlocks(url)} deadlocks")
    return wrong


def read(url: str, reads: int, *, repairing: bool) -> list[str]:
    """Read beside ingestions; what was wrong."""
    generations = Generations(url)
    with generations.service:
        adopting.upgrade(url)
        began = time.monotonic()
        judge = read_beside(generations, url, reads, repairing=repairing)
        took = time.monotonic() - began
        how = "repaired meanwhile" if repairing else "underived"
        print(f"{judge.reads.total()} reads {how} beside {len(generations.began)} ingestions in {took:.1f} s:")
        print(f"  {len(judge.wrong)} stale or mixed; answers of {len(judge.seen)} different trees", flush=True)
    return judge.wrong


def main() -> int:
    """Do all; the status to end with."""
    asked = arguments()
    wrong: list[str] = []
    with Server(durable=True, settings={"autovacuum": "on", "shared_buffers": "256MB"}) as server:
        urls = [server.make_database(name) for name in ("many", "underived", "repaired")]
        for url in urls:
            schema.make(url)
        wrong += adopt(urls[0], asked)
        for url, repairing in zip(urls[1:], (False, True), strict=True):
            wrong += read(url, asked.reads // 2, repairing=repairing)
    print(*(wrong[:20] or ["all as it must be"]), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
