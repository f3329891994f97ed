"""From nodes as a caller gives them to the nodes that are stored: checked, in document order, with everything derived.

Input is an iterable of records or of mappings (see :mod:`treestore.trees.given` for their keys), flat (each names its
``parent_id``) or nested (each holds its children in ``nodes``), or both. Siblings keep the order in which they are given;
nothing else about the order of a flat input matters. Output is in preorder, the document's order.

The work is done in slices of about a millisecond; :func:`derive` yields between them, so that an event loop can serve
others. Trees are walked with a stack: no input, however deep or however tangled, exhausts Python's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

from msgspec import convert

from treestore.errors import InvalidInput
from treestore.records import Node
from treestore.trees.given import Given, given_node
from treestore.trees.hashes import content_hashes, text_hash
from treestore.trees.rules import (
    MAX_DEPTH,
    MAX_NODES,
    NOT_LISTS,
    SECTION_PATH_LENGTH,
    check_policy_id,
    check_version_id,
    shorten,
    shown,
)

R = TypeVar("R")

Steps = Generator[None, None, R]
"""A computation that yields about every millisecond and returns an ``R``."""

_SLICE = 64  # nodes of about 1 kB to be checked or hashed between two yields
_SLICE_TEXT = 14  # 2 to this power characters of text count as one node more
_LIGHT_SLICE = 2048  # nodes between two yields where little is done for each
_LAST = _LIGHT_SLICE - 1  # a yield comes behind a slice: a small document has none, each of which is a turn of the event loop


def derive(policy_id: str, version_id: str, nodes: Iterable[object]) -> Steps[list[Node]]:
    """The nodes of a document in document order, as :class:`~treestore.operations.ReplaceVersion` takes them.

    Derived are ``ordinal``, ``last_ordinal``, ``parent_ordinal``, ``depth``, the hashes and, where absent,
    ``section_path``. An empty document is allowed.

    Raises InvalidInput, which names node, field and rule: besides the rules for single values, node ids are unique, every
    parent exists, a nested node's ``parent_id`` (if any) is the id of the node that holds it, there are no cycles, at most
    200 levels and at most 1,000,000 nodes.
    """
    policy_id, version_id = check_policy_id(policy_id), check_version_id(version_id)
    given, parents = yield from _collect(nodes)
    yield from _link(given, parents)
    depths = yield from _depths_in_preorder(given, parents)
    if depths is None:
        given, parents = yield from _sort(given, parents)
        depths = yield from _depths(given, parents)
    paths = yield from _section_paths(given, parents)
    return (yield from _build(policy_id, version_id, given, parents, depths, paths))


def derive_now(policy_id: str, version_id: str, nodes: Iterable[object]) -> list[Node]:
    """:func:`derive`, run to its end."""
    steps = derive(policy_id, version_id, nodes)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        derived: list[Node] = end.value
        return derived


def _collect(nodes: Iterable[object]) -> Steps[tuple[list[Given], list[int]]]:
    """All nodes, checked one by one, and for each the position of the node that holds it (-1: none does)."""
    if isinstance(nodes, NOT_LISTS) or not isinstance(nodes, Iterable):
        raise InvalidInput(f"must be a list of nodes, not {shown(nodes)}", field="nodes")
    given: list[Given] = []
    holders: list[int] = []
    open_lists: list[tuple[Iterator[object], int]] = [(iter(nodes), -1)]
    position = work = 0
    while open_lists:
        items, holder = open_lists[-1]
        for item in items:
            if position >= MAX_NODES:
                raise InvalidInput(f"a document has at most {MAX_NODES} nodes", field="nodes")
            one = given_node(item, position)
            if len(open_lists) > MAX_DEPTH:
                raise _too_deep(one)
            given.append(one)
            holders.append(holder)
            position += 1
            work += 1 if one.text is None else 1 + (len(one.text) >> _SLICE_TEXT)
            if work >= _SLICE:
                work = 0
                yield
            if one.children:
                open_lists.append((iter(one.children), position - 1))
                break
        else:
            open_lists.pop()
    return given, holders


def _too_deep(one: Given) -> InvalidInput:
    return InvalidInput(f"lies deeper than {MAX_DEPTH} levels", node=shorten(one.node_id))


def _link(given: list[Given], parents: list[int]) -> Steps[None]:
    """Check that ids are unique and parents exist. ``parents`` comes with the holders and leaves with the parents; each
    node's ``parent_id`` is filled in."""
    positions: dict[str, int] = {}
    for start in range(0, len(given), _LIGHT_SLICE):
        some = given[start : start + _LIGHT_SLICE]
        positions.update({one.node_id: position for position, one in enumerate(some, start)})
        if len(positions) < start + len(some):
            raise _given_twice(given)
        if len(some) == _LIGHT_SLICE:
            yield
    for position, one in enumerate(given):
        holder, named = parents[position], one.parent_id
        if holder >= 0:
            one.parent_id = given[holder].node_id
            if named is not None and named != one.parent_id:
                rule = f"is {shown(named)}, but the node is given inside of {shown(one.parent_id)}"
                raise InvalidInput(rule, field="parent_id", node=shorten(one.node_id))
        elif named is not None:
            parent = positions.get(named)
            if parent is None:
                raise InvalidInput(f"no node has the id {shown(named)}", field="parent_id", node=shorten(one.node_id))
            parents[position] = parent
        if position % _LIGHT_SLICE == _LAST:
            yield


def _given_twice(given: list[Given]) -> InvalidInput:
    """The error for nodes of which two have the same id."""
    positions: dict[str, int] = {}
    for position, one in enumerate(given):
        first = positions.setdefault(one.node_id, position)
        if first != position:
            break
    return InvalidInput(f"is given twice (#{first + 1} and #{position + 1})", field="node_id", node=shorten(one.node_id))


def _depths_in_preorder(given: list[Given], parents: list[int]) -> Steps[list[int] | None]:
    """The depth of each node, if they are in preorder already (a nested input always is); else ``None``."""
    depths: list[int] = []
    path: list[int] = []
    for position, parent in enumerate(parents):
        while path and path[-1] != parent:
            path.pop()
        if not path and parent >= 0:
            return None
        if len(path) >= MAX_DEPTH:
            raise _too_deep(given[position])
        depths.append(len(path))
        path.append(position)
        if position % _LIGHT_SLICE == _LAST:
            yield
    return depths


def _sort(given: list[Given], parents: list[int]) -> Steps[tuple[list[Given], list[int]]]:
    """Nodes and parents in preorder, siblings in the order given. Raises InvalidInput if there is a cycle."""
    children: list[list[int]] = [[] for _ in given]
    waiting: list[int] = []
    for position in range(len(given) - 1, -1, -1):  # backwards: the last to wait is the first to be taken
        (children[parents[position]] if parents[position] >= 0 else waiting).append(position)
        if position % _LIGHT_SLICE == _LAST:
            yield
    order: list[int] = []
    places = [-1] * len(given)
    while waiting:
        position = waiting.pop()
        places[position] = len(order)
        order.append(position)
        waiting += children[position]
        if len(order) % _LIGHT_SLICE == _LAST:
            yield
    if len(order) < len(given):
        raise _cycle(given, parents, places)
    in_order = [given[position] for position in order]
    return in_order, [places[parents[position]] if parents[position] >= 0 else -1 for position in order]


def _cycle(given: list[Given], parents: list[int], places: list[int]) -> InvalidInput:
    """The error for nodes that no root leads to: the way up from any of them ends in a circle."""
    position = places.index(-1)
    seen: set[int] = set()
    while position not in seen:
        seen.add(position)
        position = parents[position]
    return InvalidInput(
        "is its own ancestor: the parents form a cycle", field="parent_id", node=shorten(given[position].node_id)
    )


def _depths(given: list[Given], parents: list[int]) -> Steps[list[int]]:
    depths: list[int] = []
    for position, parent in enumerate(parents):
        depth = depths[parent] + 1 if parent >= 0 else 0
        if depth >= MAX_DEPTH:
            raise _too_deep(given[position])
        depths.append(depth)
        if position % _LIGHT_SLICE == _LAST:
            yield
    return depths


def _section_paths(given: list[Given], parents: list[int]) -> Steps[list[str]]:
    """For each node "1.2.3", by its 1-based places among siblings; where one was given, that is put into its place last."""
    counts = [0] * (len(given) + 1)  # children seen so far; those of no parent (-1), the roots, in the last item
    numbered: list[str] = []
    for position, parent in enumerate(parents):
        counts[parent] += 1
        numbered.append(f"{numbered[parent]}.{counts[parent]}" if parent >= 0 else str(counts[parent]))
        if position % _LIGHT_SLICE == _LAST:
            yield
    for position, one in enumerate(given):
        if one.section_path is not None:
            numbered[position] = one.section_path
        elif len(numbered[position]) > SECTION_PATH_LENGTH:
            rule = f"the derived one would be longer than {SECTION_PATH_LENGTH} characters; give one"
            raise InvalidInput(rule, field="section_path", node=shorten(one.node_id))
    return numbered


def _build(
    policy_id: str, version_id: str, given: list[Given], parents: list[int], depths: list[int], paths: list[str]
) -> Steps[list[Node]]:
    """The records, made from the last to the first, so that a node's children are hashed before it. Empties ``given``."""
    count = len(given)
    last_ordinals = list(range(count))
    identities, fidelities = [b""] * count, [b""] * count
    built: list[Node] = []
    work = 0
    for ordinal in range(count - 1, -1, -1):
        one, parent, path, last = given.pop(), parents[ordinal], paths[ordinal], last_ordinals[ordinal]
        text = one.text
        digest = text_hash(text)
        of_children = trees_of_children = b""
        if last > ordinal:
            children = yield from _children(ordinal, last_ordinals)
            of_children = b"".join([identities[child] for child in children])
            trees_of_children = b"".join([fidelities[child] for child in children])
        node_hash, tree_hash = content_hashes(one, path, digest, of_children, trees_of_children)
        identities[ordinal], fidelities[ordinal] = node_hash, tree_hash
        if parent >= 0 and last_ordinals[parent] < last:
            last_ordinals[parent] = last
        fields = (
            policy_id,
            version_id,
            one.node_id,
            one.parent_id,
            one.title,
            one.page_start,
            one.page_end,
            one.page_index,
            one.line_num,
            one.summary,
            one.prefix_summary,
            path,
            ordinal,
            last,
            parent,
            depths[ordinal],
            one.validation_status,
            one.metadata,
            one.extra,
            None,
            node_hash,
            tree_hash,
            digest,
            text,
        )
        built.append(convert(fields, Node))  # with 24 keywords it would take two or three times as long
        work += 1 if text is None else 1 + (len(text) >> _SLICE_TEXT)
        if work >= _SLICE:
            work = 0
            yield
    built.reverse()
    return built


def _children(ordinal: int, last_ordinals: list[int]) -> Steps[list[int]]:
    """The ordinals of a node's children; the last ordinals of all nodes from it on are known."""
    children: list[int] = []
    child, last = ordinal + 1, last_ordinals[ordinal]
    while child <= last:
        children.append(child)
        child = last_ordinals[child] + 1
        if len(children) % _LIGHT_SLICE == _LAST:
            yield
    return children
