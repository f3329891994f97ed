"""Writers of both kinds on the same versions: what each did and when, and whether what is left is what the last one wrote.

Whole trees are generations (:func:`tests.adoption.trees.generation`); a deletion is generation -1, which has no nodes. Of each
write the moments are noted between which it was committed. What is left of a version must be of a write that no other one has
followed for certain.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

from tests.adoption import adopting, questions, trees
from tests.adoption.old_service import rules
from tests.adoption.old_service.models import PolicyNode
from tests.adoption.old_service.service import Service, flattened
from treestore import Conflict, NotFound

Key = tuple[str, str]
NOTHING = -1
SECONDS = 30


class Written(NamedTuple):
    """A whole tree that was committed between these moments."""

    number: int
    began: float
    ended: float


class Writers:
    """What is written to some versions, by whom, from the moment that all of them hold generation 0."""

    def __init__(self, service: Service, keys: list[Key]) -> None:
        self.service, self.keys = service, keys
        self.counts: Counter[str] = Counter()
        self.written: dict[Key, list[Written]] = {key: [Written(0, 0.0, 0.0)] for key in keys}
        self._numbers = count(1)
        self._lock = threading.Lock()
        for key in keys:
            service.persist(*key, trees.generation(0))

    def _noted(self, kind: str, key: Key, number: int, write: Callable[[], Any]) -> None:
        began = time.monotonic()
        write()
        with self._lock:
            self.counts[kind] += 1
            self.written[key].append(Written(number, began, time.monotonic()))

    def work_as_old_code(self, seed: int, until: threading.Event) -> None:
        """Ingest again, set statuses and read. Nothing of it may fail."""
        rng, service = random.Random(seed), self.service
        while not until.is_set():
            key, number = rng.choice(self.keys), next(self._numbers)
            tree, ingest = trees.generation(number), rng.choice((service.reingest, service.reingest_by_cascade))
            match rng.randrange(6):
                case 0 | 1:
                    self._noted("old: ingested", key, number, lambda i=ingest, k=key, t=tree: i(*k, t))  # type: ignore[misc]
                case 2 | 3 | 4:
                    status = rng.choice(("pending", "approved", "flagged"))
                    changed = service.set_status(*key, f"n{rng.randrange(28)}", status)  # type: ignore[arg-type]
                    self.counts["old: statuses set"] += changed
                case _:
                    assert len({_generation(node) for node in service.nodes(*key)}) <= 1
                    self.counts["old: read"] += 1

    def work_through_treestore(self, store: Any, seed: int, until: threading.Event) -> None:
        """Store, amend and delete. Nothing may fail but for what the service has changed meanwhile."""
        rng = random.Random(seed)
        while not until.is_set():
            key, number = rng.choice(self.keys), next(self._numbers)
            policy_id, version_id = key
            given, node_id = trees.given(trees.generation(number)), f"n{rng.randrange(28)}"
            documents = store.documents
            try:
                match rng.randrange(6):
                    case 0 | 1:
                        self._noted("stored", key, number, lambda d=documents, k=key, g=given: d.store_document(*k, g))  # type: ignore[misc]
                    case 2 | 3 | 4:
                        node = documents.update_node(policy_id, node_id, version_id=version_id, summary=f"amended {number}")
                        assert node.title.split()[1] == (node.text or node.title.split()[1]).split()[0], "nodes are not mixed"
                        self.counts["amended"] += 1
                    case _:
                        self._noted("deleted", key, NOTHING, lambda d=documents, k=key: d.delete_version(*k))  # type: ignore[misc]
            except (Conflict, NotFound) as error:
                self.counts[type(error).__name__] += 1

    def possible(self, key: Key) -> set[int]:
        """The generations that may be left of a version."""
        latest = max(write.began for write in self.written[key])
        return {write.number for write in self.written[key] if write.ended >= latest}

    def assert_last_writer_stays(self, store: Any) -> None:
        """What is left of each version is one of its last trees, and both sides read the same."""
        for key in self.keys:
            nodes = self.service.nodes(*key)
            numbers = {_generation(node) for node in nodes} or {NOTHING}
            assert len(numbers) == 1, (key, numbers)
            assert numbers <= self.possible(key), (key, numbers, self.possible(key))
            assert_rows_of(nodes, numbers.pop())
            assert_same_for_both(self.service, store, key)


def assert_rows_of(nodes: list[PolicyNode], number: int) -> None:
    """The rows are those of a generation, but for statuses and amended summaries, in the document's order."""
    expected = flattened("", "", trees.generation(number)) if number != NOTHING else []
    assert [rules.place(node) for node in nodes] == [rules.place(node) for node in expected]
    assert [node.node_id for node in nodes] == rules.preorder(nodes)
    for node, first in zip(nodes, expected, strict=True):
        assert (node.title, node.text, node.section_path) == (first.title, first.text, first.section_path)
        assert node.summary == first.summary or (node.summary or "").startswith("amended ")


def assert_same_for_both(service: Service, store: Any, key: Key) -> None:
    """treestore answers what the service's rows say."""
    rows = service.nodes(*key)
    policy_id, version_id = key
    found = questions.told(lambda: store.documents.get_document(policy_id, version_id=version_id))
    if isinstance(found, tuple):
        assert (found[0], rows) == (NotFound, []), found
        return
    for name in ("node_id", "parent_id", "title", "summary", "text", "page_start", "page_end", "validation_status"):
        assert [getattr(node, name) for node in found.nodes] == [getattr(row, name) for row in rows], name
    assert found.version.node_count == len(rows)


def _generation(node: PolicyNode) -> int:
    return int(node.title.split()[1].removeprefix("g"))


def together(*works: Callable[[], None], until: threading.Event, holds: Callable[[], bool]) -> None:
    """Run all at once until this holds, or any of them fails; then they are told to end."""
    with ThreadPoolExecutor(len(works)) as pool:
        running = [pool.submit(work) for work in works]
        limit = time.monotonic() + 20 * SECONDS
        while not holds() and not any(each.done() for each in running) and time.monotonic() < limit:
            time.sleep(0.02)
        until.set()
        for each in running:
            each.result(SECONDS)


@contextmanager
def held(call: Callable[[Callable[[], None]], Any]) -> Iterator[None]:
    """A transaction of the old service is open inside, all is done but the commit, which comes at the end. ``call`` is given
    what is to be called before it."""
    reached, release = threading.Event(), threading.Event()

    def before_commit() -> None:
        reached.set()
        assert release.wait(SECONDS)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call, before_commit)
        while not reached.wait(0.01):
            assert not running.done() or running.result()
        try:
            yield
        finally:
            release.set()
        running.result(SECONDS)


def wait_until_busy(url: str, least: float = 0.3) -> None:
    """Give whoever was started time to come to where the held transaction is in the way."""
    until = time.monotonic() + least
    while time.monotonic() < until:
        if adopting.one(url, WAITING):
            return
        time.sleep(0.01)


WAITING = """
    SELECT count(*) > 0 FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'treestore' AND wait_event_type = 'Lock'
"""
