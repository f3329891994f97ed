"""What is written, as plain data: documents, amendments and deletions, and what a store must hold afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from treestore.bench.contenders.disk import encoded
from treestore.bench.corpus import SEED, VERSION, Language, PlainNode, Tree, with_first_sentence, written_tree


class Store(msgspec.Struct, frozen=True):
    """Store a document."""

    tree: Tree
    searchable: bool = False

    @property
    def policy_id(self) -> str:
        """The document's name."""
        return self.tree.version.policy_id

    def encoded(self) -> bytes:
        """What is given, in few bytes."""
        return encoded(self.tree)


class Amend(msgspec.Struct, frozen=True):
    """Give a node of a document another text, in which a ``word`` is that no other text has."""

    policy_id: str
    ordinal: int
    node_id: str
    text: str
    word: str
    searchable: bool = False

    def encoded(self) -> bytes:
        """What is given, in few bytes."""
        return msgspec.msgpack.encode((self.policy_id, self.node_id, self.text))


class Delete(msgspec.Struct, frozen=True):
    """Delete a document."""

    policy_id: str

    def encoded(self) -> bytes:
        """What is given, in few bytes."""
        return msgspec.msgpack.encode(self.policy_id)


Write = Store | Amend | Delete


class Held(msgspec.Struct):
    """What a store must hold of a document: its texts in document order and, if it can be searched, the newest word in it."""

    texts: list[str]
    found: tuple[str, str] | None = None
    """The word, and the id of the one node that says it."""


def held_after(writes: Iterable[Write]) -> dict[str, Held]:
    """What a store that was empty must hold after these writes; of one document they stand in their order."""
    held: dict[str, Held] = {}
    for write in writes:
        match write:
            case Store(tree):
                held[write.policy_id] = Held([node.text or "" for node in tree.nodes])
            case Amend(policy_id, ordinal, node_id, text, word, searchable):
                held[policy_id].texts[ordinal] = text
                held[policy_id].found = (word, node_id) if searchable else None
            case Delete(policy_id):
                del held[policy_id]
    return held


class Author:
    """Makes documents and amendments: always the same ones, in the order in which they are asked for."""

    def __init__(self) -> None:
        self._rng = random.Random(SEED)
        self._language = Language(self._rng)
        self._words = 0
        self._documents = 0

    def documents(self, count: int, nodes: int) -> list[Tree]:
        """So many different documents of so many nodes of about 1 kB."""
        return [self.document(nodes) for _ in range(count)]

    def document(self, nodes: int) -> Tree:
        """One more document."""
        self._documents += 1
        return written_tree(self._language, self._rng, f"document-{self._documents}", VERSION, nodes)

    def amendments(self, tree: Tree, *, searchable: bool) -> Iterator[Amend]:
        """Amendments of one node after the other, without end."""
        nodes = tree.nodes
        while True:
            for ordinal, node in enumerate(nodes):
                yield self._amendment(tree, ordinal, node, nodes[(ordinal + 1) % len(nodes)], searchable)

    def _amendment(self, tree: Tree, ordinal: int, node: PlainNode, other: PlainNode, searchable: bool) -> Amend:
        self._words += 1
        word = f"qw{_letters(self._words)}x"
        text = with_first_sentence(node, other, word)
        return Amend(tree.version.policy_id, ordinal, node.node_id, text, word, searchable)

    def later_version(self, tree: Tree, version_id: str, changed: int) -> Tree:
        """The document as another version, in which so many of its nodes, evenly spread, say something else."""
        places = {(2 * i + 1) * len(tree.nodes) // (2 * changed) for i in range(changed)}
        nodes = [
            msgspec.structs.replace(node, text=f"{node.text} Revised.") if node.ordinal in places else node
            for node in tree.nodes
        ]
        given = [{**old, "text": node.text} for old, node in zip(tree.given, nodes, strict=True)]
        return Tree(msgspec.structs.replace(tree.version, version_id=version_id), nodes, given)


def shared_out(writes: Sequence[Write], callers: int) -> list[Sequence[Write]]:
    """The writes of each of so many callers: all of one document in the hands of one of them, in their order."""
    shares: list[list[Write]] = [[] for _ in range(callers)]
    whose: dict[str, int] = {}
    for write in writes:
        shares[whose.setdefault(write.policy_id, len(whose) % callers)].append(write)
    return [share for share in shares if share]


def _letters(number: int) -> str:
    """A number in letters that no analyzer of English takes for an ending."""
    digits = ""
    while number:
        number, digit = divmod(number, 10)
        digits = "bdfgkmprtz"[digit] + digits
    return digits
