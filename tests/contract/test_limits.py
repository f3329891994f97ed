"""Strings, dates and numbers at their limits: they come back equal from every store, or every store refuses them alike."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.contract.samples import deep, node
from tests.stores import SyncStore
from treestore import InvalidInput, NotFound
from treestore.trees.rules import MAX_DEPTH, MAX_INTEGER, MAX_JSON_DEPTH

QUOTING = {
    "quotes": "'\"`''\"\"$$'; DROP TABLE policy_nodes; --",
    "backslashes": "\\ \\\\ \\n \\. \\N \\x41 \\u0041 \\",
    "the end of a COPY": "\\.\n\\.\n",
    "percent signs": "% %% %s %(a)s {} {0} :a $1 ?",
    "arrays": '{a,NULL,"b"}',
    "NULL": "NULL",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x80\x85\x9f",
    "lines": "a\r\nb\rc\nd\u2028e\u2029f\x0bg\x0c",
    "blanks around": " \t\u00a0\u3000a\u3000\u00a0\t ",
    "a byte order mark": "\ufeffa\ufeff",
    "composed": "\u00e9\u1e9b\u0323\uac00",
    "decomposed": unicodedata.normalize("NFD", "\u00e9\u1e9b\u0323\uac00"),
    "compatible": "ﬁ①ﾊﾝ\u212b",
    "both directions": "\u202eabc\u202c\u200f\u05d0\u0661",
    "joined": "👩‍👩‍👧‍👦🇩🇪e" + "\u0301" * 500,
}


def planes() -> Iterator[str]:
    """Every character that UTF-8 has, noncharacters and unassigned ones among them, but NUL; a string for each plane."""
    for plane in range(17):
        codes = range(max(plane << 16, 1), (plane + 1) << 16)
        yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


@pytest.mark.parametrize("name", QUOTING)
def test_what_quoting_and_normal_forms_could_change(store: SyncStore, name: str) -> None:
    text = QUOTING[name]
    given = node(text[:100], title=text, text=text, summary=text, prefix_summary=text, section_path=text[:500])
    given |= {"metadata": {text: [text, {text: text}]}, "extra": {text: text}}
    columns: dict[str, Any] = {"source_url": text, "description": text, "created_by": text, "markdown_ptr": text}
    columns |= {"tree_json_ptr": text, "pageindex_doc_id": text[:64], "pdf_sha256": text[:64], "tree_validated_by": text[:100]}
    columns |= {"tags": (text, "", text), "metadata": {text: text}}
    pages = [{"page": 1, "content": text, "extra": {text: text}}]
    store.documents.store_document(text[:100], text[:50], [given], pages=pages, **columns)

    kept = store.documents.get_document(text[:100], version_id=text[:50])
    assert {field: getattr(kept.nodes[0], field) for field in given} == given
    assert {field: getattr(kept.version, field) for field in columns} == columns
    assert (kept.pages[0].content, kept.pages[0].extra) == (text, {text: text})
    assert store.documents.get_node(text[:100], text[:100]) == kept.nodes[0]
    assert store.documents.list_documents()[0].policy_id == text[:100]
    assert store.documents.store_document("copy", "1", kept.nodes, pages=kept.pages).tree_hash == kept.version.tree_hash


def test_every_character_of_every_plane(store: SyncStore) -> None:
    texts = list(planes())
    nodes = [node(f"plane {at}", title=text, text=text[::-1], metadata={text: None}) for at, text in enumerate(texts)]
    store.documents.store_document("p", "1", nodes, pages=[{"page": 1, "content": "\0" + texts[16] + "\0"}])

    kept = store.documents.get_document("p")
    for found, text in zip(kept.nodes, texts, strict=True):
        assert (found.title, found.text, found.metadata) == (text, text[::-1], {text: None}), "compared as a whole"
    assert kept.pages[0].content == "\0" + texts[16] + "\0"
    assert sum(map(len, texts)) == sys.maxunicode - 0x800


def test_texts_of_a_megabyte(store: SyncStore) -> None:
    texts = ["x" * 2**20, "税" * (2**20 // 3), "\U0001f600\\'\t" * (2**20 // 7), " " * 2**20]
    nodes = [node(f"{at}", text=text) for at, text in enumerate(texts)] + [node("4", title=texts[2], summary=texts[2])]
    pages = [{"page": 1, "content": "\0" + texts[2]}]
    store.documents.store_document("p", "1", nodes, pages=pages, metadata={"text": texts[2]})

    kept = store.documents.get_document("p")
    assert [one.text for one in kept.nodes] == [*texts, None]
    assert (kept.nodes[4].title, kept.nodes[4].summary) == (texts[2], texts[2])
    assert [page.content for page in kept.pages] == ["\0" + texts[2]]
    assert kept.version.metadata == {"text": texts[2]}
    amended = store.documents.update_node("p", "0", text="a b " * 2**15, title="t" * 2**20)
    assert store.documents.get_node("p", "0") == amended
    assert [hit.node for hit in store.documents.search_nodes("p", "b")] == [amended]


def test_words_of_any_length_can_be_searched_for(store: SyncStore) -> None:
    """A column with an index takes 2,700 bytes in some databases, so a term may not be as long as a text is."""
    words = [letter * length for letter in "x税é" for length in (63, 64, 255, 256, 1000, 3000, 70_000)]
    codes = [f"{'9' * length}-{'8' * length}.1" for length in (20, 100, 3000)]
    store.documents.store_document("p", "1", [node(f"n{at}", title=word) for at, word in enumerate([*words, *codes])])

    for at, word in enumerate([*words, *codes]):
        if len(word) <= 1000:
            assert f"n{at}" in {hit.node.node_id for hit in store.documents.search_nodes("p", word, limit=100)}, len(word)


def test_long_titles_at_every_level(store: SyncStore) -> None:
    """The titles from the root down, which one column of a relational store holds, are cut there and nowhere else."""
    nodes = [{**one, "title": f"{at}é" * 80} for at, one in enumerate(deep(MAX_DEPTH))]
    store.documents.store_document("p", "1", nodes)
    store.documents.update_node("p", "level 0", title="%_\\" * 200)
    store.documents.update_node("p", "level 3", title="")

    kept = store.documents.get_document("p").nodes
    titles = [one["title"] for one in nodes]
    titles[0], titles[3] = "%_\\" * 200, ""
    assert [one.title for one in kept] == titles
    assert store.documents.get_ancestor_path("p", f"level {MAX_DEPTH - 1}") == kept
    assert kept[-1].section_path == ".".join("1" * MAX_DEPTH)
    assert store.documents.get_subtree("p", "level 0") == kept


def test_pages_and_lines_to_the_end_of_32_bits(store: SyncStore) -> None:
    last = MAX_INTEGER
    nodes = [
        node("all", page_start=0, page_end=last, page_index=last, line_num=last),
        node("first", "all", page_start=0, page_end=0, page_index=0, line_num=0),
        node("last", "all", page_start=last, page_end=last),
    ]
    pages = [{"page": last, "content": "last"}, {"page": 0, "content": "first"}]
    store.documents.store_document("p", "1", nodes, pages=pages)

    assert [one.node_id for one in store.documents.get_nodes_by_page("p", last)] == ["all", "last"]
    assert [one.node_id for one in store.documents.get_nodes_by_page("p", 0)] == ["all", "first"]
    assert [one.node_id for one in store.documents.get_nodes_by_pages("p", 1, last - 1)] == ["all"]
    assert [page.page for page in store.documents.get_page_texts("p")] == [last, 0], "in the order given"
    assert [page.page for page in store.documents.get_page_texts("p", 1, last)] == [last]
    found = store.documents.get_node("p", "all")
    assert (found.page_start, found.page_end, found.page_index, found.line_num) == (0, last, last, last)
    for read in (store.documents.get_nodes_by_page, store.documents.get_page_text):
        with pytest.raises(InvalidInput, match=f"must be from 0 to {last}"):
            read("p", last + 1)


MOMENTS = {
    "the first": datetime.min.replace(microsecond=1, tzinfo=UTC),
    "a date of year 1": datetime(1, 1, 2, tzinfo=UTC),
    "before the Gregorian calendar": datetime(1582, 10, 10, 1, 2, 3, 4, tzinfo=UTC),
    "before 1900": datetime(1883, 11, 18, 12, 3, 57, 999_999, tzinfo=UTC),
    "just before 1970": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    "PostgreSQL's own epoch": datetime(2000, 1, 1, tzinfo=UTC),
    "the end of 32 bits": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    "an hour that is there twice": datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
    "the last": datetime.max.replace(microsecond=999_998, tzinfo=UTC),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_moments_to_the_microsecond(store: SyncStore, name: str) -> None:
    moment = MOMENTS[name]
    dates: dict[str, Any] = {"effective_date": moment, "revision_date": moment, "tree_validated_at": moment}
    store.documents.store_document("p", "1", [node("a")], **dates)

    kept = store.versions.get("p", "1")
    assert (kept.effective_date, kept.revision_date, kept.tree_validated_at) == (moment,) * 3
    assert {found.tzinfo for found in (kept.effective_date, kept.revision_date, kept.ingested_at) if found} == {UTC}
    assert store.versions.get_version_as_of("p", moment).version_id == "1"
    if moment - datetime.min.replace(tzinfo=UTC) > timedelta(microseconds=1):
        with pytest.raises(NotFound):
            store.versions.get_version_as_of("p", moment - timedelta(microseconds=1))


def test_moments_of_other_zones_and_of_none(store: SyncStore) -> None:
    there = datetime(2026, 3, 1, 2, 0, 0, 1, tzinfo=timezone(timedelta(hours=14, minutes=1, seconds=1)))
    store.documents.store_document("p", "1", [node("a")], effective_date=there, revision_date=there.replace(tzinfo=None))
    kept = store.versions.get("p", "1")
    assert kept.effective_date == there == datetime(2026, 2, 28, 11, 58, 59, 1, tzinfo=UTC)
    assert kept.revision_date == there.replace(tzinfo=UTC)
    store.documents.store_document("p", "2", [node("a")], effective_date=date(2026, 3, 2))
    assert store.versions.get("p", "2").effective_date == datetime(2026, 3, 2, tzinfo=UTC)


@pytest.mark.parametrize("moment", [datetime.min, datetime.max, date.min, datetime.max.replace(tzinfo=UTC)])
def test_moments_that_databases_read_as_infinity_are_refused(store: SyncStore, moment: date) -> None:
    with pytest.raises(InvalidInput, match=r"effective_date: is out of range: .* stands for infinity"):
        store.documents.store_document("p", "1", [node("a")], effective_date=moment)
    with pytest.raises(NotFound):
        store.versions.latest("p")


def test_questions_about_the_first_and_the_last_moment(store: SyncStore) -> None:
    store.documents.store_document("p", "1", [node("a")], effective_date=date(2026, 1, 1))
    for end in (date.max, datetime.max, datetime.max.replace(tzinfo=UTC)):
        assert store.versions.get_version_as_of("p", end).version_id == "1"
        assert store.versions.get_version_as_of("p", end, end).version_id == "1"
    for begin in (date.min, datetime.min, datetime.min.replace(tzinfo=UTC)):
        with pytest.raises(NotFound):
            store.versions.get_version_as_of("p", begin)
        with pytest.raises(NotFound):
            store.versions.get_version_as_of("p", date.max, begin)


NUMBERS = [
    0,
    -0.0,
    0.0,
    1,
    1.0,
    True,
    False,
    None,
    1e22,
    1e21,
    123456789012345680.0,
    1e308,
    1.7976931348623157e308,
    5e-324,
    0.1 + 0.2,
]
NUMBERS += [2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -1, 1e16, 1e-7, float(2**63), 100000000000000000000.0]


def nest(levels: int) -> Any:
    value: Any = {"inner": -0.0}
    for at in range(levels - 1):
        value = {"k": value} if at % 2 else [value]
    return value


def test_json_values_come_back_in_every_detail(store: SyncStore) -> None:
    values: dict[str, Any] = {"numbers": NUMBERS, "z": 1, "a": {"": [], " ": {}, "B": "", "b": [[]]}, "": None}
    values |= {"keys": {text: text for text in QUOTING.values()}, "deep": nest(MAX_JSON_DEPTH - 1)}
    page = {"page": 1, "content": "", "extra": values}
    store.documents.store_document("p", "1", [node("a", metadata=values, extra=values)], metadata=values, pages=[page])
    store.documents.store_document("q", "1", [node("a")])
    store.documents.update_node("q", "a", metadata=values)

    kept = store.documents.get_document("p")
    found = [kept.version.metadata, kept.nodes[0].metadata, kept.nodes[0].extra, kept.pages[0].extra]
    for one in (*found, store.documents.get_node("q", "a").metadata):
        assert repr(one) == repr(values), "types, signs and the order of keys too, which == does not see"


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (float("nan"), "must be a finite number, not nan"),
        (float("inf"), "must be a finite number, not inf"),
        (2**64, r"must be an integer from -2\*\*63 to 2\*\*64 - 1, not 18446744073709551616"),
        (-(2**63) - 1, r"must be an integer from -2\*\*63 to 2\*\*64 - 1, not -9223372036854775809"),
        ("a\0", "must not contain NUL"),
        ("\ud83d", "must not contain a lone surrogate"),
        ({"\0": 1}, "must not contain NUL"),
        (nest(MAX_JSON_DEPTH), f"is nested more than {MAX_JSON_DEPTH} levels deep"),
    ],
    ids=repr,
)
def test_json_values_that_no_store_can_keep_are_refused_alike(store: SyncStore, value: Any, rule: str) -> None:
    store.documents.store_document("q", "1", [node("a")])
    for field in ("metadata", "extra"):
        with pytest.raises(InvalidInput, match=f"^node 'a': {field}.*{rule}"):
            store.documents.store_document("p", "1", [node("a") | {field: {"k": value}}])
    with pytest.raises(InvalidInput, match=f"^metadata.*{rule}"):
        store.documents.store_document("p", "1", [], metadata={"k": value})
    with pytest.raises(InvalidInput, match=f"metadata.*{rule}"):
        store.documents.update_node("q", "a", metadata={"k": value})
    with pytest.raises(NotFound):
        store.versions.latest("p")


def test_empty_is_not_absent_anywhere(store: SyncStore) -> None:
    texts = ("text", "summary", "prefix_summary")
    jsons = ("metadata", "extra")
    nodes = [
        node("absent", **dict.fromkeys((*texts, *jsons))),
        node("empty", **dict.fromkeys(texts, "")) | {"title": "", "metadata": {}, "extra": {}},
    ]
    pages = [{"page": 1, "content": "", "extra": {}}, {"page": 2, "content": "", "extra": None}]
    store.documents.store_document("p", "absent", nodes, pages=pages, source_url=None, metadata=None)
    store.documents.store_document(
        "p", "empty", nodes, pages=pages, source_url="", metadata={}, tree_validated_by="", tags=[""]
    )

    kept = store.documents.get_document("p", version_id="empty")
    absent, empty = kept.nodes
    assert [getattr(absent, name) for name in (*texts, *jsons)] == [None] * 5
    assert [getattr(empty, name) for name in (*texts, *jsons)] == ["", "", "", {}, {}]
    assert [page.extra for page in kept.pages] == [{}, None]
    version = kept.version
    assert (version.source_url, version.metadata, version.tree_validated_by, version.tags) == ("", {}, "", ("",))
    version = store.versions.get("p", "absent")
    assert (version.source_url, version.metadata, version.tree_validated_by, version.tags) == (None, None, None, ())


# --- ids, and what collations make of them -------------------------------------------------------------------------------

TRAPS = [
    "a",
    "A",
    "b",
    "B",
    "_",
    "-",
    "é",
    "e\u0301",
    "E",
    "f",
    "z",
    "Z",
    "ß",
    "ss",
    "1",
    "10",
    "2",
    "02",
    " a",
    "a ",
    "a b",
    "ab",
]
TRAPS += [
    "a_b",
    "a%b",
    "aXb",
    "%",
    "\\",
    "å",
    "\u212b",
    "I",
    "i",
    "ı",
    "İ",
    "\uffff",
    "\U00010000",
    "\ue000",
    "日",
    "本",
    "'",
    "\x7f",
]
"""Ids that languages put in another order than their code points are, or take for the same."""


def test_ids_are_in_the_order_of_their_code_points(store: SyncStore) -> None:
    for policy_id in TRAPS:
        store.documents.store_document(policy_id, "1", [node("a", title=policy_id)])

    listed = [found.policy_id for found in store.documents.list_documents()]
    assert listed == sorted(TRAPS)
    for at, after in enumerate(listed):
        following = [found.policy_id for found in store.documents.list_documents(after=after, limit=3)]
        assert following == listed[at + 1 : at + 4]
        assert store.documents.get_node(after, "a").title == after


def test_ids_that_differ_in_case_normal_form_or_blanks_are_others(store: SyncStore) -> None:
    for at, version_id in enumerate(TRAPS):
        store.documents.store_document("p", version_id, [node("r"), *(node(trap, "r", page_index=at) for trap in TRAPS)])

    assert {version.version_id for version in store.versions.list("p")} == set(TRAPS)
    for at, version_id in enumerate(TRAPS):
        children = store.documents.get_children("p", "r", version_id=version_id)
        assert [(one.node_id, one.page_index) for one in children] == [(trap, at) for trap in TRAPS], "in the order given"
    for trap in TRAPS:
        assert store.documents.get_node("p", trap).node_id == trap
        assert [one.node_id for one in store.documents.get_ancestor_path("p", trap)] == ["r", trap]
    asked = [*reversed(TRAPS), "r"]
    assert [one.node_id for one in store.documents.get_outlines("p", asked)] == asked
    with pytest.raises(NotFound, match="'AB'"):
        store.documents.get_nodes("p", ["ab", "AB"])
    store.documents.delete_version("p", "a")
    assert {version.version_id for version in store.versions.list("p")} == set(TRAPS) - {"a"}


def test_versions_of_one_moment_are_in_the_order_of_ingestion_whatever_their_ids(store: SyncStore) -> None:
    for version_id in TRAPS:
        store.documents.store_document("p", version_id, [node("a")])
    assert [version.version_id for version in store.versions.list("p")] in (TRAPS, TRAPS[::-1])
    assert store.versions.latest("p").version_id == TRAPS[-1]


def test_wildcards_and_patterns_mean_themselves(store: SyncStore) -> None:
    titles = ["A1B2", "A1_2", "A1%2", "10-20", "10_20", "M54.5", "M54x5", "M5455", "100%", "50% off", "a\\b", "x(y)*", "^$|"]
    store.documents.store_document("p", "1", [node(f"{at}", title=title) for at, title in enumerate(titles)])

    def found(query: str) -> list[str]:
        return [hit.node.title for hit in store.documents.search_nodes("p", query, limit=100)]

    assert found("M54.5") == ["M54.5"]
    assert "A1B2" not in found("A1_2")
    assert "A1B2" not in found("A1%2")
    for query in ("%", "_", "\\", "*", "%%%", "' OR 1=1 --", ":*", "a:* & b", "!a", "(", "x'"):
        assert not [title for title in found(query) if query in ("%", "_", "\\", "*", "%%%")], query


def test_a_section_path_of_500_characters_outside_the_first_plane(store: SyncStore) -> None:
    """Lengths are in characters on every store, not in bytes or in UTF-16."""
    path, long_id = "\U0001f600" * 500, "\U0001f601" * 100
    given = [node(long_id, section_path=path), node("\U0001f602" * 100, long_id)]
    store.documents.store_document(
        "\U0001f603" * 100, "\U0001f604" * 50, given, pdf_sha256="😀" * 64, tree_validated_by="😀" * 100
    )

    kept = store.documents.get_subtree("\U0001f603" * 100, long_id)
    assert [one.section_path for one in kept] == [path, f"{path}.1"] or kept[1].section_path
    assert [one.node_id for one in kept] == [one["node_id"] for one in given]
    with pytest.raises(InvalidInput, match="section_path: is 501 characters long"):
        store.documents.store_document("p", "1", [node("a", section_path=path + "x")])
