"""From nodes as given to nodes as stored: order, derived fields, and every input that is refused."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import grows_at_most
from tests.trees import samples
from treestore.errors import InvalidInput
from treestore.records import Node, Outline, PageText
from treestore.trees.derive import derive, derive_now
from treestore.trees.given import check_pages

Json = dict[str, Any]


def derived(nodes: Any) -> list[Node]:
    return derive_now("P", "1", nodes)


def refused(nodes: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        derived(nodes)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    return message


def node(node_id: str = "a", parent_id: Any = None, **fields: Any) -> Json:
    return {"node_id": node_id, "parent_id": parent_id, "title": "T"} | fields


# --- order and derived fields --------------------------------------------------------------------------------------------


@given(samples.forests())
def test_derived_fields_are_those_of_a_plain_recursion(roots: list[Json]) -> None:
    expected = list(samples.walk(roots))
    nodes = derived(roots)
    ordinals = {item["node_id"]: ordinal for ordinal, (item, _, _, _) in enumerate(expected)}
    assert len(nodes) == len(expected)
    for ordinal, (made, (item, parent, depth, path)) in enumerate(zip(nodes, expected, strict=True)):
        assert (made.policy_id, made.version_id) == ("P", "1")
        assert made.node_id == item["node_id"]
        assert made.parent_id == (parent["node_id"] if parent else None)
        assert (made.ordinal, made.last_ordinal) == (ordinal, ordinal + samples.size(item) - 1)
        assert made.parent_ordinal == (ordinals[parent["node_id"]] if parent else -1)
        assert made.depth == depth
        assert made.section_path == item.get("section_path", path)
        assert made.validation_status == item.get("validation_status", "pending")
        for field in ("title", "page_start", "page_end", "page_index", "line_num", "summary", "prefix_summary", "text"):
            assert getattr(made, field) == item.get(field)
        assert repr(made.metadata) == repr(item.get("metadata"))
        assert repr(made.extra) == repr(item.get("extra"))
        assert made.updated_at is None


@given(samples.forests(), st.data())
def test_flat_input_gives_what_nested_input_gives_in_any_order_of_families(roots: list[Json], data: st.DataObject) -> None:
    """Families may come in any order and mixed; only siblings keep theirs."""
    nodes = samples.flat(roots)
    parents = [item["parent_id"] for item in nodes]
    shuffled_parents = data.draw(st.permutations(parents))
    waiting = {parent: [item for item in nodes if item["parent_id"] == parent] for parent in parents}
    shuffled = [waiting[parent].pop(0) for parent in shuffled_parents]
    assert derived(shuffled) == derived(roots)


@given(samples.forests())
def test_what_was_derived_can_be_given_again(roots: list[Json]) -> None:
    nodes = derived(roots)
    assert derived(nodes) == nodes
    as_mappings = [msgspec.structs.asdict(one) | {"child_ids": ["x"]} for one in nodes]
    assert derived(as_mappings) == nodes


def test_flat_and_nested_may_be_mixed() -> None:
    nodes = derived([node("c", "b"), node("a", nodes=[node("b", "a"), node("d")])])
    assert [(one.node_id, one.parent_id, one.section_path) for one in nodes] == [
        ("a", None, "1"),
        ("b", "a", "1.1"),
        ("c", "b", "1.1.1"),
        ("d", "a", "1.2"),
    ]


@pytest.mark.parametrize("root", [{}, {"parent_id": None}, {"parent_id": ""}])
def test_a_root_is_a_node_whose_parent_is_absent_or_empty(root: Json) -> None:
    (one,) = derived([{"node_id": "a", "title": ""} | root])
    assert (one.parent_id, one.depth, one.parent_ordinal, one.title) == (None, 0, -1, "")


def test_an_empty_document() -> None:
    assert derived([]) == []


def test_input_may_be_a_generator_of_any_mappings() -> None:
    assert derived(UserDict(node(each, foo=1)) for each in "ab") == derived([node("a", foo=1), node("b", foo=1)])


def test_none_is_absent_and_empty_is_kept() -> None:
    optional = ("page_start", "page_end", "page_index", "line_num", "summary", "prefix_summary", "text", "metadata", "extra")
    (one,) = derived([node() | dict.fromkeys([*optional, "section_path", "validation_status", "nodes"])])
    assert [getattr(one, field) for field in optional] == [None] * len(optional)
    assert (one.section_path, one.validation_status) == ("1", "pending")
    (one,) = derived([node(summary="", prefix_summary="", text="", metadata={}, extra={}, section_path="", nodes=[])])
    assert (one.summary, one.prefix_summary, one.text, one.metadata, one.extra, one.section_path) == ("", "", "", {}, {}, "")


def test_pages_have_two_names_each() -> None:
    assert derived([node(start_index=3, end_index=4)]) == derived([node(page_start=3, page_end=4)])
    assert derived([node(start_index=3, page_start=3, end_index=4, page_end=None)]) == derived(
        [node(start_index=3, end_index=4)]
    )
    assert refused([node(start_index=3, page_start=4, end_index=9)]) == (
        "node 'a': start_index: differs from page_start, which is the same field"
    )


def test_unknown_keys_go_to_extra() -> None:
    (one,) = derived([node(foo=[1, {"b": None}], bar=None, extra={"nodes": [], "title": 5})])
    assert one.extra is not None
    assert list(one.extra.items()) == [("nodes", []), ("title", 5), ("foo", [1, {"b": None}]), ("bar", None)]
    assert refused([node(foo=1, extra={"foo": 1})]) == "node 'a': foo: is given twice, as a key of its own and in extra"


def test_the_callers_objects_are_neither_changed_nor_kept() -> None:
    metadata: Json = {"a": [1]}
    item = node(metadata=metadata, foo=[1])
    before = repr(item)
    (one,) = derived([item])
    assert repr(item) == before
    metadata["a"].append(2)
    item["foo"].append(2)
    assert (one.metadata, one.extra) == ({"a": [1]}, {"foo": [1]})


def test_large_and_odd_documents_as_real_files_hold_them() -> None:
    text = "section text é " * 4000
    roots = [
        node(
            f"{10_000 + number}",
            title="Same title " * 43,
            start_index=50,
            end_index=60,
            text=text,
            nodes=[node(f"{20_000 + number}", title="Same title", start_index=1, end_index=2)],
        )
        for number in range(39)
    ]
    nodes = derived(roots)
    assert [one.section_path for one in nodes if one.depth == 0] == [str(number) for number in range(1, 40)]
    assert nodes[0].text == text
    assert len({one.node_hash for one in nodes if one.depth == 1}) == 1


# --- limits --------------------------------------------------------------------------------------------------------------


def nested_lists(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def chain(levels: int) -> list[Json]:
    return [node(str(level), str(level - 1) if level else None) for level in range(levels)]


def nested_chain(levels: int) -> list[Json]:
    top: list[Json] = []
    for level in range(levels - 1, -1, -1):
        top = [{"node_id": str(level), "title": "T", "nodes": top}]
    return top


def test_a_tree_has_at_most_200_levels() -> None:
    for nodes in (chain(200), chain(200)[::-1], nested_chain(200)):
        assert derived(nodes)[-1].depth == 199
    for nodes in (chain(201), chain(201)[::-1], nested_chain(201)):
        assert refused(nodes) == "node '200': lies deeper than 200 levels"


@pytest.mark.parametrize("make", [chain, lambda levels: chain(levels)[::-1], nested_chain])
def test_a_hundred_thousand_levels_are_refused_soon(make: Any) -> None:
    def work(levels: int) -> Callable[[], object]:
        nodes = make(levels)
        return lambda: refused(nodes)

    assert refused(make(100_000)) == "node '200': lies deeper than 200 levels"
    assert grows_at_most(25, work, 10_000, 100_000)


def test_a_node_that_contains_itself_is_too_deep() -> None:
    item = node("a")
    item["nodes"] = [item]
    assert refused([item]) == "node 'a': lies deeper than 200 levels"


def test_more_than_a_million_nodes_are_refused_before_they_are_all_read() -> None:
    item = node("a")
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield item

    assert refused(endless()) == "nodes: a document has at most 1000000 nodes"
    assert taken == 1_000_001


def test_a_derived_section_path_has_the_length_of_a_given_one() -> None:
    """With 10 siblings on each of 200 levels "10.10.10…" would not fit the column; what is stored can be stored again."""
    nodes: list[Json] = []
    parent = None
    for level in range(199):
        nodes += [node(f"{level}-{number}", parent) for number in range(10)]
        parent = f"{level}-9"
    assert refused(nodes).endswith("section_path: the derived one would be longer than 500 characters; give one")
    for item in nodes:
        item["section_path"] = "given"
    assert len(derived(nodes)) == 1990


def test_the_work_is_done_in_slices() -> None:
    """Between two yields at most a hundred nodes are taken in; so an event loop is never held for long."""
    taken = 0

    def counting() -> Any:
        nonlocal taken
        for item in chain(3000)[::-1]:
            taken += 1
            yield item | {"parent_id": None}

    steps = derive("P", "1", counting())
    seen = 0
    yields = 0
    for _ in steps:
        assert taken - seen <= 100
        seen = taken
        yields += 1
    assert yields > 2 * 3000 / 100


# --- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("text", "nodes: must be a list of nodes, not 'text'"),
        ({"structure": []}, "nodes: must be a list of nodes, not a dict"),
        (5, "nodes: must be a list of nodes, not 5"),
        ([node(), 5], "node '#2': must be a mapping or a node record, not 5"),
        ([None], "node '#1': must be a mapping or a node record, not None"),
        ([node(nodes=[node("b"), "x"])], "node '#3': must be a mapping or a node record, not 'x'"),
        ([{"title": "T"}], "node '#1': node_id: is required"),
        ([node(), {"title": "T", "node_id": ""}], "node '#2': node_id: must not be empty (1 to 100 characters)"),
        ([node(), {"title": "T", "node_id": 7}], "node '#2': node_id: must be a string, not 7"),
        ([node("x" * 101)], f"node '{'x' * 59}…': node_id: is 101 characters long, at most 100 are allowed"),
        ([node("a\0")], "node 'a\\x00': node_id: must not contain NUL (character 1)"),
        ([node("\ud800")], "node '\\ud800': node_id: must not contain a lone surrogate ('\\ud800' at character 0)"),
        ([{"node_id": "a"}], "node 'a': title: is required (it may be empty)"),
        ([node(title=None)], "node 'a': title: is required (it may be empty)"),
        ([node(title=["x"])], "node 'a': title: must be a string, not a list"),
        ([node(title="a\0b")], "node 'a': title: must not contain NUL (character 1)"),
        ([node(text="é\udc00")], "node 'a': text: must not contain a lone surrogate ('\\udc00' at character 1)"),
        ([node(text=b"x")], "node 'a': text: must be a string, not b'x'"),
        ([node(summary=1)], "node 'a': summary: must be a string, not 1"),
        ([node(prefix_summary=1)], "node 'a': prefix_summary: must be a string, not 1"),
        ([node(parent_id=1)], "node 'a': parent_id: must be a string, not 1"),
        ([node(section_path="x" * 501)], "node 'a': section_path: is 501 characters long, at most 500 are allowed"),
        (
            [node(validation_status="done")],
            "node 'a': validation_status: must be one of pending, approved, flagged, not 'done'",
        ),
        (
            [node(validation_status="\ud800")],
            "node 'a': validation_status: must be one of pending, approved, flagged, not '\\ud800'",
        ),
        ([node() | {"\ud800": 1}], "node 'a': key '\\ud800' must not contain a lone surrogate ('\\ud800' at character 0)"),
        ([node(page_start=1)], "node 'a': page_end: is missing, although page_start is given; give both or neither"),
        ([node(end_index=1)], "node 'a': start_index: is missing, although end_index is given; give both or neither"),
        ([node(page_end=1)], "node 'a': page_start: is missing, although page_end is given; give both or neither"),
        ([node(start_index="1")], "node 'a': start_index: must be an integer, not '1'"),
        ([node(end_index=2**31)], "node 'a': end_index: must be from 0 to 2147483647, not 2147483648"),
        ([node(page_end=True)], "node 'a': page_end: must be an integer, not True"),
        (
            [node(page_start=10**400)],
            "node 'a': page_start: must be from 0 to 2147483647, not an integer of more than 60 digits",
        ),
        ([node(start_index=1)], "node 'a': end_index: is missing, although start_index is given; give both or neither"),
        ([node(start_index=5, end_index=4)], "node 'a': start_index: 5 is after end_index 4"),
        ([node(page_start=5, page_end=4)], "node 'a': page_start: 5 is after page_end 4"),
        ([node(page_start=1.0, page_end=2)], "node 'a': page_start: must be an integer, not 1.0"),
        ([node(page_start=True, page_end=2)], "node 'a': page_start: must be an integer, not True"),
        ([node(start_index="1", end_index=2)], "node 'a': start_index: must be an integer, not '1'"),
        ([node(page_start=1, page_end=2**31)], "node 'a': page_end: must be from 0 to 2147483647, not 2147483648"),
        ([node(page_start=-1, page_end=2)], "node 'a': page_start: must be from 0 to 2147483647, not -1"),
        ([node(page_index=0.5)], "node 'a': page_index: must be an integer, not 0.5"),
        ([node(line_num=False)], "node 'a': line_num: must be an integer, not False"),
        ([node(metadata=[])], "node 'a': metadata: must be an object (a dict), not a list"),
        ([node(metadata={"k": [float("inf")]})], "node 'a': metadata.k[0]: must be a finite number, not inf"),
        ([node(extra="x")], "node 'a': extra: must be an object (a dict), not 'x'"),
        ([node(foo={"b": "\0"})], "node 'a': foo.b: must not contain NUL (character 0)"),
        ([node() | {5: "x"}], "node 'a': keys must be strings, not 5"),
        ([node(extra={"foo": "\0"})], "node 'a': extra.foo: must not contain NUL (character 0)"),
        ([node(foo=nested_lists(101))], "node 'a': foo: is nested more than 100 levels deep"),
        ([node() | {"b\0": 1}], "node 'a': key 'b\\x00' must not contain NUL (character 1)"),
        ([node(nodes="x")], "node 'a': nodes: must be a list of nodes, not 'x'"),
        ([node(nodes={"b": 1})], "node 'a': nodes: must be a list of nodes, not a dict"),
        ([node(), node("b"), node()], "node 'a': node_id: is given twice (#1 and #3)"),
        ([node(nodes=[node()])], "node 'a': node_id: is given twice (#1 and #2)"),
        ([node(), node("b", "zz")], "node 'b': parent_id: no node has the id 'zz'"),
        ([node("b", "x" * 101)], "node 'b': parent_id: is 101 characters long, at most 100 are allowed"),
        ([node(), node("c", nodes=[node("b", "a")])], "node 'b': parent_id: is 'a', but the node is given inside of 'c'"),
        ([node("a", "a")], "node 'a': parent_id: is its own ancestor: the parents form a cycle"),
    ],
)
def test_what_is_refused(nodes: Any, message: str) -> None:
    assert refused(nodes) == message


@given(st.integers(1, 30), st.integers(0, 5), st.data())
def test_a_cycle_names_a_node_of_it(length: int, tail: int, data: st.DataObject) -> None:
    """Nodes below a cycle are not of it, and never named."""
    circle = [node(f"c{number}", f"c{(number + 1) % length}") for number in range(length)]
    below = [node(f"t{number}", f"t{number - 1}" if number else "c0") for number in range(tail)]
    nodes = data.draw(st.permutations([*circle, *below, node("root")]))
    with pytest.raises(InvalidInput, match="the parents form a cycle") as caught:
        derived(nodes)
    assert caught.value.field == "parent_id"
    assert caught.value.node in {item["node_id"] for item in circle}


@pytest.mark.parametrize(
    ("policy_id", "version_id"), [("", "1"), ("x" * 101, "1"), ("P", ""), ("P", "x" * 51), ("P", 1), ("\0", "1")]
)
def test_the_ids_of_policy_and_version_are_checked(policy_id: Any, version_id: Any) -> None:
    with pytest.raises(InvalidInput, match=r"policy_id|version_id"):
        derive_now(policy_id, version_id, [])


def test_an_outline_does_not_pass_for_the_node_that_it_leaves_the_text_of() -> None:
    with_text, without = derived([node("a", text="x"), node("b")])
    outlines = [Outline(**{name: getattr(one, name) for name in Outline.__struct_fields__}) for one in (with_text, without)]
    assert derived(outlines[1:])[0].node_id == "b"
    assert refused(outlines) == "node 'a': is an outline, without the text that the node has; storing it would lose the text"


def test_strings_and_numbers_of_a_subclass_are_stored_as_plain_ones() -> None:
    """Of a dict and of any other mapping, in every field."""

    class Text(str):
        __slots__ = ()

    class Number(int):
        pass

    texts = ("node_id", "title", "summary", "prefix_summary", "text", "section_path")
    numbers = ("page_start", "page_end", "page_index", "line_num")
    item: Json = {field: Text("x") for field in texts} | {field: Number(1) for field in numbers}
    item |= {"validation_status": Text("approved"), "nodes": [node("b", Text("x"))]}
    plain = dict.fromkeys(texts, "x") | dict.fromkeys(numbers, 1)
    for given_as in (item, UserDict(item), *({**plain, field: item[field]} for field in (*texts, *numbers))):
        one = derived([given_as])[0]
        assert {type(getattr(one, field)) for field in (*texts, "validation_status")} == {str}
        assert {type(getattr(one, field)) for field in numbers} == {int}
        assert [getattr(one, field) for field in (*texts, *numbers)] == ["x"] * 6 + [1] * 4


def test_a_hand_made_record_is_checked_like_a_mapping() -> None:
    (one,) = derived([node()])
    for field, value in {"title": 5, "page_start": 1, "text": "\0", "node_id": "", "validation_status": "x"}.items():
        assert field.removeprefix("page_start") in refused([msgspec.structs.replace(one, **{field: value})])


# --- page texts ----------------------------------------------------------------------------------------------------------


def test_page_texts_keep_their_order_and_their_unknown_keys() -> None:
    pages = check_pages(
        [
            {"page": 2, "content": "two", "w": 1},
            PageText(page=0, content=""),
            {"page": 1, "content": "é", "extra": {"a": 1}, "b": 2},
        ]
    )
    assert pages == [
        PageText(page=2, content="two", extra={"w": 1}),
        PageText(page=0, content=""),
        PageText(page=1, content="é", extra={"a": 1, "b": 2}),
    ]
    assert check_pages(pages) == pages
    assert check_pages(iter([])) == []


def test_nul_in_a_page_text_is_kept_as_the_pdf_gave_it() -> None:
    (page,) = check_pages([{"page": 4, "content": "exp\0(x)"}])
    assert page.content == "exp\0(x)"


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ("x", "pages: must be a list of page texts, not 'x'"),
        ({}, "pages: must be a list of page texts, not a dict"),
        (None, "pages: must be a list of page texts, not None"),
        ([5], "pages[0]: must be a mapping or a page text record, not 5"),
        ([{"content": ""}], "pages[0].page: is required"),
        ([{"page": 1}], "pages[0].content: is required"),
        ([{"page": 1, "content": None}], "pages[0].content: must be a string, not None"),
        ([{"page": "1", "content": ""}], "pages[0].page: must be an integer, not '1'"),
        ([{"page": 2**31, "content": ""}], "pages[0].page: must be from 0 to 2147483647, not 2147483648"),
        (
            [{"page": 1, "content": "a\ud800"}],
            "pages[0].content: must not contain a lone surrogate ('\\ud800' at character 1)",
        ),
        (
            [{"page": 1, "content": "a\0\ud800"}],
            "pages[0].content: must not contain a lone surrogate ('\\ud800' at character 2)",
        ),
        ([{"page": 1, "content": "", "k": "\0"}], "pages[0].k: must not contain NUL (character 0)"),
        ([{"page": 1, "content": ""}, {"page": 1, "content": "x"}], "pages[1].page: page 1 is given more than once"),
        ([{"page": 1, "content": "", "extra": []}], "pages[0].extra: must be an object (a dict), not a list"),
        (
            [{"page": 1, "content": "", "extra": {"a": 1}, "a": 1}],
            "pages[0].a: is given twice, as a key of its own and in extra",
        ),
    ],
)
def test_page_texts_that_are_refused(pages: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_pages(pages)
    assert str(caught.value) == message
