"""Backups and their restoring: one committed moment, proven before it counts, and nothing that passes for a store before."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import treestore
from tests.engine import damage
from tests.engine.ondisk import ROOT, files_of
from tests.engine.simulated import SimulatedDisk, cuts, failing
from tests.engine.test_backend import engine_of, given, large, nodes, texts
from treestore import Corrupted, DiskFull, InvalidInput, Locked, MigrationError, NoStore, NotAStore, Settings, TreestoreError
from treestore.backends.btree.engine.backup import backup
from treestore.backends.btree.engine.batch import Job
from treestore.backends.btree.engine.compact import Rewritten, rewrite
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.file import FileSystem, SyncFailed
from treestore.backends.btree.engine.format import Meta
from treestore.backends.btree.engine.mvcc import State
from treestore.backends.btree.engine.recovery import TreeChange
from treestore.backends.btree.keyspace import NODE_IDS
from treestore.backends.btree.restoring import restore

SETTINGS = Settings(cache_size_mb=2, wal_file_size_mb=1, checkpoint_interval_seconds=0.05)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A backup."""
    with treestore.open_sync(f"btree:///{tmp_path / 'store'}", settings=SETTINGS) as store:
        store.documents.store_document("p", "1", nodes("p", 50), pages=[{"page": 1, "content": "long " * 4000}])
        store.documents.store_document("q", "1", nodes("q", 400))
        store.documents.delete_version("p", "1")
        store.documents.store_document("p", "2", nodes("p", 20))
        store.backup(tmp_path / "copy")
    return tmp_path / "copy"


def moment(folder: Path) -> list[object]:
    """All that is in a store; a check of it must be clean."""
    with treestore.open_sync(f"btree:///{folder}", create=False) as store:
        assert store.check().problems == []
        found: list[object] = []
        for summary in store.documents.list_documents():
            policy = summary.policy_id
            for version in store.versions.list(policy, include_deleted=True):
                gone = version.deleted_at is not None
                found.append(version if gone else store.documents.get_document(policy, version_id=version.version_id))
        return found


def no_store(folder: Path) -> bool:
    """Whether nothing there opens as a store."""
    try:
        treestore.open_sync(f"btree:///{folder}", create=False).close()
    except (NoStore, NotAStore):
        return True
    return False


def test_a_backup_is_restored_and_left_as_it_was(copy: Path, tmp_path: Path) -> None:
    before = sorted((path, path.read_bytes()) for path in copy.rglob("*") if path.is_file())
    for mode in (0o555, 0o700):
        os.chmod(copy, mode)
        size = treestore.restore(copy, tmp_path / f"restored {mode}")
        assert size == (tmp_path / f"restored {mode}" / "data").stat().st_size
    assert sorted((path, path.read_bytes()) for path in copy.rglob("*") if path.is_file()) == before
    assert moment(tmp_path / f"restored {0o555}") == moment(copy) != []


def test_a_store_whose_last_groups_are_in_the_log_is_restored_with_them(tmp_path: Path) -> None:
    """A copy of a store's folder that was made while nobody had it open is a backup too, after a kill as well."""
    store = treestore.open_sync(f"btree:///{tmp_path / 'store'}")
    store.documents.store_document("p", "1", nodes("p", 50))
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    store.close()
    (tmp_path / "copy" / "data.new").write_bytes(b"left by a compaction that was killed")
    before = files_of(str(tmp_path / "copy"))
    treestore.restore(tmp_path / "copy", tmp_path / "restored")
    assert files_of(str(tmp_path / "copy")) == before
    assert moment(tmp_path / "restored") == moment(tmp_path / "store") != []


def test_a_folder_that_holds_something_is_not_overwritten(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    treestore.restore(copy, target)
    before = files_of(str(target))
    with pytest.raises(InvalidInput, match="is not empty"):
        treestore.restore(copy, target)
    assert files_of(str(target)) == before
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear")
    with pytest.raises(InvalidInput, match="is not empty"):
        treestore.restore(copy, tmp_path / "letters")
    with pytest.raises(NotAStore, match="is a file"):
        treestore.restore(copy, tmp_path / "letters" / "letter.txt")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["letter.txt"]
    for inside in (copy, copy / "wal" / "new"):
        with pytest.raises(InvalidInput, match="lies in the folder that is copied"):
            treestore.restore(copy, inside)
    (tmp_path / "empty").mkdir()
    treestore.restore(copy, tmp_path / "empty")
    assert moment(tmp_path / "empty") == moment(copy)


def test_what_is_no_backup_is_refused(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter").write_text("dear")
    letters = tmp_path / "letters"
    for source, why in ((tmp_path / "none", NoStore), (letters, NotAStore), (letters / "letter", NotAStore)):
        with pytest.raises(why):
            treestore.restore(source, target)
        assert not target.exists()
    with treestore.open_sync(f"btree:///{copy}"), pytest.raises(Locked, match=f"pid {os.getpid()}"):
        treestore.restore(copy, target)
    raw = bytearray((copy / "data").read_bytes())
    for slot in (0, 4096):
        raw[slot + 16] = 9
        raw[slot + 4092 : slot + 4096] = damage.checksum(raw[slot : slot + 4092])
    (copy / "data").write_bytes(raw)
    with pytest.raises(MigrationError, match="format 9"):
        treestore.restore(copy, target)
    assert not target.exists()


@pytest.mark.parametrize("read", [treestore.restore, treestore.salvage])
def test_a_store_in_use_whose_lock_file_somebody_deleted_is_refused_all_the_same(
    copy: Path, tmp_path: Path, read: Callable[[Path, Path], object]
) -> None:
    with treestore.open_sync(f"btree:///{copy}"):
        (copy / "LOCK").unlink()
        with pytest.raises(Locked, match="is in use by another process"):
            read(copy, tmp_path / "new")
    (copy / "LOCK").unlink(missing_ok=True)
    read(copy, tmp_path / "new")
    assert not (copy / "LOCK").exists(), "the copy is left as it was"
    assert moment(tmp_path / "new") == moment(copy)


def test_no_damaged_backup_is_restored_wrongly(tmp_path: Path) -> None:
    """Damage of any page: refused, and nothing is there; or what is restored is right (the page was free)."""
    kept = damage.sample()
    found = {True: 0, False: 0}
    choose = random.Random(5)
    for path, at, length in damage.ranges(kept, 8192):
        if not any(kept.files[path][at : at + length]):
            continue
        spoiled = damage.with_bytes(kept, "garbage", path, at + choose.randrange(40), choose.randbytes(30))
        disk = damage.disk_of(spoiled.files)
        before = {name: bytes(inode.current) for name, inode in disk.names.items() if inode}
        try:
            restore("/disk/store", "/disk/target", fs=disk, source_fs=disk)
        except (Corrupted, NotAStore):
            assert "/disk/target/data" not in disk.names, spoiled.name
            found[False] += 1
        else:
            store = damage.opened(disk, folder="/disk/target")
            assert damage.engine_of(store).state.lsn in damage.allowed(kept, spoiled.hits)
            expected = kept.answers[damage.engine_of(store).state.lsn]
            assert {name: ask(store) for name, ask in damage.questions()} == expected, spoiled.name
            damage.abandon(store)
            found[True] += 1
        after = {name: bytes(inode.current) for name, inode in disk.names.items() if inode}
        assert {name: raw for name, raw in after.items() if "/store/" in name and "LOCK" not in name} == before
    assert found[True] > 3 and found[False] > 10


def test_a_backup_whose_pages_are_whole_and_whose_rows_are_not_sound_is_refused(copy: Path, tmp_path: Path) -> None:
    engine = Engine.open(str(copy))
    with engine.reading() as state:
        key = next(key for key, _ in state.scan(NODE_IDS, b"", None))
    engine.commit([job := Job(lambda _: [TreeChange(NODE_IDS, [key], [None])])])
    assert job.error is None
    engine.close()
    with pytest.raises(Corrupted, match=r"not sound, so nothing was restored: .*index of node ids does not fit"):
        treestore.restore(copy, tmp_path / "target")
    assert no_store(tmp_path / "target")


def test_a_cut_in_the_midst_of_a_restore_leaves_nothing_that_passes_for_a_store() -> None:
    """At every operation, and then it is begun again in the same folder."""
    kept = damage.sample()
    disk = damage.disk_of(kept.files)
    left: list[SimulatedDisk] = []

    def cut(kind: str, path: str) -> None:
        left.extend(one for _, one in cuts(disk, len(left)))
        if kind == "rename":
            left.extend(disk.after_cut(seed) for seed in range(40))

    disk.hook = cut
    restore("/disk/store", "/disk/target", fs=disk, source_fs=disk)
    done = disk.after_cut(0, 0.0)
    assert "/disk/target/data" in done.names, "it is durable when the call returns"
    left.append(done)
    named = 0
    for number, one in enumerate(left):
        one.locks.clear()
        if "/disk/target/data" not in one.names and number % 7:
            continue
        if "/disk/target/data" not in one.names:
            with pytest.raises((NoStore, NotAStore)):
                Engine.open("/disk/target", create_new=False, fs=one)
            restore("/disk/store", "/disk/target", fs=one, source_fs=one)
        named += 1
        store = damage.opened(one, folder="/disk/target")
        assert {name: ask(store) for name, ask in damage.questions()} == kept.answers[kept.lsn]
        damage.abandon(store)
    assert named > 5 and len(left) > 40


@pytest.mark.parametrize("full", [True, False], ids=["full disk", "broken disk"])
def test_a_restore_that_fails_at_any_operation_leaves_no_store_and_can_be_repeated(full: bool) -> None:
    kept = damage.sample()
    at = 0
    while True:
        at += 1
        source, disk = damage.disk_of(kept.files), SimulatedDisk()
        disk.fault = failing(at, for_ever=at % 2 == 0, full=full)
        try:
            restore("/disk/store", "/disk/target", fs=disk, source_fs=source)
        except TreestoreError as error:
            assert not full or isinstance(error, DiskFull | SyncFailed)
        if disk.operations < at:
            break
        disk.fault = None
        if "/disk/target/data" not in disk.names:
            restore("/disk/store", "/disk/target", fs=disk, source_fs=source)
        store = damage.opened(disk, folder="/disk/target")
        assert store.stats().nodes == 167
        damage.abandon(store)
    assert at > 10


_RESTORE = """
    import sys, treestore
    print("began", flush=True)
    treestore.restore(*sys.argv[1:])
    print("done", flush=True)
"""


def test_a_restore_killed_at_any_moment_leaves_no_store_or_a_whole_one(copy: Path, tmp_path: Path) -> None:
    """The folder is the same each time: what a kill left does not stop the next one."""
    target, choose, killed = tmp_path / "target", random.Random(6), 0
    whole = moment(copy)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(_RESTORE), str(copy), str(target)]
    for turn in range(8):
        with subprocess.Popen(command, cwd="/", env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"began\n"
            time.sleep(choose.uniform(0.02, 0.4) if turn else 0.0)
            process.send_signal(signal.SIGKILL)
            said = process.communicate()[0]
        if no_store(target):
            assert said == b"", "it had said that it was done"
            killed += 1
        else:
            assert moment(target) == whole
            shutil.rmtree(target)
    assert killed >= 2
    if target.exists():
        treestore.restore(copy, target)
        assert moment(target) == whole


# --- backups -------------------------------------------------------------------------------------------------------------


async def test_backups_while_all_else_goes_on_are_restored_as_one_committed_moment_each(tmp_path: Path) -> None:
    """Eight tasks that store, a bulk load, checkpoints and compactions, while backups are made one after another."""
    url = f"btree:///{tmp_path / 'store'}"
    async with treestore.open(url, settings=SETTINGS) as store:
        stop, done, all_began = False, [0] * 8, asyncio.Event()

        async def task(number: int) -> None:
            while not stop:
                turn = done[number] + 1
                tree = large(f"{number} {turn}") if number == 7 else nodes(f"{number} {turn}", 20)
                await store.documents.store_document(f"p{number}", "1", tree)
                done[number] = turn
                if all(done):
                    all_began.set()

        async def compactions() -> None:
            while not stop:
                await store.compact()
                await asyncio.to_thread(engine_of(store).checkpoint)

        tasks = [asyncio.ensure_future(task(number)) for number in range(8)]
        await all_began.wait()
        tasks.append(asyncio.ensure_future(compactions()))
        moments = []
        for n in range(3):
            before = done.copy()
            await store.backup(tmp_path / f"copy {n}")
            moments.append((before, done.copy()))
        stop = True
        await asyncio.gather(*tasks)
    for n, (before, after) in enumerate(moments):
        treestore.restore(tmp_path / f"copy {n}", tmp_path / f"restored {n}")
        with treestore.open_sync(f"btree:///{tmp_path / f'restored {n}'}", create=False) as restored:
            assert restored.check().problems == []
            for number in range(8):
                found = texts(restored, f"p{number}")
                turn = int((found["00000"] or "").split()[1])
                tree = large(f"{number} {turn}") if number == 7 else nodes(f"{number} {turn}", 20)
                assert found == given(tree), "whole"
                assert before[number] <= turn <= after[number] + 1


def test_a_backup_on_a_full_or_broken_disk_leaves_nothing_that_passes_for_a_store() -> None:
    kept = damage.sample()
    source = damage.opened(damage.disk_of(kept.files))
    with damage.engine_of(source).reading() as state:
        for full in (True, False):
            at = 0
            while True:
                at += 1
                disk = SimulatedDisk()
                disk.fault = failing(at, for_ever=True, full=full)
                try:
                    backup(disk, "/disk/copy", state)
                except TreestoreError:
                    assert disk.operations >= at
                else:
                    break
                disk.fault = None
                if "/disk/copy/data" in disk.names:  # its name alone was not synced
                    continue
                for other in (disk.after_cut(at), disk.after_kill()):
                    with pytest.raises(NotAStore):
                        Engine.open("/disk/copy", create_new=False, fs=other)
            assert at > 10
    damage.abandon(source)


def test_nobody_makes_a_store_where_a_backup_is_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made, written to, and then written over by the backup."""
    store = treestore.open_sync(f"btree:///{tmp_path / 'store'}")
    store.documents.store_document("p", "1", nodes("p", 5))
    copying, go_on = threading.Event(), threading.Event()

    def slow(fs: FileSystem, path: str, old: State, meta: Meta, cache_bytes: int) -> Rewritten:
        copying.set()
        assert go_on.wait(60)
        return rewrite(fs, path, old, meta, cache_bytes)

    monkeypatch.setattr("treestore.backends.btree.engine.backup.rewrite", slow)
    thread = threading.Thread(target=store.backup, args=(tmp_path / "copy",))
    thread.start()
    assert copying.wait(60)
    with pytest.raises(Locked):
        treestore.open_sync(f"btree:///{tmp_path / 'copy'}")
    with pytest.raises(Locked):
        store.backup(tmp_path / "copy")
    go_on.set()
    thread.join(60)
    assert len(moment(tmp_path / "copy")) == 1
    store.close()
