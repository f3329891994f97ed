"""``treestore bench``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import Command
from treestore.bench import cases, contenders


@pytest.fixture
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "MANY", 40)


@pytest.mark.usefixtures("_quickly")
def test_a_table_and_nothing_left_behind(treestore: Command, tmp_path: Path) -> None:
    ran = treestore.done("bench", "--nodes", 60, "--rounds", 1, "--folder", tmp_path)
    headings, *lines = ran.lines
    assert headings.split("  ")[0] == "WHAT"
    assert [line.split("  ")[0] for line in lines] == [*(case.what for case in cases.CASES), lines[-1]]
    assert lines[-1].startswith("60 nodes, medians of 1 round; treestore ")
    assert "x / " in lines[0]
    assert list(tmp_path.iterdir()) == []
    assert not treestore.store.exists()


@pytest.mark.usefixtures("_quickly")
def test_json_alone(treestore: Command, tmp_path: Path) -> None:
    found = treestore.done("bench", "--nodes", 9, "--rounds", 2, "--folder", tmp_path, "--json").json
    assert found["nodes"] == 9
    names = {kind.name for kind in contenders.available()}
    assert {name for case in found["cases"] for name in case["seconds"]} == names
    assert all(len(times["rounds"]) == 2 for case in found["cases"] for times in case["seconds"].values())


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

    monkeypatch.setattr(Sqlite, "answer", lambda self, verb, question: None if verb == "node" else self.verbs[verb](question))
    monkeypatch.setattr(cases, "MANY", 4)
    said = treestore.refused(1, "bench", "--nodes", 9, "--folder", tmp_path)
    assert said.startswith("SQLite, A node by its id: the answer to '000")
    assert list(tmp_path.iterdir()) == []
