"""What the answers must be, worked out from the corpus alone by the plainest means, and what is wrong with others."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from treestore.bench.contender import LEVELS, Hit, Scoring
from treestore.bench.corpus import Corpus, PlainNode, PlainVersion, Tree
from treestore.records import Diff, Outline, StoreResult, Version

_FIELDS = PlainNode.__struct_fields__


def plain(answer: Any) -> Any:
    """An answer as the peers give it: treestore's records without what the peers do not keep."""
    if isinstance(answer, Outline):
        values: list[Any] = [getattr(answer, name, None) for name in _FIELDS]
        return PlainNode(*values)
    if isinstance(answer, Version):
        effective = answer.effective_date
        assert effective is not None
        return PlainVersion(answer.policy_id, answer.version_id, effective, answer.node_count, answer.description)
    if isinstance(answer, StoreResult):
        return answer.outcome
    if isinstance(answer, Diff):
        assert not (answer.added or answer.removed or answer.moved or answer.repaged)
        return [change.after and change.after.node_id for change in answer.changed]
    return [plain(entry) for entry in answer] if isinstance(answer, list) else answer


def difference(expected: Any, answer: Any) -> str | None:
    """In what an answer differs from the one expected; None if it does not."""
    answer = plain(answer)
    if type(answer) is type(expected) and answer == expected:
        return None
    if isinstance(expected, list) and isinstance(answer, list):
        if len(answer) != len(expected):
            return f"gives {len(answer)} in the place of {len(expected)}"
        for given, wanted in zip(answer, expected, strict=True):
            if given != wanted:
                return difference(wanted, given)
    if isinstance(expected, PlainNode) and isinstance(answer, PlainNode):
        name = next(name for name in _FIELDS if getattr(answer, name) != getattr(expected, name))
        return f"gives a node {answer.node_id!r} whose {name} is not that of {expected.node_id!r}"
    return f"gives {_shown(answer)} in the place of {_shown(expected)}"


def _shown(answer: Any) -> str:
    return repr(answer)[:80]


# --- what is expected ----------------------------------------------------------------------------------------------------


def outline(nodes: Sequence[PlainNode]) -> list[PlainNode]:
    """The nodes without their texts."""
    return [msgspec.structs.replace(node, text=None) for node in nodes]


def node(corpus: Corpus, node_id: str) -> PlainNode:
    """A node by its id, which is its ordinal."""
    return corpus.tree.nodes[int(node_id)]


def below(corpus: Corpus, node_id: str, levels: int) -> list[PlainNode]:
    """A node and so many levels below it."""
    top = node(corpus, node_id)
    inside = islice(corpus.tree.nodes, top.ordinal, top.last_ordinal + 1)
    return [found for found in inside if found.depth <= top.depth + levels]


def children(corpus: Corpus, node_id: str) -> list[PlainNode]:
    """The children of a node."""
    return below(corpus, node_id, 1)[1:]


def subtree(corpus: Corpus, node_id: str) -> list[PlainNode]:
    """The subtree that is measured."""
    return below(corpus, node_id, LEVELS)


def ancestors(corpus: Corpus, node_id: str) -> list[PlainNode]:
    """The way from the root to a node."""
    way = [node(corpus, node_id)]
    while way[0].parent_ordinal >= 0:
        way.insert(0, corpus.tree.nodes[way[0].parent_ordinal])
    return way


def on_page(corpus: Corpus, page: int) -> list[PlainNode]:
    """The nodes that lie on a page."""
    return [node for node in corpus.tree.nodes if (node.page_start or 0) <= page <= (node.page_end or 0)]


def as_of(corpus: Corpus, time: datetime) -> PlainVersion:
    """The version of the history that was in effect."""
    return max((tree.version for tree in corpus.history if tree.version.effective_date <= time), key=_effective_date)


def _effective_date(version: PlainVersion) -> datetime:
    return version.effective_date


def whole(corpus: Corpus, version_id: str) -> list[PlainNode]:
    """All nodes of a version of the document."""
    return list(tree_of(corpus, version_id).nodes)


def tree_of(corpus: Corpus, version_id: str) -> Tree:
    """A version of the document."""
    return corpus.tree if version_id == corpus.tree.version.version_id else corpus.edited


def edited_ids(corpus: Corpus) -> list[str]:
    """The nodes that say something else in the edited version."""
    before, after = corpus.tree.nodes, corpus.edited.nodes
    return [new.node_id for old, new in zip(before, after, strict=True) if old.text != new.text]


# --- searches ------------------------------------------------------------------------------------------------------------


def scores(corpus: Corpus, words: tuple[str, ...], scoring: Scoring) -> dict[int, float]:
    """The score of each node that says one of the words, by its ordinal, as a contender scores."""
    nodes, of_code = len(corpus.tree.nodes), scoring.words_of_code
    mean = (sum(corpus.words) + of_code * sum(corpus.codes)) / nodes
    found: dict[int, float] = {}
    for word in words:
        said = corpus.occurrences[word]
        for ordinal, times in said.items():
            length = (corpus.words[ordinal] + of_code * corpus.codes[ordinal]) / mean
            found[ordinal] = found.get(ordinal, 0.0) + scoring.word(len(said), nodes, times, length)
    return found


def hits(answer: Sequence[Any]) -> list[Hit]:
    """The answer to a search as the peers give it."""
    return [found if isinstance(found, Hit) else Hit(plain(found.node), found.score) for found in answer]


def wrong_hits(corpus: Corpus, words: tuple[str, ...], hits: Sequence[Hit], scoring: Scoring, limit: int) -> str | None:
    """What is wrong with the answer to a search; None if nothing is: each hit is a node of the document with its score, and
    they are the best, best first. Of nodes with equal scores any may be among them."""
    expected = scores(corpus, words, scoring)
    best = heapq.nlargest(limit, expected.values())
    if len(hits) != len(best):
        return f"finds {len(hits)} nodes in the place of {len(best)}"
    if len({hit.node.ordinal for hit in hits}) != len(hits):
        return "finds a node twice"
    for hit, score in zip(hits, best, strict=True):
        wrong = difference(corpus.tree.nodes[hit.node.ordinal], hit.node)
        if wrong is not None:
            return wrong
        own = expected.get(hit.node.ordinal)
        if own is None:
            return f"finds node {hit.node.node_id!r}, which says none of the words"
        if not math.isclose(hit.score, own, rel_tol=scoring.tolerance):
            return f"gives node {hit.node.node_id!r} the score {hit.score!r} in the place of {own!r}"
        if not math.isclose(own, score, rel_tol=scoring.tolerance):
            return f"gives node {hit.node.node_id!r} the place of a better one"
    return None
