"""The verbs on stores that are not open: restoring a backup, saving what is left of a damaged store."""

from __future__ import annotations

from pathlib import Path

import pytest

import treestore as package
from tests.cli.command import Command, Files, node


@pytest.fixture
def filled(treestore: Command, files: Files) -> Command:
    treestore.done("ingest", files.document(node("a", nodes=[node("b")]), node("c")))
    return treestore


def test_a_backup_is_restored(filled: Command, tmp_path: Path) -> None:
    filled.done("backup", tmp_path / "copy")
    said = filled.done("restore", tmp_path / "copy", tmp_path / "back").out
    assert said.startswith("restored ") and said.endswith(f" bytes to {tmp_path / 'back'}\n")
    assert filled.done("restore", tmp_path / "copy", tmp_path / "again", "--json").json == {
        "folder": str(tmp_path / "again"),
        "size_bytes": (tmp_path / "back" / "data").stat().st_size,
    }
    with package.open_sync(f"btree:///{tmp_path / 'back'}", create=False) as store:
        assert [entry.node_id for entry in store.documents.get_outline("policy")] == ["a", "b", "c"]


def test_restore_refuses_what_it_must(filled: Command, tmp_path: Path) -> None:
    copy, back = tmp_path / "copy", tmp_path / "back"
    filled.done("backup", copy)
    filled.done("restore", copy, back)
    assert "is not empty" in filled.refused(2, "restore", copy, back)
    assert "lies in the folder that is copied" in filled.refused(2, "restore", copy, copy / "x")
    assert "there is no store" in filled.refused(1, "restore", tmp_path / "none", tmp_path / "new")
    with package.open_sync(f"btree:///{copy}"):
        assert "is in use by pid" in filled.refused(1, "restore", copy, tmp_path / "new")
    raw = bytearray((copy / "data").read_bytes())
    raw[3 * 8192 + 20] ^= 1
    (copy / "data").write_bytes(raw)
    assert "data file, page 3 (byte 24576)" in filled.refused(1, "restore", copy, tmp_path / "new")
    assert "there is no store" in filled.refused(1, "documents", "--store", f"btree:///{tmp_path / 'new'}")
