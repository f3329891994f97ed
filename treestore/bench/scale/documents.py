"""What is stored to see how things grow: documents by formula, so that a million nodes need not be held to be checked.

They are shaped as those of :mod:`treestore.bench.corpus`, with texts of about the same length that say where they stand; no
two are equal. They are stored without search.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import treestore
from treestore.bench import truth
from treestore.bench.contender import LEVELS
from treestore.bench.corpus import EPOCH, FAN_OUT, POLICY, SEED, VERSION, PlainNode, given_node, places
from treestore.bench.run import Mismatch

Question = tuple[int, str]
"""A document's number and a node id."""

MANY = 100
"""Nodes of a document where a store holds many."""


class Documents:
    """``count`` documents of ``size`` nodes each. Number 0 is called as the one of :mod:`treestore.bench.corpus` is."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size

    @classmethod
    def of(cls, nodes: int, many: bool) -> Documents:
        """So many nodes in one document, or in many."""
        return cls(max(nodes // MANY, 1), min(nodes, MANY)) if many else cls(1, nodes)

    @staticmethod
    def policy(number: int) -> str:
        """The policy id of a document."""
        return f"{POLICY}-{number}" if number else POLICY

    def nodes(self, number: int) -> Iterator[PlainNode]:
        """The nodes of a document, made one by one."""
        for node in places(self.size):
            say(node, number)
            yield node

    @cached_property
    def shape(self) -> list[PlainNode]:
        """The nodes of any of the documents, without words."""
        return list(places(self.size))

    def node(self, question: Question) -> PlainNode:
        """What the answer to a question must be."""
        number, node_id = question
        return self._said(number, self.shape[int(node_id)])

    def subtree(self, question: Question) -> list[PlainNode]:
        """A node and :data:`~treestore.bench.contender.LEVELS` levels below it."""
        number, node_id = question
        top = self.shape[int(node_id)]
        inside = self.shape[top.ordinal : top.last_ordinal + 1]
        return [self._said(number, node) for node in inside if node.depth <= top.depth + LEVELS]

    def _said(self, number: int, node: PlainNode) -> PlainNode:
        found = PlainNode(*[getattr(node, name) for name in PlainNode.__struct_fields__])
        say(found, number)
        return found

    def some(self, count: int, seed: int = SEED) -> list[Question]:
        """So many different nodes by chance (all, if there are fewer)."""
        chosen = random.Random(seed).sample(range(self.count * self.size), min(count, self.count * self.size))
        return [(place // self.size, f"{place % self.size:04}") for place in chosen]

    def tops(self, count: int, seed: int = SEED) -> list[Question]:
        """So many nodes whose subtrees are measured: those deepest in the document that have all their nodes of
        :data:`~treestore.bench.contender.LEVELS` levels, else the roots."""
        depth = 0
        while sum(FAN_OUT**level for level in range(depth + 1 + LEVELS + 1)) <= self.size:
            depth += 1
        at = [node.node_id for node in self.shape if node.depth == depth]
        rng = random.Random(seed)
        found = {(rng.randrange(self.count), rng.choice(at)): None for _ in range(4 * count)}
        return list(found)[:count]


def say(node: PlainNode, number: int) -> None:
    """Give a node the words that it has in the document of this number."""
    node.title = f"Section {number}.{node.ordinal}"
    node.summary = f"what section {number}.{node.ordinal} says in short, " * 6
    node.text = f"sentence {number}.{node.ordinal} of this section and what it says at length; " * 12


def store_one(store: treestore.SyncTreeStore, number: int, nodes: Iterable[PlainNode]) -> None:
    """Store a document. Raises Mismatch if it was there."""
    given: Iterator[dict[str, Any]] = map(given_node, nodes)
    stored = store.documents.store_document(
        Documents.policy(number), VERSION, given, effective_date=EPOCH, searchable=False, description="by formula"
    )
    if stored.outcome != "created":
        raise Mismatch(f"document {number} was {stored.outcome} in the place of created")


def verify(answers: Iterable[tuple[Question, Any]], expected: Callable[[Question], Any]) -> None:
    """Raises Mismatch if an answer is wrong."""
    for question, answer in answers:
        wrong = truth.difference(expected(question), answer)
        if wrong is not None:
            raise Mismatch(f"asked for {question}, treestore {wrong}")
