"""The verb that shows what changed, as text, in a terminal and as JSON."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from tests.cli.command import Command, Files, node
from tests.cli.test_process import in_terminal

STYLES = re.compile(r"\x1b\[[0-9;]*m")

BEFORE = [
    node("0", title="Leave", summary="All about leave.", nodes=[
        node("1", title="Annual", start_index=1, end_index=1, text="Thirty days of leave a year for everybody, in weeks."),
        node("2", title="Sick", start_index=2, end_index=2, text="As long as it takes."),
        node("3", title="Unpaid", start_index=2, end_index=3, text="By agreement, in writing."),
    ]),
    node("4", title="Pay", summary="All about pay.", nodes=[
        node("5", title="Day", start_index=4, end_index=4, text="The last."),
    ]),
]  # fmt: skip

AFTER = [
    node("0", title="Leave", summary="All about leave.", nodes=[
        node("1", title="Annual", start_index=1, end_index=1, text="Thirty-one days of leave a year for everybody, in days."),
        node("2", title="Parental", start_index=2, end_index=3, text="A year.", nodes=[
            node("3", title="Fathers", start_index=3, end_index=3, text="Half of it."),
        ]),
        node("4", title="Sick", start_index=3, end_index=3, text="As long as it takes."),
    ]),
    node("5", title="Pay", summary="All about pay.", nodes=[
        node("6", title="Unpaid", start_index=2, end_index=3, text="By agreement, in writing."),
    ]),
]  # fmt: skip

SHOWN = """\
Added (2)
+ 2  Leave › Parental  [pages 2-3]
+   3  Fathers  [page 3]

Removed (1)
- 5  Pay › Day  [page 4]

Changed (1)
~ 1  Leave › Annual
    text:
      - Thirty days of leave a …
      + Thirty-one days of leave a …
      - … year for everybody, in weeks.
      + … year for everybody, in days.

Moved (1)
> 3 → 6  Pay › Unpaid  (from Leave)

Repaged (1)
= 2 → 4  Leave › Sick  [page 2 → 3]

2 added, 1 removed, 1 changed, 1 moved, 1 repaged
"""


@pytest.fixture
def leave(treestore: Command, files: Files) -> Command:
    for version, nodes in (("1", BEFORE), ("2", AFTER)):
        treestore.done("ingest", files.document(*nodes), "--policy", "leave", "--version", version)
    return treestore


def changed(command: Command, files: Files, **fields: Any) -> list[str]:
    """What is shown of the one node of a document where these fields become others."""
    for version, which in (("1", 0), ("2", 1)):
        given = {name: values[which] for name, values in fields.items() if values[which] is not None}
        command.done("ingest", files.document(node("a", **given)), "--version", version)
    return command.done("diff", "policy", "1", "2").lines


def test_what_changed_is_listed_by_kind(leave: Command) -> None:
    assert leave.done("diff", "leave", "1", "2").out == SHOWN


def test_the_way_back(leave: Command) -> None:
    lines = leave.done("diff", "leave", "2", "1").lines
    assert lines[-1] == "1 added, 2 removed, 1 changed, 1 moved, 1 repaged"
    assert lines[4:6] == ["- 2  Leave › Parental  [pages 2-3]", "-   3  Fathers  [page 3]"]
    assert "> 6 → 3  Leave › Unpaid  (from Pay)" in lines


def test_json_is_the_record(leave: Command) -> None:
    found = leave.done("diff", "leave", "1", "2", "--json").json
    assert list(found) == ["policy_id", "version_a", "version_b", "added", "removed", "changed", "moved", "repaged"]
    assert (found["policy_id"], found["version_a"], found["version_b"]) == ("leave", "1", "2")
    assert [change["after"]["node_id"] for change in found["added"]] == ["2", "3"]
    assert [change["before"]["node_id"] for change in found["removed"]] == ["5"]
    assert found["changed"][0]["fields"] == ["text"]
    assert found["moved"][0]["before"]["path"] == ["Leave", "Unpaid"]


def test_no_differences(leave: Command, files: Files) -> None:
    assert leave.done("diff", "leave", "1", "1").out == "no differences\n"
    leave.done("ingest", files.document(*BEFORE), "--policy", "leave", "--version", "3")
    assert leave.done("diff", "leave", "1", "3").out == "no differences\n"
    empty = leave.done("diff", "leave", "1", "3", "--json").json
    assert [empty[name] for name in ("added", "removed", "changed", "moved", "repaged")] == [[]] * 5


def test_ids_alone_are_no_change(leave: Command, files: Files) -> None:
    renumbered = copy.deepcopy(BEFORE)
    waiting = list(renumbered)
    while waiting:
        each = waiting.pop()
        each["node_id"] = f"n{each['node_id']}"
        waiting += each.get("nodes", [])
    leave.done("ingest", files.document(*renumbered), "--policy", "leave", "--version", "3")
    assert leave.done("diff", "leave", "1", "3").out == "no differences\n"


def test_a_field_that_came_or_went(treestore: Command, files: Files) -> None:
    lines = changed(treestore, files, title=("A", "A"), text=("the same", "the same"), summary=(None, "Of leave."))
    assert lines[1:4] == ["~ a  A", "    summary:", "      + Of leave."]
    lines = changed(treestore, files, title=("A", "A"), text=("the same", "the same"), summary=("Of leave.", None))
    assert lines[1:4] == ["~ a  A", "    summary:", "      - Of leave."]


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("Leave", "Leave of absence", ["- Leave", "+ Leave of absence"]),
        ("Leave of absence", "Leave", ["- Leave of absence", "+ Leave"]),
        ("All leave of absence that is unpaid", "Leave of absence", None),
        ("Of the leave of absence", "Of all the leave of absence of all", None),
        ("Annual leave", "Sick leave", None),
    ],
)
def test_both_titles_are_shown_whole(treestore: Command, files: Files, before: str, after: str, shown: list[str]) -> None:
    lines = changed(treestore, files, title=(before, after), text=("the same", "the same"))
    assert [line.strip() for line in lines[2:5]] == ["title:", *(shown or [f"- {before}", f"+ {after}"])]
    assert lines[5] == ""


def test_lines_and_page_indexes_are_shown(treestore: Command, files: Files) -> None:
    import treestore as library

    numbers = [
        ({"line_num": 3}, {"line_num": 5}, "[line 3 → 5]"),
        ({"line_num": 3}, {}, "[line 3 → no line]"),
        ({"page_index": 3}, {"page_index": 5}, "[page_index 3 → 5]"),
        ({"page_start": 1, "page_end": 2}, {"line_num": 7}, "[pages 1-2 → no page]  [no line → line 7]"),
        ({"page_start": 1, "page_end": 1}, {"page_start": 1, "page_end": 2}, "[page 1 → pages 1-2]"),
    ]
    with library.open_sync(treestore.url) as store:
        for number, (before, after, _) in enumerate(numbers):
            for version, where in (("1", before), ("2", after)):
                store.documents.store_document(f"p{number}", version, [{"node_id": "a", "title": "A", **where}])
        for version, nodes in (("1", []), ("2", [{"node_id": "b", "title": "B", "line_num": 9}])):
            store.documents.store_document("came", version, [{"node_id": "a", "title": "A"}, *nodes])
    for number, (_, _, shown) in enumerate(numbers):
        assert treestore.done("diff", f"p{number}", "1", "2").lines[1] == f"= a  A  {shown}"
    assert treestore.done("diff", "came", "1", "2").lines[1] == "+ b  B  [line 9]"


def test_spaces_and_many_places(treestore: Command, files: Files) -> None:
    lines = changed(treestore, files, text=("one  two\nthree", "one two three"))
    assert lines[2] == "    text: spaces and line breaks alone"
    words = [f"w{n}" for n in range(100)]
    other = [f"x{n}" if n % 10 == 0 else f"w{n}" for n in range(100)]
    lines = changed(treestore, files, text=(" ".join(words), " ".join(other)))
    assert lines[2] == "    text, 7 more places:"
    assert lines[3:5] == ["      - w0 w1 w2 w3 w4 …", "      + x0 w1 w2 w3 w4 …"]
    assert len(lines) == 2 + 1 + 6 + 2


def test_a_long_rewording_is_shortened(treestore: Command, files: Files) -> None:
    lines = changed(treestore, files, text=("a " * 5000, "b " * 5000))
    assert lines[3] == "      - " + " ".join(["a"] * 20 + ["…"] + ["a"] * 10)


def test_metadata_is_shown_by_its_entries(leave: Command) -> None:
    import treestore

    with treestore.open_sync(leave.url) as store:
        store.documents.store_document("p", "1", [{"node_id": "a", "title": "A", "metadata": {"owner": "hr", "level": 1}}])
        store.documents.store_document("p", "2", [{"node_id": "a", "title": "A", "metadata": {"level": 2, "owner": "hr"}}])
        store.documents.update_node("p", "a", version_id="2", validation_status="approved")
    lines = leave.done("diff", "p", "1", "2").lines
    assert "    validation_status:" in lines
    assert "      - pending" in lines
    assert any(line.startswith("      + ") and '"level": 2' in line for line in lines)


def test_what_could_steer_a_terminal_is_escaped(treestore: Command, files: Files) -> None:
    lines = changed(treestore, files, title=("\x1b[2Jold", "\x1b[2Jnew"), text=("same", "same"))
    assert lines[1:5] == ["~ a  \\x1b[2Jnew", "    title:", "      - \\x1b[2Jold", "      + \\x1b[2Jnew"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "Missing argument 'POLICY'"),
        (["leave"], 2, "Missing argument 'A'"),
        (["leave", "1"], 2, "Missing argument 'B'"),
        (["nope", "1", "2"], 1, "policy 'nope' does not exist"),
        (["leave", "1", "9"], 1, "policy 'leave' has no version '9'"),
        (["leave", "9", "1"], 1, "policy 'leave' has no version '9'"),
        (["leave", "9", "9"], 1, "policy 'leave' has no version '9'"),
        (["leave", "", "1"], 2, "must not be empty"),
        (["leave", "1", "x" * 51], 2, "is 51 characters long"),
        (["leave", "1\0", "2"], 2, "must not contain NUL"),
        (["", "1", "2"], 2, "policy_id: must not be empty"),
        (["leave", "1", "2", "3"], 2, "unexpected extra argument"),
    ],
)
def test_bad_questions(leave: Command, arguments: list[str], status: int, said: str) -> None:
    assert said in leave.refused(status, "diff", *arguments)


def test_a_deleted_version(leave: Command) -> None:
    leave.done("delete", "leave", "--version", "1", "--yes")
    assert "was deleted" in leave.refused(1, "diff", "leave", "1", "2")


def test_a_terminal_gets_colours_and_lines_that_fit(leave: Command) -> None:
    status, shown = in_terminal("--store", leave.url, "diff", "leave", "1", "2", columns=30)
    assert status == 0
    lines = STYLES.sub("", shown).splitlines()
    assert max(map(len, lines)) <= 30
    assert "        [pages 2-3]" in lines, "what goes on in the next line is indented"
    assert " ".join(" ".join(lines).split()) == " ".join(SHOWN.split())
    for sign, colour in (("+", 32), ("-", 31), ("~", 33), (">", 34), ("=", 90)):
        assert f"\x1b[{colour}m{sign}\x1b[0m" in shown
    assert "\x1b[1;32mThirty-one\x1b[0m" in shown


@pytest.mark.parametrize("columns", range(20, 44, 2))
def test_pages_are_not_torn_apart(leave: Command, columns: int) -> None:
    _, shown = in_terminal("--store", leave.url, "diff", "leave", "1", "2", columns=columns)
    lines = STYLES.sub("", shown).splitlines()
    assert max(map(len, lines)) <= columns
    assert [line for line in lines if line.count("[") != line.count("]")] == []
    assert "[pages 2-3]" in shown
