"""PageIndex JSON: every real file comes back equal, nothing is lost, and what is no PageIndex file is refused in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trees import samples
from treestore import pageindex
from treestore.errors import InvalidInput
from treestore.pageindex import PageIndexDocument
from treestore.records import Document, Envelope, Node, PageText, Version
from treestore.trees.derive import derive_now

Json = dict[str, Any]

SAMPLES = sorted((Path(__file__).parent / "data" / "pageindex").glob("*.json"))
NOW = datetime(2024, 1, 1, tzinfo=UTC)


def version(envelope: Envelope | None) -> Version:
    return Version(policy_id="P", version_id="1", ingested_at=NOW, created_at=NOW, updated_at=NOW, pageindex=envelope)


def stored(read: PageIndexDocument) -> Document:
    """The document as a store gives it back."""
    document = Document(version=version(read.envelope), nodes=derive_now("P", "1", read.nodes), pages=read.pages)
    return msgspec.msgpack.decode(msgspec.msgpack.encode(document), type=Document)


def rewritten(parsed: Any) -> Json:
    return pageindex.write(stored(pageindex.from_json(parsed)))


def same(one: Any, two: Any) -> bool:
    """Equal as JSON text, the order of keys included."""
    return json.dumps(one) == json.dumps(two)


def refused(text: str | bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        pageindex.loads(text)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    return message


def document(*nodes: Any, **fields: Any) -> Json:
    return {"doc_name": "d", **fields, "structure": list(nodes)}


def refused_node(*nodes: Any) -> str:
    return refused(json.dumps(document(*nodes)))


# --- real files ----------------------------------------------------------------------------------------------------------


def test_the_real_files_are_there() -> None:
    assert len(SAMPLES) == 7


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_real_file_comes_back_equal(path: Path) -> None:
    original = json.loads(path.read_text("utf-8"))
    kept = stored(pageindex.read(path))
    assert same(pageindex.write(kept), original)
    assert same(json.loads(pageindex.dumps(kept)), original)
    assert same(rewritten(original), original)


@pytest.mark.parametrize(
    ("name", "shape", "doc_id", "nodes", "pages"),
    [
        ("2023-annual-report_structure", "pdf", "", 76, 0),
        ("Regulation-Best-Interest_Interpretive-release_structure", "pdf", "", 9, 0),
        ("README_markdown_structure", "markdown", "", 17, 0),
        ("attention-residuals_workspace", "workspace", "12345678-abcd-4321-abcd-123456789abc", 24, 21),
    ],
)
def test_what_a_real_file_is_read_as(name: str, shape: str, doc_id: str, nodes: int, pages: int) -> None:
    (path,) = [path for path in SAMPLES if path.stem == name]
    read = pageindex.read(str(path))
    kept = stored(read)
    assert (read.envelope.shape, read.doc_id, len(kept.nodes), len(kept.pages)) == (shape, doc_id, nodes, pages)
    assert [node.node_id for node in kept.nodes] == [f"{ordinal:04d}" for ordinal in range(nodes)]
    assert all(node.extra is None for node in kept.nodes)
    assert all((node.page_start is None) == (shape == "markdown") for node in kept.nodes)
    assert all((node.line_num is None) == (shape != "markdown") for node in kept.nodes)


def test_the_real_page_texts_hold_nul() -> None:
    """PDF extraction gives NUL for some mathematical signs; the files must come back equal all the same."""
    (path,) = [path for path in SAMPLES if "workspace" in path.stem]
    kept = stored(pageindex.read(path))
    assert [page.page for page in kept.pages if "\0" in page.content] == [4, 8, 14, 15]
    assert "\\u0000" in pageindex.dumps(kept)


def test_text_is_written_as_it_is_said() -> None:
    kept = stored(pageindex.from_json(document({"title": "Über 日本 \u2028", "node_id": "0000", "nodes": []})))
    text = pageindex.dumps(kept)
    assert "Über 日本" in text
    assert '\n  "structure": [\n    {\n      "title": ' in text
    assert '"nodes": []' in text
    assert not text.endswith("\n")


# --- nothing is lost -----------------------------------------------------------------------------------------------------

KEYS = [
    "title",
    "start_index",
    "line_num",
    "summary",
    "prefix_summary",
    "text",
    "nodes",
    "parent_id",
    "section_path",
    "metadata",
]
KEYS += ["extra", "policy_id", "ordinal", "page_index", "page_start", "validation_status", "foo"]
WRITABLE = {"summary": samples.texts, "prefix_summary": samples.texts, "text": samples.texts, "line_num": samples.numbers}


@st.composite
def pageindex_nodes(draw: st.DrawFn, order: list[str], with_ids: bool, numbers: Iterator[int], depth: int = 0) -> Json:
    """A node with a random choice of keys, in the given order; nulls and empty lists among the values."""
    values: Json = {"title": draw(samples.texts)}
    if with_ids:
        values["node_id"] = f"{next(numbers):04d}"
    for key in draw(st.lists(st.sampled_from(KEYS[1:]), unique=True, max_size=6)):
        if key == "nodes":
            inner = pageindex_nodes(order, with_ids, numbers, depth + 1)
            values["nodes"] = draw(st.sampled_from([None, []]) if depth > 3 else st.none() | st.lists(inner, max_size=3))
        elif key == "start_index":
            start, end = sorted([draw(samples.numbers), draw(samples.numbers)])
            values |= draw(st.sampled_from([{key: start, "end_index": end}, {key: None, "end_index": None}, {key: None}]))
        else:
            values[key] = draw(st.none() | WRITABLE.get(key, samples.json_values))
    return {key: values[key] for key in sorted(values, key=order.index)}


@st.composite
def pageindex_documents(draw: st.DrawFn) -> Json:
    with_ids = draw(st.booleans())
    order = draw(st.permutations([*KEYS, "node_id", "end_index"]))
    nodes = pageindex_nodes(order, with_ids, iter(range(10**6)))
    made: Json = {"structure": draw(st.lists(nodes, max_size=4))}
    for key in draw(st.lists(st.sampled_from(["doc_name", "doc_description", "id", "type", "path"]), unique=True)):
        made[key] = draw(st.none() | samples.texts)
    for key in draw(st.lists(st.sampled_from(["line_count", "page_count"]), unique=True)):
        made[key] = draw(st.none() | samples.numbers)
    for key in draw(st.lists(st.sampled_from(["foo", "policy_id", "nodes", "text"]), unique=True, max_size=2)):
        made[key] = draw(samples.json_values)
    if draw(st.booleans()):
        pages = st.fixed_dictionaries(
            {"page": samples.numbers, "content": samples.texts},
            optional={"extra": samples.json_values, "foo": samples.json_values, "text": st.none()},
        )
        order = draw(st.permutations(["page", "content", "extra", "foo", "text"]))
        ordered = pages.map(lambda page: {key: page[key] for key in order if key in page})
        made["pages"] = draw(st.none() | st.lists(ordered, max_size=3, unique_by=lambda page: page["page"]))
    return {key: made[key] for key in draw(st.permutations(list(made)))}


@given(pageindex_documents())
def test_any_document_comes_back_equal_and_in_the_same_order_of_keys(parsed: Json) -> None:
    before = json.dumps(parsed)
    text = pageindex.dumps(stored(pageindex.loads(before)))
    assert json.dumps(json.loads(text)) == before
    assert same(rewritten(parsed), parsed)
    assert json.dumps(parsed) == before


def test_the_order_of_keys_is_kept_although_no_node_has_them_all() -> None:
    parsed = document(
        {"title": "a", "node_id": "0000", "text": ""},
        {"title": "b", "foo": 1, "node_id": "0001", "nodes": [{"title": "c", "bar": 1, "foo": 1, "node_id": "0002"}]},
    )
    assert same(rewritten(parsed), parsed)


def test_where_no_one_order_fits_all_nodes_the_values_are_kept_all_the_same() -> None:
    parsed = document({"title": "a", "node_id": "0000"}, {"node_id": "0001", "title": "b"})
    assert rewritten(parsed) == parsed


def test_many_different_unknown_keys_take_no_long_time() -> None:
    parsed = document(*[{"title": "", "node_id": f"{number:04d}", f"key{number}": number} for number in range(20_000)])
    assert same(rewritten(parsed), parsed)


def test_keys_that_treestore_has_a_meaning_for_are_the_files_own() -> None:
    parsed = document({"title": "a", "node_id": "0000", "parent_id": "nowhere", "ordinal": 7, "extra": 5, "metadata": [1]})
    (node,) = stored(pageindex.from_json(parsed)).nodes
    assert (node.parent_id, node.ordinal, node.metadata) == (None, 0, None)
    assert node.extra == {"parent_id": "nowhere", "ordinal": 7, "extra": 5, "metadata": [1]}
    assert same(rewritten(parsed), parsed)


def test_ids_of_five_digits_and_thousands_of_nodes() -> None:
    parsed = document(*[{"title": "same", "node_id": f"{number:04d}"} for number in range(10_050)])
    assert stored(pageindex.from_json(parsed)).nodes[-1].node_id == "10049"
    assert same(rewritten(parsed), parsed)


def test_a_file_without_ids_is_given_some_and_written_without() -> None:
    parsed = document({"title": "a", "nodes": [{"title": "b"}, {"title": "c", "node_id": None}]}, {"title": "d"})
    read = pageindex.from_json(parsed)
    assert read.envelope.generated_ids
    assert [(node.node_id, node.title) for node in stored(read).nodes] == [
        ("0000", "a"),
        ("0001", "b"),
        ("0002", "c"),
        ("0003", "d"),
    ]
    assert same(rewritten(parsed), parsed)


def test_200_levels_are_read_and_written() -> None:
    node: Json = {"title": "", "node_id": "199", "foo": {}}
    for level in range(198, -1, -1):
        node = {"title": "", "node_id": str(level), "nodes": [node]}
    kept = stored(pageindex.loads(json.dumps(document(node))))
    assert kept.nodes[-1].depth == 199
    assert json.loads(pageindex.dumps(kept)) == document(node)


def test_page_texts_keep_order_and_unknown_keys() -> None:
    parsed = document(id="x", path="p", pages=[{"content": "b", "page": 2, "w": 1}, {"content": "", "page": 1}])
    kept = stored(pageindex.from_json(parsed))
    assert kept.pages == [PageText(page=2, content="b", extra={"w": 1}), PageText(page=1, content="")]
    assert same(rewritten(parsed), parsed)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({}, "pdf"),
        ({"line_count": 5}, "markdown"),
        ({"id": "x", "path": "p", "line_count": 5}, "workspace"),
        ({"pages": []}, "workspace"),
    ],
)
def test_the_shape_is_told_from_the_documents_keys(fields: Json, shape: str) -> None:
    assert pageindex.from_json(document(**fields)).envelope.shape == shape


def test_markdown_is_told_from_line_numbers_too() -> None:
    assert pageindex.from_json(document({"title": "", "node_id": "0", "line_num": 1})).envelope.shape == "markdown"


# --- writing what was not read -------------------------------------------------------------------------------------------


def test_a_document_stored_without_an_envelope_takes_the_pdf_shape() -> None:
    nodes = derive_now(
        "P",
        "1",
        [
            {"node_id": "a", "title": "A", "page_start": 1, "page_end": 2, "summary": "", "metadata": {"m": 1}, "foo": 1},
            {"node_id": "b", "title": "B", "parent_id": "a", "text": "t"},
        ],
    )
    written = pageindex.write(Document(version=version(None), nodes=nodes, pages=[]))
    children = [{"title": "B", "node_id": "b", "text": "t"}]
    node = {"title": "A", "node_id": "a", "start_index": 1, "end_index": 2, "summary": "", "nodes": children, "foo": 1}
    assert same(written, {"doc_name": "P", "structure": [node]})
    with_pages = pageindex.write(Document(version=version(None), nodes=[], pages=[PageText(page=1, content="x")]))
    assert same(with_pages, {"doc_name": "P", "structure": [], "pages": [{"page": 1, "content": "x"}]})


def amended(kept: Document, **fields: Any) -> list[Json]:
    first: Node = msgspec.structs.replace(kept.nodes[0], **fields)
    written: list[Json] = pageindex.write(msgspec.structs.replace(kept, nodes=[first, *kept.nodes[1:]]))["structure"]
    return written


def test_amended_values_are_written_where_they_stood_and_where_there_were_none() -> None:
    kept = stored(
        pageindex.from_json(document({"title": "a", "summary": None, "node_id": "0000"}, {"title": "b", "node_id": "1"}))
    )
    assert same(amended(kept, title="x")[0], {"title": "x", "summary": None, "node_id": "0000"})
    assert same(amended(kept, summary="s")[0], {"title": "a", "summary": "s", "node_id": "0000"})
    assert same(amended(kept, text="t")[0], {"title": "a", "summary": None, "node_id": "0000", "text": "t"})
    assert same(amended(kept, metadata={"m": 1}, validation_status="approved")[0], pageindex.write(kept)["structure"][0])


def test_a_value_taken_away_is_written_no_more() -> None:
    kept = stored(pageindex.from_json(document({"title": "a", "summary": "s", "node_id": "0000"})))
    assert same(amended(kept, summary=None)[0], {"title": "a", "node_id": "0000"})


# --- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON: Expecting value at line 1, column 1"),
        ("{", "is not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        ('{"a":\n  1 2}', "is not JSON: Expecting ',' delimiter at line 2, column 5"),
        ("# A Markdown file", "is not JSON: Expecting value at line 1, column 1"),
        (b"\xff\xfe", "is not UTF-8 (byte 0: invalid start byte)"),
        (b'{"doc_name": "\xe9"}', "is not UTF-8 (byte 14: invalid continuation byte)"),
        ("[]", "is a bare list; a PageIndex document is an object with its nodes in 'structure'"),
        ("5", "is no PageIndex document, which is an object with its nodes in 'structure', but 5"),
        ("null", "is no PageIndex document, which is an object with its nodes in 'structure', but None"),
        ("{}", "structure: is missing: this is no PageIndex document"),
        ('{"structure": {}}', "structure: must be a list of nodes, not a dict: this is no PageIndex document"),
        ('{"structure": null}', "structure: must be a list of nodes, not None: this is no PageIndex document"),
        ('{"structure": [], "x": NaN}', "NaN is no JSON value (at line 1, column 24)"),
        ('{"structure": [],\n "NaN\\" [": "NaN",\n "x": [1, NaN]}', "NaN is no JSON value (at line 3, column 11)"),
        ('{"structure": [], "x": -Infinity}', "-Infinity is no JSON value (at line 1, column 24)"),
        ('{"structure": [], "x": 1e999}', "x: must be a finite number, not inf"),
        (
            '{"structure": [], "x": 18446744073709551616}',
            "x: must be an integer from -2**63 to 2**64 - 1, not 18446744073709551616",
        ),
        ('{"structure": [], "x": %s}' % ("9" * 5000), "holds an integer of more than 4300 digits, which is too large"),
        ('{"structure": [], "x": ["\\ud800"]}', "x[0]: must not contain a lone surrogate ('\\ud800' at character 0)"),
        ('{"structure": [], "a\\u0000": 1}', "key 'a\\x00' must not contain NUL (character 1)"),
        ('{"structure": [], "structure": []}', "structure: is given twice in one object"),
        ('{"structure": [{"node_id": "7", "title": "", "title": ""}]}', "node '7': title: is given twice in one object"),
        ('{"structure": [], "doc_name": 5}', "doc_name: must be a string, not 5"),
        ('{"structure": [], "id": ["x"]}', "id: must be a string, not a list"),
        ('{"structure": [], "id": "%s"}' % ("x" * 65), "id: is 65 characters long, at most 64 are allowed"),
        ('{"structure": [], "line_count": "5"}', "line_count: must be an integer, not '5'"),
        ('{"structure": [], "page_count": true}', "page_count: must be an integer, not True"),
        ('{"structure": [], "pages": {}}', "pages: must be a list of page texts, not a dict"),
        ('{"structure": [], "pages": [5]}', "pages[0]: must be a mapping or a page text record, not 5"),
        ('{"structure": [], "x": %s}' % ("[" * 101 + "]" * 101), "x: is nested more than 100 levels deep"),
        ('{"structure": [], "pages": [{"page": 1, "content": "", "x": NaN}]}', "NaN is no JSON value (at line 1, column 61)"),
        (
            '{"structure": [], "pages": [{"page": 1, "content": "", "x": 1e999}]}',
            "pages[0].x: must be a finite number, not inf",
        ),
        (
            '{"structure": [], "pages": [{"page": 1, "content": "", "extra": {"x": 1e999}}]}',
            "pages[0].extra.x: must be a finite number, not inf",
        ),
        ('{"structure": [], "pages": [{"content": ""}]}', "pages[0].page: is required"),
        ('{"structure": [], "pages": [{"page": 1, "content": null}]}', "pages[0].content: must be a string, not None"),
    ],
)
def test_text_that_is_no_pageindex_document(text: str | bytes, message: str) -> None:
    assert refused(text) == message


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([5], "node '#1': must be an object, not 5"),
        (
            [{"title": "", "node_id": "0", "nodes": [{"title": "", "node_id": "1"}, None]}],
            "node '#3': must be an object, not None",
        ),
        ([{"title": "", "node_id": "0", "nodes": {}}], "node '0': nodes: must be a list of nodes, not a dict"),
        ([{"title": "", "nodes": "x"}], "node '#1': nodes: must be a list of nodes, not 'x'"),
        ([{"title": "", "node_id": "0", "nodes": 0}], "node '0': nodes: must be a list of nodes, not 0"),
        ([{"node_id": "0"}], "node '0': title: is required (it may be empty)"),
        ([{"node_id": "0", "title": None}], "node '0': title: is required (it may be empty)"),
        ([{"node_id": 0, "title": ""}], "node '#1': node_id: must be a string, not 0"),
        ([{"node_id": "", "title": ""}], "node '#1': node_id: must not be empty (1 to 100 characters)"),
        ([{"node_id": "0", "title": "\0"}], "node '0': title: must not contain NUL (character 0)"),
        (
            [{"node_id": "0", "title": "\ud800"}],
            "node '0': title: must not contain a lone surrogate ('\\ud800' at character 0)",
        ),
        ([{"node_id": "0", "title": "", "foo": {"a": "\udfff"}}], "node '0': foo.a: must not contain a lone surrogate"),
        ([{"node_id": "0", "title": "", "extra": {"a": "\udfff"}}], "node '0': extra.a: must not contain a lone surrogate"),
        ([{"node_id": "0", "title": "", "metadata": {"a": 10**400}}], "node '0': metadata.a: must be an integer from -2**63"),
        ([{"node_id": "0", "title": "", "start_index": "1"}], "node '0': start_index: must be an integer, not '1'"),
        ([{"node_id": "0", "title": "", "end_index": 1}], "node '0': start_index: is missing, although end_index is given"),
        (
            [{"node_id": "0", "title": "", "start_index": "1", "end_index": 2}],
            "node '0': start_index: must be an integer, not '1'",
        ),
        ([{"node_id": "0", "title": "", "start_index": 3, "end_index": 2}], "node '0': start_index: 3 is after end_index 2"),
        ([{"node_id": "0", "title": "", "line_num": 1.0}], "node '0': line_num: must be an integer, not 1.0"),
        (
            [{"node_id": "0", "title": "", "start_index": 1, "end_index": 2**31}],
            "node '0': end_index: must be from 0 to 2147483647",
        ),
        ([{"node_id": "0", "title": ""}, {"title": ""}], "node '#2': node_id: is missing, although other nodes have one"),
        ([{"node_id": "0", "title": ""}] * 2, "node '0': node_id: is given twice (#1 and #2)"),
    ],
)
def test_nodes_that_are_refused(nodes: list[Any], message: str) -> None:
    assert refused_node(*nodes).startswith(message)


def test_100000_levels_are_refused_in_one_line() -> None:
    text = '{"structure": ' + '[{"title": "", "nodes": ' * 100_000 + "[]" + "}]" * 100_000 + "}"
    place = "more than 502 levels of JSON at line 1, column 6016"
    assert refused(text) == f"is nested too deeply: {place}; a tree has at most 200 levels"
    ids = "".join(f'[{{"title": "", "node_id": "n{level}", "nodes": ' for level in range(450))
    assert refused('{"structure": ' + ids + "[]" + "}]" * 450 + "}") == "node 'n200': lies deeper than 200 levels"
    node: Json = {"title": "", "node_id": "x"}
    for level in range(100_000):
        node = {"title": "", "node_id": str(level), "nodes": [node]}
    with pytest.raises(InvalidInput, match="node '99799': lies deeper than 200 levels"):
        pageindex.from_json(document(node))


def test_an_object_that_contains_itself_is_too_deep() -> None:
    node: Json = {"title": "", "node_id": "x"}
    node["nodes"] = [node]
    with pytest.raises(InvalidInput, match="node 'x': lies deeper than 200 levels"):
        pageindex.from_json(document(node))


@pytest.mark.parametrize("parsed", [{1: 2, "structure": []}, {"structure": [{"node_id": "0", "title": "", 5: 6}]}])
def test_parsed_objects_whose_keys_are_no_strings(parsed: Any) -> None:
    with pytest.raises(InvalidInput, match="keys must be strings, not "):
        pageindex.from_json(parsed)


def test_what_is_neither_text_nor_a_path() -> None:
    with pytest.raises(InvalidInput, match="text: must be JSON text"):
        pageindex.loads({"structure": []})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="path: must be a path, not 0"):
        pageindex.read(0)  # type: ignore[arg-type]


def test_a_byte_order_mark_is_not_part_of_the_json(tmp_path: Path) -> None:
    file = tmp_path / "with-bom.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(document()).encode())
    assert pageindex.read(file).envelope.fields == {"doc_name": "d"}


def test_errors_of_a_file_begin_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "a file.json"
    cases: list[tuple[Path | str, bytes | None, str]] = [
        (file, b"{]", f"{file}: is not JSON: "),
        (str(file), b"\xff", f"{file}: is not UTF-8 "),
        (
            file,
            json.dumps(document({"title": 5, "node_id": "0"})).encode(),
            f"{file}: node '0': title: must be a string, not 5",
        ),
        (tmp_path / "missing.json", None, f"{tmp_path}/missing.json: can't be read: No such file or directory"),
        (tmp_path, None, f"{tmp_path}: can't be read: Is a directory"),
        ("no\0file", None, "'no\\x00file': is no path: "),
        ("two\nlines", None, "'two\\nlines': can't be read: No such file or directory"),
    ]
    for path, content, message in cases:
        if content is not None:
            Path(path).write_bytes(content)
        with pytest.raises(InvalidInput) as caught:
            pageindex.read(path)
        assert str(caught.value).startswith(message)
        assert str(caught.value).isprintable()
        assert caught.value.source is not None


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal of the operating system is played."""
    file = tmp_path / "secret.json"
    file.write_text("{}")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, os.strerror(13), str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InvalidInput, match="can't be read: Permission denied") as caught:
        pageindex.read(file)
    assert isinstance(caught.value.__cause__, PermissionError)


@pytest.mark.parametrize("wrong", [5, None, {"structure": []}, []])
def test_only_a_document_is_written(wrong: Any) -> None:
    for write in (pageindex.write, pageindex.dumps):
        with pytest.raises(InvalidInput, match=r"^document: must be a Document, as get_document gives it, not "):
            write(wrong)
