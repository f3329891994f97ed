"""Trees as the old service ingests them, and the same for treestore."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.adoption.old_service.service import KEPT, Tree
from treestore import pageindex
from treestore.bench.corpus import Language, PlainNode, given_node, places

FILES = sorted((Path(__file__).parent.parent / "data" / "pageindex").glob("*.json"))


def node(node_id: str, *children: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A nested node as the service takes it."""
    return {"node_id": node_id, "title": f"title of {node_id}", **fields, "nodes": list(children)}


def policy(word: str = "care") -> list[dict[str, Any]]:
    """Two roots, three levels, pages that leave their parent's, texts and summaries of which some are absent or empty."""
    return [
        node(
            "a",
            node(
                "a1",
                node("a1x", page_start=2, page_end=3, summary="", text=f"text of a1x, {word} at home"),
                node("a1y", page_start=3, page_end=5, page_index=3),
                page_start=2,
                page_end=5,
                text="",
                summary=f"summary of a1, {word}",
            ),
            node("a2", page_start=12, page_end=14, text="pages outside those of its parent"),
            page_start=1,
            page_end=9,
            summary="all of a",
            text=f"text of a: {word}, {word}",
        ),
        node("b", node("b1", page_index=3, text=f"text of b1 M54.5 税収 {word}"), validation_status="approved"),
    ]


def written(nodes: int, seed: int) -> list[dict[str, Any]]:
    """A made-up document in natural proportions."""
    rng = random.Random(seed)
    language, made = Language(rng), list(places(nodes))
    for one in made:
        language.write(one, rng)
    return nested(made)


def generation(number: int, nodes: int = 24) -> list[dict[str, Any]]:
    """A small tree that says in all its texts and titles which one it is, and whose shape and size go with it: nodes of two of
    them don't fit together."""
    rng = random.Random(number)
    count = nodes + number % 5
    roots: list[dict[str, Any]] = []
    made: list[dict[str, Any]] = []
    for at in range(count):
        words = " ".join(rng.choices(("care", "home", "leave", "income", "therapy"), k=4))
        page = rng.randrange(12)
        one = node(
            f"n{at}",
            title=f"generation g{number} section {at}",
            summary=f"g{number} {words}",
            text=f"g{number} says {words} in {at}" if at % 4 else None,
            page_start=page,
            page_end=page + rng.randrange(3),
        )
        parent = rng.randrange(-1, at) if at % 7 else -1
        (made[parent]["nodes"] if parent >= 0 else roots).append(one)
        made.append(one)
    return roots


def nested(made: Sequence[PlainNode]) -> list[dict[str, Any]]:
    """A corpus's document, nested."""
    roots: list[dict[str, Any]] = []
    by_id: dict[str, dict[str, Any]] = {}
    for one in made:
        given = given_node(one)
        parent_id = given.pop("parent_id")
        given.pop("metadata", None)
        by_id[one.node_id] = {**given, "nodes": []}
        (roots if parent_id is None else by_id[parent_id]["nodes"]).append(by_id[one.node_id])
    return roots


def real(file: Path) -> list[dict[str, Any]]:
    """A PageIndex file's tree, of what the service has columns for."""
    return [_of_pageindex(one) for one in pageindex.read(file).nodes]


def _of_pageindex(one: Any) -> dict[str, Any]:
    return {
        "node_id": one["node_id"],
        "title": one["title"],
        "page_index": one.get("line_num"),
        "page_start": one.get("start_index"),
        "page_end": one.get("end_index"),
        "summary": one.get("summary", one.get("prefix_summary")),
        "text": one.get("text"),
        "nodes": [_of_pageindex(below) for below in one.get("nodes", ())],
    }


def given(tree: Tree) -> list[dict[str, Any]]:
    """The tree as treestore takes it, so that it is what the service's rows say."""
    return [
        {
            "node_id": one["node_id"],
            "title": one["title"],
            "validation_status": one.get("validation_status", "pending"),
            **{name: one.get(name) for name in KEPT},
            "nodes": given(one["nodes"]),
        }
        for one in tree
    ]
