"""Files of the operating system: writes and reads that do less than they were asked for, and such that fail half-way."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.workload import SMALL, Group, History, bulk_entries, contents, groups, problems
from treestore.backends.btree.engine.engine import Engine
from treestore.backends.btree.engine.file import File, OsFileSystem, SyncFailed
from treestore.errors import DiskFull, ReadOnly, Unavailable

Patch = pytest.MonkeyPatch


@pytest.fixture
def file(tmp_path: Path) -> File:
    return OsFileSystem().open(str(tmp_path / "file"), create=True)


def short(choose: random.Random, real: Callable[..., int]) -> Callable[..., int]:
    """As os.pwrite, but it writes as few bytes as it likes, one at least."""
    return lambda descriptor, data, offset: real(descriptor, data[: choose.randint(1, len(data))], offset)


def test_short_writes_and_reads_are_gone_on_with(file: File, monkeypatch: Patch) -> None:
    choose = random.Random(1)
    real = os.pread
    monkeypatch.setattr(os, "pwrite", short(choose, os.pwrite))
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: real(descriptor, choose.randint(1, length), offset))
    whole = choose.randbytes(5000)
    file.write(0, whole[:3000])
    file.write(3000, bytearray(whole[3000:]))
    for _ in range(50):
        at, length = choose.randrange(5000), choose.randint(1, 5000)
        assert file.read(at, length) == whole[at : at + length]


def test_a_store_on_short_writes_and_reads(tmp_path: Path, monkeypatch: Patch) -> None:
    choose = random.Random(2)
    real = os.pread
    monkeypatch.setattr(os, "pwrite", short(choose, os.pwrite))
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: real(descriptor, choose.randint(1, length), offset))
    history = History()
    engine = Engine.open(str(tmp_path / "store"), SMALL)
    history.sent(engine, *groups(1, 10), Group({}, [], [(2, bulk_entries(b"b", 60))]))
    engine.checkpoint()
    engine.compact()
    history.sent(engine, *groups(2, 3))
    engine._let_go("crash")
    engine = Engine.open(str(tmp_path / "store"), SMALL)
    assert contents(engine.state) == history.models[-1]
    assert problems(engine) == []
    engine.close()


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, Unavailable)])
def test_a_write_that_fails_half_way_says_so(file: File, monkeypatch: Patch, number: int, error: type[Exception]) -> None:
    real = os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if offset:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data[:10], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(error) as raised:
        file.write(0, b"x" * 20)
    assert type(raised.value) is error
    assert file.read(0, 100) == b"x" * 10


def test_a_write_of_nothing_at_all_is_no_endless_loop(file: File, monkeypatch: Patch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: 0)
    with pytest.raises(DiskFull):
        file.write(0, b"x")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_sync_that_fails_for_any_reason_has_failed(file: File, tmp_path: Path, monkeypatch: Patch, number: int) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(SyncFailed):
        file.sync()
    with pytest.raises(SyncFailed):
        OsFileSystem().sync_folder(str(tmp_path))
    with pytest.raises(SyncFailed):
        OsFileSystem().sync_folder(str(tmp_path / "missing"))


def test_a_store_is_made_in_a_folder_whose_parent_may_not_be_read(tmp_path: Path, monkeypatch: Patch) -> None:
    """The folder was made by somebody else, and so is it made durable."""
    folder = tmp_path / "parent" / "store"
    folder.mkdir(parents=True)
    real = os.open

    def may_not(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == str(folder.parent):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", may_not)
    with pytest.raises(ReadOnly):
        OsFileSystem().sync_folder(str(folder.parent))
    engine = Engine.open(str(folder), SMALL)
    engine.close()
