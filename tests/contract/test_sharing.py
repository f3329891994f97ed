"""Versions that have much in common: each of them is what was stored, whatever becomes of the others."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import treestore
from tests.clock import SetClock
from tests.contract.samples import node
from tests.stores import SyncStore
from treestore import NotFound

Tree = list[dict[str, Any]]
Call = Callable[[SyncStore], object]
WORDS = ["care", "home", "policy", "claims", "appeal", "term", "deductible", "network", "provider", "benefit"]
VERSIONS = [str(number) for number in range(7)]


def words(choose: random.Random) -> str:
    return " ".join(choose.choices(WORDS, k=choose.choice((3, 12, 60))))


def tree(choose: random.Random, count: int) -> Tree:
    """Nodes in document order, with pages, each below one of the last few."""
    made: Tree = []
    for at in range(count):
        parent = f"n{choose.randrange(max(at - 6, 0), at)}" if at and choose.random() < 0.9 else None
        made.append(node(f"n{at}", parent, text=words(choose), page_start=at, page_end=at + choose.randrange(3)))
    return made


def edited(choose: random.Random, given: Tree) -> Tree:
    """The nodes with some change, or none."""
    nodes = [dict(one) for one in given]
    for _ in range(choose.randrange(3)):
        at = choose.randrange(len(nodes))
        kind = choose.choice(("text", "no text", "equal text", "title", "metadata", "pages", "insert", "delete", "move"))
        match kind:
            case "text":
                nodes[at]["text"] = words(choose)
            case "no text":
                nodes[at]["text"] = None
            case "equal text":
                nodes[at]["text"] = choose.choice(nodes)["text"]
            case "title":
                nodes[at]["title"] = words(choose)
            case "metadata":
                nodes[at]["metadata"] = dict(choose.sample([("a", 1), ("b", None), ("c", [2])], 2))
            case "pages":
                nodes[at] |= {"page_start": 3, "page_end": 30}
            case "insert":
                nodes.insert(at, node(f"m{choose.randrange(10**6)}", nodes[at]["parent_id"], text=words(choose)))
            case "delete" if len(nodes) > 5:
                name = nodes.pop(at)["node_id"]
                for one in nodes:
                    one["parent_id"] = None if one["parent_id"] == name else one["parent_id"]
            case "move":
                nodes[at]["parent_id"] = None
    return nodes


def asked(store: SyncStore, version: str) -> list[object]:
    """What a version says, by every way to its nodes."""
    documents = store.documents
    ref: dict[str, Any] = {"version_id": version}
    try:
        whole = documents.get_document("p", **ref)
    except NotFound as error:
        return [str(error)]
    some = [one.node_id for one in whole.nodes[:: max(len(whole.nodes) // 4, 1)]]
    return [
        whole,
        [documents.get_nodes("p", some, **ref) for _ in range(2)],
        [documents.get_subtree("p", name, **ref) for name in some],
        documents.search_nodes("p", "home appeal", limit=40, **ref),
        documents.search_nodes("p", "ben", limit=40, **ref),
        documents.get_nodes_by_pages("p", 3, 9, **ref),
        documents.get_page_texts("p", 1, 9, **ref),
    ]


def stored(version: str, nodes: Tree, pages: Tree) -> Call:
    return lambda store: store.documents.store_document("p", version, nodes, pages=pages).outcome


def amended(version: str, given: dict[str, Any]) -> Call:
    fields: dict[str, Any] = {name: given.get(name) for name in ("text", "title", "metadata")}
    return lambda store: store.documents.update_node("p", given["node_id"], version_id=version, **fields)


def deleted(version: str) -> Call:
    return lambda store: store.documents.delete_version("p", version)


@pytest.mark.parametrize(("seed", "count"), [(1, 9), (2, 40), (3, 40), (4, 130)])
def test_many_versions_with_few_changes_each_are_kept_apart(
    steady_store: SyncStore, clock: SetClock, seed: int, count: int
) -> None:
    """Stored, stored anew, amended and deleted in any order; after each step every version is as in the store in memory."""
    choose, model = random.Random(seed), treestore.open_sync("memory://", clock=clock)
    held: dict[str, Tree] = {}
    first = tree(choose, count)

    def both(call: Call) -> None:
        assert call(steady_store) == call(model)

    for step in range(45):
        clock.advance(hours=1)
        kind = choose.choices(("store", "amend", "delete"), (6, 6, 2))[0] if held else "store"
        version = choose.choice(VERSIONS if kind == "store" else sorted(held))
        if kind == "store":
            held[version] = edited(choose, choose.choice([first, *held.values()]))
            pages = [{"page": page, "content": choose.choice(WORDS)} for page in range(choose.choice((0, 2, 2)))]
            both(stored(version, held[version], pages))
        elif kind == "amend":
            one = choose.choice(held[version])
            one |= choose.choice(({"text": words(choose)}, {"text": None}, {"title": words(choose)}, {"metadata": {"": step}}))
            both(amended(version, one))
        else:
            both(deleted(version))
            del held[version]
        every = step % 5 == 4
        for name in VERSIONS if every else (version, choose.choice(VERSIONS)):
            both(partial(asked, version=name))
        if every:
            assert steady_store.check().problems == []
    for version in choose.sample(sorted(held), len(held)):
        both(deleted(version))
        assert steady_store.check().problems == []
    assert steady_store.stats().nodes == model.stats().nodes == 0


def test_equal_texts_of_one_version_are_amended_one_by_one(store: SyncStore) -> None:
    nodes = [node(name, text="equal") for name in "abc"]
    store.documents.store_document("p", "1", nodes[:1])
    store.documents.store_document("p", "2", nodes)
    store.documents.delete_version("p", "1")
    store.documents.update_node("p", "b", text="another")
    assert [one.text for one in store.documents.get_nodes("p", ["a", "b", "c"])] == ["equal", "another", "equal"]
    store.documents.update_node("p", "a", text=None)
    assert [one.text for one in store.documents.get_nodes("p", ["a", "b", "c"])] == [None, "another", "equal"]
