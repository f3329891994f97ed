"""Counters near 2^31 and 2^32: what has more room works across the border, what has not is refused and nothing is damaged."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.engine.accounting import account
from tests.engine.ondisk import OPTIONS
from tests.engine.workload import Group, History, bulk_entries, contents, key, problems, random_group
from treestore import SyncDriver, TreeStore, Unavailable
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.engine.batch import Job
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.file import File, OsFileSystem
from treestore.backends.btree.engine.format import (
    MAX_PAGE,
    META_SIZE,
    META_SLOTS,
    PAGE_SIZE,
    decode_meta,
    encode_log_header,
    encode_meta,
)
from treestore.backends.btree.engine.freelist import Run
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.engine.wal import file_name
from treestore.backends.btree.keyspace import (
    COUNTERS,
    GENERATION,
    GROUPS,
    HEADS,
    MAX_NUMBER,
    NEXT_CONTENT,
    NEXT_POLICY,
    Head,
    decode,
    encode,
)
from treestore.errors import DiskFull
from treestore.store import utc_now

BORDERS = [2**31 - 1, 2**32 - 1]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def begun_at(folder: str, **counters: int) -> None:
    """An empty store whose meta page says so, with the log file that it names."""
    Engine.open(folder).close()
    data = Path(folder, "data")
    meta = decode_meta(data.read_bytes()[:META_SIZE])
    assert meta is not None
    meta = msgspec.structs.replace(meta, **counters)
    data.write_bytes(encode_meta(meta) * len(META_SLOTS))
    if meta.log:
        Path(folder, "wal", file_name(meta.log)).write_bytes(encode_log_header(meta.store_id, meta.log, meta.lsn + 1))


def worked(engine: Engine, history: History, seed: int, turns: int = 30) -> None:
    """Groups of every sort, checkpoints and rotation."""
    choose = random.Random(seed)
    for turn in range(turns):
        bulk = [(2, bulk_entries(b"bulk %d %d " % (seed, turn), 60))] if turn % 10 == 3 else []
        history.sent(engine, Group({}, [], bulk))
        history.sent(engine, *(random_group(choose) for _ in range(3)))
        if turn % 5 == 4:
            engine.checkpoint()
            engine.tidy()


@pytest.mark.parametrize("border", BORDERS)
def test_counters_of_64_bits_go_across(folder: str, border: int) -> None:
    """LSNs, epochs (which number commits), generations of meta pages and numbers of log files, all at once."""
    start = border - 2
    begun_at(folder, lsn=start, epoch=start, generation=start, log=start)
    history = History(start)
    for seed in range(3):
        engine = Engine.open(folder, OPTIONS)
        assert contents(engine.state) == history.models[-1]
        worked(engine, history, seed, 15)
        account(engine)
        assert problems(engine) == []
        assert engine.state.lsn == start + len(history.models) - 1
        history.sent(engine, *(random_group(random.Random(seed)) for _ in range(3)))
        engine._let_go("crash")
    engine = Engine.open(folder, OPTIONS)
    assert engine.replayed == 3
    assert contents(engine.state) == history.models[-1]
    engine.compact()
    engine.close()
    meta = engine._meta
    assert min(meta.lsn, meta.epoch, meta.generation, meta.log) > border
    engine = Engine.open(folder, OPTIONS)
    assert contents(engine.state) == history.models[-1]
    assert problems(engine) == []
    engine.close()


# --- page numbers ----------------------------------------------------------------------------------------------------------


class _Far:
    """A data file whose pages, but for the first, lie behind a hole of so many bytes that takes no room on the disk."""

    def __init__(self, file: File, hole: int) -> None:
        self._file = file
        self._hole = hole
        self.sync, self.close = file.sync, file.close

    def _at(self, offset: int) -> int:
        assert offset < PAGE_SIZE or offset >= PAGE_SIZE + self._hole, "nothing lies in the hole"
        return offset if offset < PAGE_SIZE else offset - self._hole

    def read(self, offset: int, length: int) -> bytes:
        return self._file.read(self._at(offset), length)

    def write(self, offset: int, data: bytes | bytearray) -> None:
        self._file.write(self._at(offset), data)

    def reserve(self, offset: int, length: int) -> None:
        self._file.reserve(self._at(offset), length)

    def size(self) -> int:
        return self._file.size() + self._hole


class FarDisk(OsFileSystem):
    """Page ``first`` of a data file lies where page 1 would."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.hole = (first - 1) * PAGE_SIZE

    def open(self, path: str, *, create: bool = False) -> File:
        file = super().open(path, create=create)
        return _Far(file, self.hole) if path.endswith("/data") else file


def elsewhere(first: int) -> list[Run]:
    """The pages before the first one that these tests look at."""
    return [(1, first - 1)]


@pytest.mark.parametrize("border", [2**31 - 1, 2**31, 2**32 - 400])
def test_page_numbers_of_32_bits(folder: str, border: int) -> None:
    first = border - 30
    begun_at(folder, page_count=first)
    history = History()
    for seed in range(3):
        engine = Engine.open(folder, OPTIONS, fs=FarDisk(first))
        assert contents(engine.state) == history.models[-1]
        worked(engine, history, seed, 8)
        account(engine, elsewhere(first))
        engine.checkpoint()
        account(engine, elsewhere(first))
        history.sent(engine, random_group(random.Random(seed)))
        engine._let_go("crash")
    engine = Engine.open(folder, OPTIONS, fs=FarDisk(first))
    assert engine._freelist.page_count > border
    assert contents(engine.state) == history.models[-1]
    account(engine, elsewhere(first))
    engine.compact()
    engine.close()
    engine = Engine.open(folder, OPTIONS)
    assert contents(engine.state) == history.models[-1]
    assert problems(engine) == []
    engine.close()


def test_the_greatest_page_number_is_a_full_disk_that_harms_nothing(folder: str) -> None:
    first = MAX_PAGE - 60
    begun_at(folder, page_count=first)
    history = History()
    engine = Engine.open(folder, OPTIONS, fs=FarDisk(first))
    choose = random.Random(1)
    refusals: list[str] = []
    for turn in range(400):
        if len(refusals) > 8:
            break
        puts = {(1, key(choose.randrange(400))): choose.randbytes(choose.choice((1000, 9000))) for _ in range(6)}
        group = Group({**puts}) if turn % 4 else Group({}, [], [(2, bulk_entries(b"%d " % turn, 60))])
        try:
            errors = history.commit(engine, [group])
            if turn % 3 == 0:
                engine.checkpoint()
        except DiskFull as error:
            errors = [error]
        refusals += [str(error) for error in errors if error is not None]
        account(engine, elsewhere(first))
        assert contents(engine.state) == history.models[-1]
    assert len(refusals) > 8
    assert all("greatest size" in line for line in refusals), refusals
    engine._let_go("crash")
    engine = Engine.open(folder, OPTIONS, fs=FarDisk(first))
    assert contents(engine.state) == history.models[-1]
    account(engine, elsewhere(first))
    with pytest.raises(DiskFull, match="greatest size"):
        engine.checkpoint()
    history.sent(engine, Group({}, [(1, b"key", b"kez"), (2, b"", None)]))
    engine._let_go("crash")
    engine = Engine.open(folder, OPTIONS, fs=FarDisk(first))
    assert contents(engine.state) == history.models[-1]
    engine.close()


# --- the numbers that keys are made of --------------------------------------------------------------------------------------


def nodes(name: str, count: int = 3, weight: int = 20) -> list[dict[str, Any]]:
    return [
        {"node_id": str(n), "title": f"{name} {n}", "text": f"{name} {n} " * weight, "page_start": n + 1, "page_end": n + 1}
        for n in range(count)
    ]


def opened(folder: str) -> TreeStore[SyncDriver]:
    return TreeStore(SyncDriver(BtreeBackend.open(folder), utc_now))


def put(folder: str, changes: dict[tuple[int, bytes], bytes]) -> None:
    """Set values of a closed store's trees."""
    engine = Engine.open(folder)
    trees = sorted({tree for tree, _ in changes})
    rows = [(tree, sorted(key for other, key in changes if other == tree)) for tree in trees]
    job = Job(lambda _: [TreeChange(tree, keys, [changes[tree, key] for key in keys]) for tree, keys in rows])
    engine.commit([job])
    assert job.error is None
    engine.close()


def texts(store: Any, policy: str, version: str | None = None) -> list[str | None]:
    return [node.text for node in store.documents.get_document(policy, version_id=version).nodes]


def given(name: str, count: int = 3, weight: int = 20) -> list[str]:
    return [node["text"] for node in nodes(name, count, weight)]


LARGE = (300, 1000)  # loaded in bulk


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("counter", [NEXT_POLICY, NEXT_CONTENT])
def test_policy_and_content_numbers_of_32_bits(folder: str, counter: bytes, border: int) -> None:
    opened(folder).close()
    put(folder, {(COUNTERS, counter): (border - 3).to_bytes(8, "big")})
    stored: dict[str, list[str]] = {}
    refused: list[Unavailable] = []
    for turn in range(4):
        with opened(folder) as store:
            for size in ((3, 20), LARGE if turn == 1 else (2, 2)):
                name = f"p{turn} {size[0]}"
                try:
                    store.documents.store_document(name, "1", nodes(name, *size))
                except Unavailable as error:
                    refused.append(error)
                    continue
                stored[name] = given(name, *size)
                assert [hit.node.title for hit in store.documents.search_nodes(name, f"{name} 1", limit=1)] != []
                assert [node.node_id for node in store.documents.get_nodes_by_page(name, 2)] == ["1"]
            assert {name: texts(store, name) for name in stored} == stored
    with opened(folder) as store:
        assert store.check().problems == []
    if border < MAX_NUMBER:
        assert refused == []
    else:
        assert len(stored) == 4, "the last number of 32 bits is given out too"
        assert all(f"given out all its {counter.decode()} numbers; copy it to a new one" in str(error) for error in refused)
    with opened(folder) as store:
        for name in list(stored)[::2]:
            store.documents.delete_document(name)
            del stored[name]
        assert store.check().problems == []
        assert {name: texts(store, name) for name in stored} == stored
        store.documents.update_node(next(iter(stored)), "1", text="amended", title="amended")
        store.compact()
        assert store.check().problems == []


@pytest.mark.parametrize("border", BORDERS)
def test_text_numbers_of_32_bits(folder: str, border: int) -> None:
    with opened(folder) as store:
        store.documents.store_document("p", "1", nodes("first"))
    engine = Engine.open(folder)
    head = decode(Head, engine.state.get(HEADS, b"p") or b"")
    engine.close()
    put(folder, {(HEADS, b"p"): encode(msgspec.structs.replace(head, next_text=border - 5))})
    versions = {"1": given("first")}
    refused: list[str] = []
    for turn in range(2, 9):
        with opened(folder) as store:
            for version, name in ((str(turn), f"v{turn}"), ("1", f"again {turn}")):
                try:
                    store.documents.store_document("p", version, nodes(name))
                    versions[version] = given(name)
                except Unavailable as error:
                    refused.append(str(error))
            copied = store.documents.get_document("p", version_id="1").nodes
            try:
                store.documents.store_document("p", "copy", copied)
                versions["copy"] = versions["1"]
                store.documents.update_node("p", "1", version_id="copy", text=f"amended {turn}")  # a text of two versions
                versions["copy"] = [versions["1"][0], f"amended {turn}", versions["1"][2]]
            except Unavailable as error:
                refused.append(str(error))
            assert store.check().problems == []
            assert {version: texts(store, "p", version) for version in versions} == versions
    if border < MAX_NUMBER:
        assert refused == []
    else:
        assert len(refused) > 6
        assert all("has given out all its text numbers; store it anew, under another id" in line for line in refused)
    with opened(folder) as store:
        store.documents.store_document("q", "1", store.documents.get_document("p", version_id="1").nodes)
        store.documents.delete_document("p")
        assert texts(store, "q") == versions["1"]
        assert store.check().problems == []


@pytest.mark.parametrize("border", BORDERS)
def test_generations_of_group_ids_of_32_bits(folder: str, border: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1_000_000_000.0
    monkeypatch.setattr("treestore.backends.btree.writes.time.time", lambda: clock)
    opened(folder).close()
    put(folder, {(COUNTERS, GENERATION): (border - 2).to_bytes(8, "big") + int(clock).to_bytes(8, "big")})
    backend = BtreeBackend.open(folder)
    store = TreeStore(SyncDriver(backend, utc_now))
    for hour in range(6):
        for turn in range(2):
            store.documents.store_document(f"p{hour} {turn}", "1", nodes("x"))
        assert 2 <= backend._engine.state.count(GROUPS) <= 4, "those of this generation and of the one before"
        clock += 3601
    assert store.check().problems == []
    store.close()
