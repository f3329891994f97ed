"""Excerpts: what they show, where they are cut, what they mark."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treestore.errors import InvalidInput
from treestore.records import Node, Outline
from treestore.search import analyzer
from treestore.search.snippet import CUT, best_snippet, snippet

FILLER = "lorem ipsum dolor amet " * 20


def marked(text: str, query: str, width: int | None = 160) -> list[str]:
    found = snippet(text, query, width=width)
    return [found.text[start:end] for start, end in found.marks]


def node(summary: str | None = None, prefix_summary: str | None = None, text: str | None = None) -> Node:
    return Node(
        policy_id="p",
        version_id="1",
        node_id="a",
        parent_id=None,
        title="Title",
        section_path="1",
        ordinal=0,
        last_ordinal=0,
        parent_ordinal=-1,
        depth=0,
        node_hash=b"",
        tree_hash=b"",
        summary=summary,
        prefix_summary=prefix_summary,
        text=text,
    )


@pytest.mark.parametrize(
    ("text", "query", "words"),
    [
        ("Physical therapy.", "THERAPIES", ["therapy"]),
        ("see LCD-L34220, M54.5", "l34220 m54", ["LCD-L34220", "M54.5"]),
        ("LCD-L34220 but not 34220", "l342 342", ["LCD-L34220", "34220"]),
        ("LCD-L34220, L342", "l342", ["L342"]),
        ("it costs 1,234 or 12,34", "1234", ["1,234"]),
        ("a CAFÉ and a café", "cafe", ["CAFÉ", "café"]),
        ("the employer's leave; leaves", "leave employer", ["employer's", "leave", "leaves"]),
        ("休暇規程について、休日", "休暇", ["休暇", "休"]),
        ("nothing here", "therapy", []),
        ("the one and the other", "the and", []),
        ("", "therapy", []),
        ("therapy", "", []),
    ],
)
def test_words_match_as_in_a_search(text: str, query: str, words: list[str]) -> None:
    assert marked(text, query) == words
    assert marked(text, query, width=None) == words


def test_a_short_text_is_whole_and_on_one_line() -> None:
    assert snippet(" One\n\ttwo \r\n three ", "two") == ("One two three", ((4, 7),), 1)


def test_the_densest_place_is_shown_and_cut_at_spaces() -> None:
    text = f"Therapy {FILLER}of physical and occupational therapies. {FILLER}physical"
    found = snippet(text, "physical occupational therapy", width=80)
    assert marked(text, "physical occupational therapy", 80) == ["physical", "occupational", "therapies"]
    assert found.found == 3
    assert found.text.startswith(CUT)
    assert found.text.endswith(CUT)
    assert set(found.text.strip(CUT).replace(".", "").split()) <= set(text.replace(".", "").split()), "no word is cut"
    assert 60 <= len(found.text) <= 80


def test_different_words_count_more_than_many_and_the_first_of_equals_wins() -> None:
    text = f"leave leave leave {FILLER}annual leave {FILLER}leave annual"
    assert marked(text, "annual leave", 40) == ["annual", "leave"]


def test_without_a_match_it_is_the_beginning() -> None:
    assert snippet(f"First words. {FILLER}", "therapy", width=30) == ("First words. lorem ipsum…", (), 0)


def test_a_word_that_is_wider_than_the_excerpt_is_cut() -> None:
    found = snippet("x" * 50 + " " + "y" * 500 + " z", "y" * 500, width=40)
    assert found.text == "…" + "y" * 38 + "…"
    assert found.marks == ((1, 39),)
    clause = "規" * 300 + "休暇" + "程" * 300
    assert marked(clause, "休暇", 40) == ["休暇"], "the part of a long clause that matches"


def test_a_node_s_best_field() -> None:
    assert best_snippet(node(), "title") == ("", (), 0)
    assert best_snippet(node(summary="Of leave.", text="Of pay."), "pay").text == "Of pay."
    assert best_snippet(node(summary="Of leave.", text="Of pay."), "leave").text == "Of leave."
    assert best_snippet(node(summary="Of leave.", text="Leave it."), "leave").text == "Leave it."
    assert best_snippet(node(prefix_summary="Annual leave.", text="Leave it."), "annual leave").text == "Annual leave."
    assert best_snippet(node(summary="Of leave.", text="Of pay."), "title").text == "Of leave."
    assert best_snippet(node(text="Of pay."), "title").text == "Of pay."


def test_an_outline_s_best_field() -> None:
    def outline(summary: str | None = None, prefix_summary: str | None = None) -> Outline:
        whole = node(summary, prefix_summary)
        return Outline(**{name: getattr(whole, name) for name in Outline.__struct_fields__})

    assert best_snippet(outline("Of leave.", "Annual leave."), "annual").text == "Annual leave."
    assert best_snippet(outline("Of leave."), "title").text == "Of leave."
    assert best_snippet(outline(), "title") == ("", (), 0)


@pytest.mark.parametrize(
    ("ask", "arguments", "more", "said"),
    [
        (snippet, (None, "x"), {}, "text: must be a string, not None"),
        (snippet, (b"x", "x"), {}, "text: must be a string, not b'x'"),
        (snippet, ("\ud800", "x"), {}, "text: "),
        (snippet, ("x", ["x"]), {}, "query: must be a string, not a list"),
        (snippet, ("x", "x"), {"width": 40.5}, "width: must be an integer, not 40.5"),
        (snippet, ("x", "x"), {"width": True}, "width: must be an integer, not True"),
        (best_snippet, (None, "x"), {}, "node: must be a Node or an Outline, not None"),
        (best_snippet, (node(), None), {}, "query: must be a string, not None"),
        (best_snippet, (node(), "x"), {"width": 1}, "width: must be at least 20, not 1"),
    ],
)
def test_what_is_no_text_is_refused(
    ask: Callable[..., object], arguments: tuple[object, ...], more: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        ask(*arguments, **more)
    assert str(raised.value).startswith(said)


def test_a_query_that_a_search_refuses_is_refused() -> None:
    with pytest.raises(InvalidInput, match="query: "):
        snippet("text", " ".join(f"word{n}" for n in range(10_000)))


@pytest.mark.parametrize("width", [19, 0, -1])
def test_a_width_that_shows_nothing_is_refused(width: int) -> None:
    with pytest.raises(InvalidInput, match=f"width: must be at least 20, not {width}"):
        snippet("text", "query", width=width)


WORDS = ["leave", "Leaves", "pay", "M54.5", "café", "休暇規程", "e\u0301te", "x" * 70, "\n", "-", "'s", "\u200b", "🏖"]
texts = st.lists(st.sampled_from(WORDS), max_size=80).map(" ".join) | st.text(max_size=300)


@given(texts, texts, st.integers(20, 100))
@example("e" + "\u0301" * 100, "e", 20)
def test_an_excerpt_is_of_the_text_and_its_marks_are_of_the_query(text: str, query: str, width: int) -> None:
    found = snippet(text, query, width=width)
    whole = " ".join(unicodedata.normalize("NFC", text).split())
    assert len(found.text) <= width
    assert found.text.removeprefix(CUT).removesuffix(CUT) in whole
    assert whole == "" or found.text.strip(CUT + " ") or not whole.strip(CUT + " ")
    edge = 0
    for start, end in found.marks:
        assert edge <= start < end <= len(found.text)
        edge = end
    common = set(analyzer.terms(query)).intersection(analyzer.terms(text))
    assert bool(found.marks) == bool(found.found)
    if all(term.isalpha() for term in analyzer.terms(query)):  # a code may stand for others, and its parts not for it
        assert bool(common) <= found.found <= len(common), "what matches is shown"
