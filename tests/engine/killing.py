"""A process that writes from tasks and threads until it is killed, and the record of what it was told, kept outside of it.

The process says by a pipe what it is about to ask for, and afterwards that the verb returned or what it raised. Each policy
has one writer, task or thread, which does one thing at a time; so after a kill a policy is as it was acknowledged or, if its
writer was under way, as that leaves it: whole, one or the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import select
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import treestore
from treestore import NotFound, Settings, SyncDriver, SyncTreeStore, TreeStore, TreestoreError

SETTINGS = Settings(cache_size_mb=1, wal_file_size_mb=1, checkpoint_interval_seconds=0.1)
"""So small that pages leave the cache, the log rotates and checkpoints run all the time."""

TASKS, THREADS, POLICIES = 8, 4, 2  # writers of each sort, and policies of each of them
BULK = 150  # nodes of a document that is loaded in bulk: more than 1 MB
_PATIENCE_SECONDS = 60  # for a process that should write and does not
_SIZES = (1, 1, 3, 3, 3, 20, 20, 60)


class Doc(NamedTuple):
    """What a version holds: the document of this seed and size, and the texts that were amended, by node."""

    seed: int
    size: int
    amended: tuple[tuple[str, str], ...] = ()


Versions = dict[str, Doc]
"""The versions of a policy that are not deleted."""


class Write(msgspec.Struct, frozen=True):
    """One thing that a writer asks for: ``store`` (anew or in the place of what is there), ``amend`` a node, or ``delete`` a
    version ('': the document)."""

    kind: str
    policy: str
    version: str = ""
    seed: int = 0
    size: int = 0

    def after(self, before: Versions) -> Versions:
        """The policy's versions after it."""
        if self.kind == "store":
            return {**before, self.version: Doc(self.seed, self.size)}
        if self.kind == "amend":
            doc = before[self.version]
            amended = {**dict(doc.amended), str(self.seed % doc.size): f"amended {self.seed}"}
            return {**before, self.version: doc._replace(amended=tuple(sorted(amended.items())))}
        return {version: doc for version, doc in before.items() if self.version not in ("", version)}

    def verb(self, documents: Any, before: Versions) -> Any:
        """Ask for it: the verb's answer, or what is to be awaited."""
        if self.kind == "store":
            found = nodes(self.policy, self.seed, self.size)
            return documents.store_document(self.policy, self.version, found, searchable=self.size <= 20)
        if self.kind == "amend":
            node = str(self.seed % before[self.version].size)
            return documents.update_node(self.policy, node, version_id=self.version, text=f"amended {self.seed}")
        if self.version:
            return documents.delete_version(self.policy, self.version)
        return documents.delete_document(self.policy)


def nodes(policy: str, seed: int, size: int) -> list[dict[str, Any]]:
    """A document: a tree of fan-out 4 whose texts are of many lengths."""
    texts = [f"{seed} {policy} {n} " * (700 if size == BULK else (2, 9, 40, 300)[(seed + n) % 4]) for n in range(size)]
    return [
        {"node_id": str(n), "parent_id": str((n - 1) // 4) if n else None, "title": f"{policy} {seed}", "text": text}
        for n, text in enumerate(texts)
    ]


@functools.lru_cache(maxsize=512)
def _expected(policy: str, doc: Doc) -> list[tuple[str, str, str]]:
    amended = dict(doc.amended)
    found = nodes(policy, doc.seed, doc.size)
    return sorted((node["node_id"], node["title"], amended.get(node["node_id"], node["text"])) for node in found)


def next_write(choose: random.Random, policy: str, before: Versions, bulk: bool) -> Write:
    """What a writer does next."""
    version = choose.choice("12")
    seed = choose.randrange(10**6)
    if version in before and choose.random() < 0.45:
        kind = choose.choice(("amend", "amend", "delete", "delete all"))
        if kind == "amend":
            return Write("amend", policy, version, seed)
        return Write("delete", policy, version if kind == "delete" else "")
    return Write("store", policy, version, seed, BULK if bulk and choose.random() < 0.5 else choose.choice(_SIZES))


# --- the process that is killed ------------------------------------------------------------------------------------------


class Writer:
    """Writes to its own policies in ``store``, beginning with what they hold, and says so to ``tell``, until an error that is
    not one of ``goes_on``. After a write that was refused it looks whether the policy is as it was."""

    def __init__(
        self, name: str, seed: int, store: SyncTreeStore, held: dict[str, Versions], tell: Callable[[str], None], goes_on: Any
    ) -> None:
        self.name = name
        self._store = store
        self._choose = random.Random(f"{seed} {name}")
        self._held = {policy: held.get(policy, {}) for policy in policies_of(name)}
        self._tell = tell
        self._goes_on = goes_on

    def _next(self) -> Write:
        policy = self._choose.choice(list(self._held))
        write = next_write(self._choose, policy, self._held[policy], self.name.endswith(" 0"))
        self._tell(f"try\t{self.name}\t{msgspec.json.encode(write).decode()}")
        return write

    def _ended(self, write: Write, error: TreestoreError | None) -> bool:
        """Say how it ended; whether to go on."""
        if error is None:
            self._held[write.policy] = write.after(self._held[write.policy])
            self._tell(f"ok\t{self.name}\t")
        else:
            self._tell(f"no\t{self.name}\t{type(error).__name__} {error}")
            if isinstance(error, self._goes_on) and not holds(self._store, write.policy, self._held[write.policy]):
                self._tell(f"wrong\t{self.name}\t{write} was refused and changed something")
        return error is None or isinstance(error, self._goes_on)

    def run(self, documents: Any) -> None:
        """In a thread."""
        going = True
        while going:
            write, error = self._next(), None
            try:
                write.verb(documents, self._held[write.policy])
            except TreestoreError as raised:
                error = raised
            going = self._ended(write, error)

    async def run_async(self, documents: Any) -> None:
        """In an event loop."""
        going = True
        while going:
            write, error = self._next(), None
            try:
                await write.verb(documents, self._held[write.policy])
            except TreestoreError as raised:
                error = raised
            going = self._ended(write, error)


def writers() -> list[str]:
    """Names of the writers: tasks, then threads."""
    return [f"task {n}" for n in range(TASKS)] + [f"thread {n}" for n in range(THREADS)]


def policies_of(writer: str) -> list[str]:
    """The policies that only this writer writes to."""
    return [f"{writer} policy {n}" for n in range(POLICIES)]


def write_until_killed(url: str, seed: int, held: dict[str, Versions], out: int, goes_on: Any = ()) -> None:
    """Open the store and write, compacting it now and then, for ever; says what it does by the descriptor ``out``."""

    def tell(line: str) -> None:
        os.write(out, (line + "\n").encode())  # one call for a line: writers do not cut each other short

    async def main() -> None:
        tell("opening\t\t")
        async with treestore.open(url, settings=SETTINGS) as store:
            tell("opened\t\t")
            backend: Any = store._driver.backend
            both: SyncTreeStore = TreeStore(SyncDriver(backend, store._driver.clock))
            made = [Writer(name, seed, both, held, tell, goes_on) for name in writers()]
            for writer in made[TASKS:]:
                threading.Thread(target=writer.run, args=(both.documents,), daemon=True).start()
            threading.Thread(target=compact, args=(both,), daemon=True).start()
            await asyncio.gather(*(writer.run_async(store.documents) for writer in made[:TASKS]))
            await asyncio.Event().wait()

    def compact(both: SyncTreeStore) -> None:
        choose = random.Random(seed)
        while True:
            time.sleep(choose.uniform(0.05, 0.6))
            with contextlib.suppress(TreestoreError):
                both.compact()

    asyncio.run(main())


# --- outside of it -------------------------------------------------------------------------------------------------------


class Record:
    """What was acknowledged and what is under way. ``held`` is what each policy holds, ``trying`` the write of each writer
    whose outcome was not told; ``counts`` counts what happened, ``refused`` the errors that ended writes, by name; ``wrong``
    is what the process itself found wrong."""

    def __init__(self) -> None:
        self.held: dict[str, Versions] = {policy: {} for name in writers() for policy in policies_of(name)}
        self.trying: dict[str, Write] = {}
        self.counts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.is_open = False
        self._cut = b""  # the beginning of a line whose end has not come yet

    def listen(self, said: bytes) -> None:
        """What the process said; of a line that its death cut short nothing is known."""
        *lines, self._cut = (self._cut + said).split(b"\n")
        for line in lines:
            self._hear(line.decode())

    def begin(self) -> None:
        """Another process begins to speak."""
        self.is_open, self._cut = False, b""

    def _hear(self, line: str) -> None:
        what, name, rest = line.split("\t", 2)
        if what == "try":
            self.trying[name] = msgspec.json.decode(rest, type=Write)
        elif what == "ok":
            write = self.trying.pop(name)
            self.held[write.policy] = write.after(self.held[write.policy])
            self.counts["acknowledged"] += 1
            self.counts[f"acknowledged: {'bulk ' if write.size == BULK else ''}{write.kind}"] += 1
        elif what == "no":
            if not rest.startswith("OutcomeUnknown"):
                del self.trying[name]
            self.refused[rest.partition(" ")[0]] += 1
        elif what == "wrong":
            self.wrong.append(rest)
        else:
            self.is_open = what == "opened"

    def verify(self, store: SyncTreeStore) -> list[str]:
        """What is wrong with the store; it settles what was under way."""
        under_way = {write.policy: write for write in self.trying.values()}
        wrong = []
        for policy, acknowledged in self.held.items():
            write = under_way.get(policy)
            if holds(store, policy, acknowledged):
                self.counts["in flight, not applied"] += write is not None
            elif write is not None and holds(store, policy, write.after(acknowledged)):
                self.counts["in flight, applied"] += 1
                self.held[policy] = write.after(acknowledged)
            else:
                wrong.append(f"{policy} is not {acknowledged}" + (f", nor that after {write}" if write else ""))
        self.trying.clear()
        self.counts["replayed"] += int(store.stats().backend["replayed_groups"])
        return wrong + store.check().problems


def holds(store: SyncTreeStore, policy: str, versions: Versions) -> bool:
    """Whether the policy has these versions and no others, each whole."""
    try:
        found = [version.version_id for version in store.versions.list(policy)]
    except NotFound:
        found = []
    if sorted(found) != sorted(versions):
        return False
    for version, doc in versions.items():
        stored = store.documents.get_document(policy, version_id=version).nodes
        if sorted((node.node_id, node.title, node.text) for node in stored) != _expected(policy, doc):
            return False
    return True


def started(
    url: str, seed: int, record: Record, before: Callable[[], object] = lambda: None, goes_on: Any = ()
) -> tuple[int, int]:
    """Start a process that writes; its id and the pipe that it talks by. ``before`` is done in it first."""
    hears, says = os.pipe()
    record.begin()
    child = os.fork()
    if child == 0:
        try:
            os.close(hears)
            before()
            write_until_killed(url, seed, record.held, says, goes_on)
        finally:
            os._exit(1)
    os.close(says)
    return child, hears


def heard(pipe: int, record: Record, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
    """Listen for so long, or until it is enough."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not enough():
        if select.select([pipe], [], [], left)[0]:
            said = os.read(pipe, 1 << 16)
            if not said:
                break
            record.listen(said)


def killed(child: int, pipe: int, record: Record) -> None:
    """Kill the process and hear what it had said. It must have lived until then."""
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while said := os.read(pipe, 1 << 16):
        record.listen(said)
    os.close(pipe)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"the process ended by itself: {status}"
    record.counts["kills"] += 1
    record.counts["kills while opening"] += not record.is_open


def one_kill(folder: Path, seed: int, record: Record, most: int = 300) -> list[str]:
    """Let a process write to the store in ``folder/store`` and kill it: in the opening, soon after it, or after up to
    ``most`` acknowledged writes; what is wrong then. Every other time a copy is looked at, so that the next process recovers
    the store itself."""
    choose = random.Random(f"kill {seed}")
    url = f"btree:///{folder / 'store'}"
    child, pipe = started(url, seed, record)
    moment = choose.choice(("opening", "open", "later", "later"))
    if moment != "opening":
        heard(pipe, record, _PATIENCE_SECONDS, lambda: record.is_open)
    if moment == "later":
        wanted = record.counts["acknowledged"] + choose.randint(1, most)
        heard(pipe, record, _PATIENCE_SECONDS, lambda: record.counts["acknowledged"] >= wanted)
    heard(pipe, record, choose.uniform(0.0, 0.02))
    killed(child, pipe, record)
    left = folder / "left"
    shutil.rmtree(left, ignore_errors=True)
    if not (folder / "store" / "data").exists():
        return ["an acknowledged store is gone"] if any(record.held.values()) else []
    shutil.copytree(folder / "store", left)
    looked_at = url if seed % 2 else f"btree:///{left}"
    try:
        with treestore.open_sync(looked_at, settings=SETTINGS) as store:
            return [f"refused: {line}" for line in record.refused] + record.verify(store)
    except TreestoreError as error:
        return [f"{type(error).__name__}: {error}"]
