"""The document that everything is measured on: made up, always the same, and natural in its proportions.

Each node has :data:`FAN_OUT` children (the leaves none), a title, a summary and a text of about 1 kB together, a page range,
and every tenth metadata and a code such as "M54.5". Words are made up of syllables; how often each occurs follows Zipf's law,
as in real text. They are lower-case ASCII, no stop words, and of a shape that the English Snowball stemmer leaves as it is, so
that every analyzer of text sees the same words in them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

FAN_OUT = 8
NODES_PER_PAGE = 10
VOCABULARY = 24_000
VERSIONS = 120
SEED = 20261121

QUESTIONS = 50
"""Searches of each kind."""

CODE_EVERY = 10
EDITED = 3
"""Nodes of the edited version that say something else, if the document has so many."""

POLICY = "manual"
VERSION = "2026-01"
LATER = "2026-04"
HISTORY = "history"
EPOCH = datetime(2016, 1, 1, tzinfo=UTC)

SEARCHES = {
    "2 words: rare + rare": ("rare", "rare"),
    "2 words: rare + common": ("rare", "common"),
    "2 words: common + common": ("common", "common"),
    "8 words, of which 3 common": ("rare", "rare", "middling", "middling", "middling", "common", "common", "common"),
}
"""The kinds of searches, and of each the frequencies of its words."""

AMENDMENT = "qwx"
"""A word that nothing but an amended text says."""

_ONSETS = (*"bdfgjklmnprstvz", "br", "dr", "kl", "kr", "pl", "pr", "st", "tr")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ei", "au", "an", "en", "or", "ul")
_ENDINGS = ("a", "o", "u", "ak", "ek", "ok", "ap", "op", "ub", "ab", "ax", "ex")  # no suffix of English ends like these
_MEAN_WORDS = 5 + 25 + 130


class PlainNode(msgspec.Struct, array_like=True):
    """A node as the peers keep and answer it: what was given, and its place in the tree.

    ``ordinal``, ``last_ordinal``, ``parent_ordinal`` and ``depth`` are those of :class:`treestore.records.Outline`. ``text``
    is ``None`` in an outline, and comes last so that it can be left out of what is stored.
    """

    node_id: str
    parent_id: str | None
    title: str
    page_start: int | None
    page_end: int | None
    summary: str | None
    section_path: str
    ordinal: int
    last_ordinal: int
    parent_ordinal: int
    depth: int
    metadata: dict[str, Any] | None = None
    text: str | None = None


class PlainVersion(msgspec.Struct, array_like=True, frozen=True):
    """A version as the peers keep and answer it."""

    policy_id: str
    version_id: str
    effective_date: datetime
    node_count: int
    description: str


class Tree(msgspec.Struct, frozen=True):
    """A document to be stored: its nodes in document order, as the peers take them and (``given``) as treestore does."""

    version: PlainVersion
    nodes: Sequence[PlainNode]
    given: Sequence[dict[str, Any]]


class Corpus(msgspec.Struct, frozen=True):
    """The document and what may be asked about it.

    ``tree`` is the document, ``edited`` a later version of it in which three nodes say something else, ``history`` another
    document of one node in :data:`VERSIONS` versions, by their effective dates. ``words`` and ``codes`` are the numbers of
    words and of codes in each node, by ordinal. ``searches`` are questions of two words each, by how common the words are, and
    ``occurrences`` says for each of these words which nodes say it how often.
    """

    tree: Tree
    edited: Tree
    history: Sequence[Tree]
    words: Sequence[int]
    codes: Sequence[int]
    searches: dict[str, list[tuple[str, ...]]]
    occurrences: dict[str, dict[int, int]]


def make(nodes: int, seed: int = SEED) -> Corpus:
    """The corpus with a document of so many nodes (at least 1)."""
    rng = random.Random(seed)
    language = Language(rng)
    asked = {kind: language.questions(rng, nodes, frequencies) for kind, frequencies in SEARCHES.items()}
    occurrences: dict[str, dict[int, int]] = {word: {} for all_of in asked.values() for words in all_of for word in words}
    plain, words, codes = [], [], []
    for node in places(nodes):
        said = language.write(node, rng)
        words.append(len(said))
        codes.append(1 if node.ordinal % CODE_EVERY == 0 else 0)
        for word in occurrences.keys() & set(said):
            occurrences[word][node.ordinal] = said.count(word)
        plain.append(node)
    start = EPOCH + timedelta(days=3650)
    return Corpus(
        tree=tree_of(POLICY, VERSION, plain, start),
        edited=tree_of(POLICY, LATER, [_edited(node, nodes) for node in plain], start + timedelta(days=90)),
        history=[small_tree(HISTORY, f"v{i:03}", i, EPOCH + timedelta(days=30 * i)) for i in range(VERSIONS)],
        words=words,
        codes=codes,
        searches=asked,
        occurrences=occurrences,
    )


def tree_of(policy_id: str, version_id: str, nodes: Sequence[PlainNode], effective: datetime) -> Tree:
    """These nodes as a document of this name."""
    version = PlainVersion(policy_id, version_id, effective, len(nodes), f"{policy_id} as of {effective:%B %Y}")
    return Tree(version, nodes, [given_node(node) for node in nodes])


def small_tree(policy_id: str, version_id: str, salt: int, effective: datetime, nodes: int = 1) -> Tree:
    """A document of few nodes of about 1 kB each, not equal to one with another ``salt``."""
    made = list(places(nodes))
    for node in made:
        node.title, node.summary = f"Section {salt}.{node.ordinal}", f"what section {salt} says in short, " * 6
        node.text = f"sentence {salt} of this section and what it says at length; " * 12
    return tree_of(policy_id, version_id, made, effective)


def written_tree(language: Language, rng: random.Random, policy_id: str, version_id: str, nodes: int) -> Tree:
    """A document of so many nodes in a language, as natural as the main one."""
    made = list(places(nodes))
    for node in made:
        language.write(node, rng)
    return tree_of(policy_id, version_id, made, EPOCH)


def given_node(node: PlainNode) -> dict[str, Any]:
    """A node as treestore takes it."""
    given: dict[str, Any] = {
        "node_id": node.node_id,
        "parent_id": node.parent_id,
        "title": node.title,
        "page_start": node.page_start,
        "page_end": node.page_end,
        "summary": node.summary,
        "text": node.text,
    }
    return given if node.metadata is None else {**given, "metadata": node.metadata}


def places(nodes: int) -> Iterator[PlainNode]:
    """Nodes without words, in document order. The tree is that of a heap (the i-th by breadth lies below the
    ``(i - 1) // FAN_OUT``-th), so its leaves are on two levels at most."""
    sizes = [1] * nodes
    for i in range(nodes - 1, 0, -1):
        sizes[(i - 1) // FAN_OUT] += sizes[i]
    stack: list[tuple[int, int, int, str]] = [(0, -1, 0, "1")]  # place in the heap, parent's ordinal, depth, section path
    for ordinal in range(nodes):
        place, parent, depth, path = stack.pop()
        end = ordinal + sizes[place] - 1
        yield PlainNode(
            node_id=f"{ordinal:04}",
            parent_id=None if parent < 0 else f"{parent:04}",
            title="",
            page_start=1 + ordinal // NODES_PER_PAGE,
            page_end=1 + end // NODES_PER_PAGE,
            summary=None,
            section_path=path,
            ordinal=ordinal,
            last_ordinal=end,
            parent_ordinal=parent,
            depth=depth,
        )
        below = range(place * FAN_OUT + 1, min(place * FAN_OUT + 1 + FAN_OUT, nodes))
        stack += [(child, ordinal, depth + 1, f"{path}.{i}") for i, child in reversed(list(enumerate(below, 1)))]


def _edited(node: PlainNode, nodes: int) -> PlainNode:
    if node.ordinal not in (nodes // 5, nodes // 2, nodes * 4 // 5):
        return node
    return msgspec.structs.replace(node, text=f"{node.text} Revised.")


def amended(corpus: Corpus, node: PlainNode) -> str:
    """The text of a node with another first sentence: that of the next node, and :data:`AMENDMENT`."""
    nodes = corpus.tree.nodes
    return with_first_sentence(node, nodes[(node.ordinal + 1) % len(nodes)], AMENDMENT)


def with_first_sentence(node: PlainNode, other: PlainNode, word: str) -> str:
    """The text of a node with the first sentence of another one, and a word more in it."""
    first = (other.text or "").partition(". ")[0]
    return f"{first} {word}. {(node.text or '').partition('. ')[2]}"


class Language:
    """A vocabulary, by how often its words are used: the first the most."""

    def __init__(self, rng: random.Random) -> None:
        words: set[str] = set()
        while len(words) < VOCABULARY:
            syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
            words.add("".join([*syllables, rng.choice(_ONSETS), rng.choice(_ENDINGS)]))
        self.words = sorted(sorted(words), key=lambda word: len(word) + 4 * rng.random())  # what is said often is short
        weights = [1 / (rank + 2.7) ** 1.05 for rank in range(1, VOCABULARY + 1)]
        self._summed = list(itertools.accumulate(weights))
        self._per_node = [weight / self._summed[-1] * _MEAN_WORDS for weight in weights]

    def write(self, node: PlainNode, rng: random.Random) -> list[str]:
        """Give a node its title, summary, text and metadata; returns its words, codes not among them."""
        title, summary = rng.randint(3, 7), rng.randint(20, 30)
        said = rng.choices(self.words, cum_weights=self._summed, k=title + summary + rng.randint(110, 150))
        node.title = " ".join(said[:title])
        node.summary = " ".join(said[title : title + summary])
        text = said[title + summary :]
        node.text = ". ".join(" ".join(text[i : i + 14]) for i in range(0, len(text), 14)) + "."
        if node.ordinal % CODE_EVERY == 0:
            code = f"M{node.ordinal // CODE_EVERY % 100:02}.{node.ordinal % 9}"
            node.text += f" {code}."
            node.metadata = {"codes": [code], "reviewed": node.ordinal % 3 == 0, "confidence": 0.875}
        return said

    def questions(self, rng: random.Random, nodes: int, frequencies: Sequence[str]) -> list[tuple[str, ...]]:
        """:data:`QUESTIONS` different groups of different words, one of each frequency."""
        bands = [self._band(nodes, frequency) for frequency in frequencies]
        found: dict[tuple[str, ...], None] = {}
        while len(found) < QUESTIONS:
            words = tuple(rng.choice(band) for band in bands)
            if len(set(words)) == len(words):
                found[words] = None
        return list(found)

    def _band(self, nodes: int, frequency: str) -> list[str]:
        """Words of a frequency: "common" is what a twentieth to a quarter of the nodes are expected to say; "middling" what a
        500th to a twentieth do; "rare" what 3 nodes to a 500th of them do, or as near to that as is rarer than common in a
        small document."""
        low, high = (1 / 20, 1 / 4) if frequency == "common" else (1 / 500, 1 / 20)
        if frequency == "rare":
            high = min(max(1 / 500, 12 / nodes), 1 / 20)
            low = min(3 / nodes, high / 4)
        found = [word for word, per_node in zip(self.words, self._per_node, strict=True) if low <= per_node <= high]
        step = max(len(found) // 40, 1)
        return found[::step]
