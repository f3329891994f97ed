"""Which rows are those of a version whose layout is lost: found by the hashes, from the roots down.

The facts prove the roots, and each row proves those of its children. So no row is taken that is not the version's own or equal
in all that was given; when a node was amended is what no hash covers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from treestore.backends.btree.keyspace import NODES, decode_outline, row_prefix, two_numbers
from treestore.backends.btree.remains import Entries
from treestore.records import Outline, Version
from treestore.trees.hashes import hashes_of, version_hashes

_MOST_TRIALS = 1024  # choices of siblings that are tried for one parent

Numbered = tuple[int, Outline]
"""A row and its number."""

Proof = Callable[[list[Outline]], bool]
"""Whether siblings are those that their parent, or the facts, are the hash of."""


class Rows:
    """All rows that are found, by policy number and ordinal."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._numbers: dict[int, dict[int, list[int]]] = {}
        prefix = row_prefix("", "")
        for key in sorted(set(entries.all_keys(NODES))):
            policy, number = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
            for ordinal in {decode_outline(prefix, raw).ordinal for raw in entries.values(NODES, key)}:
                self._numbers.setdefault(policy, {}).setdefault(ordinal, []).append(number)

    def policies(self) -> list[int]:
        """The numbers of the policies that have rows."""
        return sorted(self._numbers)

    def find(self, policy: int, facts: Version) -> list[int] | None:
        """The numbers of a version's rows, in document order; None where they are not all found."""

        def proves_roots(roots: list[Outline]) -> bool:
            return version_hashes(roots, facts.pages_hash) == (facts.node_hash, facts.tree_hash)

        chosen: dict[int, int] = {}
        waiting: list[tuple[int, int, int, Proof]] = [(0, facts.node_count - 1, -1, proves_roots)]
        while waiting:
            first, last, parent, proves = waiting.pop()
            siblings = self._siblings(policy, first, last, parent, proves)
            if siblings is None:
                return None
            for number, node in siblings:
                chosen[node.ordinal] = number
                waiting.append((node.ordinal + 1, node.last_ordinal, node.ordinal, _proof(node)))
        return [chosen[ordinal] for ordinal in sorted(chosen)]

    def _siblings(self, policy: int, first: int, last: int, parent: int, proves: Proof) -> list[Numbered] | None:
        """The children of the node at ``parent``, which fill the ordinals from ``first`` to ``last``."""
        choices = itertools.chain(self._as_of(policy, first, last, parent), self._any(policy, first, last, parent))
        for siblings in itertools.islice(choices, _MOST_TRIALS):
            if proves([node for _, node in siblings]):
                return siblings
        return None

    def _at(self, policy: int, ordinal: int, last: int, parent: int) -> list[Numbered]:
        """The rows that may be a child's at an ordinal, the newest first."""
        found = []
        for number in reversed(self._numbers.get(policy, {}).get(ordinal, [])):
            for raw in self._entries.values(NODES, two_numbers(policy, number)):
                node = decode_outline(row_prefix("", ""), raw)
                if (node.ordinal, node.parent_ordinal) == (ordinal, parent) and ordinal <= node.last_ordinal <= last:
                    found.append((number, node))
        return found

    def _as_of(self, policy: int, first: int, last: int, parent: int) -> Iterator[list[Numbered]]:
        """Siblings as they were when no later row had been written: most versions are made of the one before."""
        bound = None
        while True:
            siblings, ordinal, newest = [], first, -1
            while ordinal <= last:
                rows = [row for row in self._at(policy, ordinal, last, parent) if bound is None or row[0] < bound]
                if not rows:
                    return
                siblings.append(rows[0])
                newest = max(newest, rows[0][0])
                ordinal = rows[0][1].last_ordinal + 1
            yield siblings
            if not siblings:
                return
            bound = newest

    def _any(self, policy: int, first: int, last: int, parent: int) -> Iterator[list[Numbered]]:
        """All siblings that there may be, in any combination."""
        begun: list[list[Numbered]] = [[]]
        while begun:
            siblings = begun.pop()
            ordinal = siblings[-1][1].last_ordinal + 1 if siblings else first
            if ordinal > last:
                yield siblings
            else:
                begun += [[*siblings, row] for row in reversed(self._at(policy, ordinal, last, parent))]


def _proof(node: Outline) -> Proof:
    return lambda children: hashes_of(node, children) == (node.node_hash, node.tree_hash)
