"""Runs through the public face on a simulated disk: documents stored, replaced, amended, deleted and searched.

The store in memory is asked the same and says what must be found: records, texts, hashes and scores. ``check`` derives
all that is derived again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Self
from unittest import mock

import msgspec

from tests.clock import START, SetClock
from tests.engine.simulated import Fault, SimulatedDisk
from tests.engine.workload import STORE
from tests.engine.works import Trial
from treestore import NotFound, Settings, SyncDriver, TreeStore
from treestore.backends.btree import backend as backend_module
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.memory.backend import MemoryBackend
from treestore.errors import OutcomeUnknown, TreestoreError, Unavailable

Store = TreeStore[SyncDriver]
Verb = Callable[[Store], object]
Dump = list[object]
Step = Callable[["DocumentTrial"], None]

POLICIES = ("p", "q", "é")
VERSIONS = ("1", "2", "3")
WORDS = ("care", "home", "policy", "M54.5", "claims", "of", "税収", "appeal")
QUERIES = ("caring for homes", "m54.5 appeals")
SETTINGS = Settings(cache_size_mb=1, wal_file_size_mb=1)
BULK_BYTES = 6000  # small documents are loaded in bulk here


def tree(choose: random.Random) -> list[dict[str, Any]]:
    """Up to a dozen nodes with titles, texts and pages."""
    length = choose.choice((3, 30, 300))
    nodes: list[dict[str, Any]] = []
    for at in range(choose.choice((1, 3, 6, 12))):
        node: dict[str, Any] = {"node_id": f"n{at}", "title": choose.choice(WORDS), "page_start": at, "page_end": at + 2}
        node["parent_id"] = f"n{choose.randrange(at)}" if at and choose.random() < 0.7 else None
        node["text"] = None if choose.random() < 0.2 else " ".join(choose.choices(WORDS, k=length))
        nodes.append(node)
    return nodes


def verb(choose: random.Random) -> Verb:
    """One verb that writes."""
    policy, version = choose.choice(POLICIES), choose.choice(VERSIONS)
    kind = choose.choices(("store", "edit", "amend", "delete version", "delete document", "date"), (4, 4, 4, 1, 1, 1))[0]
    nodes, words, days = tree(choose), " ".join(choose.choices(WORDS, k=20)), choose.randrange(50)
    pages = [{"page": 1, "content": words}] if choose.random() < 0.5 else []
    name = f"n{choose.randrange(3)}"

    def store_document(store: Store) -> object:
        return store.documents.store_document(policy, version, nodes, pages=pages, description=words)

    def edit(store: Store) -> object:
        held = store.documents.get_document(policy).nodes
        changed = [msgspec.structs.replace(node, text=words) if node.node_id == name else node for node in held]
        return store.documents.store_document(policy, version, changed, pages=pages, description=words)

    verbs: dict[str, Verb] = {
        "store": store_document,
        "edit": edit,
        "amend": lambda store: store.documents.update_node(policy, name, version_id=version, text=words, title=words[:9]),
        "delete version": lambda store: store.documents.delete_version(policy, version),
        "delete document": lambda store: store.documents.delete_document(policy),
        "date": lambda store: store.versions.set_effective_date(policy, version, START + timedelta(days=days)),
    }
    return verbs[kind]


def dump(store: Store) -> Dump:
    """All that is in a store."""
    found: Dump = []
    for policy in POLICIES:
        try:
            versions = store.versions.list(policy, include_deleted=True)
        except NotFound:
            continue
        for version in versions:
            found.append(version)
            if version.deleted_at is None:
                found.append(store.documents.get_document(policy, version_id=version.version_id).nodes)
                found.append(store.documents.get_page_texts(policy, version_id=version.version_id))
    found += [store.documents.search_documents(query) for query in QUERIES]
    return found


class DocumentTrial(Trial):
    """Verbs of the public face. ``dumps[k]`` is what must be found after ``k`` write groups."""

    def __init__(self, steps: Sequence[Step], disk: SimulatedDisk | None = None) -> None:
        super().__init__(disk)
        self.dumps: list[Dump] = [dump(_memory(SetClock()))]
        self.acknowledged = 0
        self._steps = steps
        self._clock = SetClock()
        self._done: list[tuple[Verb, datetime]] = []  # verbs that changed something, and when
        self._pending: list[tuple[Verb, datetime]] = []  # one that is under way, or whose outcome is not known
        self._backend: BtreeBackend | None = None
        self._sync_failed = False

    def run(self) -> None:
        with _small_bulk_loads():
            for step in (_open, *self._steps):
                try:
                    if self._backend is None and step is not _open:
                        _open(self)
                    step(self)
                except TreestoreError:
                    if self.disk.fault is None:
                        raise
        if self._backend is not None and self.disk.fault is None:
            self.let_go()

    @property
    def backend(self) -> BtreeBackend:
        assert self._backend is not None
        return self._backend

    def opened(self, backend: BtreeBackend) -> None:
        """What was acknowledged is there, and perhaps the verb whose outcome was not known."""
        found = backend._engine.state.lsn
        assert self.acknowledged <= found < len(self.dumps)
        self._done += self._pending[: found - self.acknowledged]
        self._pending = []
        del self.dumps[found + 1 :]
        self.acknowledged = found
        self._sync_failed = False
        self._backend = backend

    def let_go(self) -> None:
        """The process dies."""
        backend, self._backend = self.backend, None
        backend._engine._let_go("crash")
        backend.close_now()

    def do(self, verb: Verb) -> None:
        """Ask both stores the same."""
        clock = SetClock()
        memory = _memory(clock)
        for done, clock.now in self._done:
            done(memory)
        clock.now = self._clock.advance(seconds=1)
        store = TreeStore(SyncDriver(self.backend, self._clock))
        if self._pending:  # nothing is written before the store is opened again
            with suppress(NotFound):  # of what the verb reads first
                verb(store)
            assert self.backend._engine.state.lsn == self.acknowledged
            return
        try:
            verb(memory)
        except NotFound:
            try:
                verb(store)
            except NotFound:
                return
            raise AssertionError("a verb did what it can't do") from None
        too_late = self._sync_failed
        del self.dumps[self.acknowledged + 1 :]
        self.dumps.append(dump(memory))
        self._pending = [(verb, clock.now)]
        try:
            verb(store)
        except OutcomeUnknown:
            raise
        except TreestoreError:
            del self.dumps[self.acknowledged + 1 :]
            self._pending = []
            raise
        done_now, self._pending = self._pending, []
        if self.backend._engine.state.lsn == self.acknowledged:
            assert self.dumps.pop() == self.dumps[-1]
            return
        assert not too_late, "a verb was acknowledged after a sync had failed"
        self.acknowledged += 1
        assert self.backend._engine.state.lsn == self.acknowledged
        self._done += done_now

    def verify(self, cut: SimulatedDisk) -> None:
        with _small_bulk_loads():
            backend = _opened(cut)
            store = TreeStore(SyncDriver(backend, self._clock))
            try:
                found = backend._engine.state.lsn
                assert self.acknowledged <= found < len(self.dumps), f"{found} groups of {self.acknowledged} acknowledged"
                assert dump(store) == self.dumps[found], f"after {found} groups"
                assert store.check().problems == []
                store.documents.store_document("later", "1", tree(random.Random(found)))
                assert store.check().problems == []
            finally:
                backend.close_now()

    def resumed(self, disk: SimulatedDisk, choose: random.Random) -> Self:
        again = type(self)([_verb(choose), choose.choice((_verb, _checkpoint))(choose), _verb(choose)], disk)
        again.dumps, again.acknowledged = self.dumps.copy(), self.acknowledged
        again._clock.now = self._clock.now
        again._done, again._pending = self._done.copy(), self._pending.copy()
        return again

    def break_disk(self, fault: Fault) -> None:
        def told(path: str) -> None:
            if path.startswith(STORE) and not path.endswith(".new"):
                self._sync_failed = True

        self.disk.fault, self.disk.told = fault, told

    def healed(self) -> None:
        self.disk.fault = None
        if self._backend is None:
            return
        assert dump(TreeStore(SyncDriver(self.backend, self._clock))) == self.dumps[self.acknowledged]
        try:
            self.do(verb(random.Random(1)))
        except Unavailable:
            assert not self.backend._engine.writable
        self.let_go()


@contextmanager
def _small_bulk_loads() -> Iterator[None]:
    with mock.patch.object(backend_module, "BULK_BYTES", BULK_BYTES):
        yield


def _memory(clock: Callable[[], datetime]) -> Store:
    return TreeStore(SyncDriver(MemoryBackend(SETTINGS), clock))


def _opened(disk: SimulatedDisk) -> BtreeBackend:
    """An open store whose checkpoints are run by the steps alone."""
    backend = BtreeBackend.open(STORE, SETTINGS, fs=disk)
    backend._checkpointer.stop()
    return backend


def _open(trial: DocumentTrial) -> None:
    trial.opened(_opened(trial.disk))


def _verb(choose: random.Random) -> Step:
    does = verb(choose)
    return lambda trial: trial.do(does)


def _checkpoint(choose: random.Random) -> Step:
    return lambda trial: trial.backend._engine.checkpoint()


def _compact(choose: random.Random) -> Step:
    def step(trial: DocumentTrial) -> None:
        TreeStore(SyncDriver(trial.backend, trial._clock)).compact()

    return step


def _reopen(choose: random.Random) -> Step:
    def step(trial: DocumentTrial) -> None:
        backend, trial._backend = trial.backend, None
        backend.close_now()
        _open(trial)

    return step


def _crash(choose: random.Random) -> Step:
    def step(trial: DocumentTrial) -> None:
        trial.let_go()
        _open(trial)

    return step


def document_trial(seed: int, steps: int = 12) -> DocumentTrial:
    """A run of verbs as a seed has it."""
    choose = random.Random(f"documents {seed}")
    makers = choose.choices((_verb, _checkpoint, _compact, _reopen, _crash), (12, 3, 1, 1, 1), k=steps)
    return DocumentTrial([_verb(choose), *(make(choose) for make in makers)])
