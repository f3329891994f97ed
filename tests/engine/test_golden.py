"""A store that an earlier version wrote opens, checks clean and reads as it did then. One folder for each format."""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

import treestore
from treestore.backends.btree.engine.format import FORMAT_VERSION

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FORMATS = sorted(GOLDEN.glob("btree-*"))


def made_by(folder: Path) -> ModuleType:
    """The script that made a golden store, which also knows how to read all of one."""
    spec = importlib.util.spec_from_file_location("golden_make", folder / "make.py")
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
        assert int(store.stats().backend["replayed_groups"]) == 2, "its log is part of it"
        assert covers(exported(store), expected)
        assert store.check().problems == []
        store.documents.store_document("later", "1", [{"node_id": "n", "title": "it can be written to"}])
        store.compact()
    with treestore.open_sync(url, create=False) as store:
        assert covers(exported(store), expected)
        assert store.check().problems == []
