"""The benchmark's document: always the same, a sound tree, and words that every analyzer of text sees alike."""

from __future__ import annotations

import random

import pytest

import treestore
from treestore.bench import corpus, truth
from treestore.search import analyzer


@pytest.mark.parametrize("nodes", [1, 2, 9, 10, 300])
def test_places_are_those_that_treestore_derives(nodes: int) -> None:
    made = corpus.make(nodes)
    with treestore.open_sync("memory://") as store:
        store.documents.store_document("p", "1", made.tree.given)
        assert truth.plain(store.documents.get_subtree("p")) == made.tree.nodes


def test_the_same_number_gives_the_same_document() -> None:
    once, again = corpus.make(40), corpus.make(40)
    assert (once.tree, once.searches, once.history) == (again.tree, again.searches, again.history)
    assert corpus.make(40, seed=1).tree != once.tree


def test_a_node_is_about_a_kilobyte() -> None:
    nodes = corpus.make(200).tree.nodes
    mean = sum(len(node.title + (node.summary or "") + (node.text or "")) for node in nodes) / len(nodes)
    assert 900 < mean < 1200


def test_words_are_terms_as_they_are() -> None:
    words = corpus.Language(random.Random(corpus.SEED)).words
    assert len(set(words)) == corpus.VOCABULARY
    assert [word for word in words if analyzer.terms(word) != [word]] == []


def test_what_is_said_where_is_counted() -> None:
    made = corpus.make(200)
    for node in made.tree.nodes:
        said = f"{node.title} {node.summary} {node.text}".replace(".", " ").split()
        words = [word for word in said if word.isalpha()]
        assert len(words) == made.words[node.ordinal]
        assert made.codes[node.ordinal] == (node.metadata is not None)
        for word, where in made.occurrences.items():
            assert words.count(word) == where.get(node.ordinal, 0)


def test_searches_are_as_rare_as_they_are_called() -> None:
    made = corpus.make(2000)
    bounds = {"rare": (1, 20), "middling": (2, 100), "common": (60, 600)}
    assert made.searches.keys() == corpus.SEARCHES.keys()
    for kind, questions in made.searches.items():
        assert len(set(questions)) == corpus.QUESTIONS
        for place, frequency in enumerate(corpus.SEARCHES[kind]):
            found = [len(made.occurrences[words[place]]) for words in questions]
            low, high = bounds[frequency]
            assert low < sum(found) / len(found) < high


def test_an_amended_text_has_one_new_word() -> None:
    made = corpus.make(20)
    for node in made.tree.nodes:
        text = corpus.amended(made, node)
        assert analyzer.terms(text).count(corpus.AMENDMENT) == 1
        assert text.partition(". ")[2] == (node.text or "").partition(". ")[2] != ""
        assert corpus.AMENDMENT not in (node.text or "")


def test_three_nodes_are_edited() -> None:
    made = corpus.make(100)
    assert truth.edited_ids(made) == ["0020", "0050", "0080"]
