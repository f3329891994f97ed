"""``treestore ingest``: real files in, bad ones refused by name, node and rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

import treestore as package
from tests.cli.command import SHIPPED_FILES, Command, Files, node


@pytest.mark.parametrize("path", SHIPPED_FILES, ids=lambda path: path.stem)
def test_every_shipped_file_comes_back_equal(treestore: Command, path: Path) -> None:
    said = treestore.done("ingest", path, "--policy", "P", "--version", "1")
    assert said.out.startswith("created    P 1  ")
    assert said.out.endswith(f"  {path}\n")
    exported = treestore.done("export", "P")
    original = path.read_text(encoding="utf-8")
    assert json.dumps(exported.json) == json.dumps(json.loads(original)), "equal, with the order of keys"


def test_equal_content_is_unchanged_and_other_content_replaces(treestore: Command, files: Files) -> None:
    path = files.document(node("a"), node("b"))
    outcomes = [treestore.done("ingest", path).out.split()[0] for _ in range(2)]
    assert outcomes == ["created", "unchanged"]
    files.document(node("a"), node("b", title="Another"))
    assert treestore.done("ingest", path).out == f"replaced   policy 1  2 nodes  {path}\n"
    assert treestore.done("node", "policy", "b", "--json").json["title"] == "Another"


def test_storing_again_says_unchanged_and_writes_nothing(treestore: Command) -> None:
    treestore.done("ingest", *SHIPPED_FILES)
    before = {path.name: path.read_bytes() for path in (treestore.store / "wal").iterdir()}
    assert {line.split()[0] for line in treestore.done("ingest", *SHIPPED_FILES).lines} == {"unchanged"}
    assert {path.name: path.read_bytes() for path in (treestore.store / "wal").iterdir()} == before


def test_the_policy_is_named_by_the_file_or_by_the_option(treestore: Command, files: Files) -> None:
    plain = files.document(node(), name="plain.json")
    indexed = files.document(node(), name="handbook_structure.json")
    treestore.done("ingest", plain, indexed)
    treestore.done("ingest", plain, "--policy", "given", "--version", "7")
    listed = treestore.done("documents", "--json").json
    assert [(entry["policy_id"], entry["version"]["version_id"]) for entry in listed] == [
        ("given", "7"),
        ("handbook", "1"),
        ("plain", "1"),
    ]


def test_what_is_said_of_a_version_is_kept(treestore: Command, files: Files) -> None:
    facts = ["--effective-date", "2026-03-01", "--description", "as revised", "--created-by", "me"]
    more = ["--source-url", "https://example.org/p", "--tag", "a", "--tag", "b", "--metadata", "k=v=w", "--metadata", "empty="]
    treestore.done("ingest", files.document(node()), *facts, *more)
    (version,) = treestore.done("versions", "policy", "--json").json
    assert version["effective_date"] == "2026-03-01T00:00:00Z"
    assert (version["description"], version["created_by"], version["source_url"]) == ("as revised", "me", "https://example.org/p")
    assert (version["tags"], version["metadata"]) == (["a", "b"], {"k": "v=w", "empty": ""})


def test_what_no_option_says_stays(treestore: Command, files: Files) -> None:
    said = ["--effective-date", "2026-03-01", "--description", "as revised", "--created-by", "me", "--tag", "a"]
    path = files.document(node())
    treestore.done("ingest", path, *said, "--metadata", "k=v", "--source-url", "https://example.org/p")
    (first,) = treestore.done("versions", "policy", "--json").json
    assert treestore.done("ingest", path).out.startswith("unchanged")
    assert treestore.done("ingest", path, "--description", "again").out.startswith("replaced")
    (second,) = treestore.done("versions", "policy", "--json").json
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"description", "updated_at", "revision"}
    files.document(node(title="other"))
    assert treestore.done("ingest", path, "--description", "").out.startswith("replaced")
    (third,) = treestore.done("versions", "policy", "--json").json
    assert (third["description"], third["tags"], third["metadata"]) == ("", ["a"], {"k": "v"})
    treestore.done("delete", "policy", "--yes")
    treestore.done("ingest", path)
    (revived,) = treestore.done("versions", "policy", "--json").json
    assert (revived["tags"], revived["metadata"], revived["effective_date"]) == ([], None, None)


def test_what_a_program_said_of_a_version_stays(treestore: Command, files: Files) -> None:
    path = files.document(node())
    document = package.pageindex.read(path)
    with package.open_sync(treestore.url) as store:
        store.documents.store_document(
            "policy",
            "1",
            document.nodes,
            pageindex=document.envelope,
            pageindex_doc_id="pi-1",
            pdf_sha256="0" * 64,
            tree_validated_by="somebody",
            tree_validated_at=date(2026, 1, 2),
            revision_date=date(2026, 1, 1),
        )
    assert treestore.done("ingest", path).out.startswith("unchanged")


def test_the_id_of_a_workspace_goes_with_its_file(treestore: Command, files: Files) -> None:
    workspace = files.document(node(), id="pi-1", path="p.pdf", name="w.json")
    treestore.done("ingest", workspace, "--policy", "policy")
    treestore.done("ingest", files.document(node()))
    assert treestore.done("versions", "policy", "--json").json[0]["pageindex_doc_id"] == ""


@pytest.mark.parametrize(("url", "status"), [("nonsense", 2), ("btree://x", 2)])
def test_an_error_of_the_store_is_said_once(treestore: Command, files: Files, url: str, status: int) -> None:
    paths = [files.document(node(), name="a.json"), files.text("", "bad.json"), files.document(node(), name="b.json")]
    said = treestore.refused(status, "ingest", *paths, "--store", url)
    assert said.startswith("url: ")


def test_json_names_file_and_outcome(treestore: Command, files: Files) -> None:
    path = files.document(node())
    (entry,) = treestore.done("ingest", path, "--json").json
    assert entry["file"] == str(path)
    assert entry["stored"]["outcome"] == "created"
    assert len(bytes.fromhex(entry["stored"]["tree_hash"])) == 32


def deep(levels: int) -> str:
    return '{"doc_name": "d", "structure": ' + '[{"title": "t", "nodes": ' * levels + "[]" + "}]" * levels + "}"


BAD: dict[str, tuple[Callable[[Files], Path], str]] = {
    "not JSON": (lambda files: files.text('{"doc_name": nope}'), "is not JSON: Expecting value at line 1, column 14"),
    "empty": (lambda files: files.text(""), "is not JSON"),
    "not UTF-8": (lambda files: files.text(b'{"doc_name": "\xff", "structure": []}'), "is not UTF-8"),
    "a bare list": (lambda files: files.text("[]"), "is a bare list"),
    "no PageIndex shape": (lambda files: files.text('{"hello": 1}'), "this is no PageIndex document"),
    "structure is no list": (lambda files: files.text('{"structure": {}}'), "structure: must be a list"),
    "a node is no object": (lambda files: files.text('{"structure": ["x"]}'), "node '#1': must be an object"),
    "NaN": (lambda files: files.text('{"structure": [], "x": NaN}'), "NaN is no JSON value"),
    "duplicate key": (lambda files: files.text('{"structure": [], "x": 1, "x": 2}'), "x: is given twice"),
    "duplicate node id": (lambda files: files.document(node("a"), node("a")), "node 'a': node_id: is given twice"),
    "some ids missing": (lambda files: files.document(node("a"), node(None)), "node_id: is missing"),
    "100,000 levels": (lambda files: files.text(deep(100_000)), "at most 200 levels"),
    "201 levels": (lambda files: files.text(deep(201)), "200 levels"),
    "start after end": (lambda files: files.document(node("a", start_index=3)), "node 'a': start_index: 3 is after"),
    "NUL": (lambda files: files.document(node("a", title="x\0")), "node 'a': title: must not contain NUL"),
    "NUL in an id": (lambda files: files.document(node("a\0")), "node_id: must not contain NUL"),
    "lone surrogate": (lambda files: files.document(node("a", text="\ud800")), "text: must not contain a lone surrogate"),
    "page is a float": (lambda files: files.document(node("a", start_index=1.0)), "start_index: must be an integer, not 1.0"),
    "page is a boolean": (lambda files: files.document(node("a", end_index=True)), "end_index: must be an integer, not True"),
    "page is a string": (lambda files: files.document(node("a", start_index="1")), "start_index: must be an integer, not '1'"),
    "page over 32 bits": (lambda files: files.document(node("a", end_index=2**31)), "must be from 0 to 2147483647"),
    "negative page": (lambda files: files.document(node("a", start_index=-1)), "must be from 0 to 2147483647"),
    "one page only": (lambda files: files.document({"title": "t", "node_id": "a", "start_index": 1}), "node 'a'"),
    "empty id": (lambda files: files.document(node("")), "node_id: must not be empty"),
    "over-long id": (lambda files: files.document(node("x" * 101)), "is 101 characters long, at most 100"),
    "no title": (lambda files: files.document({"node_id": "a"}), "node 'a': title: is required"),
    "missing file": (lambda files: files.folder / "missing.json", "No such file"),
    "a folder": (lambda files: files.folder, "Is a directory"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_clear_line_and_changes_nothing(treestore: Command, files: Files, kind: str) -> None:
    make, rule = BAD[kind]
    path = make(files)
    said = treestore.refused(2, "ingest", path, "--policy", "P")
    assert str(path) in said
    assert rule in said
    assert len(said) < 400
    assert not treestore.store.exists(), "bad input makes no store"

    good = files.document(node("kept"), name="good.json")
    treestore.done("ingest", good, "--policy", "P")
    before = treestore.done("export", "P").out
    assert treestore.refused(2, "ingest", path, "--policy", "P") == said
    assert treestore.done("export", "P").out == before


def test_a_bad_file_does_not_stop_the_others(treestore: Command, files: Files) -> None:
    first, last = (files.document(node(), name=f"{name}.json") for name in ("first", "last"))
    ran = treestore("ingest", first, files.text("", "bad.json"), last)
    assert ran.status == 2
    assert [line.split()[1] for line in ran.lines] == ["first", "last"]
    assert "bad.json: is not JSON" in ran.err


def test_two_files_can_not_be_one_version(treestore: Command, files: Files) -> None:
    paths = [files.document(node(), name=name) for name in ("a.json", "b.json")]
    said = treestore.refused(2, "ingest", *paths, "--policy", "P")
    assert all(str(path) in said for path in paths)
    assert not treestore.store.exists()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--policy", ""], "policy_id: must not be empty"),
        (["--policy", "x" * 101], "policy_id: is 101 characters long"),
        (["--policy", "a\0"], "policy_id: must not contain NUL"),
        (["--version", ""], "version_id: must not be empty"),
        (["--version", "x" * 51], "version_id: is 51 characters long"),
        (["--effective-date", "soon"], "'soon' is no ISO date"),
        (["--effective-date", "2026-02-30"], "'2026-02-30' is no ISO date"),
        (["--metadata", "novalue"], "must be KEY=VALUE"),
        (["--metadata", "a=1", "--metadata", "a=2"], "each key once"),
        (["--tag", "\udcff"], "must not contain a lone surrogate"),
        (["--nonsense"], "No such option"),
    ],
)
def test_bad_options_are_refused(treestore: Command, files: Files, options: list[str], rule: str) -> None:
    assert rule in treestore.refused(2, "ingest", files.document(node()), *options)
    assert not treestore.store.exists()
