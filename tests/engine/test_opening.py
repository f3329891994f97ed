"""What an opening reads of the log: what a checkpoint does not hold, and no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.engine.ondisk import OPTIONS
from tests.engine.workload import Group, History, contents, key
from treestore.backends.btree.engine.engine import Engine, Options
from treestore.backends.btree.engine.file import File, OsFileSystem
from treestore.backends.btree.engine.format import LOG_HEADER, META_SLOTS, RECORD_HEADER, decode_meta, encode_meta
from treestore.backends.btree.engine.wal import SPARE, file_name
from treestore.errors import Corrupted

NAMES = 16 * LOG_HEADER
"""More than the bytes of all headers of log files that an opening reads, some of them twice."""


class CountingDisk(OsFileSystem):
    """Counts the bytes that are read of log files."""

    def __init__(self) -> None:
        super().__init__()
        self.read_of_log = 0

    def open(self, path: str, *, create: bool = False) -> File:
        file = super().open(path, create=create)
        if path.endswith(".log"):
            read = file.read

            def counted(offset: int, length: int) -> bytes:
                raw = read(offset, length)
                self.read_of_log += len(raw)
                return raw

            file.read = counted  # type: ignore[method-assign]
        return file


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def groups(count: int, size: int = 1000) -> Iterator[Group]:
    for n in range(count):
        yield Group({(1, key(n % 50)): b"%d " % n * (size // 4)})


def opened(folder: str, history: History) -> tuple[Engine, int]:
    """The store, which must hold what it was sent, and the bytes that were read of its log."""
    disk = CountingDisk()
    engine = Engine.open(folder, OPTIONS, fs=disk)
    history.reopened(engine)
    assert contents(engine.state) == history.models[-1]
    return engine, disk.read_of_log


def filled(folder: str, count: int, history: History) -> None:
    """Groups, one after the other, and a closing."""
    engine = Engine.open(folder, OPTIONS)
    for group in groups(count):
        history.sent(engine, group)
    engine.close()


@pytest.mark.parametrize("count", [1, 100, 230], ids=["a record", "a file", "files"])
def test_after_closing_no_record_is_read(folder: str, count: int) -> None:
    history = History()
    filled(folder, count, history)
    for _ in range(2):
        engine, read = opened(folder, history)
        assert read < NAMES
        engine.close()


def test_after_closing_no_file_that_is_used_again_is_searched(folder: str) -> None:
    history = History()
    filled(folder, 1500, history)
    assert SPARE in os.listdir(os.path.join(folder, "wal"))
    filled(folder, 1, history)
    assert max(os.path.getsize(path) for path in Path(folder, "wal").iterdir()) > OPTIONS.log_file_bytes
    engine, read = opened(folder, history)
    assert read < NAMES
    engine.close()


def killed(engine: Engine) -> None:
    """Let go of the files as the death of the process does."""
    engine._let_go("killed")


def test_after_a_kill_what_follows_the_checkpoint_is_read(folder: str) -> None:
    history = History()
    engine = Engine.open(folder, Options(cache_bytes=1 << 20, log_file_bytes=4 << 20))
    for group in groups(500, 4000):
        history.sent(engine, group)
    before = engine._log.end(engine.state.lsn)
    engine.checkpoint()
    history.sent(engine, *groups(3))
    size = os.path.getsize(os.path.join(folder, "wal", file_name(engine._log.number)))
    killed(engine)
    engine, read = opened(folder, history)
    assert engine.replayed == 3
    assert before > 1_000_000
    assert read < size - before + 4 * 1200 + NAMES, "what follows, of which the last batch is written again"
    killed(engine)
    engine, _ = opened(folder, history)
    assert engine.replayed == 3
    engine.close()
    engine, read = opened(folder, history)
    assert engine.replayed == 0
    assert read < size - before + NAMES, "the end that the recovery found is known, although nothing was written since"
    engine.close()


def test_after_a_compaction_what_follows_it_is_read(folder: str) -> None:
    history = History()
    engine = Engine.open(folder, Options(cache_bytes=1 << 20, log_file_bytes=4 << 20))
    for group in groups(500, 4000):
        history.sent(engine, group)
    before = engine._log.end(engine.state.lsn)
    engine.compact()
    size = os.path.getsize(os.path.join(folder, "wal", file_name(engine._log.number)))
    killed(engine)
    engine, read = opened(folder, history)
    assert engine.replayed == 0
    assert before > 1_000_000
    assert read < size - before + NAMES
    engine.close()


def test_a_store_that_does_not_say_where_its_records_end_is_read_whole(folder: str) -> None:
    """As one that an earlier version wrote."""
    history = History()
    engine = Engine.open(folder, OPTIONS)
    for group in groups(20):
        history.sent(engine, group)
    engine.checkpoint()
    history.sent(engine, *groups(2))
    killed(engine)
    data = Path(folder, "data")
    raw = bytearray(data.read_bytes())
    for slot in META_SLOTS:
        meta = decode_meta(bytes(raw[slot : slot + 4096]))
        assert meta is not None
        raw[slot : slot + 4096] = encode_meta(msgspec.structs.replace(meta, log_end=0))
    data.write_bytes(raw)
    engine, read = opened(folder, history)
    assert engine.replayed == 2
    assert read > 20_000
    engine.close()


def test_damage_behind_the_checkpoint_is_refused_and_before_it_is_of_no_matter(folder: str) -> None:
    history = History()
    engine = Engine.open(folder, OPTIONS)
    for group in groups(10):
        history.sent(engine, group)
    engine.checkpoint()
    checkpoint = engine._log.end(engine.state.lsn)
    for group in groups(3):
        history.sent(engine, group)
    path = Path(folder, "wal", file_name(engine._log.number))
    killed(engine)
    whole = path.read_bytes()

    def damaged(at: int, length: int) -> None:
        path.write_bytes(whole[:at] + bytes(length) + whole[at + length :])

    for at, length in ((checkpoint, 40), (checkpoint + RECORD_HEADER, 8), (checkpoint - 500, 600), (checkpoint, 900)):
        damaged(at, length)
        with pytest.raises(Corrupted, match=rf"byte {checkpoint}: record 11 is damaged, and record 1\d was synced after it"):
            Engine.open(folder, OPTIONS)
    damaged(checkpoint - 2000, 1000)
    engine, _ = opened(folder, history)
    assert engine.replayed == 3
    engine.close()
