"""The verbs on a whole store, the settings, and stores that can't be used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import treestore as package
from tests.cli.command import SHIPPED_FILES, Command, Files, node
from treestore.cli.app import run
from treestore.search import analyzer


@pytest.fixture
def filled(treestore: Command, files: Files) -> Command:
    treestore.done("ingest", files.document(node("a", nodes=[node("b")]), node("c")))
    return treestore


def test_stats_and_check(filled: Command) -> None:
    assert filled.done("stats").lines[:3] == [
        line for line in filled.done("stats").lines if line.startswith(("documents ", "versions ", "nodes "))
    ]
    figures = filled.done("stats", "--json").json
    assert (figures["documents"], figures["versions"], figures["nodes"]) == (1, 1, 3)
    assert figures["size_bytes"] > 0
    said = filled.done("check").out
    assert said.startswith("sound: ")
    assert ", 1 leaf page" in said or " leaf pages, " in said
    assert " 1 version, 3 nodes" in said
    assert filled.done("check", "--json").json["ok"] is True


def test_a_store_of_another_analyzer_says_so_and_is_reindexed(
    treestore: Command, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(analyzer, "VERSION", "0 older")
        treestore.done("ingest", files.document(node("a", title="Therapy"), name="old.json"))
    ran = treestore("search", "old", "therapy")
    assert (ran.status, ran.out) == (1, "")
    told, refused = ran.err.splitlines()
    assert told.startswith("treestore: 1 version was made searchable by analyzer '0 older', this is ")
    assert "run 'treestore reindex'" in told
    assert "policy 'old' version '1' was made searchable by analyzer '0 older'" in refused
    assert treestore.done("reindex").out == "reindexed 1 version\n", "without being told to"
    assert "Therapy" in treestore.done("search", "old", "therapy").out
    assert treestore.done("reindex", "--json").json == {"versions": 0}


def test_ingest_without_search(treestore: Command, files: Files) -> None:
    file = files.document(node("a", title="Therapy"))
    treestore.done("ingest", file, "--not-searchable")
    assert "was stored without keyword search" in treestore.refused(1, "search", "policy", "therapy")
    assert treestore.done("ingest", file).out.startswith("unchanged")  # what no option says stays
    assert treestore.done("ingest", file, "--searchable").out.startswith("replaced")
    assert "Therapy" in treestore.done("search", "policy", "therapy").out


def test_check_finds_damage(treestore: Command) -> None:
    treestore.done("ingest", *[path for path in SHIPPED_FILES if "workspace" not in path.name])
    treestore.done("compact")
    data = treestore.store / "data"
    content = bytearray(data.read_bytes())
    for offset in range(3 * 8192 + 4096, len(content), 8192):  # one byte in each page but the first ones
        content[offset] ^= 0xFF
    data.write_bytes(content)
    ran = treestore("check")
    assert ran.status == 1
    assert "sound" not in ran.out
    assert ran.out or ran.err
    assert "Traceback" not in ran.err


def test_backup_is_a_store(filled: Command, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    size = filled.done("backup", copy, "--json").json["size_bytes"]
    assert size > 0
    with package.open_sync(f"btree:///{copy}", create=False) as store:
        assert store.check().ok
        assert [entry.node_id for entry in store.documents.get_outline("policy")] == ["a", "b", "c"]
    assert str(copy) in filled.refused(2, "backup", copy)


@pytest.mark.parametrize("place", [".", "copy", "wal/copy"])
def test_a_backup_into_the_store_is_refused(filled: Command, place: str) -> None:
    before = sorted(filled.store.rglob("*"))
    assert "lies in the folder of the store itself" in filled.refused(2, "backup", filled.store / place)
    assert sorted(filled.store.rglob("*")) == before


def test_compact(filled: Command) -> None:
    filled.done("delete", "policy", "--yes")
    assert filled.done("compact", "--json").json["freed_bytes"] >= 0
    assert filled.done("check").out.startswith("sound: ")


READING = (
    "documents,tree P,node P a,children P,ancestors P a,versions P,export P,delete P --yes,stats,check,backup copy,compact"
)


@pytest.mark.parametrize("exists", [False, True], ids=["absent", "empty"])
@pytest.mark.parametrize("command", READING.split(","))
def test_only_ingest_makes_a_store(treestore: Command, command: str, exists: bool) -> None:
    if exists:
        treestore.store.mkdir()
    assert treestore.refused(1, *command.split()) == f"there is no store at {treestore.store}"
    assert not (treestore.store / "data").exists()


def test_a_folder_that_is_no_store_is_left_alone(treestore: Command, files: Files) -> None:
    treestore.store.mkdir()
    (treestore.store / "letter.txt").write_text("dear")
    path = files.document(node())
    assert "letter.txt" in treestore.refused(2, "ingest", path)
    assert "letter.txt" in treestore.refused(2, "documents")
    assert [entry.name for entry in treestore.store.iterdir()] == ["letter.txt"]


def test_a_file_is_no_store(treestore: Command, files: Files) -> None:
    treestore.store.write_text("dear")
    for verb in (["ingest", files.document(node())], ["documents"], ["check"]):
        assert str(treestore.store) in treestore.refused(2, *verb)
    assert treestore.store.read_text() == "dear"


def test_a_store_of_a_newer_format(treestore: Command, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr("treestore.backends.btree.engine.format.FORMAT_VERSION", 1000)
        treestore.done("ingest", files.document(node()))
    before = {path: path.read_bytes() for path in treestore.store.rglob("*") if path.is_file() and path.name != "LOCK"}
    for verb in (["documents"], ["ingest", files.document(node())]):
        assert "format 1000" in treestore.refused(2, *verb)
    assert {path: path.read_bytes() for path in before} == before


def test_a_store_that_another_process_holds(filled: Command) -> None:
    with package.open_sync(filled.url, create=False) as store:
        ran = filled.process("documents")
        assert ran.status == 1
        assert ran.out == ""
        assert ran.err.startswith("treestore: ")
        assert ran.err.count("\n") == 1
        assert str(os.getpid()) in ran.err, "it says who holds it"
        assert len(store.documents.list_documents()) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("btree://", "supported are btree:///"),
        ("btree://relative", "supported are btree:///"),
        ("sqlite:///x", "'sqlite:///x'; supported are"),
        ("postgresql+psycopg2://user:secret@host/db", "write postgresql://"),
        ("folder", "supported are"),
        ("", "supported are"),
    ],
)
def test_wrong_urls(treestore: Command, url: str, said: str) -> None:
    message = treestore.refused(2, "documents", "--store", url)
    assert said in message
    assert "secret" not in message


def test_the_store_may_be_named_before_and_after_the_verb_or_in_the_environment(
    filled: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(filled.done("documents", "--json").json) == 1
    assert run(["documents", "--json", "--store", filled.url]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    monkeypatch.setenv("TREESTORE_URL", filled.url)
    assert run(["documents", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert filled.done("documents", "--json", "--store", filled.url).json != []
    assert run(["--store", "memory://", "documents", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_config_show(treestore: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREESTORE_CACHE_SIZE_MB", "64")
    shown = {entry["variable"]: (entry["value"], entry["source"]) for entry in treestore.done("config", "show", "--json").json}
    assert shown["TREESTORE_URL"] == (treestore.url, "--store")
    assert shown["TREESTORE_CACHE_SIZE_MB"] == ("64", "environment")
    assert shown["TREESTORE_WAL_FILE_SIZE_MB"] == ("100", "default")
    assert treestore.done("config", "show").lines[0].split() == ["VARIABLE", "VALUE", "SOURCE"]


def test_config_show_hides_secrets_and_names_what_nothing_reads(treestore: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREESTORE_CACHE_SIZE", "64")
    ran = treestore("config", "show", "--store", "postgresql://user:secret@host/db")
    assert ran.status == 0
    assert "secret" not in ran.out + ran.err
    assert ran.err == "treestore: TREESTORE_CACHE_SIZE is no setting of treestore; nothing reads it\n"


def test_a_wrong_setting_is_named(treestore: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREESTORE_CACHE_SIZE_MB", "many")
    for arguments in (["documents"], ["config", "show"]):
        assert "TREESTORE_CACHE_SIZE_MB: must be a whole number" in treestore.refused(2, *arguments)
