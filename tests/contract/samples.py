"""Trees that the contract tests store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ALL_PLANES = "A\u007fé\u07ff\u0800한\ufffd\U00010000😀\U0010fffd\r\n\t\u2028"
"""A character of every width in UTF-8, of the first and the last plane, and line ends of several kinds."""


def node(node_id: str, parent_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """A node of flat input."""
    return {"node_id": node_id, "parent_id": parent_id, "title": f"title of {node_id}", **fields}


def manual() -> list[dict[str, Any]]:
    """Two roots, three levels, pages, texts and summaries, some of them absent and some empty. In document order::

    a
      a1
        a1x
        a1y
      a2
    b
      b1
    """
    return [
        node("a", page_start=1, page_end=9, summary="all of a", text="text of a", metadata={"tier": 1}),
        node("a1", "a", page_start=2, page_end=5, text=""),
        node("a1x", "a1", page_start=2, page_end=3, summary="", text="text of a1x"),
        node("a1y", "a1", page_start=3, page_end=5, extra={"kept": [1, None, {"deep": True}]}),
        node("a2", "a", page_start=12, page_end=14, text="pages outside those of its parent"),
        node("b", line_num=7, prefix_summary="before b", validation_status="approved"),
        node("b1", "b", section_path="Part Two > First", page_index=3, text="text of b1"),
    ]


MANUAL_IDS = ["a", "a1", "a1x", "a1y", "a2", "b", "b1"]


def nested() -> list[dict[str, Any]]:
    """The same tree as :func:`manual`, nested."""
    by_id = {one["node_id"]: {**one} for one in manual()}
    roots: list[dict[str, Any]] = []
    for one in by_id.values():
        parent_id = one.pop("parent_id")
        (roots if parent_id is None else by_id[parent_id].setdefault("nodes", [])).append(one)
    return roots


def wide(count: int) -> Iterator[dict[str, Any]]:
    """A root and ``count`` children."""
    yield node("root")
    for at in range(count):
        yield node(f"{at:05}", "root", text=f"text {at}")


def deep(levels: int) -> Iterator[dict[str, Any]]:
    """One path of so many nodes."""
    for at in range(levels):
        yield node(f"level {at}", f"level {at - 1}" if at else None)


def bushy(count: int, fan_out: int = 8) -> Iterator[dict[str, Any]]:
    """A tree of so many nodes in which each has up to ``fan_out`` children."""
    for at in range(count):
        parent_id = f"{(at - 1) // fan_out:05}" if at else None
        yield node(f"{at:05}", parent_id, text=f"text {at} " * 20, page_start=at, page_end=at + 1)
