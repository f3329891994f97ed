"""The old service that ingests a version again and again, and which of its trees a read may have seen.

Each ingest has a number, which its tree says everywhere (:func:`tests.adoption.trees.generation`). Of each is noted when its
commit began and when it had ended, so of every read it is known which trees were committed at some moment between its begin
and its end. Its answer is that of one of them, exactly, or it was stale or mixed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count, cycle
from typing import Any

import treestore
from tests.adoption import adopting, questions, trees
from tests.adoption.old_service.service import Service
from tests.adoption.questions import Question

POLICY, VERSION = "p", "1"
NEVER = float("inf")


class Generations:
    """One version and what the service has made of it, in turns with ``store``, if there is one: the odd generations are
    stored by treestore. Times are those of ``time.monotonic``."""

    def __init__(self, url: str) -> None:
        self.service = Service(url)
        self.store: Any = None
        self.began: list[float] = []
        self.ended: list[float] = []
        self.commit()

    def keep_ingesting(self, until: threading.Event, pause: float = 0.0) -> None:
        """Ingest again until told not to."""
        while not until.wait(pause):
            self.commit()

    def possible(self, began: float, ended: float) -> list[int]:
        """The numbers of the trees that were committed at some moment between these."""
        found = []
        for number in reversed(range(len(self.began))):
            replaced = self.ended[number + 1] if number + 1 < len(self.ended) else NEVER
            if replaced < began:
                break
            if self.began[number] <= ended:
                found.append(number)
        return found

    def commit(self) -> None:
        """Ingest the next tree."""
        number = len(self.began)

        def note() -> None:
            self.began.append(time.monotonic())

        if number % 2 and self.store is not None:
            note()
            self.store.documents.store_document(POLICY, VERSION, trees.given(trees.generation(number)), **columns(number))
        elif number:
            self.service.reingest(POLICY, VERSION, trees.generation(number), before_commit=note, **columns(number))
        else:
            note()
            self.service.persist(POLICY, VERSION, trees.generation(number), **columns(number))
        self.ended.append(time.monotonic())


def columns(number: int) -> dict[str, Any]:
    """What a version's row says of which tree it has."""
    return {"pdf_sha256": f"{number}", "tree_json_ptr": f"tree {number}", "markdown_ptr": "", "pageindex_doc_id": f"g{number}"}


def asked() -> list[Question]:
    """The questions, the same for every generation: some nodes are not in all of them."""
    ref = {"version_id": VERSION}
    about = [
        questions.documents("get_document", POLICY, **ref),
        questions.documents("get_nodes", POLICY, ["n1", "n20", "n3"], **ref),
        questions.documents("get_outline", POLICY, **ref),
        questions.documents("get_outline", POLICY, None, 1, **ref),
        questions.documents("get_children", POLICY, **ref),
        questions.documents("get_outline", POLICY),
        questions.versions("get", POLICY, VERSION),
        questions.versions("latest", POLICY),
        questions.versions("list", POLICY),
        questions.versions("diff", POLICY, VERSION, VERSION),
    ]
    around = ("get_node", "get_children", "get_subtree", "get_ancestor_path")
    for node_id in ("n0", "n5", "n14", "n26"):
        about += [questions.documents(verb, POLICY, node_id, **ref) for verb in around]
    about += [questions.documents("get_nodes_by_page", POLICY, page, **ref) for page in (0, 4, 11)]
    about += [questions.documents("get_nodes_by_pages", POLICY, 2, 8, **ref)]
    about += [questions.documents("search_nodes", POLICY, query, **ref) for query in ("care", "home therapy", "section 7")]
    about += [questions.documents("search_nodes", POLICY, f"g{number}", **ref) for number in (1, 2)]
    about += [questions.documents("search_documents", "leave income", 5)]
    return about


class Expected:
    """What each generation's tree is answered with: by a store in memory that holds nothing else."""

    def __init__(self) -> None:
        self._store = lru_cache(maxsize=16)(self._stored)
        self.answer = lru_cache(maxsize=4096)(self._answer)

    def _stored(self, number: int) -> Any:
        store = treestore.open_sync("memory://")
        store.documents.store_document(POLICY, VERSION, trees.given(trees.generation(number)), **columns(number))
        return store

    def _answer(self, number: int, at: int) -> Any:
        return questions.told(lambda: ASKED[at].of(self._store(number)))


ASKED = asked()


class Judge:
    """Counts reads, and those that were answered with no tree that was there meanwhile."""

    def __init__(self, generations: Generations) -> None:
        self.generations = generations
        self.expected = Expected()
        self.reads: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.seen: set[int] = set()
        self._lock = threading.Lock()

    def judge(self, at: int, answer: Any, began: float, ended: float) -> None:
        """Note an answer to the question at this place."""
        possible = self.generations.possible(began, ended)
        with self._lock:
            said = [number for number in possible if answer == self.expected.answer(number, at)]
            self.reads[ASKED[at].verb] += 1
            self.seen.update(said[:1])
            if not said:
                self.wrong.append(f"{ASKED[at]}: none of {possible}, but {self._whose(at, answer, possible)}")

    def _whose(self, at: int, answer: Any, possible: Sequence[int]) -> str:
        for number in range(min(possible) - 1, -1, -1):
            if answer == self.expected.answer(number, at):
                return f"that of {number}: stale"
        return f"mixed, or of none: {str(answer)[:300]}"

    def read_sync(self, store: Any, reads: Iterator[int]) -> None:
        """Ask in this thread, as long as there is a number of a read left."""
        for read in reads:
            at = read % len(ASKED)
            began = time.monotonic()
            answer = questions.told(lambda at=at: ASKED[at].of(store))  # type: ignore[misc]
            self.judge(at, answer, began, time.monotonic())

    async def read_async(self, store: Any, reads: Iterator[int]) -> None:
        """As :meth:`read_sync`, in a task."""
        for read in reads:
            at = read % len(ASKED)
            began = time.monotonic()
            try:
                answer: Any = await ASKED[at].of(store)
            except treestore.TreestoreError as error:
                answer = questions.told(lambda error=error: _raise(error))  # type: ignore[misc]
            ended = time.monotonic()
            self.judge(at, questions.comparable(answer), began, ended)


def _raise(error: Exception) -> Any:
    raise error


class Reads:
    """The numbers of the reads that are still to be made, for all that make them; none after ``stop`` was set."""

    def __init__(self, total: int, stop: threading.Event) -> None:
        self._numbers = count()
        self._total, self._stop = total, stop

    def __iter__(self) -> Iterator[int]:
        while not self._stop.is_set() and (number := next(self._numbers)) < self._total:
            yield number


def read_beside(generations: Generations, url: str, total: int, *, repairing: bool) -> Judge:
    """Read so often by both faces, while the service ingests without a pause, and (``repairing``) the command derives what it
    has made stale. Who has read what, and what was wrong."""
    judge, stop = Judge(generations), threading.Event()
    reads = Reads(total, stop)

    def read_by_threads() -> None:
        with treestore.open_sync(url) as store, ThreadPoolExecutor(2) as pool:
            for each in [pool.submit(judge.read_sync, store, iter(reads)) for _ in range(2)]:
                each.result()

    async def read_by_tasks() -> None:
        async with treestore.open(url) as store:
            await asyncio.gather(*[judge.read_async(store, iter(reads)) for _ in range(4)])

    def keep_repairing() -> None:
        for verb in cycle(("repair", "derive")):
            if stop.is_set():
                return
            ran = adopting.run(url, verb)
            assert ran.status == 0 or "others held the rows" in ran.err, ran

    with ThreadPoolExecutor(4) as pool:
        beside = [pool.submit(generations.keep_ingesting, stop), *([pool.submit(keep_repairing)] if repairing else [])]
        try:
            for each in [pool.submit(read_by_threads), pool.submit(asyncio.run, read_by_tasks())]:
                each.result()
        finally:
            stop.set()
        for each in beside:
            each.result()
    return judge
