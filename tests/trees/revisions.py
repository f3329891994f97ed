"""Revisions of a tree whose differences are known: made by editing it, and compared with what a diff says.

Nodes are nested mappings that carry a mark, which stays with a node whatever its id becomes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.clock import START
from treestore import Diff, NodeChange, Outline, Version, pageindex
from treestore.trees.derive import derive_now
from treestore.trees.diff import Want, compare
from treestore.trees.hashes import version_hashes

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "pageindex"

Json = dict[str, Any]
Marks = dict[str, str]
"""The mark of each node by its id in one version."""

_SHOWN = ("title", "summary", "prefix_summary", "text", "page_start", "page_end", "line_num", "metadata")


def shipped(name: str) -> list[Json]:
    """The nodes of a real PageIndex file, nested and marked."""
    nodes = derive_now("p", "1", pageindex.read(str(SHIPPED / name)).nodes)
    return nested(nodes)


def nested(nodes: list[Any]) -> list[Json]:
    """Derived nodes as nested mappings, each marked by its id."""
    roots: list[Json] = []
    by_id: dict[str, Json] = {}
    for node in nodes:
        fields = {name: getattr(node, name) for name in _SHOWN if getattr(node, name) is not None}
        by_id[node.node_id] = made = {"mark": node.node_id, **fields, "nodes": []}
        (roots if node.parent_id is None else by_id[node.parent_id]["nodes"]).append(made)
    return roots


def walk(roots: list[Json]) -> Iterator[Json]:
    """All nodes in preorder."""
    for node in roots:
        yield node
        yield from walk(node["nodes"])


def holder_of(roots: list[Json], mark: str) -> list[Json]:
    """The list of siblings that a node is in."""
    return next(siblings for siblings in families(roots) if any(node["mark"] == mark for node in siblings))


def families(roots: list[Json]) -> list[list[Json]]:
    """All lists of siblings."""
    return [roots, *(node["nodes"] for node in walk(roots))]


def parent_of(roots: list[Json], mark: str) -> Json | None:
    """The node that holds a node; None for a root."""
    return next((node for node in walk(roots) if any(child["mark"] == mark for child in node["nodes"])), None)


def find(roots: list[Json], mark: str) -> Json:
    """The node with a mark."""
    return next(node for node in walk(roots) if node["mark"] == mark)


def given(roots: list[Json], renumber: bool) -> tuple[list[Json], Marks]:
    """The nodes as they are stored, flat: with preorder numbers for ids, or with their marks."""
    flat: list[Json] = []
    marks: Marks = {}

    def add(siblings: list[Json], parent_id: str | None) -> None:
        for node in siblings:
            node_id = f"{len(flat):04}" if renumber else node["mark"]
            marks[node_id] = node["mark"]
            fields = {key: value for key, value in node.items() if key not in ("mark", "nodes")}
            flat.append({"node_id": node_id, "parent_id": parent_id, **fields})
            add(node["nodes"], node_id)

    add(roots, None)
    return flat, marks


class Expected(NamedTuple):
    """The marks of what a diff should name."""

    added: set[str] = set()
    removed: set[str] = set()
    changed: dict[str, tuple[str, ...]] = {}
    moved: set[str] = set()


def alike(roots: list[Json]) -> dict[str, str]:
    """For each of several siblings that say the same, down to the last node, the mark of the first of them."""
    first: dict[str, str] = {}
    for siblings in families(roots):
        kinds: dict[str, str] = {}
        for node in siblings:
            said = [(one.get("title"), one.get("summary"), one.get("text"), len(one["nodes"])) for one in walk([node])]
            first[node["mark"]] = kinds.setdefault(repr(said), node["mark"])
    return first


def named(diff: Diff, before: Marks, after: Marks, same: Mapping[str, str]) -> Expected:
    """What a diff names, by marks (or by those that count as the same). Asserts that a pair is the same node twice."""

    def mark(change: NodeChange) -> str:
        marks = {marks[place.node_id] for place, marks in ((change.before, before), (change.after, after)) if place}
        marks = {same.get(mark, mark) for mark in marks}
        assert len(marks) == 1, f"{change} joins different nodes"
        return marks.pop()

    assert all(change.before is None for change in diff.added)
    assert all(change.after is None for change in diff.removed)
    for change in diff.repaged:
        mark(change)
    return Expected(
        {mark(change) for change in diff.added},
        {mark(change) for change in diff.removed},
        {mark(change): change.fields for change in diff.changed},
        {mark(change) for change in diff.moved},
    )


Revision = tuple[list[Json], Expected]


def edited(roots: list[Json], mark: str, field: str) -> Revision:
    """A field of a node says something else."""
    revised = copy.deepcopy(roots)
    node = find(revised, mark)
    node[field] = {"edited": mark} if field == "metadata" else f"{node.get(field) or ''} as edited"
    return revised, Expected(changed={mark: (field,)})


def removed(roots: list[Json], mark: str) -> Revision:
    """A node and all below it are gone."""
    revised = copy.deepcopy(roots)
    gone = find(revised, mark)
    siblings = holder_of(revised, mark)
    siblings[:] = [node for node in siblings if node["mark"] != mark]
    return revised, Expected(removed={node["mark"] for node in walk([gone])})


def unwrapped(roots: list[Json], mark: str) -> Revision:
    """A node is gone, and what was below it is in its place."""
    revised = copy.deepcopy(roots)
    gone = find(revised, mark)
    siblings = holder_of(revised, mark)
    at = siblings.index(gone)
    siblings[at : at + 1] = gone["nodes"]
    return revised, Expected(removed={mark}, moved={node["mark"] for node in gone["nodes"]})


def inserted(roots: list[Json], mark: str, *, inside: bool) -> Revision:
    """A new section with three subsections, in front of a node or as the last of those below it."""
    revised = copy.deepcopy(roots)
    new: Json = {"mark": "new", "title": "A new section", "summary": "What is new.", "nodes": []}
    new["nodes"] = [{"mark": f"new {at}", "title": f"New part {at}", "nodes": []} for at in range(3)]
    if inside:
        find(revised, mark)["nodes"].append(new)
    else:
        siblings = holder_of(revised, mark)
        siblings.insert(next(at for at, node in enumerate(siblings) if node["mark"] == mark), new)
    return revised, Expected(added={"new", "new 0", "new 1", "new 2"})


def moved(roots: list[Json], mark: str, parent: str | None, at: int) -> Revision:
    """A node and all below it are below another node (``None``: among the roots), at a place among what is there."""
    revised = copy.deepcopy(roots)
    siblings = holder_of(revised, mark)
    node = find(revised, mark)
    siblings[:] = [one for one in siblings if one is not node]
    (revised if parent is None else find(revised, parent)["nodes"]).insert(at, node)
    return revised, Expected(moved={mark})


def repaginated(roots: list[Json], pages: int) -> list[Json]:
    """All that stands behind the first node that is new, or anywhere if none is, some pages later, as an indexer says it."""
    shifted = copy.deepcopy(roots)
    behind = not any(node["mark"] == "new" for node in walk(shifted))
    for node in walk(shifted):
        behind = behind or node["mark"] == "new"
        for field in ("page_start", "page_end", "line_num"):
            if behind and field in node:
                node[field] += pages
    return shifted


def diff_of(before: Sequence[Outline], after: Sequence[Outline], read: list[int] | None = None) -> Diff:
    """The diff of two documents of derived nodes; ``read`` gets the number of outlines of each list that was looked at."""
    contents = {"a": before, "b": after}
    tops = {name: {node.node_id: node for node in nodes} for name, nodes in contents.items()}
    comparison = compare(*[_version(version_id, nodes) for version_id, nodes in contents.items()])
    lists: list[list[Outline]] | None = None
    try:
        while True:
            wants = next(comparison) if lists is None else comparison.send(lists)
            lists = [_wanted(contents[want.version_id], tops[want.version_id], want) for want in wants]
            if read is not None:
                read += map(len, lists)
    except StopIteration as end:
        found: Diff = end.value
        return found


def _version(version_id: str, nodes: Sequence[Outline]) -> Version:
    node_hash, tree_hash = version_hashes([node for node in nodes if node.parent_id is None])
    return Version(
        policy_id="p",
        version_id=version_id,
        ingested_at=START,
        created_at=START,
        updated_at=START,
        node_hash=node_hash,
        tree_hash=tree_hash,
    )


def _wanted(nodes: Sequence[Outline], by_id: Mapping[str, Outline], want: Want) -> list[Outline]:
    """As :class:`~treestore.operations.Children` and :class:`~treestore.operations.Subtree` answer it."""
    if want.node_id is None:
        return [node for node in nodes if node.parent_id is None]
    top = by_id[want.node_id]
    below = nodes[top.ordinal : top.last_ordinal + 1]
    return list(below) if want.whole else [node for node in below if node.parent_ordinal == top.ordinal]
