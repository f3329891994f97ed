"""The verbs on stores that are not open: restoring a backup, saving what is left of a damaged store."""

from __future__ import annotations

import json
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


def spoil(store: Path, text: bytes) -> int:
    """Damage the page of a closed store that holds a text; gives its number."""
    raw = bytearray((store / "data").read_bytes())
    at = raw.rindex(text)
    raw[at] ^= 1
    (store / "data").write_bytes(raw)
    return at // 8192


def test_a_sound_store_is_salvaged_whole(filled: Command, tmp_path: Path) -> None:
    said = filled.done("salvage", filled.store, tmp_path / "saved").out
    assert said == f"copied 1 version, 3 nodes to {tmp_path / 'saved'}\n"
    report = filled.done("salvage", filled.store, tmp_path / "again", "--json").json
    assert report == {"complete": True, "versions": 1, "nodes": 3, "lost": [], "outdated": [], "damage": []}
    assert filled.done("check", "--store", f"btree:///{tmp_path / 'saved'}").out.startswith("sound: ")


def test_what_was_lost_is_listed_and_the_status_says_so(filled: Command, files: Files, tmp_path: Path) -> None:
    filled.done("ingest", files.document(node("x", text="a text that is lost"), node("y"), name="other.json"))
    page = spoil(filled.store, b"a text that is lost")
    ran = filled("salvage", filled.store, tmp_path / "saved")
    assert ran.status == 1
    assert ran.err == "treestore: something was lost\n"
    where = f"data file, page {page} (byte {page * 8192}): its checksum does not fit its content"
    part = tmp_path / "saved.parts" / "0001.json"
    assert ran.lines == [
        f"damaged: {where}",
        f"lost: policy 'other' version '1': 2 of 2 nodes, 1 text lost; what can be read is in {part} ({where})",
        f"copied 1 version, 3 nodes to {tmp_path / 'saved'}",
    ]
    kept = json.loads(part.read_text())
    assert [entry["node_id"] for entry in kept["nodes"]] == ["x", "y"] and kept["texts_lost"] == ["x"]
    ran = filled("salvage", filled.store, tmp_path / "again", "--parts", tmp_path / "rest", "--json")
    assert ran.status == 1 and ran.json["complete"] is False and ran.json["damage"] == [where]
    [lost] = ran.json["lost"]
    assert (lost["policy_id"], lost["nodes"], lost["nodes_read"], lost["texts_lost"]) == ("other", 2, 2, 1)
    assert lost["file"] == str(tmp_path / "rest" / "0001.json")
    assert "Title of b" in filled.done("tree", "policy", "--store", f"btree:///{tmp_path / 'again'}").out


def test_a_store_without_a_meta_page_is_salvaged_with_a_warning(filled: Command, tmp_path: Path) -> None:
    raw = bytearray((filled.store / "data").read_bytes())
    raw[:8192] = bytes(8192)
    (filled.store / "data").write_bytes(raw)
    assert "neither of the two meta pages is valid" in filled.refused(1, "documents")
    ran = filled("salvage", filled.store, tmp_path / "saved")
    assert (ran.status, ran.err) == (1, "treestore: something may be lost\n")
    assert ran.lines[-1] == f"copied 1 version, 3 nodes to {tmp_path / 'saved'}"
    assert ran.lines[:2] == [f"damaged: data file, meta page at byte {at}: it is not valid" for at in (0, 4096)]


def test_salvage_refuses_what_it_must(filled: Command, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    assert "there is no store" in filled.refused(1, "salvage", tmp_path / "none", saved)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter").write_text("dear")
    assert "nothing in" in filled.refused(2, "salvage", tmp_path / "letters", saved)
    assert "is not empty" in filled.refused(2, "salvage", filled.store, tmp_path / "letters")
    with package.open_sync(filled.url):
        assert "is in use by pid" in filled.refused(1, "salvage", filled.store, saved)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["letters"]
