"""Trees for tests: random ones, and the plainest possible derivation to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
numbers = st.integers(0, 2**31 - 1)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
json_objects = st.dictionaries(texts, json_values, max_size=3)


@st.composite
def fields(draw: st.DrawFn) -> Json:
    """The fields of one node but its id, its parent and its children."""
    optional = {
        "page_index": numbers,
        "line_num": numbers,
        "summary": texts,
        "prefix_summary": texts,
        "text": texts,
        "section_path": texts,
        "validation_status": st.sampled_from(["pending", "approved", "flagged"]),
        "metadata": json_objects,
        "extra": json_objects,
    }
    node: Json = {"title": draw(texts)}
    node |= {key: draw(optional[key]) for key in draw(st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=4))}
    if draw(st.booleans()):
        node["page_start"], node["page_end"] = sorted([draw(numbers), draw(numbers)])
    return node


@st.composite
def forests(draw: st.DrawFn, max_nodes: int = 12) -> list[Json]:
    """A list of roots, nested."""
    roots: list[Json] = []
    made: list[Json] = []
    for number in range(draw(st.integers(0, max_nodes))):
        node = {"node_id": f"n{number}", **draw(fields())}
        parent = draw(st.none() | st.sampled_from(made)) if made else None
        (roots if parent is None else parent.setdefault("nodes", [])).append(node)
        made.append(node)
    return roots


def walk(
    roots: list[Json], parent: Json | None = None, depth: int = 0, path: str = ""
) -> Iterator[tuple[Json, Json | None, int, str]]:
    """Each node in preorder with its parent, its depth and its numbered section path; recursive on purpose."""
    for number, node in enumerate(roots, 1):
        own = f"{path}.{number}" if path else str(number)
        yield node, parent, depth, own
        yield from walk(node.get("nodes", []), node, depth + 1, own)


def flat(roots: list[Json]) -> list[Json]:
    """The same nodes in preorder, each naming its parent."""
    return [
        {key: value for key, value in node.items() if key != "nodes"} | {"parent_id": parent["node_id"] if parent else None}
        for node, parent, _, _ in walk(roots)
    ]


def size(node: Json) -> int:
    """The number of nodes of a subtree."""
    return 1 + sum(size(child) for child in node.get("nodes", []))


def by_id(roots: list[Json]) -> dict[str, Json]:
    """The nodes by their ids."""
    return {node["node_id"]: node for node, _, _, _ in walk(roots)}
