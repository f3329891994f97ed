"""The verbs that read trees, as text and as JSON."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from tests.cli.command import SHIPPED, Command, Files, node

LECTURES = SHIPPED / "four-lectures_structure.json"


@pytest.fixture
def lectures(treestore: Command) -> Command:
    treestore.done("ingest", LECTURES, "--policy", "L")
    return treestore


def ids(entries: list[dict[str, object]]) -> list[object]:
    return [entry["node_id"] for entry in entries]


def test_documents(lectures: Command) -> None:
    lectures.done("ingest", LECTURES, "--policy", "A", "--description", "a copy")
    assert [line.split()[:2] for line in lectures.done("documents").lines] == [["POLICY", "VERSION"], ["A", "1"], ["L", "1"]]
    listed = lectures.done("documents", "--json").json
    assert [(entry["policy_id"], entry["version_count"], entry["version"]["node_count"]) for entry in listed] == [
        ("A", 1, 53),
        ("L", 1, 53),
    ]
    assert [entry["policy_id"] for entry in lectures.done("documents", "--after", "A", "--json").json] == ["L"]
    assert [entry["policy_id"] for entry in lectures.done("documents", "--limit", "1", "--json").json] == ["A"]


def test_tree_is_indented_in_document_order(lectures: Command) -> None:
    lines = lectures.done("tree", "L").lines
    assert len(lines) == 53
    assert lines[:3] == ["0000  Preface  [page 1]", "0001  ML at a Glance  [page 2]", "  0002  An ML session  [pages 2-3]"]


def test_subtree_and_depth(lectures: Command) -> None:
    assert lectures.done("tree", "L", "0012", "--depth", "0").lines == ["0012  Programming with ML Modules  [page 10]"]
    below = lectures.done("tree", "L", "0012").lines
    assert below[1] == "  0013  Introduction  [pages 10-11]"
    assert ids(lectures.done("tree", "L", "0012", "--json").json) == [f"{n:04}" for n in range(12, 23)]
    assert all("text" not in entry for entry in lectures.done("tree", "L", "--json").json), "an outline has no texts"
    assert len(lectures.done("tree", "L", "--depth", "0").lines) == 7


def test_node_shows_its_text(treestore: Command) -> None:
    treestore.done("ingest", SHIPPED / "README_markdown_structure.json", "--policy", "R")
    entry = treestore.done("node", "R", "0003", "--json").json
    shown = treestore.done("node", "R", "0003").out
    assert shown.endswith("\n\n" + entry["text"].rstrip() + "\n")
    assert f"title      {entry['title']}" in shown.splitlines()
    assert entry["line_num"] == 73


def test_children_and_ancestors(lectures: Command) -> None:
    assert ids(lectures.done("children", "L", "--json").json) == ["0000", "0001", "0012", "0023", "0036", "0042", "0052"]
    assert ids(lectures.done("children", "L", "0001", "--json").json) == [f"{n:04}" for n in range(2, 12)]
    assert lectures.done("children", "L", "0000", "--json").json == []
    assert ids(lectures.done("ancestors", "L", "0020", "--json").json) == ["0012", "0020"]
    rows = lectures.done("ancestors", "L", "0020").lines
    assert [row.split()[0] for row in rows] == ["NODE", "0012", "0020"]


def test_export_to_a_file(lectures: Command, tmp_path: Path) -> None:
    target = tmp_path / "exported.json"
    assert lectures.done("export", "L", "--output", target).out == ""
    assert json.loads(target.read_text(encoding="utf-8")) == json.loads(LECTURES.read_text(encoding="utf-8"))
    assert lectures.done("export", "L", "--json").json == json.loads(target.read_text(encoding="utf-8"))


@pytest.mark.parametrize("place", ["missing/exported.json", ".", "file/exported.json", "x" * 300])
def test_an_export_that_can_not_be_written_names_its_place(lectures: Command, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / place
    assert lectures.refused(1, "export", "L", "--output", target).startswith(f"cannot write {target}: ")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_export_that_fails_leaves_the_file_as_it_was(
    lectures: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "exported.json"
    target.write_text("kept")

    def fail(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr("treestore.cli.output.os.fchmod", fail)
        said = lectures("export", "L", "--output", target)
    assert (said.status, said.err) == (1, f"treestore: cannot write {target}: No space left on device\n")
    assert target.read_text() == "kept"
    assert [entry.name for entry in tmp_path.iterdir()] == ["exported.json"]


def test_an_export_takes_the_place_of_a_file_behind_a_link(lectures: Command, tmp_path: Path) -> None:
    file, link = tmp_path / "file.json", tmp_path / "link.json"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    lectures.done("export", "L", "--output", link)
    assert link.is_symlink()
    assert json.loads(file.read_text(encoding="utf-8")) == json.loads(LECTURES.read_text(encoding="utf-8"))
    assert file.stat().st_mode & 0o777 == 0o640
    lectures.done("export", "L", "--output", "/dev/null")
    assert "cannot write /dev/full: No space left on device" in lectures.refused(1, "export", "L", "--output", "/dev/full")


def test_an_export_into_the_store_is_refused(lectures: Command) -> None:
    before = {path: path.read_bytes() for path in lectures.store.rglob("*") if path.is_file() and path.name != "LOCK"}
    for place in ("data", "exported.json", "wal/exported.json"):
        said = lectures.refused(2, "export", "L", "--output", lectures.store / place)
        assert said.startswith("--output ")
        assert "lies in the folder of the store" in said
    assert {path: path.read_bytes() for path in before} == before


def test_versions_are_chosen(treestore: Command, files: Files) -> None:
    for version in ("1", "2"):
        treestore.done("ingest", files.document(node("a", title=f"of {version}")), "--version", version)
    assert treestore.done("node", "policy", "a", "--json").json["title"] == "of 2"
    for verb in (["node", "policy", "a"], ["tree", "policy"], ["children", "policy"], ["ancestors", "policy", "a"]):
        assert "of 1" in treestore.done(*verb, "--version", "1").out
    assert treestore.done("export", "policy", "--version", "1").json["structure"][0]["title"] == "of 1"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["tree", "nope"], 1, "policy 'nope' does not exist"),
        (["tree", "L", "--version", "9"], 1, "policy 'L' has no version '9'"),
        (["tree", "L", "9999"], 1, "policy 'L' version '1' has no node '9999'"),
        (["node", "L", "9999"], 1, "has no node '9999'"),
        (["children", "L", "9999"], 1, "has no node '9999'"),
        (["ancestors", "L", "9999"], 1, "has no node '9999'"),
        (["export", "nope"], 1, "policy 'nope' does not exist"),
        (["node", "L", "a\0b"], 2, "must not contain NUL"),
        (["node", "L", "x" * 101], 2, "is 101 characters long"),
        (["tree", ""], 2, "policy_id: must not be empty"),
        (["tree", "L", "--depth", "-1"], 2, "Invalid value for '--depth'"),
        (["tree", "L", "--depth", "x"], 2, "Invalid value for '--depth'"),
        (["tree", "L", "--depth", str(2**31)], 2, "Invalid value for '--depth'"),
        (["documents", "--limit", "-1"], 2, "Invalid value for '--limit'"),
        (["documents", "--limit", "1000001"], 2, "Invalid value for '--limit'"),
        (["documents", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["tree"], 2, "Missing argument 'POLICY' (see 'treestore tree --help')"),
        (["node", "L"], 2, "Missing argument 'NODE'"),
        (["dance"], 2, "No such command 'dance'"),
    ],
)
def test_what_can_not_be_answered(lectures: Command, arguments: list[str], status: int, said: str) -> None:
    assert said in lectures.refused(status, *arguments)


HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]bold[/red] \x9b31m \u202egnp.exe \r"


def test_stored_text_can_not_steer_the_terminal(treestore: Command, files: Files) -> None:
    path = files.document(node("a", title=HOSTILE, text=f"one\ntwo\t{HOSTILE}", summary=HOSTILE))
    treestore.done("ingest", path, "--description", HOSTILE, "--policy", "p\x1b[1m")
    for verb in ("documents", "tree", "node", "children", "ancestors", "versions", "export"):
        arguments = [] if verb == "documents" else ["p\x1b[1m", *(["a"] if verb in ("node", "ancestors") else [])]
        formats = [[]] if verb == "export" else [[], ["--json"]]
        for option in formats:
            out = treestore.done(verb, *arguments, *option).out
            assert [character for character in out if character in "\x1b\x07\x9b\u202e\r"] == [], (verb, option)
            assert verb in ("documents", "versions") or "[red]bold[/red]" in out, "it is no markup"
    assert "one\ntwo\t\\x1b[2J" in treestore.done("node", "p\x1b[1m", "a").out, "lines and tabs stay"
    assert treestore.done("export", "p\x1b[1m").json["structure"][0]["title"] == HOSTILE
    assert treestore.done("node", "p\x1b[1m", "a", "--json").json["title"] == HOSTILE


def test_wide_characters_keep_columns_aligned(treestore: Command, files: Files) -> None:
    path = files.document(node("休暇規程", title="x"), node("leave", title="y"), node("🏖️", title="z"))
    treestore.done("ingest", path)
    lines = treestore.done("children", "policy").lines
    assert [line.split()[-1] for line in lines] == ["TITLE", "x", "y", "z"]
    assert lines[1].index("1 ") + 4 == lines[2].index("2 "), "four wide characters stand for eight columns"


def test_long_ids_and_titles_are_whole_in_a_pipe(treestore: Command, files: Files) -> None:
    path = files.document(node("n" * 100, title="t" * 480))
    treestore.done("ingest", path, "--policy", "p" * 100, "--version", "v" * 50)
    for verb in (["tree"], ["children"]):
        out = treestore.done(*verb, "p" * 100).out
        assert "n" * 100 in out
        assert "t" * 480 in out
    assert f"{'p' * 100}  {'v' * 50}" in treestore.done("documents").out


def test_a_document_without_nodes(treestore: Command, files: Files) -> None:
    treestore.done("ingest", files.document())
    assert treestore.done("tree", "policy").out == ""
    assert treestore.done("tree", "policy", "--json").json == []
    assert treestore.done("export", "policy").json == {"doc_name": "policy.pdf", "structure": []}
