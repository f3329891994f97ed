"""``treestore bench``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.postgres.databases import server
from treestore.bench import cases, contenders


@pytest.fixture
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "MANY", 40)


@pytest.mark.usefixtures("_quickly")
def test_a_table_and_nothing_left_behind(treestore: Command, tmp_path: Path) -> None:
    ran = treestore.done("bench", "--nodes", 60, "--rounds", 1, "--folder", tmp_path)
    headings, *lines = ran.lines
    assert headings.split() == ["WHAT", "VS", "SQLITE", "TREESTORE", "SQLITE", "LMDB"]
    end = lines.index("")
    assert [line.split("  ")[0] for line in lines[:end]] == [case.what for case in cases.CASES]
    assert "x / " in lines[0]
    assert max(len(line) for line in (headings, *lines[:end])) <= 80, "the width of a terminal"
    assert lines[end + 1].startswith("VS SQLITE: how many times as fast as SQLite treestore is, called / awaited")
    assert lines[-1].startswith("60 nodes, 1 round; treestore ")
    assert list(tmp_path.iterdir()) == []
    assert not treestore.store.exists()


@pytest.mark.usefixtures("_quickly")
def test_without_lmdb_it_says_so(treestore: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    monkeypatch.delitem(sys.modules, "treestore.bench.contenders.lmdb", raising=False)
    ran = treestore("bench", "--nodes", 2, "--rounds", 1, "--folder", tmp_path)
    assert (ran.status, ran.err) == (0, "treestore: LMDB is left out: Python's lmdb is not installed (pip install lmdb)\n")
    assert "LMDB" not in ran.lines[0]
    assert "nodes differ" not in ran.out


@pytest.mark.usefixtures("_quickly")
def test_json_alone(treestore: Command, tmp_path: Path) -> None:
    found = treestore.done("bench", "--nodes", 9, "--rounds", 2, "--folder", tmp_path, "--json").json
    assert found["nodes"] == 9
    names = {kind.name for kind in contenders.available()}
    assert {name for case in found["cases"] for name in case["seconds"]} == names
    assert all(len(times["rounds"]) == 2 for case in found["cases"] for times in case["seconds"].values())


@pytest.mark.usefixtures("_quickly")
def test_postgresql_has_a_table_of_its_own(treestore: Command, tmp_path: Path) -> None:
    url = server().url("postgres")
    ran = treestore.done("bench", "--nodes", 9, "--rounds", 1, "--folder", tmp_path, "--postgres", url)
    blank = ran.lines.index("")
    headings, *lines = ran.lines[blank + 1 : ran.lines.index("", blank + 1)]
    assert headings.split() == ["WHAT", "VS", "POSTGRESQL", "TREESTORE", "POSTGRESQL"]
    whats = [line.split("  ")[0] for line in lines]
    assert {"A node by its id", "Subtree to depth 3", "Store the document, per node"} < set(whats)
    assert "Both versions, read whole" not in whats
    assert max(len(line) for line in (headings, *lines)) <= 80, "the width of a terminal"
    assert "VS POSTGRESQL: how many times as fast as plain SQL on PostgreSQL treestore is" in ran.out


def test_a_server_that_is_none(treestore: Command) -> None:
    assert "url: " in treestore.refused(2, "bench", "--postgres", "mysql://here")


@pytest.mark.parametrize(
    "arguments", [("--nodes", 0), ("--nodes", -1), ("--nodes", 10**9), ("--rounds", 0), ("--rounds", 101), ("--nodes", "many")]
)
def test_numbers_that_are_refused(treestore: Command, arguments: tuple[object, ...]) -> None:
    assert str(arguments[0]) in treestore.refused(2, "bench", *arguments)


def test_a_folder_that_is_none(treestore: Command, tmp_path: Path) -> None:
    said = treestore.refused(2, "bench", "--folder", tmp_path / "none")
    assert said == f"folder: {tmp_path / 'none'} is no folder that can be written to"


def test_a_wrong_answer_is_one_line(treestore: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from treestore.bench.contenders.sqlite import Sqlite

    monkeypatch.setattr(Sqlite, "answer", lambda self, verb, question: verb == "children" or self.verbs[verb](question))
    monkeypatch.setattr(cases, "MANY", 4)
    said = treestore.refused(1, "bench", "--nodes", 9, "--folder", tmp_path)
    assert said.startswith("SQLite, The children of a node: the answer to '000")
    assert list(tmp_path.iterdir()) == []
