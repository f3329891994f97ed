"""Places that are no store, or refuse: another's folder, no permission, a full disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.ondisk import files_of, run_python, small_disk, stored
from treestore.backends.btree.engine.engine import Engine
from treestore.errors import Corrupted, NotAStore


@pytest.mark.parametrize("name", ["notes.txt", "data", "data/inside.txt", "wal", "LOCKED"])
def test_a_folder_that_is_no_store_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / "folder" / name
    path.parent.mkdir(parents=True)
    path.write_text("somebody's own\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((NotAStore, Corrupted)) as caught:
        Engine.open(str(tmp_path / "folder"))
    assert isinstance(caught.value, NotAStore)
    assert sorted(tmp_path.rglob("*")) == before
    assert path.read_text() == "somebody's own\n"


def test_a_file_in_the_folders_place_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(NotAStore):
        Engine.open(str(path))
    assert path.read_text() == "mine"


def test_a_missing_store_is_not_made_unless_it_may_be(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(NotAStore, match="there is no store"):
            Engine.open(str(path), create_new=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def open_to_all() -> Iterator[str]:
    """A folder that other users can reach."""
    with tempfile.TemporaryDirectory(prefix="treestore-test-") as path:
        os.chmod(path, 0o755)
        yield path


def test_a_store_that_can_not_be_written_to_is_read_only(open_to_all: str) -> None:
    folder = open_to_all + "/store"
    stored(folder)
    for path in [Path(folder), *Path(folder).rglob("*")]:
        os.chmod(path, 0o555 if os.path.isdir(path) else 0o444)
    before = files_of(folder)
    code = """
        import os, sys
        from treestore.backends.btree.engine.engine import Engine
        from treestore.errors import ReadOnly
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        for folder in sys.argv[1:]:
            try:
                Engine.open(folder)
            except ReadOnly as error:
                print(error)
    """
    said = run_python(code, folder, open_to_all + "/store/new").stdout.splitlines()
    assert len(said) == 2
    assert folder in said[0]
    assert files_of(folder) == before
    for path in [Path(folder), *Path(folder).rglob("*")]:
        os.chmod(path, 0o755)


_LIMIT = 6  # megabytes that a file may have, where no disk can be mounted

_FULL = """
    import os, resource, sys
    import treestore
    from treestore import DiskFull, OutcomeUnknown
    from tests.engine.killing import BULK, SETTINGS, Record, heard, killed, nodes, started

    place, limit = sys.argv[1], int(sys.argv[2]) << 20
    url, ballast = f"btree:///{place}/store", f"{place}/ballast"
    ENDLESS = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    def limited():
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def full(record, seed):
        child, pipe = started(url, seed, record, limited, goes_on=DiskFull)
        before = record.refused.total()
        heard(pipe, record, 60, lambda: record.refused.total() > before + 60)
        assert record.refused.total() > before + 60, "the disk never filled"
        heard(pipe, record, 0.2)
        return child, pipe

    def looked_at(record):
        # With the disk as full as it was left: reads, a check, and a write that is refused or done.
        limited()
        with treestore.open_sync(url, settings=SETTINGS) as store:
            wrong = record.verify(store)
            assert wrong == [], wrong
            try:
                store.documents.store_document("another", "1", nodes("another", 1, BULK), searchable=False)
            except DiskFull as error:
                record.counts["refused after reopening"] += 1
            wrong = record.verify(store)
            assert wrong == [], wrong
        resource.setrlimit(resource.RLIMIT_FSIZE, ENDLESS)

    record = Record()
    if not limit:
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        with open(ballast, "wb") as file:
            file.write(bytes(free - (12 << 20)))
    for seed in range(2):
        killed(*full(record, seed), record)
        looked_at(record)
    child, pipe = full(record, 2)
    if limit:
        resource.prlimit(child, resource.RLIMIT_FSIZE, ENDLESS)
    else:
        os.unlink(ballast)
    acknowledged, bulk = record.counts["acknowledged"], record.counts["acknowledged: bulk store"]
    def goes_on():
        return record.counts["acknowledged"] > acknowledged + 100 and record.counts["acknowledged: bulk store"] > bulk + 2
    heard(pipe, record, 60, goes_on)
    assert goes_on(), "there is room, and nothing is written"
    killed(child, pipe, record)
    for _ in range(2):
        with treestore.open_sync(url, settings=SETTINGS) as store:
            wrong = record.verify(store)
            assert wrong == [], wrong
    assert record.wrong == []
    assert set(record.refused) <= {"DiskFull"}, record.refused
    print(dict(record.counts), dict(record.refused))
"""


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_disk_that_is_really_full(tmp_path: Path, kind: str) -> None:
    """Under a process that writes from tasks and threads. What is refused is DiskFull; reads go on, nothing acknowledged is
    lost, by kills neither, and where there is room again writes go on. Where this user may not mount such a disk there is a
    limit on the size of each file."""
    place = tmp_path / "disk"
    place.mkdir()
    disk = small_disk(kind, place, 80)
    said = run_python(_FULL, str(place), "0" if disk else str(_LIMIT), on=disk or ()).stdout
    print(kind if disk else "no disk could be mounted: a limit on files", said)


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    run_python(_FULL, str(tmp_path), str(_LIMIT + 1))
