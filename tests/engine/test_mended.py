"""Faults that were found by reading the code as an adversary, each made to happen again."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import treestore
from treestore.backends.btree.backend import BtreeBackend
from treestore.backends.btree.engine import engine as engine_module
from treestore.backends.btree.engine.batch import Job
from treestore.backends.btree.engine.bulk import finished
from treestore.backends.btree.engine.checkpoint import Checkpoint
from treestore.backends.btree.engine.engine import Engine, Options
from treestore.backends.btree.engine.file import OsFile, OsFileSystem
from treestore.backends.btree.engine.node import Leaf
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.config import Settings
from treestore.errors import InvalidInput, Unavailable
from treestore.operations import DropVersion, Get, GetVersion, ReplaceVersion, WriteGroup
from treestore.records import Version
from treestore.repositories import facts
from treestore.trees.derive import derive_now


def put(engine: Engine, *keys: bytes, value: bytes = b"v") -> None:
    job = Job(lambda _: [TreeChange(1, sorted(keys), [value] * len(keys))])
    engine.commit([job])
    if job.error is not None:
        raise job.error


def entries(engine: Engine) -> dict[bytes, bytes]:
    with engine.reading() as state:
        return dict(state.scan(1, b"", None))


def interrupted_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Ctrl-C at the next call of a function, after it has done its work."""
    plain = getattr(owner, name)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        plain(*args, **kwargs)
        monkeypatch.setattr(owner, name, plain)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)


def test_slow_syncs_from_loops_and_threads_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs of one worker thread waited for each other, and all writes with them."""
    plain = OsFile.sync

    def slow(file: OsFile) -> None:
        time.sleep(0.003)
        plain(file)

    monkeypatch.setattr(OsFile, "sync", slow)
    backend = BtreeBackend.open(tmp_path / "store", Settings(cache_size_mb=1, wal_file_size_mb=1))
    now = treestore.store.utc_now()
    written = 0

    def group(name: str) -> WriteGroup:
        version = Version(policy_id=name, version_id="1", ingested_at=now, created_at=now, updated_at=now, revision=1)
        return WriteGroup((ReplaceVersion(version, derive_now(name, "1", [{"node_id": "1", "title": "x" * 2000}])),))

    async def in_loop(number: int) -> None:
        nonlocal written
        for turn in range(40):
            await backend.write(group(f"loop {number} {turn}"))
            written += 1

    async def loops() -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*(in_loop(number) for number in range(4)))

    def in_thread() -> None:
        for turn in range(40):
            backend.write_now(group(f"thread {threading.get_ident()} {turn}"))

    threads = [threading.Thread(target=in_thread, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    asyncio.run(loops())
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert written == 160
    backend.close_now()


def test_a_node_without_text_never_shares_a_number_with_a_text_of_its_own_version(tmp_path: Path) -> None:
    def nodes(*texts: str | None) -> list[dict[str, Any]]:
        return [{"node_id": str(i), "title": "", "text": text} for i, text in enumerate(texts)]

    with treestore.open_sync(f"btree:///{tmp_path / 'store'}") as store:
        store.documents.store_document("p", "1", nodes("A", "B"))
        store.documents.store_document("p", "2", nodes("X", "B", None))
        store.documents.update_node("p", "0", version_id="2", text="Y")
        assert store.check().problems == []
        assert [node.text for node in store.documents.get_document("p", version_id="2").nodes] == ["Y", "B", None]


@pytest.mark.parametrize("name", ["settle", "__init__"])
def test_an_interrupt_in_a_checkpoint_stops_writes_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    engine = Engine.open(str(tmp_path / "store"))
    put(engine, b"a", b"b")
    interrupted_once(monkeypatch, Checkpoint, name)
    with pytest.raises(KeyboardInterrupt):
        engine.checkpoint()
    with pytest.raises(Unavailable, match="open it again"):
        put(engine, b"c")
    assert entries(engine) == {b"a": b"v", b"b": b"v"}
    engine.close()
    engine = Engine.open(str(tmp_path / "store"))
    put(engine, b"c")
    engine.checkpoint()
    assert sorted(entries(engine)) == [b"a", b"b", b"c"]
    engine.close()


def test_an_interrupt_after_a_compaction_has_renamed_the_file_stops_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.open(str(tmp_path / "store"))
    put(engine, *(b"%d" % i for i in range(1000)))
    engine.checkpoint()
    interrupted_once(monkeypatch, OsFileSystem, "rename")
    with pytest.raises(KeyboardInterrupt):
        engine.compact()
    with pytest.raises(Unavailable, match="open it again"):
        put(engine, b"lost in the old file")
    assert len(entries(engine)) == 1000
    engine.close()
    engine = Engine.open(str(tmp_path / "store"))
    assert len(entries(engine)) == 1000
    engine.close()


def test_an_interrupt_while_closing_lets_go_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = treestore.open_sync(f"btree:///{tmp_path / 'store'}")
    store.documents.store_document("p", "1", [{"node_id": "1", "title": ""}])
    interrupted_once(monkeypatch, OsFile, "sync")
    with pytest.raises(KeyboardInterrupt):
        store.close()
    with treestore.open_sync(f"btree:///{tmp_path / 'store'}") as again:
        assert again.documents.get_node("p", "1").title == ""
        assert again.check().ok


def test_a_group_too_large_for_a_log_record_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_PAYLOAD", 10_000)
    engine = Engine.open(str(tmp_path / "store"))
    with pytest.raises(InvalidInput, match="at most 10000 are possible"):
        put(engine, b"large", value=b"x" * 10_001)
    put(engine, b"small")
    engine._let_go("crash")
    engine = Engine.open(str(tmp_path / "store"))
    assert list(entries(engine)) == [b"small"]
    engine.close()


def test_replayed_bytes_count_for_the_next_checkpoint(tmp_path: Path) -> None:
    """A store that is killed again and again does not pile up log files for ever."""
    options = Options(log_file_bytes=100_000)
    for _ in range(8):
        engine = Engine.open(str(tmp_path / "store"), options)
        put(engine, b"k", value=b"x" * 60_000)
        if engine.checkpoint_due():
            engine.checkpoint()
        engine._let_go("crash")
    engine = Engine.open(str(tmp_path / "store"), options)
    assert engine.replayed <= 2
    engine.close()


def group(tmp: str, *more: Any, group_id: bytes | None = None) -> WriteGroup:
    now = treestore.store.utc_now()
    version = Version(policy_id=tmp, version_id="1", ingested_at=now, created_at=now, updated_at=now, revision=1)
    nodes = derive_now(tmp, "1", [{"node_id": str(i), "title": "", "text": "t" * 2000} for i in range(1000)])
    writes_ = (ReplaceVersion(version, nodes), *[each(version) for each in more])
    return WriteGroup(writes_) if group_id is None else WriteGroup(writes_, group_id=group_id)


def test_writes_after_a_large_tree_in_one_group_apply_to_it(tmp_path: Path) -> None:
    backend = BtreeBackend.open(tmp_path / "store")
    now = treestore.store.utc_now()
    backend.write_now(group("p", lambda version: DropVersion(facts.tombstone(version, now))))
    found = backend.read_one_now(GetVersion("p", "1", deleted=True))
    assert found.deleted_at is not None
    assert backend.read_one_now(treestore.operations.Stats()).nodes == 0
    assert backend.read_one_now(treestore.operations.Check()).problems == []
    backend.close_now()


def test_a_group_id_is_remembered_from_its_application_not_from_its_making(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1_000_000.0
    monkeypatch.setattr("treestore.backends.btree.writes.time.time", lambda: clock)
    backend = BtreeBackend.open(tmp_path / "store")
    old = bytes(16)  # as made in 1970
    assert not backend.write_now(group("p", group_id=old)).repeated
    for hours in range(1, 3):
        for minutes in range(3):
            clock += 1199
            backend.write_now(group(f"other {hours} {minutes}"))
        if hours == 1:
            assert backend.write_now(group("p", group_id=old)).repeated
    assert backend.read_one_now(Get(Version, ("p", "1"))) is not None
    clock = 100.0  # and the clock may go back
    assert not backend.write_now(group("after")).repeated
    backend.close_now()


def test_a_bulk_loaded_leaf_is_never_read_as_an_earlier_one_of_the_same_page_and_checksum(tmp_path: Path) -> None:
    engine = Engine.open(str(tmp_path / "store"))
    new = [(b"k%d" % i, b"new") for i in range(3)]
    first = engine.bulk()
    made = finished(first.load(new))
    assert made is not None
    [(_, reference)] = made.leaves
    first.abandon()
    old = Leaf([b"k0"], [b"of another tenant"], 100, reference)
    engine.state.pager.keep(old)  # by chance it had the same page and checksum
    again = engine.bulk()
    made = finished(again.load(new))
    assert made is not None
    assert made.leaves[0][1] == reference, "the same page was given out again"
    again.sync()
    job = Job(lambda _: [TreeChange(1, grafts=[made])])
    engine.commit([job])
    assert job.error is None
    assert entries(engine) == dict(new)
    assert engine.state.pager.cached_bytes >= 0
    engine.close()


def test_pages_are_not_freed_beside_a_commit(tmp_path: Path) -> None:
    """Freeing what readers have left waits for a commit, so no reader of what it publishes can be overlooked."""
    engine = Engine.open(str(tmp_path / "store"))
    with engine.writer:
        tidying = threading.Thread(target=engine.tidy)
        tidying.start()
        tidying.join(0.05)
        assert tidying.is_alive()
    tidying.join(10)
    assert not tidying.is_alive()
    engine.close()
