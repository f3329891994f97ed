"""A small store with everything in it, ways to damage its files, and the proof that no damage is answered wrongly.

The store is made through the public API on a disk in memory: several versions, shared, long and page texts, amendments, a
tombstone, postings, a tree that was loaded in bulk and is linked by the log; most of it lies in a checkpoint, the end in the
log only, in several files. After each group all that can be asked is noted, so a store that comes back with fewer groups is
held to what was true then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from unittest import mock
from zlib import crc32

import msgspec

from tests.engine.simulated import SimulatedDisk, _Inode
from tests.engine.workload import STORE
from treestore import NotFound, Settings, SyncDriver, TreeStore
from treestore.backends.btree import staging
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.engine.file import FileSystem
from treestore.backends.btree.engine.format import LOG_START, PAGE_SIZE, RECORD_HEADER, decode_record, log_salt
from treestore.errors import Corrupted, MigrationError, NotAStore

SETTINGS = Settings(cache_size_mb=1, wal_file_size_mb=1)
Store = TreeStore[SyncDriver]
Files = dict[str, bytes]
"""The files of a store, by their path in its folder."""

REFUSALS = (Corrupted, NotAStore, MigrationError)
_LOCATED = re.compile(r"page \d+ \(byte \d+\)|\.log\b|/data\b|/wal\b|/LOCK\b|'data'")
POLICIES = {"shapes": ("1", "2"), "large": ("1",), "bulk": ("1",), "deleted": ("1",), "late": ("1",)}
"""All that is ever stored, so the same is asked after every group."""


class Hit(NamedTuple):
    """A range of bytes of a file that was damaged."""

    path: str
    start: int
    end: int


class Damage(NamedTuple):
    """A damaged copy of a store. ``name`` says how to do it again."""

    name: str
    files: Files
    hits: list[Hit]


class Record(NamedTuple):
    """Where a record of the log lies."""

    lsn: int
    path: str
    start: int
    end: int


class Sample(NamedTuple):
    """A store's files, its data file as it was one checkpoint earlier, what could be read after each group, by LSN, and where
    the groups lie in the log."""

    files: Files
    earlier: bytes
    answers: dict[int, dict[str, object]]
    lsn: int
    records: list[Record]

    @property
    def newest_log(self) -> str:
        """The path of the log file that was written last."""
        return max(path for path in self.files if path.endswith(".log"))


# --- making it -----------------------------------------------------------------------------------------------------------


def opened(disk: FileSystem, *, create: bool = False, folder: str = STORE) -> Store:
    """The store on a disk."""
    moment = datetime(2026, 3, 1, tzinfo=UTC)

    def clock() -> datetime:
        nonlocal moment
        moment += timedelta(seconds=1)
        return moment

    return TreeStore(SyncDriver(BtreeBackend.open(folder, SETTINGS, fs=disk, create=create), clock))


def engine_of(store: Store) -> Any:
    """The engine of an open store."""
    backend: Any = store._driver.backend
    return backend._engine


def abandon(store: Store) -> None:
    """Let go of a store as a killed process does: nothing is written."""
    backend: Any = store._driver.backend
    backend._checkpointer.stop()
    backend._committer._threads.shutdown()
    backend._engine._let_go("abandoned")
    backend._closed = True


def nodes(count: int, said: str) -> list[dict[str, Any]]:
    """A tree of fan-out 4 with pages."""
    return [
        {
            "node_id": f"{n:03}",
            "parent_id": f"{(n - 1) // 4:03}" if n else None,
            "title": f"{said} {n}",
            "text": f"text of {said} {n}" if n % 5 else None,
            "page_start": n + 1,
            "page_end": n + 2,
        }
        for n in range(count)
    ]


def _steps() -> list[Callable[[Store], object]]:
    """What is done to the store, one group each; ``_checkpoint`` and ``_reopen`` stand in between."""
    tree = nodes(6, "shape")
    tree[1]["text"] = "a long one, " * 900
    pages = [{"page": 2, "content": "page two"}, {"page": 1, "content": "page one " * 400, "kept": None}]
    changed = [*tree[:5], {**tree[5], "text": "another"}]
    heavy = [{**node, "text": f"bulk {node['node_id']} " * 8} for node in nodes(60, "heavy")]
    return [
        lambda s: s.documents.store_document("shapes", "1", tree, pages=pages, tags=("one",), metadata={"é": [1, 2.5]}),
        lambda s: s.documents.store_document("large", "1", nodes(90, "many")),
        lambda s: s.documents.store_document("deleted", "1", nodes(20, "gone")),
        _reopen,
        lambda s: s.documents.delete_version("deleted", "1"),
        lambda s: s.documents.store_document("shapes", "2", changed, pages=pages[:1], effective_date=date(2026, 2, 1)),
        _checkpoint,
        lambda s: s.documents.update_node("large", "017", text="amended before the last checkpoint"),
        _checkpoint,
        _reopen,
        lambda s: s.documents.update_node("shapes", "002", version_id="2", title="amended in the log"),
        lambda s: in_bulk(s, heavy),
        _reopen,
        lambda s: s.documents.store_document("late", "1", nodes(5, "late"), pages=[{"page": 7, "content": "in the log only"}]),
        lambda s: s.documents.update_node("large", "042", text="amended at last", summary="and summed up"),
        lambda s: s.versions.set_effective_date("shapes", "1", date(2026, 1, 1)),
    ]


def _checkpoint(store: Store) -> None:
    engine_of(store).checkpoint()
    engine_of(store).tidy()


def _reopen(store: Store) -> None:
    """A mark among the steps: whoever takes them opens the store anew."""
    raise AssertionError("the maker does that")


def in_bulk(store: Store, tree: list[dict[str, Any]]) -> None:
    """Store a tree as one of more than a megabyte is: by leaves written beside the log and one record that links them."""
    with mock.patch.object(staging, "BULK_BYTES", 1000):
        store.documents.store_document("bulk", "1", tree)


def sample() -> Sample:
    """The store, as it lies on the disk while its last groups are in the log only."""
    disk = SimulatedDisk()
    store = opened(disk, create=True)
    noted = {}
    earlier: list[bytes] = []
    for step in _steps():
        if step is _reopen:
            abandon(store)
            store = opened(disk)
        else:
            step(store)
        if step is _checkpoint:
            earlier.append(files_of(disk)["data"])
        noted[engine_of(store).state.lsn] = {name: ask(store) for name, ask in questions()}
    files = {path: raw for path, raw in files_of(disk).items() if path != "LOCK"}
    lsn = engine_of(store).state.lsn
    store_id = engine_of(store)._meta.store_id
    assert len([path for path in files if path.endswith(".log")]) >= 3
    abandon(store)
    return Sample(files, earlier[-2], noted, lsn, list(_records(files, store_id)))


def _records(files: Files, store_id: bytes) -> Iterator[Record]:
    for path in sorted(path for path in files if path.endswith(".log")):
        salt, at, raw = log_salt(store_id, int(path[4:24])), LOG_START, files[path]
        while (head := decode_record(salt, raw[at : at + RECORD_HEADER])) is not None:
            yield Record(head.lsn, path, at, at + RECORD_HEADER + head.length)
            at += head.size


def files_of(disk: SimulatedDisk) -> Files:
    """The files of the store on a disk in memory."""
    start = STORE + "/"
    return {path[len(start) :]: bytes(inode.current) for path, inode in disk.names.items() if inode and path.startswith(start)}


def disk_of(files: Files) -> SimulatedDisk:
    """A disk in memory with these files of the store, all of them durable."""
    disk = SimulatedDisk()
    disk.names.update({STORE: None, f"{STORE}/wal": None})
    disk.names.update({f"{STORE}/{path}": _Inode(raw) for path, raw in files.items()})
    disk.durable = disk.names.copy()
    return disk


# --- asking all ----------------------------------------------------------------------------------------------------------


def questions() -> Iterator[tuple[str, Callable[[Store], object]]]:
    """All that is asked of the store, each with a name."""

    def put(name: str, ask: Callable[[Store], Any]) -> tuple[str, Callable[[Store], object]]:
        def answer(store: Store) -> object:
            try:
                return msgspec.json.encode(ask(store))
            except NotFound as error:
                return str(error)

        return name, answer

    def counts(store: Store) -> tuple[int, ...]:
        found = store.stats()
        return found.documents, found.versions, found.nodes

    yield put("documents", lambda s: s.documents.list_documents())
    yield put("counts", counts)
    yield put("search all", lambda s: s.documents.search_documents("amended text"))
    for policy, versions in POLICIES.items():
        yield put(f"versions {policy}", _versions_of(policy))
        for version in versions:
            where = {"version_id": version}
            for name, ask in _of_version(policy, where):
                yield put(f"{name} {policy} {version}", ask)
    yield put("diff", lambda s: s.versions.diff("shapes", "1", "2"))
    yield put("as of", lambda s: s.versions.temporal_lookup("shapes", date(2026, 2, 2)))


def _versions_of(policy: str) -> Callable[[Store], Any]:
    return lambda s: s.versions.list(policy, include_deleted=True)


def _of_version(policy: str, where: dict[str, Any]) -> Iterator[tuple[str, Callable[[Store], Any]]]:
    yield "document", lambda s: s.documents.get_document(policy, **where)
    yield "outline", lambda s: s.documents.get_outline(policy, **where)
    yield "node", lambda s: s.documents.get_node(policy, "004", **where)
    yield "way", lambda s: s.documents.get_ancestor_path(policy, "003", **where)
    yield "page", lambda s: s.documents.get_nodes_by_page(policy, 3, **where)
    yield "search", lambda s: s.documents.search_nodes(policy, "text amended 4", **where)


# --- the proof -----------------------------------------------------------------------------------------------------------


def allowed(kept: Sample, hits: list[Hit]) -> set[int]:
    """The LSNs that a store so damaged may come back with: all groups or, where each lost one was itself hit in the newest
    log file, those before (they look like the torn end of a write that was never acknowledged)."""
    lsns = {kept.lsn}
    for record in reversed(kept.records):
        if record.path != kept.newest_log:
            break
        if not any(hit.path == record.path and hit.start < record.end and hit.end > record.start for hit in hits):
            break
        lsns.add(record.lsn - 1)
    return lsns


def outcome(kept: Sample, damage: Damage, disk: FileSystem | None = None, folder: str = STORE) -> str:
    """``refused`` (not opened), ``noticed`` (some answers refused), ``unread`` (only the check notices) or ``right``. Raises
    AssertionError for a wrong answer, and whatever is no refusal that says where."""
    try:
        store = opened(disk or disk_of(damage.files), folder=folder)
    except REFUSALS as error:
        assert _LOCATED.search(str(error)), f"{damage.name}: it does not say where: {error}"
        return "refused"
    try:
        lsn = engine_of(store).state.lsn
        assert lsn in allowed(kept, damage.hits), f"{damage.name}: comes back after group {lsn} of {kept.lsn}"
        refused = 0
        for name, ask in questions():
            try:
                found = ask(store)
            except Corrupted as error:
                assert _LOCATED.search(str(error)), f"{damage.name}: {name}: it does not say where: {error}"
                refused += 1
            else:
                assert found == kept.answers[lsn][name], f"{damage.name}: {name} is answered wrongly"
        report = store.check()
        assert report.ok or all(map(_LOCATED.search, report.problems[:1])), f"{damage.name}: {report.problems}"
        assert not (report.ok and refused), f"{damage.name}: the check finds nothing, yet {refused} answers were refused"
        return "noticed" if refused else "right" if report.ok else "unread"
    finally:
        abandon(store)


# --- the damage ----------------------------------------------------------------------------------------------------------


def with_bytes(kept: Sample, name: str, path: str, start: int, raw: bytes) -> Damage:
    """Other bytes in a file."""
    whole = kept.files[path]
    end = min(start + len(raw), len(whole))
    spoiled = whole[:start] + raw[: end - start] + whole[end:]
    return Damage(f"{name} {path} {start}-{end}", {**kept.files, path: spoiled}, [Hit(path, start, end)])


def flipped(kept: Sample, path: str, at: int, bits: int) -> Damage:
    """Some bits of a byte flipped."""
    return with_bytes(kept, f"flip {bits:#04x}", path, at, bytes([kept.files[path][at] ^ bits]))


def cut(kept: Sample, path: str, length: int) -> Damage:
    """A file that ends early."""
    return Damage(f"truncate {path} {length}", {**kept.files, path: kept.files[path][:length]}, [Hit(path, length, 1 << 62)])


def swapped(kept: Sample, one: int, two: int) -> Damage:
    """Two pages of the data file in each other's place."""
    raw = bytearray(kept.files["data"])
    first, second = (slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE) for page in (one, two))
    raw[first], raw[second] = raw[second], raw[first]
    return Damage(f"swap pages {one} {two}", {**kept.files, "data": bytes(raw)}, [])


def misdirected(kept: Sample, source: int, target: int) -> Damage:
    """A page that was written over another one as well."""
    raw = kept.files["data"][source * PAGE_SIZE : (source + 1) * PAGE_SIZE]
    return with_bytes(kept, f"page {source} over", "data", target * PAGE_SIZE, raw)


def stale(kept: Sample, page: int) -> Damage:
    """A page that was not written although the disk said so: it holds what it did one checkpoint earlier."""
    raw = kept.earlier[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
    return with_bytes(kept, "earlier page", "data", page * PAGE_SIZE, raw)


def all_bytes(kept: Sample) -> list[tuple[str, int]]:
    """Every byte of every file."""
    return [(path, at) for path, raw in sorted(kept.files.items()) for at in range(len(raw))]


def ranges(kept: Sample, length: int) -> Iterator[tuple[str, int, int]]:
    """Ranges that cover every byte of every file."""
    for path, raw in sorted(kept.files.items()):
        for start in range(0, len(raw), length):
            yield path, start, min(length, len(raw) - start)


def structure(kept: Sample) -> list[tuple[str, int]]:
    """Bytes near where something begins or ends: pages, meta pages, headers, records, the ends of the files."""
    edges = {("data", at) for at in range(0, len(kept.files["data"]) + 1, 4096)}
    for record in kept.records:
        edges |= {(record.path, record.start), (record.path, record.start + RECORD_HEADER), (record.path, record.end)}
    for path, raw in kept.files.items():
        edges |= {(path, 0), (path, 56), (path, LOG_START), (path, len(raw))}
    near = {(path, at + by) for path, at in edges for by in (-1, 0, 1)}
    return sorted((path, at) for path, at in near if 0 <= at < len(kept.files[path]))


def checksum(raw: bytes | bytearray) -> bytes:
    """What a meta page of these bytes ends with."""
    return crc32(raw).to_bytes(4, "little")
