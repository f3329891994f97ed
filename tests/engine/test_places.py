"""Places that are no store, or refuse: another's folder, no permission, a full disk."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.ondisk import files_of, run_python, stored
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


_FILL = """
    import os, resource, sys
    from treestore.errors import DiskFull
    import treestore

    url, ballast, limit = "btree:///" + sys.argv[1] + "/store", sys.argv[1] + "/ballast", int(sys.argv[2])
    text = "words " * 15_000

    def nodes(n):
        return [{"node_id": str(i), "title": f"{n}", "text": f"{n} {i} {text}"} for i in range(1 + 60 * (n % 4 == 3))]

    store = treestore.open_sync(url)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    stored, refused = 0, 0
    while refused < 5:
        try:
            store.documents.store_document(f"p{stored}", "1", nodes(stored))
            stored += 1
        except DiskFull as error:
            refused += 1
        assert stored < 1000, "the disk never filled"
        for n in range(stored):
            assert len(store.documents.get_document(f"p{n}").nodes) == len(nodes(n))
    assert stored > 3, "some documents fit"
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        os.unlink(ballast)
    store.documents.store_document("later", "1", nodes(0))
    assert store.check().ok
    store.close()
    with treestore.open_sync(url) as store:
        assert store.check().ok
        assert len(store.documents.list_documents()) == stored + 1
        for n in range(stored):
            assert store.documents.get_document(f"p{n}").nodes[-1].text == nodes(n)[-1]["text"]
"""


def _mounted(path: str) -> bool:
    """Whether a disk of 40 MB could be mounted there: root can, where it is allowed to."""
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", path]
    try:
        return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A small file system, or where none can be mounted a limit on the size of files, which fails writes in the same way."""
    mounted = _mounted(str(tmp_path))
    try:
        if mounted:
            (tmp_path / "ballast").write_bytes(bytes(20 << 20))
        run_python(_FILL, str(tmp_path), "0" if mounted else str(12 << 20))
    finally:
        if mounted:
            subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    run_python(_FILL, str(tmp_path), str(9 << 20))
