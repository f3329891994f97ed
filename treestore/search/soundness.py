"""Whether a version's postings are those of its nodes. A check of a store, of any kind, asks this of every version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from treestore.records import Node, Version
from treestore.search import analyzer
from treestore.search.analyzer import node_terms


def problems(version: Version, nodes: Sequence[Node], terms: Sequence[Mapping[str, int]]) -> list[str]:
    """What is wrong with a version's postings, one line each. ``terms``: how often each node has each term, as they say.

    Postings that another version of the analyzer made can only be counted.
    """
    name = f"policy {version.policy_id!r} version {version.version_id!r}"
    if not version.analyzer:
        return [f"{name}: it can't be searched, yet postings are kept for it"] if terms or version.term_count else []
    if len(terms) != len(nodes):
        return [f"{name}: there are postings of {len(terms)} nodes, not {len(nodes)}"]
    found: list[str] = []
    if version.analyzer == analyzer.VERSION:
        for node, of_node in zip(nodes, terms, strict=True):
            if Counter(node_terms(node, node.text)) != of_node:
                found.append(f"{name}: the postings of node {node.node_id!r} are not those of its text")
                break
    total = sum(sum(of_node.values()) for of_node in terms)
    if total != version.term_count:
        found.append(f"{name}: term_count is {version.term_count}, but there are {total}")
    return found
