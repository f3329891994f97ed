"""What changes the hashes of nodes, trees and versions, and what does not."""

from __future__ import annotations

import copy
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trees import samples
from treestore.records import Node, PageText
from treestore.trees import hashes
from treestore.trees.derive import derive_now

Json = dict[str, Any]


def derived(roots: list[Json]) -> dict[str, Node]:
    return {node.node_id: node for node in derive_now("P", "1", roots)}


def ancestors(nodes: dict[str, Node], node_id: str) -> list[str]:
    """From the root to the node."""
    path: list[str] = []
    at: str | None = node_id
    while at is not None:
        path.insert(0, at)
        at = nodes[at].parent_id
    return path


def changed(before: dict[str, Node], after: dict[str, Node], field: str) -> set[str]:
    return {node_id for node_id in before if getattr(before[node_id], field) != getattr(after[node_id], field)}


OTHER: dict[str, Any] = {
    "title": "something else",
    "summary": "something else",
    "prefix_summary": "something else",
    "text": "something else",
    "page_index": 77,
    "line_num": 77,
    "section_path": "something else",
    "validation_status": "something else",
    "metadata": {"something": "else"},
    "extra": {"something": "else"},
}
IDENTITY = {"title", "summary", "prefix_summary", "text"}


@given(samples.forests().filter(bool), st.sampled_from(sorted(OTHER)), st.data())
def test_a_changed_field_changes_the_hashes_up_to_the_root_and_nowhere_else(
    roots: list[Json], field: str, data: st.DataObject
) -> None:
    before = derived(roots)
    node_id = data.draw(st.sampled_from(sorted(before)))
    other = copy.deepcopy(roots)
    target = samples.by_id(other)[node_id]
    status = {"flagged": "approved"}.get(str(target.get(field)), "flagged")
    target[field] = status if field == "validation_status" else OTHER[field]
    after = derived(other)
    path = set(ancestors(before, node_id))
    assert changed(before, after, "tree_hash") == path
    assert changed(before, after, "node_hash") == (path if field in IDENTITY else set())
    assert changed(before, after, "text_hash") == ({node_id} if field == "text" else set())


@given(samples.forests().filter(bool), st.data())
def test_absent_and_empty_and_null_are_three_things(roots: list[Json], data: st.DataObject) -> None:
    node = data.draw(st.sampled_from(list(samples.by_id(roots).values())))
    for field, values in {"text": (None, ""), "summary": (None, ""), "metadata": (None, {}, {"a": None}, {"a": ""})}.items():
        seen = set()
        for value in values:
            node[field] = value
            seen.add(derived(roots)[node["node_id"]].tree_hash)
        assert len(seen) == len(values)


@pytest.mark.parametrize("values", [(1, 1.0, True, "1"), (0, -0.0, 0.0, False, None, ""), ([1, 2], [2, 1], [[1], 2])])
def test_json_values_that_python_calls_equal_are_hashed_apart(values: tuple[Any, ...]) -> None:
    made = {derived([{"node_id": "a", "title": "", "metadata": {"v": value}}])["a"].tree_hash for value in values}
    assert len(made) == len(values)


def test_the_order_of_keys_in_metadata_makes_no_difference() -> None:
    one, two = (
        derived([{"node_id": "a", "title": "", "metadata": metadata, "extra": metadata}])["a"]
        for metadata in ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1})
    )
    assert one.tree_hash == two.tree_hash


def test_ids_numbers_and_pages_do_not_change_what_is_said() -> None:
    """So a section or page inserted before does not change its neighbours, and the diff of two versions can skip them."""
    below = {"node_id": "0001", "title": "B", "text": "b", "page_start": 2, "page_end": 3}
    roots = [{"node_id": "0000", "title": "A", "line_num": 1, "nodes": [below]}]
    moved: list[Json] = [
        {"node_id": "0000", "title": "Inserted", "text": "new"},
        {
            "node_id": "0001",
            "title": "A",
            "line_num": 9,
            "nodes": [below | {"node_id": "0002", "page_start": 3, "page_end": 4}],
        },
    ]
    before, after = derived(roots), derived(moved)
    for old, new in (("0000", "0001"), ("0001", "0002")):
        assert before[old].node_hash == after[new].node_hash
        assert before[old].tree_hash != after[new].tree_hash


def test_the_order_of_children_counts() -> None:
    a, b = {"node_id": "a", "title": "A"}, {"node_id": "b", "title": "B"}
    both: list[list[Json]] = [[a, b], [b, a]]
    one, two = (derived([{"node_id": "r", "title": "", "nodes": nodes}])["r"] for nodes in both)
    assert one.node_hash != two.node_hash
    assert one.tree_hash != two.tree_hash


def test_the_hashes_are_these_for_ever() -> None:
    """Stored hashes must stay comparable: these were computed once by the formulas in the module's docstring."""
    nodes = derived(
        [
            {
                "node_id": "r",
                "title": "Root",
                "summary": "é",
                "metadata": {"b": [1, -1.5, None], "a": True},
                "nodes": [{"node_id": "c", "title": "Child", "text": "text", "start_index": 1, "end_index": 2, "x": ""}],
            }
        ]
    )
    encode = msgspec.msgpack.Encoder(order="deterministic").encode
    text = sha256(b"text").digest()
    child = sha256(encode(("Child", None, None, text))).digest()
    root = sha256(encode(("Root", "é", None, None)) + child).digest()
    fields = ("c", "r", "Child", 1, 2, None, None, None, None, "1.1", "pending", None, {"x": ""}, text)
    child_tree = sha256(encode(fields)).digest()
    metadata = {"a": True, "b": [1, -1.5, None]}
    fields_of_root = ("r", None, "Root", None, None, None, None, "é", None, "1", "pending", metadata, None, None)
    root_tree = sha256(encode(fields_of_root) + child_tree).digest()
    assert nodes["c"].text_hash == text
    assert (nodes["c"].node_hash, nodes["c"].tree_hash) == (child, child_tree)
    assert (nodes["r"].node_hash, nodes["r"].tree_hash) == (root, root_tree)
    assert root_tree.hex() == "96a14decad23d7f8057da18eb68f0453534c4af2672454221da05757c603c84c"
    pages = sha256(sha256(encode((1, "p", None))).digest()).digest()
    version = (sha256(b"N" + root).digest(), sha256(b"T" + root_tree + b"P" + pages).digest())
    assert hashes.pages_hash([PageText(page=1, content="p")]) == pages
    assert hashes.version_hashes([nodes["r"]], pages) == version
    assert version[1].hex() == "86e04f781fb7342f94a18d1ec857db2fcbf5d3e31149afcf0c595d6966ae7580"


@given(samples.forests().filter(bool))
def test_stored_nodes_prove_their_hashes(roots: list[Json]) -> None:
    nodes = derived(roots)
    for node in nodes.values():
        children = [child for child in nodes.values() if child.parent_id == node.node_id]
        assert hashes.hashes_of(node, children) == (node.node_hash, node.tree_hash)
        assert hashes.text_hash(node.text) == node.text_hash


@given(
    samples.forests().filter(bool), st.sampled_from(["title", "summary", "text", "validation_status", "metadata"]), st.data()
)
def test_rehashing_a_path_equals_deriving_anew(roots: list[Json], field: str, data: st.DataObject) -> None:
    before = derived(roots)
    node_id = data.draw(st.sampled_from(sorted(before)))
    value = "flagged" if field == "validation_status" else OTHER[field]
    path_ids = ancestors(before, node_id)
    path = [before[each] for each in path_ids]
    path[-1] = msgspec.structs.replace(path[-1], **{field: value})
    children = [[node for node in before.values() if node.parent_id == each] for each in path_ids]
    rehashed = hashes.rehash_path(path, children)
    samples.by_id(roots)[node_id][field] = value
    after = derived(roots)
    assert rehashed == [after[each] for each in path_ids]


def test_rehashing_wants_the_children_of_each_node_of_the_path() -> None:
    node = derived([{"node_id": "a", "title": ""}])["a"]
    with pytest.raises(ValueError, match="1 nodes on the path, but the children of 0"):
        hashes.rehash_path([node], [])


@given(st.lists(st.builds(PageText, page=st.integers(0, 9), content=st.text("ab", max_size=2)), max_size=3))
def test_a_versions_fidelity_covers_its_pages_and_its_identity_does_not(pages: list[PageText]) -> None:
    roots = list(derived([{"node_id": "a", "title": ""}]).values())
    more = [*pages, PageText(page=10, content="")]
    these, those = hashes.pages_hash(pages), hashes.pages_hash(more)
    assert hashes.version_hashes(roots, these)[0] == hashes.version_hashes(roots, those)[0]
    assert hashes.version_hashes(roots, these)[1] != hashes.version_hashes(roots, those)[1]
    if pages != pages[::-1]:
        assert hashes.pages_hash(pages) != hashes.pages_hash(pages[::-1])


def test_a_pages_number_content_and_extra_keys_count() -> None:
    page = PageText(page=1, content="a", extra={"k": 1})
    others = [
        msgspec.structs.replace(page, page=2),
        msgspec.structs.replace(page, content="b"),
        msgspec.structs.replace(page, extra={"k": 1.0}),
        msgspec.structs.replace(page, extra={}),
        msgspec.structs.replace(page, extra=None),
    ]
    assert len({hashes.page_hash(each) for each in [page, *others]}) == 6


def test_an_empty_version_has_hashes() -> None:
    nothing = sha256(b"").digest()
    assert hashes.version_hashes([]) == (sha256(b"N").digest(), sha256(b"TP" + nothing).digest())
