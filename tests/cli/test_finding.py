"""The verbs that find nodes, by words and by pages, as text and as JSON."""

from __future__ import annotations

import re

import pytest

from tests.cli.command import SHIPPED, Command, Files, node
from tests.cli.test_process import in_terminal

EARNINGS = SHIPPED / "q1-fy25-earnings_structure.json"
LECTURES = SHIPPED / "four-lectures_structure.json"

STYLES = re.compile(r"\x1b\[[0-9;]*m")
FOUND = re.compile(r"\x1b\[1;31m(.*?)\x1b\[0m")


@pytest.fixture
def shipped(treestore: Command) -> Command:
    treestore.done("ingest", EARNINGS, LECTURES)
    return treestore


def ids(entries: list[dict[str, object]]) -> list[object]:
    return [entry["node_id"] for entry in entries]


# --- search --------------------------------------------------------------------------------------------------------------


def test_a_hit_is_a_line_and_the_place_that_matches_best(shipped: Command) -> None:
    first, second, *_ = shipped.done("search", "q1-fy25-earnings", "capital", "spent", "on", "cruise", "ships").lines
    assert re.fullmatch(r"0029  Capital Expenditures  \[page 12\]  \d+\.\d\d", first)
    assert second.startswith("    …")
    assert "higher spending on cruise ship fleet expansion" in second
    assert len(second) <= 4 + 192


def test_words_in_one_argument_or_in_several(shipped: Command) -> None:
    several = shipped.done("search", "four-lectures", "raising", "an", "exception").out
    assert several == shipped.done("search", "four-lectures", "raising an exception").out
    assert several.startswith("0005  Raising Exceptions  [pages 4-5]  ")
    assert several.count("\n") == 1, "a title alone has no excerpt"


def test_json_gives_the_records(shipped: Command) -> None:
    hits = shipped.done("search", "q1-fy25-earnings", "Moana", "2", "--limit", "3", "--json").json
    assert len(hits) == 3
    assert set(hits[0]) == {"node", "score", "words"}
    assert hits[0]["words"] == ["Moana", "2"]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    listed = shipped.done("search", "q1-fy25-earnings", "Moana", "2", "--limit", "3").lines
    assert [line.split()[0] for line in listed if not line.startswith(" ")] == ids([hit["node"] for hit in hits])


def test_the_best_come_first_and_no_more_than_asked(shipped: Command) -> None:
    all_hits = shipped.done("search", "q1-fy25-earnings", "revenue", "--limit", "1000000", "--json").json
    assert len(all_hits) > 10
    assert len(shipped.done("search", "q1-fy25-earnings", "revenue", "--json").json) == 10
    assert shipped.done("search", "q1-fy25-earnings", "revenue", "--limit", "1", "--json").json == all_hits[:1]


def test_a_version_is_chosen(treestore: Command, files: Files) -> None:
    for version, title in (("1", "of apples"), ("2", "of pears")):
        treestore.done("ingest", files.document(node("a", title=title)), "--version", version)
    assert treestore("search", "policy", "apple").err.startswith("treestore: nothing was found")
    assert treestore.done("search", "policy", "apple", "--version", "1").out.startswith("a  of apples")


def test_search_in_all_policies(shipped: Command) -> None:
    lines = shipped.done("search", "--all", "revenue", "functor").lines
    heads = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert set(heads) == {"q1-fy25-earnings", "four-lectures"}
    found = shipped.done("search", "--all", "revenue", "functor", "--json").json
    assert [hit["node"]["policy_id"] for hit in found] == heads
    assert shipped.refused(2, "search", "--all", "functor", "--version", "1").startswith("--version goes with a policy")


def test_nothing_found_is_said_and_is_no_error(shipped: Command) -> None:
    said = "treestore: nothing was found for 'xylophone' in policy 'four-lectures'\n"
    ran = shipped("search", "four-lectures", "xylophone")
    assert (ran.status, ran.out, ran.err) == (0, "", said)
    assert shipped.done("search", "four-lectures", "xylophone", "--json").json == []
    ran = shipped("search", "--all", "xylophone")
    assert (ran.status, ran.out, ran.err) == (0, "", "treestore: nothing was found for 'xylophone'\n")


@pytest.mark.parametrize("query", ["", "the of", " ", "?!"])
def test_a_query_without_words_finds_nothing_and_says_why(shipped: Command, query: str) -> None:
    ran = shipped("search", "four-lectures", query)
    assert (ran.status, ran.out) == (0, "")
    said = f"nothing was found for {query!r} in policy 'four-lectures': it has no word that says something"
    assert ran.err == f"treestore: {said}\n"
    assert shipped.done("search", "four-lectures", query, "--json").json == []


def test_what_was_stored_without_search_says_so(treestore: Command, files: Files) -> None:
    treestore.done("ingest", files.document(node("a", title="Leave")), "--not-searchable")
    said = "policy 'policy' version '1' was stored without keyword search; store it with searchable=True"
    assert treestore.refused(1, "search", "policy", "leave") == said
    assert treestore("search", "--all", "leave").err == "treestore: nothing was found for 'leave'\n"


def test_a_word_that_begins_with_a_dash(treestore: Command, files: Files) -> None:
    treestore.done("ingest", files.document(node("a", title="the option --depth")))
    assert treestore.done("search", "policy", "--", "--depth").out.startswith("a  the option --depth")
    assert "No such option" in treestore.refused(2, "search", "policy", "--depth")


@pytest.mark.parametrize(
    "query", ['"', "'", "\"'", "AND OR NOT (", "* ? ~", "%_;--", "{}[]\\", "\x1b[31m", "\t\r\n", "\u202e", "🏖"]
)
def test_quotes_operators_and_control_characters_are_no_syntax(shipped: Command, query: str) -> None:
    ran = shipped("search", "four-lectures", "--", query)
    assert ran.status == 0
    assert "\x1b" not in ran.err + ran.out
    assert ran.err.count("\n") <= 1
    assert shipped.done("search", "four-lectures", "--", f"functors {query}").out.startswith("0016  Functors")


def test_a_query_of_ten_thousand_words(shipped: Command) -> None:
    said = shipped.refused(2, "search", "four-lectures", *[f"word{n}" for n in range(10_000)], "functors")
    assert said == "query: is 88898 characters long, at most 20000 are allowed"
    assert shipped.done("search", "four-lectures", *["functors"] * 2_000).out.startswith("0016  Functors")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["search"], 2, "Missing argument 'POLICY'"),
        (["search", "four-lectures"], 2, "no words to look for"),
        (["search", "nope", "word"], 1, "policy 'nope' does not exist"),
        (["search", "four-lectures", "word", "--version", "9"], 1, "policy 'four-lectures' has no version '9'"),
        (["search", "", "word"], 2, "policy_id: must not be empty"),
        (["search", "four-lectures", "word", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["search", "four-lectures", "word", "--limit", "-1"], 2, "Invalid value for '--limit'"),
        (["search", "four-lectures", "word", "--limit", str(10**9)], 2, "Invalid value for '--limit'"),
        (["search", "four-lectures", "word", "--limit", "x"], 2, "Invalid value for '--limit'"),
        (["page"], 2, "Missing argument 'POLICY'"),
        (["page", "four-lectures"], 2, "Missing argument 'PAGE'"),
        (["page", "nope", "1"], 1, "policy 'nope' does not exist"),
        (["page", "four-lectures", "1", "--version", "9"], 1, "policy 'four-lectures' has no version '9'"),
        (["page", "four-lectures", "-1"], 2, "No such option: -1"),
        (["page", "four-lectures", "--", "-1"], 2, "page: must be from 0 to 2147483647, not -1"),
        (["page", "four-lectures", str(2**31)], 2, "page: must be from 0 to 2147483647"),
        (["page", "four-lectures", "9" * 100], 2, "page: must be from 0 to 2147483647"),
        (["page", "four-lectures", "1", str(2**31)], 2, "last: must be from 0 to 2147483647"),
        (["page", "four-lectures", "9", "8"], 2, "first: must not be above last (9 > 8)"),
        (["page", "four-lectures", "one"], 2, "Invalid value for 'PAGE'"),
        (["page", "four-lectures", "1.5"], 2, "Invalid value for 'PAGE'"),
    ],
)
def test_bad_questions(shipped: Command, arguments: list[str], status: int, said: str) -> None:
    assert said in shipped.refused(status, *arguments)


# --- page ----------------------------------------------------------------------------------------------------------------


def test_the_nodes_of_a_page(shipped: Command) -> None:
    assert shipped.done("page", "four-lectures", "28").lines == [
        "0033  Functors with Arguments  [pages 27-28]",
        "0034  Sharing Between Argument and Result  [page 28]",
        "0035  Explicit Result Signatures  [pages 28-29]",
    ]
    assert ids(shipped.done("page", "four-lectures", "28", "--json").json) == ["0033", "0034", "0035"]


def test_the_nodes_of_several_pages_are_indented_as_in_a_tree(shipped: Command) -> None:
    lines = shipped.done("page", "four-lectures", "29", "32").lines
    assert lines == [
        "  0035  Explicit Result Signatures  [pages 28-29]",
        "0036  Implementing an Interpreter in ML  [pages 30-32]",
        "  0037  Version 1: The Bare Typechecker  [pages 32-33]",
    ]


def test_a_page_of_no_node(shipped: Command) -> None:
    for pages, said in (["54"], "page 54"), (["54", str(2**31 - 1)], f"pages 54 to {2**31 - 1}"):
        ran = shipped("page", "four-lectures", *pages)
        assert (ran.status, ran.out) == (0, "")
        assert ran.err == f"treestore: no node of policy 'four-lectures' lies on {said}\n"
        assert shipped.done("page", "four-lectures", *pages, "--json").json == []


# --- in a terminal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 60, 100, 200])
def test_an_excerpt_takes_two_lines_of_a_terminal(shipped: Command, columns: int) -> None:
    arguments = ("--store", shipped.url, "search", "q1-fy25-earnings", "cruise ships", "--limit", "1")
    status, shown = in_terminal(*arguments, columns=columns)
    lines = STYLES.sub("", shown).splitlines()
    assert status == 0
    assert max(map(len, lines)) <= columns
    assert all(line.startswith("    ") for line in lines[1:])
    excerpt = lines[next(at for at, line in enumerate(lines) if line.startswith("    …")) :]
    assert len(excerpt) in ((1,) if columns == 200 else (2, 3))
    assert {"cruise", "ship"} <= set(FOUND.findall(shown))


def test_an_excerpt_of_wide_characters_takes_two_lines_too(treestore: Command, files: Files) -> None:
    treestore.done("ingest", files.document(node("a", title="A", summary="規程について、" * 50 + "休暇" + "、規程" * 50)))
    _, shown = in_terminal("--store", treestore.url, "search", "policy", "休暇")
    assert FOUND.findall(shown) == ["休暇"]
    assert len(STYLES.sub("", shown).splitlines()) <= 3


def test_a_title_s_words_are_marked_and_nothing_steers_the_terminal(treestore: Command, files: Files) -> None:
    path = files.document(node("a", title="\x1b[2J Leave\u202e of absence", summary="\x07 annual\x1b leave"))
    treestore.done("ingest", path)
    _, shown = in_terminal("--store", treestore.url, "search", "policy", "leaves", "absent")
    assert FOUND.findall(shown) == ["Leave", "leave"]
    for character in ("\x1b[2J", "\u202e", "\x07"):
        assert character not in shown
    for shown_instead in (r"\x1b[2J", r"\u202e of absence", r"\x07 annual\x1b"):
        assert shown_instead in STYLES.sub("", shown)


def test_no_color_leaves_the_marks_bold(shipped: Command) -> None:
    arguments = ("--store", shipped.url, "search", "four-lectures", "functors", "--limit", "1")
    _, shown = in_terminal(*arguments, NO_COLOR="1")
    assert "\x1b[1mFunctors\x1b[0m" in shown
    assert set(STYLES.findall(shown)) == {"\x1b[1m", "\x1b[0m"}
