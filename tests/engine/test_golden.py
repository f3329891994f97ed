"""A store that an earlier version wrote opens, checks clean and reads as it did then. One folder for each format."""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path
from types import ModuleType
from zlib import crc32

import msgspec
import pytest

import treestore
from tests.engine.test_stranger import stranger
from treestore.backends.btree.engine.format import FORMAT_VERSION
from treestore.errors import MigrationError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FORMATS = sorted(GOLDEN.glob("btree-*"))


def made_by(folder: Path) -> ModuleType:
    """The script that made a golden store, which also knows how to read all of one."""
    [script] = folder.glob("make*.py")
    spec = importlib.util.spec_from_file_location("golden_make", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def covers(found: object, expected: object) -> bool:
    """Whether all that was expected was found. A later version may say more: records grow fields."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return all(name in found and covers(found[name], value) for name, value in expected.items())
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(covers, found, expected))
    return type(found) is type(expected) and found == expected


def test_there_is_a_store_of_the_present_format() -> None:
    assert GOLDEN / f"btree-{FORMAT_VERSION}" in FORMATS
    assert all((folder / "store.tar.gz").stat().st_size < 200_000 for folder in FORMATS)


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_a_store_of_an_earlier_version_is_read_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(folder / "store.tar.gz") as archive:
        archive.extractall(tmp_path / "store", filter="data")
    expected = msgspec.json.decode((folder / "expected.json").read_bytes())
    url = f"btree:///{tmp_path / 'store'}"
    exported = made_by(folder).exported
    with treestore.open_sync(url, create=False) as store:
        assert int(store.stats().backend["replayed_groups"]) == made_by(folder).REPLAYED, "its log is part of it"
        assert covers(exported(store), expected)
        assert store.check().problems == []
        store.documents.store_document("later", "1", [{"node_id": "n", "title": "it can be written to"}])
        store.compact()
    with treestore.open_sync(url, create=False) as store:
        assert covers(exported(store), expected)
        assert store.check().problems == []


def test_the_golden_stores_have_everything_in_them(tmp_path: Path) -> None:
    """Every tree, every kind of page, and every kind of change in a log that was not checkpointed."""
    readers = [stranger(folder) for folder in FORMATS if folder.name.startswith(f"btree-{FORMAT_VERSION}")]
    assert all(set(reader.trees) == set(range(1, 15)) and all(reader.trees.values()) for reader in readers)
    seen = set().union(*(reader.seen for reader in readers))
    assert seen == {
        "plain leaf",
        "pointing leaf",
        "branch",
        "overflow",
        "free list",
        "several log files",
        "put",
        "delete",
        "range",
        "graft",
    }


def checksummed(raw: bytes) -> bytes:
    return raw + crc32(raw).to_bytes(4, "little")


def of_format(files: dict[str, bytes], version: int) -> dict[str, bytes]:
    """A store's files with another format's number in the meta pages and the headers of the log."""
    number, found = version.to_bytes(4, "little"), {}
    for path, raw in files.items():
        if path == "data":
            metas = [checksummed(raw[at : at + 16] + number + raw[at + 20 : at + 4092]) for at in (0, 4096)]
            found[path] = b"".join(metas) + raw[8192:]
        else:
            found[path] = checksummed(raw[:16] + number + raw[20:52]) + raw[56:]
    return found


def unpacked(folder: Path) -> dict[str, bytes]:
    with tarfile.open(folder / "store.tar.gz") as archive:
        found = {entry.name: archive.extractfile(entry) for entry in archive}
        return {name: file.read() for name, file in found.items() if file is not None}


@pytest.mark.parametrize("only", ["all", "data", "log"])
@pytest.mark.parametrize(
    ("version", "way"),
    [
        (0, "treestore export"),
        (FORMAT_VERSION - 1, "treestore export"),
        (FORMAT_VERSION + 1, "that wrote it, or a newer one"),
        (2**32 - 1, "or a newer one"),
    ],
)
def test_a_store_of_another_format_is_refused_unmodified_and_the_way_on_is_said(
    tmp_path: Path, version: int, way: str, only: str
) -> None:
    source = unpacked(FORMATS[0])
    wanted = {"all": tuple(source), "data": ("data",), "log": tuple(path for path in source if path != "data")}[only]
    files = {path: raw if path in wanted else source[path] for path, raw in of_format(source, version).items()}
    folder = tmp_path / "store"
    for path, raw in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(raw)
    said = f"format {version}.* this treestore reads format {FORMAT_VERSION} .*{way}"
    for attempt in (
        lambda: treestore.open_sync(f"btree:///{folder}"),
        lambda: treestore.open_sync(f"btree:///{folder}", create=False),
        lambda: treestore.restore(folder, tmp_path / "restored"),
        lambda: treestore.salvage(folder, tmp_path / "saved"),
    ):
        with pytest.raises(MigrationError, match=said):
            attempt()
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == (
        files if only != "log" else {**files, "LOCK": (folder / "LOCK").read_bytes()}
    )
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
