"""Keyword search in the plainest way: every node is scored. What the other stores must equal to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treestore.operations import Query
from treestore.records import SearchHit, Version
from treestore.search import query
from treestore.search.ranking import Corpus
from treestore.trees.content import Content, detached

Frequencies = Mapping[str, int]


def match(contents: Sequence[tuple[Version, Content]], asked: Query, limit: int) -> list[SearchHit]:
    """The nodes of some versions, which are one corpus, that fit a query best; of equal scores in the order of ``contents``,
    then in document order."""
    nodes = [(node, terms) for _, content in contents for node, terms in zip(content.nodes, content.terms, strict=True)]
    corpus = Corpus(len(nodes), sum(sum(terms.values()) for _, terms in nodes))
    known = {term for _, terms in nodes for term in terms}

    def beginning(code: str) -> list[str]:
        return sorted(term for term in known if term.startswith(code))

    words = query.wanted(asked, known.__contains__, beginning)
    weights = {term: corpus.weight(sum(term in terms for _, terms in nodes)) for term in query.distinct(words)}
    scores = [score(weights, corpus, terms) for _, terms in nodes]
    found = sorted((-of_node, at) for at, of_node in enumerate(scores) if of_node > 0)
    return [
        SearchHit(node=detached(nodes[at][0]), score=-negative, words=query.words_of(words, nodes[at][1]))
        for negative, at in found[:limit]
    ]


def score(weights: Mapping[str, float], corpus: Corpus, terms: Frequencies) -> float:
    """The score of a node that has these terms so often, as :mod:`treestore.search.ranking` defines it."""
    x, y = corpus.norm
    length = sum(terms.values())
    of_node = 0.0
    for term, weight in weights.items():
        frequency = terms.get(term, 0)
        of_node += weight * frequency / (frequency + (x + y * length))
    return of_node
