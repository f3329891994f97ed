"""What a store has to offer to be measured: a place to lie in, and a function for each verb that it has.

A verb takes one question and gives one answer. It may lack where a store has no such thing; it is then not measured there. The
answers of all stores to a question must be equal, as :mod:`treestore.bench.cases` says:

=====================  ===============================  ===================================================================
verb                   question                         answer
=====================  ===============================  ===================================================================
``store``              :class:`~.corpus.Tree`           "created": durable, with the indexes that the other verbs need
``store_small``        a tree of few nodes              the same
``store_searchable``   :class:`~.corpus.Tree`           the same, with keyword search
``store_equal``        the tree that is stored there    "unchanged"
``store_together``     many small trees                 how many were created, by :data:`TASKS` tasks or threads at once
``node``               a node id                        the node
``node_outline``       a node id                        a list of the node without its text
``children``           a node id                        the children in document order
``children_outline``   a node id                        the node, then its children, without texts
``subtree``            a node id                        the node and :data:`LEVELS` levels below it, in document order
``subtree_outline``    a node id                        the same without texts
``whole``              a version's id                   the whole tree in document order
``whole_outline``      a version's id                   the same without texts
``ancestors``          a node id                        the way from the root to the node
``as_of``              a time                           the version of the history that was in effect
``on_page``            a page                           the nodes on it in document order
``scan_page``          a page                           the same, found by reading the whole tree
``search``             words                            the :data:`BEST` best nodes that say one of them, best first
``search_all``         words                            all nodes that say one of them, best first (checked, not measured)
``amend``              a node id and a text             anything: the node says this text, durably, and is found by it
``diff``               two versions' ids                the ids of the nodes that say something else in the second
``read_both``          two versions' ids                how many nodes both have, by reading them whole
=====================  ===============================  ===================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import msgspec

from treestore.bench.corpus import PlainNode

LEVELS = 3
BEST = 10
ALL = 1_000_000
"""More than any search finds."""

TASKS = 64
CACHE_MB = 512
"""The page cache of every store that has one: what treestore takes by default."""

Verb = Callable[[Any], Any]


class Hit(msgspec.Struct, frozen=True):
    """A node that was found, and its score: the higher, the better."""

    node: PlainNode
    score: float


class Scoring(msgspec.Struct, frozen=True):
    """How a store's searches score: a node's score is the sum over the words asked.

    ``word(k, n, times, length)`` is what a word that ``k`` of ``n`` nodes say adds to a node that says it so many times and is
    so many times as long as the mean. ``words_of_code`` says as how many words a code such as "M54.5" counts in that length.
    ``tolerance`` is how far scores may be off, by the precision of the store's arithmetic.
    """

    word: Callable[[int, int, int, float], float]
    words_of_code: int
    tolerance: float = 1e-9


K1, B = 1.2, 0.75


def bm25(weight: Callable[[int, int], float]) -> Callable[[int, int, int, float], float]:
    """Okapi BM25 with the title, summary and text of a node as one text. ``weight(n, k)`` is the weight of a word that ``k``
    of ``n`` nodes say, in which stores differ."""

    def word(found: int, nodes: int, times: int, length: float) -> float:
        return weight(nodes, found) * times * (K1 + 1) / (times + K1 * (1 - B + B * length))

    return word


class Place(msgspec.Struct, frozen=True):
    """Where a store is to lie: a new folder of its own, or a new database on the server with this URL, which it drops."""

    folder: Path
    server: str | None = None


class Contender(ABC):
    """A store in a place of its own, open from the time it is made until :meth:`close`."""

    name: ClassVar[str]
    """What tables and plots call it."""

    scoring: ClassVar[Scoring | None] = None
    """How its searches score; None where it has none."""

    verbs: Mapping[str, Verb]

    @abstractmethod
    def __init__(self, place: Place) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of the place."""

    @abstractmethod
    def prepare(self) -> None:
        """What whoever knows this store does after it was filled and before it is asked."""

    @abstractmethod
    def settle(self) -> None:
        """What whoever knows this store does at times where nodes are amended, so that it answers as fast as before."""

    def forget(self) -> None:
        """Drop what is kept of earlier answers, but no pages. A store that keeps no answers has nothing to do."""
        return

    def ready(self, verb: str, question: Any) -> Any:
        """A question in the form that the verb takes: what is done here is not measured."""
        return question

    def answer(self, verb: str, question: Any) -> Any:
        """One answer."""
        return self.verbs[verb](self.ready(verb, question))

    def seconds(self, verb: str, questions: Sequence[Any]) -> float:
        """How long it takes to answer all questions, which are :meth:`ready`, one after the other."""
        ask = self.verbs[verb]
        start = perf_counter()
        for question in questions:
            ask(question)
        return perf_counter() - start
