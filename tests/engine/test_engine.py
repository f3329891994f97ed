"""The engine on a real disk: locks, forks, pinned readers, bounded growth and damage."""

from __future__ import annotations

import gc
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from tests.engine.ondisk import OPTIONS, files_of, run_python, stored
from tests.engine.workload import Group, History, accounted, bulk_entries, contents, key, problems
from treestore.backends.btree.engine.batch import Job
from treestore.backends.btree.engine.engine import Engine, Options
from treestore.backends.btree.engine.format import (
    META_SIZE,
    META_SLOTS,
    PAGE_SIZE,
    Overflow,
    decode_meta,
    encode_branch,
    encode_leaf,
    encode_meta,
)
from treestore.backends.btree.engine.node import Page
from treestore.errors import Closed, Corrupted, Locked, MigrationError, NotAStore


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def engine(folder: str) -> Iterator[Engine]:
    engine = Engine.open(folder, OPTIONS)
    yield engine
    engine.close()


def put(engine: Engine, *groups: Group) -> list[Exception | None]:
    jobs = [Job(group.prepare()) for group in groups]
    engine.commit(jobs)
    return [job.error for job in jobs]


# --- one user at a time --------------------------------------------------------------------------------------------------


def test_opening_twice_in_one_process_is_refused(engine: Engine, folder: str) -> None:
    with pytest.raises(Locked, match=f"pid {os.getpid()}"):
        Engine.open(folder)
    os.symlink(folder, folder + "-by-another-name")
    with pytest.raises(Locked):
        Engine.open(folder + "-by-another-name")
    assert put(engine, Group({(1, b"k"): b"v"})) == [None], "the refused attempts did not take the lock away"
    engine.close()
    again = Engine.open(folder)
    assert again.state.get(1, b"k") == b"v"
    again.close()


def test_the_process_that_holds_a_store_is_named(engine: Engine, folder: str) -> None:
    code = """
        import sys
        from treestore.backends.btree.engine.engine import Engine, Options
        from treestore.errors import Locked
        try:
            Engine.open(sys.argv[1])
        except Locked as error:
            print(error)
    """
    assert f"{folder} is in use by pid {os.getpid()} on " in run_python(code, folder).stdout
    assert put(engine, Group({(1, b"k"): b"v"})) == [None]


def test_a_renamed_folder_is_still_locked(engine: Engine, folder: str) -> None:
    os.rename(folder, folder + "-renamed")
    with pytest.raises(Locked):
        Engine.open(folder + "-renamed")
    os.rename(folder + "-renamed", folder)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_finds_the_store_closed_and_the_parent_goes_on(folder: str) -> None:
    """Even where a commit of another thread was under way at the fork, whose lock nobody would ever release."""
    engine = Engine.open(folder, OPTIONS)
    assert put(engine, Group({(1, b"before"): b"1"})) == [None]
    state = engine.state
    with engine.writer:
        child = os.fork()
        if child == 0:
            os._exit(_in_child(engine))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert engine.state is state
    with pytest.raises(Locked):
        Engine.open(folder)
    assert put(engine, Group({(1, b"after"): b"2"})) == [None]
    engine.checkpoint()
    accounted(engine)
    engine.close()
    again = Engine.open(folder)
    assert again.state.get(1, b"after") == b"2"
    again.close()


def _in_child(engine: Engine) -> int:
    """0 if all is refused as it should be. Runs in a forked child, so it must not raise."""
    try:
        errors = put(engine, Group({(1, b"child"): b"x"}))
        if not isinstance(errors[0], Closed) or "before a fork" not in str(errors[0]):
            return 2
        try:
            engine.enter()
            return 3
        except Closed:
            pass
        engine.close()
        return 0
    except BaseException:
        return 1


# --- readers -------------------------------------------------------------------------------------------------------------


def test_a_reader_sees_the_same_bytes_through_300_commits_and_checkpoints(engine: Engine) -> None:
    history = History()
    choose = random.Random(1)
    pinned = []
    for turn in range(300):
        puts = {(1 + n % 3, key(choose.randrange(300))): choose.randbytes(choose.choice((50, 500, 5000))) for n in range(4)}
        group = Group({**puts}, [(2, key(turn), key(turn + 3))] if turn % 11 == 0 else [])
        if turn % 40 == 5:
            group = Group({}, [(3, b"bulk", b"bull")], [(3, bulk_entries(b"bulk", 100))])
        history.sent(engine, group)
        if turn % 25 == 0:
            state, token = engine.enter()
            pinned.append((state, token, history.models[-1]))
        if turn % 9 == 0:
            engine.checkpoint()
            engine.tidy()
        if turn == 150:
            engine.compact()
    for state, token, model in pinned:
        assert contents(state) == model
        engine.leave(token)
    engine.checkpoint()
    accounted(engine)
    assert len(engine.readers) == 0


def test_readers_in_threads_see_whole_commits_only(engine: Engine) -> None:
    """Each commit writes one number to all keys, so a state with two numbers would be half a commit."""
    keys = [(tree, key(n)) for tree in (1, 2) for n in range(150)]
    wanted = set(keys)
    failures: list[str] = []
    rounds = 0
    stop = threading.Event()

    def read() -> None:
        nonlocal rounds
        last = 0
        while not stop.is_set():
            with engine.reading() as state:
                found = {value[:8] for place, value in contents(state).items() if place in wanted}
            if len(found) > 1 or (found and int(min(found)) < last):
                failures.append(f"{found} after {last}")
                return
            last = int(min(found, default=b"0"))
            rounds += 1

    wanted = set(keys)
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(60):
        value = b"%08d" % number * (400 if number % 2 else 10)
        assert put(engine, Group(dict.fromkeys(keys, value))) == [None]
        if number % 7 == 0:
            engine.checkpoint()
        engine.tidy()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert rounds > 10
    accounted(engine)


# --- bounds --------------------------------------------------------------------------------------------------------------


def test_updates_in_place_do_not_grow_the_file_without_bound(engine: Engine) -> None:
    choose = random.Random(2)
    sizes = []
    for _ in range(12):
        for _ in range(20):
            puts = {(1, key(choose.randrange(500))): choose.randbytes(choose.choice((100, 1000, 6000))) for _ in range(10)}
            assert put(engine, Group({**puts})) == [None]
        engine.checkpoint()
        engine.tidy()
        sizes.append(engine.state.pager.file.size())
    assert max(sizes[6:]) < 1.5 * sizes[5]
    assert sum(engine._log.sizes()) < 8 * OPTIONS.log_file_bytes
    accounted(engine)


def test_the_cache_stays_within_its_budget(engine: Engine) -> None:
    history = History()
    for start in range(0, 20_000, 500):
        entries = [(key(start + n), b"v" * 300) for n in range(500)]
        history.sent(engine, Group({}, [], [(2, entries)]))
    engine.checkpoint()
    engine.tidy()
    state = engine.state
    choose = random.Random(3)
    for _ in range(3):
        assert sum(1 for _ in state.scan(2, b"", None)) == 20_000
        assert engine.state.pager.cached_bytes <= OPTIONS.cache_bytes
        for _ in range(500):
            assert state.get(2, key(choose.randrange(20_000))) == b"v" * 300
        assert engine.state.pager.cached_bytes <= OPTIONS.cache_bytes
    assert len(state.pager.nodes) > 20, "it does keep pages"
    assert sum(node.cost for node in state.pager.nodes.values()) == state.pager.cached_bytes


def test_a_leaf_is_decoded_when_it_is_asked_for_a_second_time(folder: str) -> None:
    """One look-up in a leaf decodes nothing of the others in it, whatever the lengths of the keys; the next one does."""
    entries = {b"%d" % n: b"%d" % (n * n) for n in range(20_000)}
    entries[b"55555 long"] = b"v" * 9000
    engine = Engine.open(folder, OPTIONS)
    assert put(engine, Group({(7, name): value for name, value in entries.items()})) == [None]
    engine.close()
    engine = Engine.open(folder, Options(cache_bytes=64 << 20))
    state = engine.state

    def decoded(names: list[bytes]) -> int:
        before = int(engine.figures()["pages_decoded"])
        for name in names:
            assert state.get(7, name) == entries.get(name)
        return int(engine.figures()["pages_decoded"]) - before

    leaves = [keys for keys, _ in state.pieces(7, b"", None)]
    engine.close()
    assert len(leaves) > 20
    engine = Engine.open(folder, Options(cache_bytes=64 << 20))
    state = engine.state
    pointing = 1
    assert decoded([keys[len(keys) // 3] for keys in leaves]) == 1 + pointing, "the root"
    assert decoded([b"", b"0 is not there", *(keys[-1] for keys in leaves)]) == len(leaves) - pointing
    assert decoded(list(entries)) == 0
    assert [keys for keys, _ in state.pieces(7, b"", None)] == leaves
    assert sum(node.cost for node in state.pager.nodes.values()) == state.pager.cached_bytes
    engine.close()


def test_a_page_that_is_kept_is_one_object_to_the_garbage_collector(folder: str) -> None:
    """Of those that were read and of those that a checkpoint wrote: the collector looks at none of their entries."""
    entries = {(2, key(n)): b"v" * 100 for n in range(8_000)}
    engine = Engine.open(folder, Options(cache_bytes=64 << 20))

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    before = objects()
    assert put(engine, Group({**entries})) == [None]
    engine.checkpoint()
    kept = len(engine.state.pager.nodes)
    assert kept > 100
    assert objects() - before < 1.1 * kept + 50
    engine.close()
    engine = Engine.open(folder, Options(cache_bytes=64 << 20))
    before = objects()
    assert sum(1 for _ in engine.state.scan(2, b"", None)) == len(entries)
    kept = len(engine.state.pager.nodes)
    assert kept > 100
    assert objects() - before < 1.1 * kept + 50
    engine.close()


def test_scans_of_more_than_the_cache_holds_find_a_part_of_it_there(engine: Engine) -> None:
    entries = [(key(n), b"v" * 300) for n in range(8_000)]
    History().sent(engine, Group({}, [], [(2, entries)]))
    engine.checkpoint()
    engine.tidy()
    state = engine.state
    reads = []
    for _ in range(8):
        before = state.pager.reads
        assert sum(1 for _ in state.scan(2, b"", None)) == 8_000
        reads.append(state.pager.reads - before)
    kept = sum(node.size for node in state.pager.nodes.values() if not isinstance(node, Page))
    assert kept * 1.5 < 8_000 * 300, "it is more than the cache holds"
    assert max(reads[4:]) < 0.85 * reads[0]


# --- damage --------------------------------------------------------------------------------------------------------------


def data_of(folder: str) -> bytearray:
    return bytearray(Path(folder, "data").read_bytes())


def test_no_valid_meta_page_is_damage_and_never_an_empty_store(folder: str) -> None:
    stored(folder)
    raw = data_of(folder)
    for spoiled in (bytes(PAGE_SIZE), b"", bytes([raw[0]]) + bytes(PAGE_SIZE - 1), bytes(raw[:20]) + bytes(PAGE_SIZE - 20)):
        Path(folder, "data").write_bytes(spoiled + raw[PAGE_SIZE:] if spoiled else b"")
        before = files_of(folder)
        with pytest.raises((Corrupted, NotAStore)):
            Engine.open(folder)
        assert files_of(folder) == before
    for slot in META_SLOTS:
        raw[slot + 100] ^= 1
    Path(folder, "data").write_bytes(raw)
    with pytest.raises(Corrupted, match="neither of the two meta pages is valid"):
        Engine.open(folder)


def test_a_torn_newest_meta_page_leaves_the_older_one_and_the_log(folder: str) -> None:
    history = stored(folder)
    raw = data_of(folder)
    newest = max(META_SLOTS, key=lambda slot: int.from_bytes(raw[slot + 40 : slot + 48], "little"))
    for sector in range(0, META_SIZE, 512):
        torn = bytearray(raw)
        torn[newest + sector : newest + META_SIZE] = bytes(META_SIZE - sector)
        if torn == raw:
            continue
        Path(folder, "data").write_bytes(torn)
        engine = Engine.open(folder, OPTIONS)
        assert contents(engine.state) == history.models[-1]
        assert engine.replayed == 3
        engine._let_go("crash")


def test_a_format_of_the_future_is_refused_and_left_alone(folder: str) -> None:
    stored(folder)
    raw = data_of(folder)
    for slot in META_SLOTS:
        raw[slot + 16] += 1
        page = raw[slot : slot + META_SIZE - 4]
        raw[slot + META_SIZE - 4 : slot + META_SIZE] = crc32(page).to_bytes(4, "little")
    Path(folder, "data").write_bytes(raw)
    Path(folder, "data.new").write_bytes(b"of the future")
    before = files_of(folder)
    with pytest.raises(MigrationError, match="format 2"):
        Engine.open(folder)
    assert files_of(folder) == before


def test_every_damaged_page_is_found_by_check_and_never_read_as_something_else(folder: str) -> None:
    history = stored(folder, 60)
    raw = data_of(folder)
    choose = random.Random(4)
    noticed = 0
    for page in range(1, len(raw) // PAGE_SIZE):
        spoiled = bytearray(raw)
        at = page * PAGE_SIZE + choose.randrange(40)
        spoiled[at] ^= 1 << choose.randrange(8)
        Path(folder, "data").write_bytes(spoiled)
        try:
            engine = Engine.open(folder, OPTIONS)
        except Corrupted as error:
            assert f"page {page} " in str(error)
            noticed += 1
            continue
        found = problems(engine)
        free = any(start <= page < start + count for start, count in engine._free)
        assert bool(found) != free, f"page {page}"
        noticed += bool(found)
        if found:
            with pytest.raises(Corrupted):
                contents(engine.state)
        else:
            assert contents(engine.state) == history.models[-1]
        engine._let_go("crash")
    assert noticed > 10


def test_a_page_put_in_anothers_place_is_found(folder: str) -> None:
    stored(folder, 60)
    raw = data_of(folder)
    one, two = slice(PAGE_SIZE, 2 * PAGE_SIZE), slice(2 * PAGE_SIZE, 3 * PAGE_SIZE)
    raw[one], raw[two] = raw[two], raw[one]
    Path(folder, "data").write_bytes(raw)
    try:
        engine = Engine.open(folder, OPTIONS)
    except Corrupted:
        return
    assert problems(engine)
    engine._let_go("crash")


def hostile(folder: str, pages: list[tuple[int, bytes]], level: int) -> None:
    """A store whose first tree is made of these pages, of which the last one is its root."""
    Engine.open(folder).close()
    meta = decode_meta(Path(folder, "data").read_bytes()[:META_SIZE])
    assert meta is not None
    root = (level, 1, pages[-1][0])
    meta = msgspec.structs.replace(meta, generation=9, page_count=len(pages) + 1, roots={1: root})
    raw = encode_meta(meta) * 2 + b"".join(page for _, page in pages)
    Path(folder, "data").write_bytes(raw)


def test_a_hostile_file_takes_bounded_time_to_check(folder: str) -> None:
    """Each branch has its only child twice: a walk of this tree of 40 pages would never end."""
    pages = [encode_leaf(1, [b"k"], [b"v"])]
    for level in range(1, 40):
        pages.append(encode_branch(level + 1, level, [b"k"], [pages[-1][0]] * 2))
    hostile(folder, pages, 39)
    engine = Engine.open(folder)
    assert any("is used twice" in line for line in problems(engine))
    engine._let_go("crash")


def test_a_hostile_length_takes_bounded_memory(folder: str) -> None:
    hostile(folder, [encode_leaf(1, [b"k"], [Overflow(1, 7, 2**62)])], 0)
    engine = Engine.open(folder)
    assert any("outside the store" in line for line in problems(engine))
    with pytest.raises(Corrupted, match="page 1 "):
        engine.state.get(1, b"k")
    engine._let_go("crash")
